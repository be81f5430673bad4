import os
import subprocess
import sys

import pytest

import refusal_utils
from refusal_utils.workflow.command_line import main, set_thread_defaults
from refusal_utils.workflow.settings import Settings
from refusal_utils.workflow.sizes import SIZES


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_and_version_load_neither_torch_nor_transformers(arguments):
    code = (
        "import sys, refusal_utils, refusal_utils.workflow.command_line as command_line\n"
        f"try: command_line.main({arguments!r})\n"
        "finally: print('LOADED', sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("LOADED []\n")
    assert ("refusal-utils 0.1.0" if arguments == ["--version"] else "usage: python -m refusal_utils") in done.stdout


def test_the_package_exports_few_names_and_each_is_there():
    assert len(refusal_utils.__all__) <= 30
    assert {"open_study", "load_chat_model", "DirectionSet", "generate", "judge_response"} <= set(refusal_utils.__all__)
    assert all(getattr(refusal_utils, name) is not None for name in refusal_utils.__all__)


def test_settings_lists_every_parameter_and_the_sizes(capsys):
    assert main(["settings"]) == 0
    parameters, sizes = capsys.readouterr().out.split("\n\n")
    assert len(parameters.splitlines()) == len(Settings.model_fields)
    assert len(sizes.splitlines()) == 1 + len(SIZES)


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_sleep_unless_the_user_chose_otherwise(monkeypatch, before, after):
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    set_thread_defaults()
    assert os.environ["OMP_WAIT_POLICY"] == after
