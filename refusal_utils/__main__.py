"""`python -m refusal_utils`: see `workflow.command_line`."""

import sys

from .workflow.command_line import main

if __name__ == "__main__":
    sys.exit(main())
