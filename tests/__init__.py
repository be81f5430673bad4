"""The tests. Threads are set here, before anything imports torch."""

import os

from refusal_utils.workflow.command_line import set_thread_defaults

set_thread_defaults()
if "PYTEST_XDIST_WORKER" in os.environ:  # parallel workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
