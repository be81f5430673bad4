"""Methods are found by themselves, and find a planted direction."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import refusal_utils
from refusal_utils.directions import Provenance
from refusal_utils.methods import METHODS, fit

PACKAGE = Path(refusal_utils.__file__).parent
NEW_METHOD = """
import torch

from ..directions import DirectionSet
from .method import Method


def fit(refused, answered, provenance):
    vectors = torch.nn.functional.normalize(torch.stack([states[0] for states in refused.values()]), dim=-1)
    return DirectionSet(tuple(refused), vectors, torch.ones(len(refused)), provenance)


METHOD = Method("first_prompt", "First prompt", "none", fit)
"""


def planted(n: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(direction, refused states, answered states) with the refused mean `2 direction` away."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(48, generator=generator), dim=0)
    states = noise * torch.randn(2 * n, 48, generator=generator)
    return direction, states[:n] + 2 * direction, states[n:]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_recovers_a_planted_direction_better_with_less_noise(name):
    found = {}
    for noise in (3.0, 0.1):
        direction, refused, answered = planted(64, noise)
        found[noise] = float(fit(name, {"advice": refused}, answered, Provenance(3, -2))["advice"] @ direction)
    assert found[0.1] > 0.99
    assert found[3.0] < 0.95


@pytest.mark.parametrize("name", METHODS)
def test_every_method_names_its_source_and_keeps_the_provenance(name):
    _, refused, answered = planted(8, 0.1)
    directions = fit(name, {"advice": refused, "humanizing": -refused}, answered, Provenance(3, -2, draw="d1"))
    assert METHODS[name].source
    assert directions.names == ("advice", "humanizing")
    assert (directions.provenance.layer, directions.provenance.draw) == (3, "d1")


def test_an_unknown_method_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="^fit: the method must be one of .*difference_in_means.*; got 'means'"):
        fit("means", {}, torch.zeros(1, 4), Provenance(0))


def test_adding_a_method_is_adding_one_file(tmp_path):
    skipped = shutil.ignore_patterns("weights", "__pycache__", "data")
    shutil.copytree(PACKAGE, tmp_path / "refusal_utils", ignore=skipped)
    (tmp_path / "refusal_utils" / "methods" / "first_prompt.py").write_text(NEW_METHOD)
    program = (
        "import torch; from refusal_utils.methods import METHODS, fit; from refusal_utils.directions import Provenance;"
        "states = torch.eye(3); found = fit('first_prompt', {'advice': states}, states, Provenance(1));"
        "print(sorted(METHODS), found['advice'].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "first_prompt" in done.stdout
    assert "[1.0, 0.0, 0.0]" in done.stdout
