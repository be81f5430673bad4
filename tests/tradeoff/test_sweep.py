import dataclasses
import gzip

import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import normalize, random_directions
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering.conditions import UNSTEERED
from refusal_utils.steering.responses import judge_rows, respond
from refusal_utils.tradeoff.controlled_set import controlled_set
from refusal_utils.tradeoff.sweep import Sweep, sweep, sweep_conditions


def one(direction, gap=torch.nan):
    """A set of one direction, to be used at layer 4."""
    return DirectionSet(("random",), direction[None], torch.tensor([gap]), Provenance(layer=4))


def test_strength_zero_reproduces_the_labels_and_gives_one_half(chat, tmp_path):
    prompts = load_prompts(split="eval")
    some = pd.concat([prompts[prompts["category"] == name].head(40) for name in ("benign", "incomplete")])
    judged = respond(chat, some, max_new_tokens=40, cache_dir=tmp_path)
    drawn = controlled_set(judged, n=2)
    conditions = sweep_conditions(one(random_directions(1, chat.d_model)[0], gap=2.0), gaps=(0.0, 3.0))
    swept = sweep(chat, drawn, conditions, max_new_tokens=40, cache_dir=tmp_path)
    zero, strong = (swept.rows[swept.rows["gaps"] == gaps] for gaps in (0, 3))
    assert (zero["outcome"] == zero["bucket"].str[1].map({"R": "refused", "C": "answered"})).all()
    assert swept.rates().loc[("random", 0.0), ["RR", "ORR", "accuracy"]].tolist() == [0.5, 0.5, 0.5]
    assert swept.table().loc["random", ("RR", 0.0)] == 0.5
    assert strong["coefficient"].eq(6).all()
    assert (strong["response"].to_numpy() != zero["response"].to_numpy()).any()


def test_every_direction_of_a_sweep_needs_strengths_in_one_unit(chat):
    directions = one(normalize(torch.ones(chat.d_model)), gap=2.0)
    with pytest.raises(ValueError, match="^sweep_conditions: every direction needs strengths"):
        sweep_conditions(directions, coefficients={"random": ()})
    with pytest.raises(ValueError, match="^DirectionSet: the name must be one of random"):
        sweep_conditions(directions, coefficients={"other": (1.0,)})
    with pytest.raises(ValueError, match="^sweep_conditions: every direction needs strengths"):
        sweep_conditions(directions)
    made = sweep_conditions(directions, gaps={"random": (0.0, 0.5)})
    assert [(each.direction, each.coefficient, each.gaps) for each in made] == [("random", 0, 0), ("random", 1, 0.5)]
    assert made[0].digest == UNSTEERED.digest


@pytest.fixture
def swept():
    made = {
        "id": ["a1", "b2", "007"],
        "text": ["How?", "NA", "1e5"],
        "harmful": [True, False, False],
        "response": ["I'm sorry, I can't help with that.", "", 'Two\r\nlines, "quoted", é\u2028 and more.'],
        "direction": ["random 0", "None", "advice"],
        "coefficient": [-0.1 / 3, 0.0, 17.123456789012345],
        "gaps": [-0.5, 0.0, float("nan")],
    }
    return Sweep(judge_rows(pd.DataFrame(made)))


def test_a_sweep_comes_back_as_it_was_with_its_notes(chat, swept, tmp_path):
    path = swept.save(tmp_path / "below" / "07_sweep_bundled.jsonl.gz", chat, layer=4, pos=-2, draw="0123abc")
    for found in (Sweep.load(path), Sweep.load(path, chat)):
        pd.testing.assert_frame_equal(found.rows, swept.rows)
        assert found.rows["styles"].map(type).eq(tuple).all()
        assert {"layer": 4, "pos": -2, "draw": "0123abc", "model": "bundled"}.items() <= found.notes.items()
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # nothing half-written is left


def test_a_sweep_of_another_model_is_refused(chat, swept, tmp_path):
    path = swept.save(tmp_path / "s.jsonl.gz", chat)
    other = dataclasses.replace(chat, system_prompt="Be brief.")
    with pytest.raises(ValueError, match="^Sweep.load: file and model must belong together"):
        Sweep.load(path, other)
    assert len(Sweep.load(path, dataclasses.replace(chat, name="called/otherwise")).rows) == 3


def test_a_missing_or_damaged_sweep_is_refused(chat, swept, tmp_path):
    path = tmp_path / "s.jsonl.gz"
    with pytest.raises(ValueError, match="^load_rows: "):
        Sweep.load(path)
    swept.save(path, chat)
    lines = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join(lines[:-1])))
    with pytest.raises(ValueError, match="^load_rows: .*2 of 3 rows"):
        Sweep.load(path)
