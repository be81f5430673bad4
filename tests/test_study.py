"""The front door: draws that a study makes and reads again."""

import inspect
from pathlib import Path

import pandas as pd
import pytest
import torch

from refusal_utils.directions import mean_direction
from refusal_utils.judging import Judgement
from refusal_utils.paper.tables import published_pool_rows
from refusal_utils.prompts.categories import ALL_CATEGORIES, BENIGN
from refusal_utils.prompts.draws import draw_digest, draw_prompts
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering import generation, places
from refusal_utils.steering.decoding import decode
from refusal_utils.steering.places import COLUMNS, PlaceEffects
from refusal_utils.study import Study, open_study

from .public_tables import write_paper_files


@pytest.fixture
def study(tmp_path) -> Study:
    return open_study(figures_dir=tmp_path / "figures", cache_dir=tmp_path / "cache", seed=3)


def refuses_even(prompt: str, response: str) -> Judgement:
    """A judge whose verdict is known beforehand: prompts of even length are refused."""
    return Judgement("yes" if len(prompt) % 2 == 0 else "no")


def test_make_draw_by_label_is_what_the_study_then_reads(study):
    drawn = study.make_draw("label", 20)
    train = load_prompts(split="train")
    assert list(drawn["id"]) == list(draw_prompts(train, "label", 20, seed=3)["id"])
    pd.testing.assert_frame_equal(study.draw[["id", "text", "selection"]], drawn[["id", "text", "selection"]])
    assert list(study.make_draw("label", 4)["id"]) == list(study.draw["id"])  # the file that was written last
    assert "chat" not in vars(study)  # no model is loaded


def test_make_draw_asks_for_no_more_prompts_than_the_smallest_category_has(study):
    n_smallest = load_prompts(split="train")["category"].value_counts().min()
    assert set(study.make_draw("label", 10_000)["category"].value_counts()) == {n_smallest}


def test_make_draw_by_behaviour_takes_the_models_own_responses(study, chat):
    vars(study)["chat"] = chat
    drawn = study.make_draw("behaviour", 1, judge=refuses_even, max_new_tokens=2, progress=False)
    assert drawn["category"].tolist() == list(ALL_CATEGORIES)
    assert ((drawn["text"].str.len() % 2 == 0) == (drawn["category"] != BENIGN)).all()
    assert set(study.draw["selection"]) == {"behaviour"}


def test_make_draw_published_holds_the_papers_rows(tmp_path):
    write_paper_files(tmp_path / "cache/paper_files")
    study = open_study(prompts="paper", figures_dir=tmp_path / "figures", cache_dir=tmp_path / "cache")
    drawn = study.make_draw("published")
    assert list(drawn["id"].str.split("-").str[-1].astype(int)) == list(published_pool_rows()["source_index"])
    assert set(study.draw["prompts"]) == {"paper"}


def test_a_widened_draw_adds_held_out_prompts_of_each_category(study):
    drawn = study.make_draw("label", 8)
    wide = study.widened(12)
    assert list(wide["id"][: len(drawn)]) == list(drawn["id"])
    added = wide.iloc[len(drawn) :]
    assert set(added["category"].value_counts()[list(ALL_CATEGORIES)]) == {4}
    assert set(added["id"]).isdisjoint(drawn["id"])
    assert len(study.widened(8)) == len(drawn)  # before control: the draw is large enough


def test_a_draw_by_behaviour_is_not_widened_with_prompts_of_unknown_behaviour(study, chat):
    vars(study)["chat"] = chat
    drawn = study.make_draw("behaviour", 1, judge=refuses_even, max_new_tokens=2, progress=False)
    assert list(study.widened(12)["id"]) == list(drawn["id"])


def test_fewer_held_out_prompts_are_among_more_of_each_kind(study):
    study.make_draw("label", 8)
    everything, some, few = (study.held_out(n) for n in (None, 5, 3))
    assert set(some["kind"].value_counts()) == {5}
    assert set(few["id"]) < set(some["id"]) < set(everything["id"])
    assert list(some["id"]) == [id for id in everything["id"] if id in set(some["id"])]  # in their order
    assert list(some["id"]) != list(everything.groupby("kind").head(5)["id"])  # at random


def test_a_rated_draw_keeps_its_confidence_in_the_file(study):
    drawn = study.make_draw("label", 4)
    assert study.confidence() is None
    rated = pd.Series(range(len(drawn)), index=drawn.index) / 100
    study.rate_draw(rated)
    own = rated[drawn["category"] == "advice"]
    again = open_study(figures_dir=study.figures_dir, cache_dir=study.cache_dir)
    for each in (study, again):
        assert set(each.confidence()) == set(ALL_CATEGORIES)
        assert each.confidence()["advice"].tolist() == pytest.approx(own.tolist())
    assert draw_digest(again.draw) == draw_digest(drawn)


def test_the_unsteered_model_is_asked_once(study, chat, monkeypatch):
    vars(study)["chat"] = chat
    study.make_draw("label", 8)
    asked = []
    monkeypatch.setattr(generation, "decode", lambda *args: asked.append(len(args[1])) or decode(*args))
    first = study.unsteered(3, 2, progress=False)
    assert sum(asked) == len(first) == 28
    assert len(study.unsteered(3, 1, progress=False)) == 14
    shorter = study.unsteered(2, 2, judge=refuses_even, progress=False)
    assert sum(asked) == 28
    assert shorter["n_tokens"].max() == 2
    assert set(shorter["outcome"]) == {"refused", "answered"}


def test_states_sides_and_directions_are_those_of_the_drawn_prompts(study, chat):
    vars(study)["chat"] = chat
    drawn = study.make_draw("label", 4)
    refused, answered = study.sides()
    texts = list(drawn.loc[drawn["category"] == "advice", "text"])
    expected = study.capture(texts, progress=False).at(chat.decision_layer, chat.decision_pos)
    torch.testing.assert_close(refused["advice"], expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(study.states("advice"), refused["advice"])
    assert torch.equal(study.states(BENIGN), answered)
    torch.testing.assert_close(study.directions["advice"], mean_direction(refused["advice"], answered))
    assert study.place == f"resid_pre, layer {chat.decision_layer}, pos {chat.decision_pos}"
    assert len(study.benign_form) == len(answered)
    with torch.no_grad():
        weight = chat.bridge.blocks[0].mlp.out.original_component.weight
        weight.mul_(2)
        assert not torch.equal(study.states("advice"), refused["advice"])  # of the model as it is now
        weight.div_(2)
    assert torch.equal(study.states("advice"), refused["advice"])
    with pytest.raises(ValueError, match="^Study.states: the category must have been drawn; got 'recipes'"):
        study.states("recipes")


def test_a_form_that_all_drawn_benign_prompts_share_is_left_out(study, chat):
    vars(study)["chat"] = chat
    texts = ["What is rain?", "How is tea made?", "Where do swifts sleep at night?"]  # all are questions, one is longer
    vars(study)["draw"] = pd.DataFrame({"text": texts, "category": BENIGN})
    assert list(study.benign_form) == ["length (log tokens)"]
    vars(study).pop("benign_form")
    vars(study)["draw"] = pd.DataFrame({"text": [*texts, "name a tree."], "category": BENIGN})
    assert list(study.benign_form) == ["length (log tokens)", "starts with a capital", "is a question"]


@pytest.fixture
def place_calls(monkeypatch) -> list[dict]:
    """The calls of a stand-in for `place_effects`, whose best place is layer 5 and the last position asked for."""
    calls: list[dict] = []

    def measure(chat, prompts, **options) -> PlaceEffects:
        calls.append({"positions": options["positions"], "n_prompts": len(prompts), "fingerprint": chat.fingerprint})
        rows = [(5, -3 if options["positions"] is None else options["positions"][-1], 1.0, 0.5, 0.0, 0.75, 16, 12, 0)]
        return PlaceEffects(pd.DataFrame(rows, columns=COLUMNS), 16, 12)

    monkeypatch.setattr(places, "place_effects", measure)
    return calls


def place_of(model, tmp_path, **loading) -> tuple[int, int, str]:
    chat = open_study(str(model), cache_dir=tmp_path / "cache", device="cpu", **loading).chat
    return chat.decision_layer, chat.decision_pos, chat.decision_source


def test_the_place_is_chosen_only_if_nothing_is_given_recorded_or_published(model_folder, tmp_path, place_calls):
    recorded = (6, -2, "decision_state.json of the model's folder")
    assert place_of(model_folder, tmp_path) == recorded
    assert place_of(model_folder, tmp_path, layer=3, pos=-1) == (3, -1, "given")
    (model_folder / "decision_state.json").unlink()
    assert place_of(model_folder, tmp_path, layer=3)[:2] == (3, -2)
    assert place_of(model_folder, tmp_path, pos=-4)[:2] == (4, -4)
    assert not place_calls
    chosen = (5, -3, "causal choice on 16 + 12 train prompts, effect 0.75")
    assert place_of(model_folder, tmp_path) == chosen
    assert place_calls[-1]["positions"] is None
    assert place_calls[-1]["n_prompts"] == len(load_prompts())


def test_a_causal_choice_that_is_asked_for_replaces_a_record_and_keeps_a_given_position(chat, tmp_path, place_calls):
    study = open_study("bundled", cache_dir=tmp_path / "cache", device="cpu", layer="causal", pos=-1)
    assert (study.chat.decision_layer, study.chat.decision_pos) == (5, -1)
    assert study.places.best == (5, -1)
    assert place_calls[0]["positions"] == (-1,)
    assert study.chat.fingerprint == chat.fingerprint
    plain = open_study("bundled", cache_dir=tmp_path / "cache", device="cpu")
    assert (plain.places, len(place_calls)) == (None, 1)


def test_a_choice_without_enough_probes_leaves_the_default_and_fails_if_asked_for(model_folder, tmp_path, capsys):
    (model_folder / "decision_state.json").unlink()
    mine = load_prompts().groupby("category").head(2)
    mine.to_csv(tmp_path / "mine.csv", index=False)
    study = open_study(
        str(model_folder), prompts=str(tmp_path / "mine.csv"), cache_dir=tmp_path / "cache", device="cpu"
    )
    assert (study.chat.decision_layer, study.chat.decision_pos, study.places) == (4, -2, None)
    assert "No place was chosen: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="^place_effects: 4 train prompts must be refused"):
        place_of(model_folder, tmp_path, prompts=str(tmp_path / "mine.csv"), layer="causal")


def test_numbers_are_known_only_for_the_bundled_model_as_it_comes_in_float32(monkeypatch):
    assert open_study("bundled", dtype=None, layer=None).is_reference
    assert open_study("bundled", dtype="float32").is_reference
    other = ({"dtype": "float16"}, {"layer": 5}, {"pos": -1}, {"system_prompt": "Be brief."}, {"prompts": "paper"})
    assert not any(open_study("bundled", **options).is_reference for options in other)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))  # a T4 computes in float16
    assert not open_study("bundled").is_reference
    assert open_study("bundled", device="cpu").is_reference


def test_a_study_of_another_model_keeps_the_draw_and_nothing_else(study):
    draw = study.make_draw(n=4)
    other = study.with_model("bundled-tokens")
    pd.testing.assert_frame_equal(other.draw, study.draw)
    assert len(other.draw) == len(draw)
    assert (other.model, other.seed, other.cache_dir) == ("bundled-tokens", study.seed, study.cache_dir)
    assert other.folder != study.folder
    assert not (other.folder / "01_draw.csv").exists()


@pytest.mark.parametrize(
    "wrong", [{"model": 3}, {"prompts": None}, {"figures_dir": 3}, {"cache_dir": None}, {"seed": "0"}, {"seed": 1.5}]
)
def test_an_argument_of_another_type_is_refused_at_once(wrong):
    with pytest.raises(ValueError, match=f"^open_study: {next(iter(wrong))} must be a .*; got "):
        inspect.unwrap(open_study)(**wrong)  # its signature is checked in tests


def test_options_of_loading_are_checked_at_once():
    with pytest.raises(ValueError, match="^open_study: system_prompt must be a text or None; got 3"):
        open_study(system_prompt=3)
    with pytest.raises(ValueError, match="^open_study: layer must be one of causal, select; got 'middle'"):
        open_study(layer="middle")


def test_a_study_of_a_path_is_that_of_its_name(tmp_path):
    assert open_study(Path("bundled"), figures_dir=tmp_path).is_reference
