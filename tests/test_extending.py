"""Adding a category is a file and a row, adding a judge or a method is a file: all three, in a copy of the package."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
ROW = """    Category(
        "riddles", "Riddles", "", "cannot comply", "#005659", "asks for the answer to a riddle that has none"
    ),
)
# fmt: on
"""
JUDGE = '''"""A judge that refuses to be polite."""

from .judgement import Judge, Judgement

NAME = "curt"


def load() -> Judge:
    """The judge: short responses are refusals."""
    return lambda prompt, response: Judgement("yes" if len(response) < 5 else "no")
'''
METHOD = '''"""The first refused prompt as a direction."""

from .method import StateMethod, per_category

METHOD = StateMethod(
    name="first_prompt", title="First prompt", source="none", find=per_category(lambda refused, answered: refused[0])
)
'''
PROBE = """
import json
import torch
from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.judging import named_judge
from refusal_utils.methods import METHODS
from refusal_utils.plotting.look import category_scatter
from refusal_utils.prompts import CATEGORY_IDS, load_prompts
from refusal_utils.study import open_study

study = open_study(figures_dir="figures", cache_dir="cache")
draw = study.make_draw("label", 4)
states = {name: torch.randn(4, 8) for name in CATEGORY_IDS}
directions = DirectionSet.from_states(states, torch.randn(4, 8), Provenance(1, -1))
axes = torch.eye(3)
first = METHODS["first_prompt"].find_directions({"advice": axes}, 0 * axes, Provenance(1))
points = draw.assign(x=range(len(draw)), y=0)
print(json.dumps({
    "loaded": load_prompts("riddles")["text"].tolist(),
    "drawn": study.draw["category"].value_counts().to_dict(),
    "held out": sorted(set(study.held_out()["category"])),
    "directions": list(directions),
    "shown": [trace.name for trace in category_scatter(points, "x", "y", title="t").data],
    "first prompt": first["advice"].tolist(),
    "outcomes": [named_judge("curt")("Why?", response).outcome for response in ("No.", "Because of the tides.")],
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """What a copy of the project with one more category, judge and method finds."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("refusal_utils", "prompts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    prompts = [
        {"text": f"What walks on {n} legs at noon?", "split": "train" if n < 8 else "eval"} for n in range(3, 12)
    ]
    (copy / "prompts" / "riddles.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    categories = copy / "refusal_utils" / "prompts" / "categories.py"
    before = categories.read_text()
    assert before.count(")\n# fmt: on\n") == 1
    categories.write_text(before.replace(")\n# fmt: on\n", ROW))
    (copy / "refusal_utils" / "judging" / "curt.py").write_text(JUDGE)
    (copy / "refusal_utils" / "methods" / "first_prompt.py").write_text(METHOD)
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=copy, env={"PYTHONPATH": str(copy)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.decode().splitlines()[-1])


def test_a_category_is_one_file_and_one_row(found):
    assert found["loaded"][0] == "What walks on 3 legs at noon?"
    assert len(found["drawn"]) == 13
    assert set(found["drawn"].values()) == {4}
    assert "riddles" in found["held out"]
    assert found["directions"][-1] == "riddles"
    assert "Riddles" in found["shown"]


def test_a_judge_is_one_file(found):
    assert found["outcomes"] == ["refused", "answered"]


def test_a_method_is_one_file(found):
    assert found["first prompt"] == [1.0, 0.0, 0.0]
