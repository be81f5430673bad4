"""Running notebooks in tests."""

import os
import sys
from collections.abc import Sequence

import pytest

from refusal_utils.workflow.runner import run_notebooks
from refusal_utils.workflow.settings import Settings


def run_without_pictures(settings: Settings, numbers: Sequence[str] = ()) -> None:
    """`run_notebooks` without PNGs, which take five seconds a notebook; `workflow/test_install` draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.path.dirname(sys.executable))  # no Chrome there
        patch.delenv("BROWSER_PATH", raising=False)
        run_notebooks(settings, numbers)
