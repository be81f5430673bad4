"""The causal choice of the place, on the bundled model, whose decision is known to be written by layer 6."""

from copy import deepcopy
from dataclasses import replace

import pandas as pd
import pytest
import torch

from refusal_utils.judging import judge_response
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.defaults import searched_layers
from refusal_utils.prompts.categories import BENIGN
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering import Ablation, Addition, Condition, generate, generation, places
from refusal_utils.steering.places import (
    COLUMNS,
    POLICY,
    PlaceEffects,
    place_by_effect,
    place_effects,
    reading_half,
)

AT = {"layers": [2, 6], "positions": [-2]}


@pytest.fixture(scope="module", autouse=True)
def small():
    """Fewer probes and shorter responses than by default, which show the bundled model's decision too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"N_PROBE": 8, "N_ASKED": 24, "N_AT_ONCE": 12, "N_TOKENS": 16, "GAPS": (1.0, 2.0)}.items():
            patch.setattr(places, name, value)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def builtin():
    return load_prompts()


@pytest.fixture(scope="module")
def effects(chat, builtin, cache) -> PlaceEffects:
    return place_effects(chat, builtin, **AT, cache_dir=cache)


@pytest.fixture
def nothing_is_generated(monkeypatch):
    def fail(*_):
        raise AssertionError("a response was generated")

    monkeypatch.setattr(generation, "decode", fail)


def test_the_place_where_the_decision_is_written_wins(effects):
    assert effects.best == (6, -2)
    assert (effects.n_refused, effects.n_answered) == (8, 8)
    shallow, deep = effects.rows.set_index("layer").loc[[2, 6]].itertuples()
    assert deep.bypassed > shallow.bypassed + 0.4  # before control: at layer 2 the decision is not yet written
    assert deep.induced > 0.9
    assert effects.source == f"causal choice on 8 + 8 train prompts, effect {deep.effect:.2f}"


def test_the_shares_are_those_of_plain_generation(chat, builtin, effects):
    """Probes, direction, interventions and counts again, without the code under test."""
    train = builtin[builtin["split"] == "train"].sample(frac=1, random_state=0)
    reading, probes = {}, {}
    for name, kinds, wanted in (("policy", POLICY, "refused"), ("benign", (BENIGN,), "answered")):
        texts: dict[str, list[str]] = {kind: list(train.loc[train["category"] == kind, "text"]) for kind in kinds}
        halves = [own[: min(len(own) // 2, 112 // len(kinds))] for own in texts.values()]
        reading[name] = [text for half in halves for text in half]
        rest = [text for text in train.loc[train["category"].isin(kinds), "text"] if text not in reading[name]][
            : places.N_ASKED
        ]
        given = generate(chat, rest, max_new_tokens=places.N_TOKENS)["response"]
        fits = [judge_response(*pair).outcome == wanted for pair in zip(rest, given, strict=True)]
        probes[name] = [text for text, fit in zip(rest, fits, strict=True) if fit][: places.N_PROBE]
    means = [capture_activations(chat, reading[name], layers=[6]).at(6, -2).double().mean(0) for name in reading]
    difference = (means[0] - means[1]).float()

    def share(texts: list[str], edit: Ablation | Addition, outcome: str) -> float:
        rows = generate(chat, texts, [Condition("x", (edit,), "x", 1.0)], max_new_tokens=places.N_TOKENS)
        told = [judge_response(*pair).outcome for pair in zip(texts, rows["response"], strict=True)]
        return told.count(outcome) / len(told)

    bypassed = share(probes["policy"], Ablation((difference / difference.norm())[None]), "answered")
    induced = [share(probes["benign"], Addition(gaps * difference, (6,)), "refused") for gaps in places.GAPS]
    row = effects.rows.set_index("layer").loc[6]
    assert row["bypassed"] == pytest.approx(bypassed)
    assert row["induced"] == pytest.approx(sum(induced) / len(induced))
    assert row["effect"] == pytest.approx((row["bypassed"] + row["induced"]) / 2)


@pytest.mark.parametrize(("n", "layers"), [(1, (0,)), (2, (1,)), (3, (2,)), (4, (2,)), (7, (2, 4, 6)), (8, (2, 4, 6))])
def test_every_second_layer_is_a_candidate(n, layers):
    assert searched_layers(n) == layers


def test_a_direction_is_read_from_at_most_half_of_each_category():
    side = pd.DataFrame({"id": range(12), "category": [*"aaaaaaa", *"bbbbb"]})
    assert reading_half(side)["id"].tolist() == [0, 1, 2, 7, 8]
    assert reading_half(side, n=5)["id"].tolist() == [0, 1, 7, 8]
    assert reading_half(side[:0]).empty


@pytest.mark.usefixtures("nothing_is_generated")
def test_a_finished_choice_is_read_and_a_killed_one_resumes(chat, builtin, cache, effects, tmp_path):
    again = place_effects(chat, builtin, **AT, cache_dir=cache)
    pd.testing.assert_frame_equal(again.table(), effects.table())
    assert (again.best, again.source) == (effects.best, effects.source)
    for path in cache.iterdir():  # as after a run that was killed before its end: rows without the table
        if not path.name.startswith("places_"):
            (tmp_path / path.name).symlink_to(path)
    pd.testing.assert_frame_equal(place_effects(chat, builtin, **AT, cache_dir=tmp_path).rows, effects.rows)


@pytest.mark.usefixtures("nothing_is_generated", "effects")
def test_the_table_of_another_model_is_not_used(chat, builtin, cache, tmp_path, capsys):
    other = replace(chat, decision_layer=6, decision_pos=-2, tokenizer=deepcopy(chat.tokenizer))
    other.tokenizer.chat_template += "{# another #}"
    with pytest.raises(AssertionError, match="generated"):
        place_effects(other, builtin, **AT, cache_dir=cache)
    (table,) = cache.glob("places_*")
    train = builtin[builtin["split"] == "train"].sample(frac=1, random_state=0)
    wrong = places._stored(other, tmp_path, [list(train["id"]), list(train["text"]), (2, 6), (-2,)])
    wrong.write_bytes(table.read_bytes())
    with pytest.raises(AssertionError, match="generated"):
        place_effects(other, builtin, **AT, cache_dir=tmp_path)
    assert "place_effects: file and model must belong together" in capsys.readouterr().err


def test_too_few_probes_give_no_place(chat, builtin):
    train = builtin[builtin["split"] == "train"]
    few = place_effects(chat, pd.concat([train[train["category"] == kind].head(4) for kind in (*POLICY[:1], BENIGN)]))
    assert not few.are_measured
    assert max(few.n_refused, few.n_answered) <= 2  # directions are read from the other halves
    with pytest.raises(ValueError, match="^place_effects: 4 train prompts must be refused and 4 answered"):
        _ = few.best
    unseen = place_effects(chat, builtin[builtin["split"] == "eval"])
    assert (unseen.n_refused, unseen.n_answered) == (0, 0)  # eval prompts are left alone
    with pytest.raises(ValueError, match="^place_effects: positions must lie in the template's last 4 tokens; got -9"):
        place_effects(chat, builtin, positions=[-9])


@pytest.mark.parametrize(
    "name",
    ["COLUMNS", "GAPS", "SCREENING_GAPS", "N_SCREENED", "N_FINALISTS", "N_PROBE", "N_ASKED", "N_DIRECTION", "N_TOKENS"],
)
def test_a_table_made_by_another_procedure_has_another_file(chat, monkeypatch, tmp_path, name):
    asked = [["a"], ["What?"], (2,), (-1,)]
    before = places._stored(chat, tmp_path, asked)
    assert before == places._stored(chat, tmp_path, asked)
    monkeypatch.setattr(places, name, "another")
    assert places._stored(chat, tmp_path, asked) != before
    assert places._stored(chat, None, asked) is None


def test_a_model_is_put_to_its_best_place_and_left_alone_without_one(chat, monkeypatch):
    rows = [(2, -1, 0, 0.5, 0, 0.25, 16, 7, 0), (5, -2, 1, 0.5, 0, 0.75, 16, 7, 0)]
    found = PlaceEffects(pd.DataFrame(rows, columns=COLUMNS), 16, 7)
    few = PlaceEffects(pd.DataFrame(columns=COLUMNS), 3, 16)
    asked = []

    def answer_with(effects):
        monkeypatch.setattr(places, "place_effects", lambda *_, **how: asked.append(how["positions"]) or effects)

    answer_with(found)
    placed, effects = place_by_effect(chat, pd.DataFrame(), pos=None, required=False, cache_dir=None)
    assert effects is found
    assert (placed.decision_layer, placed.decision_pos, placed.decision_source) == (5, -2, found.source)
    place_by_effect(chat, pd.DataFrame(), pos=-3, required=False, cache_dir=None)
    assert asked == [None, (-3,)]
    answer_with(few)
    assert place_by_effect(chat, pd.DataFrame(), pos=None, required=False, cache_dir=None) == (chat, None)
    with pytest.raises(ValueError, match="^place_effects: 4 train prompts must be refused .* got 3 and 16"):
        place_by_effect(chat, pd.DataFrame(), pos=None, required=True, cache_dir=None)


def test_equal_effects_are_ordered_by_text_then_the_papers_position_then_depth():
    rows = [
        (10, -2, 1, 1, 0, 1, 4, 4, 0),  # only screened
        (8, -2, 1, 1, 0.1, 1, 16, 7, 0),
        (4, -1, 1, 1, 0, 1, 16, 7, 0),
        (4, -2, 1, 1, 0, 1, 16, 7, 0),
        (6, -2, 1, 1, 0, 1, 16, 7, 0),
        (2, -2, 1, 0.9, 0, 0.95, 16, 7, 0),
    ]
    effects = PlaceEffects(pd.DataFrame(rows, columns=COLUMNS), 16, 7)
    order = [(6, -2), (4, -2), (4, -1), (8, -2), (2, -2), (10, -2)]
    assert list(effects.table()[["layer", "pos"]].itertuples(index=False, name=None)) == order
    assert effects.best == (6, -2)
    assert effects.source == "causal choice on 16 + 7 train prompts, effect 1.00"


def test_all_places_are_screened_and_the_best_are_measured_with_all_probes(chat, builtin, effects, cache, monkeypatch):
    monkeypatch.setattr(places, "N_FINALISTS", 1)
    found = place_effects(chat, builtin, layers=[2, 4, 6], positions=[-2, -1], cache_dir=cache)
    table = found.table()
    assert table["n_refused"].tolist() == table["n_answered"].tolist() == [8] + [places.N_SCREENED] * 5
    assert found.best == (6, -2)
    assert found.figure().layout.title.subtitle.text == "8 + 8 prompts at the best 1 places; others screened with 4 + 4"
    assert effects.figure().layout.title.subtitle.text is None  # all of its places were measured with all probes
    pd.testing.assert_frame_equal(table.head(1), effects.table().head(1))  # the same as without screening
    assert len(table) == len(set(zip(table["layer"], table["pos"], strict=True)))


def test_the_figure_maps_layer_by_position(effects):
    (panel,) = effects.figure().data
    assert (list(map(str, panel.y)), list(map(str, panel.x))) == (["2", "6"], ["-2"])
    assert torch.tensor(panel.z[:, 0].tolist()).tolist() == pytest.approx(list(effects.rows["effect"]), abs=1e-4)


def test_a_response_that_is_not_judged_counts_in_no_share(chat, monkeypatch):
    asked = pd.DataFrame({"id": ["a", "b"], "text": ["a", "b"]})
    outcomes = {"ablated": ["answered", "not judged"], "added": ["refused", "refused"]}
    steps = iter(outcomes)
    monkeypatch.setattr(
        places, "respond", lambda *_, **__: asked.assign(direction="2 -1", outcome=outcomes[next(steps)])
    )
    at = {(2, -1): (Condition("x", (), "2 -1"), [Condition("y", (), "2 -1", 1.0, 1.0)])}
    row = places._measure(chat, at, asked, asked, (1.0,), {}).iloc[0]
    assert row[["bypassed", "induced", "broken", "not judged"]].tolist() == [1, 1, 0, 1]
