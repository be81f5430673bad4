"""Selection by first tokens: the scores are those of one candidate at a time in plain Hugging Face; filters."""

import dataclasses

import pandas as pd
import pytest
import torch

from refusal_utils.checks import require
from refusal_utils.methods import METHODS
from refusal_utils.methods import arditi_selection as module
from refusal_utils.methods.arditi_selection import arditi_selection, candidate_scores, select_place
from refusal_utils.methods.candidates import Candidates, divergence, find_candidates, refusal_score
from refusal_utils.study import open_study

from ..steering.plain_edits import PlainEdit

TOKENS = (5, 9)


@pytest.fixture(scope="module")
def found(tiny, train) -> Candidates:
    how = {"n_train": 16, "n_validation": 5, "needs_tokens": True, "filter_prompts": False}
    return find_candidates("f", tiny[0], train, tokens=TOKENS, **how)


@pytest.fixture(scope="module")
def selection(chat, train, cache):
    return arditi_selection(chat, train, n_train=32, n_validation=5, cache_dir=cache), cache


def last_logits(chat, plain, texts):
    with torch.no_grad():
        return torch.cat([plain(torch.tensor([ids])).logits[:, -1] for ids in chat.encode(texts)])


def plain_scores(logits):
    p = logits.double().softmax(-1)[:, list(TOKENS)].sum(-1)
    return torch.log(p + 1e-8) - torch.log(1 - p + 1e-8)


def test_differences_are_those_of_plain_hidden_states(tiny, found):
    chat, plain = tiny
    means = []
    for texts in (found.refused_train, found.answered_train):
        with torch.no_grad():
            states = [plain(torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in chat.encode(texts)]
        means.append(torch.stack([own[1][0, -2] for own in states]).double().mean(0))
    difference, answered = found.at(1, -2)
    torch.testing.assert_close(difference.double(), means[0] - means[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(answered.double(), means[1], atol=1e-5, rtol=1e-4)


def test_scores_are_those_of_one_candidate_at_a_time_with_plain_hooks(tiny, found):
    chat, plain = tiny
    scores = candidate_scores(chat, found).set_index(["layer", "pos"])
    before = last_logits(chat, plain, found.answered_val).double().softmax(-1)
    for layer, pos in [(1, -1), (1, -2), (2, -1)]:
        r, _ = found.at(layer, pos)
        unit = r / (r.norm() + 1e-8)

        def without(x, unit=unit):
            return x - (x @ unit)[..., None] * unit

        with PlainEdit(plain, range(chat.n_layers), without, without):
            bypass = plain_scores(last_logits(chat, plain, found.refused_val)).mean()
            after = last_logits(chat, plain, found.answered_val).double().softmax(-1)
        with PlainEdit(plain, [layer], lambda x, r=r: x + r):
            induce = plain_scores(last_logits(chat, plain, found.answered_val)).mean()
        kl = (before * (torch.log(before + 1e-6) - torch.log(after + 1e-6))).sum(-1).mean()
        row = scores.loc[(layer, pos)]
        assert row["bypass"] == pytest.approx(float(bypass), abs=1e-4)
        assert row["induce"] == pytest.approx(float(induce), abs=1e-4)
        assert row["kl"] == pytest.approx(float(kl), rel=1e-3, abs=1e-7)
    assert scores["bypass"].std() > 1e-4  # control: candidates differ
    assert scores.loc[0, "bypass"].isna().all()  # all prompts have the same tokens there


def test_the_data_filter_keeps_the_nearest_half_if_a_model_hardly_refuses(tiny, train, capsys):
    chat, plain = tiny
    how = {"n_train": 28, "n_validation": 5, "needs_tokens": True, "tokens": TOKENS}
    whole, half = (find_candidates("f", chat, train, filter_prompts=each, **how) for each in (False, True))
    scores = plain_scores(last_logits(chat, plain, whole.refused_train))
    assert scores.max() < 0  # a random model: no token is likely
    nearest = [text for text, score in zip(whole.refused_train, scores, strict=True) if score > scores.median()]
    assert half.refused_train == nearest
    assert half.answered_train == whole.answered_train
    assert half.n_dropped > 0
    assert "f: only 0 of 28 refused train prompts pass the data filter; the half" in capsys.readouterr().out


def test_refusal_score_and_divergence_follow_the_formulas():
    logits = torch.tensor([2.0, 1.0, 0.0, -50.0])
    p = logits.double().softmax(-1)[:2].sum()
    assert float(refusal_score(logits, [0, 1])) == pytest.approx(float(torch.logit(p)), abs=1e-6)
    assert float(refusal_score(torch.tensor([0.0, -999.0]), [0])) == pytest.approx(18.42068, abs=1e-4)  # log(1e8)
    assert float(divergence(logits, logits)) == 0
    assert float(divergence(logits, logits.flip(0))) > 1


def test_the_bundled_model_is_selected_where_ablation_bypasses_and_addition_induces(chat, selection):
    found, _ = selection
    layer, _ = found.best
    best = found.table().iloc[0]
    assert 0 < layer < 6  # of 8 layers, the last two are too deep
    assert best["killed by"] == ""
    assert best["induce"] > 0
    assert best["kl"] <= 0.1
    assert (found.survivors["bypass"] >= best["bypass"]).all()
    assert found.notes["words"][0] == " I"
    shallow = found.rows[found.rows["layer"] == 1]
    assert best["bypass"] < shallow["bypass"].min()  # control
    assert "survivors among 32 candidates" in found.source
    assert len(found.figure().data) == 3 * len(chat.suffix) + 3


def test_the_table_is_kept_in_the_cache_and_belongs_to_the_options(chat, train, selection, monkeypatch):
    found, cache = selection
    monkeypatch.setattr(module, "candidate_scores", lambda *_, **__: require(False, "measured", "", "", ""))
    again = arditi_selection(chat, train, n_train=32, n_validation=5, cache_dir=cache)
    pd.testing.assert_frame_equal(again.table(), found.table(), check_dtype=False)
    assert torch.equal(again.difference, found.difference)
    assert (again.source, again.notes["tokens"]) == (found.source, found.notes["tokens"])
    with pytest.raises(ValueError, match="^measured"):
        arditi_selection(chat, train, n_train=32, n_validation=6, cache_dir=cache)


def test_without_survivors_the_filters_are_counted_and_the_nearest_is_offered(tiny, found, capsys):
    chat, _ = tiny
    rows = pd.DataFrame(found.places, columns=["layer", "pos"]).assign(bypass=0.0, induce=1.0, kl=0.5)
    rows.loc[rows["layer"] == 0, ["bypass", "induce", "kl"]] = float("nan")
    rows.loc[(rows["layer"] == 1) & (rows["pos"] == -2), "kl"] = 0.11
    rows.loc[(rows["layer"] == 1) & (rows["pos"] == -1), "induce"] = -5.0
    rows.loc[(rows["layer"] == 1) & (rows["pos"] == -1), "bypass"] = -9.0
    limits = {"depth": 0.8, "max_kl": 0.1, "min_induce": 0.0}
    chosen = module._choose(chat, found, rows, **limits)
    assert chosen.survivors.empty
    assert chosen.best == (1, -2)
    n = len(found.positions)
    assert chosen.filters()["killed"].to_dict() == {
        "KL > 0.1": 2 * n,
        "layer 0": n,
        "no difference": n,
        "layer >= 2": n,
        "induce < 0": 1,
    }
    assert "none of which passed (" in chosen.source
    passed = module._choose(chat, found, rows.assign(kl=rows["kl"].mask(rows["kl"] == 0.11, 0.09)), **limits)
    assert (passed.best, len(passed.survivors)) == ((1, -2), 1)
    with pytest.raises(ValueError, match=r"^Arditi selection: at least one candidate must be usable; got none of"):
        module._choose(chat, dataclasses.replace(found, differences=0 * found.differences), rows, **limits)


def test_too_few_prompts_and_unhelpful_tokens_are_one_sentence(tiny, train):
    chat, _ = tiny
    with pytest.raises(
        ValueError, match="^arditi_selection: refusals must begin with other tokens than answers; got 0"
    ):
        arditi_selection(chat, train, n_train=14)
    with pytest.raises(ValueError, match="^arditi_selection: 4 prompts must be left on every side.*; got 0 refused"):
        arditi_selection(chat, train[train["category"] == "benign"], tokens=TOKENS)
    with pytest.raises(ValueError, match="^arditi_selection: positions must lie in the template"):
        arditi_selection(chat, train, tokens=TOKENS, positions=[-40])


def test_select_is_a_place_of_every_study_and_a_method(chat, train, selection, monkeypatch, tmp_path):
    found, _ = selection
    asked = {}
    monkeypatch.setattr(module, "arditi_selection", lambda chat, prompts, **options: asked.update(options) or found)
    place, _ = select_place(chat, train.assign(split="train"), pos=-1, cache_dir=None)
    assert (place.decision_layer, place.decision_pos) == found.best
    assert asked["positions"] == (-1,)
    study = open_study("bundled", cache_dir=tmp_path, figures_dir=tmp_path, device="cpu", layer="select")
    assert (study.chat.decision_layer, study.chat.decision_pos) == study.places.best == found.best
    study.make_draw(n=4)
    directions = METHODS["arditi_selection"].fit(study, n_validation=8)
    assert directions.names == ("refusal",)
    assert (directions.provenance.layer, directions.provenance.pos) == found.best
    assert directions.provenance.settings["n_validation"] == 8
    assert directions.provenance.settings["passes"] == found.notes["passes"] > len(found.rows)
    torch.testing.assert_close(directions["refusal"] * directions.gap("refusal"), found.difference)


def test_filters_first_measure_less_and_choose_the_same(chat, train, selection, monkeypatch):
    limits = {"depth": 0.8, "max_kl": 0.1, "min_induce": 0.0}
    how = {"n_train": 32, "n_validation": 4, "needs_tokens": True, "filter_prompts": True, "positions": [-2, -1]}
    candidates, tried = find_candidates("f", chat, train, tokens=selection[0].notes["tokens"], **how), []
    plain = module.effects
    monkeypatch.setattr(
        module, "effects", lambda *given, **options: tried.append(len(given[3])) or plain(*given, **options)
    )
    whole, part = (candidate_scores(chat, candidates, each) for each in (None, limits))
    everything, filtered = (module._choose(chat, candidates, each, **limits) for each in (whole, part))
    assert sum(tried[3:]) < 0.7 * sum(tried[:3])
    assert filtered.best == everything.best
    pd.testing.assert_frame_equal(filtered.survivors, everything.survivors, rtol=1e-3)
    assert part["bypass"].isna().sum() == len(part) - len(filtered.survivors)
    assert "not finite" not in filtered.filters().index


@pytest.mark.parametrize("limits", [{"max_kl": 0.1, "min_induce": 1e9}, {"max_kl": 1e-12, "min_induce": -99.0}])
def test_if_no_candidate_passes_the_nearest_is_the_same_and_has_all_scores(tiny, found, limits):
    chat, limits = tiny[0], {"depth": 1.0, **limits}
    whole, part = (candidate_scores(chat, found, each) for each in (None, limits))
    everything, filtered = (module._choose(chat, found, each, **limits) for each in (whole, part))
    assert everything.survivors.empty
    assert filtered.best == everything.best
    pd.testing.assert_frame_equal(filtered.table().head(1), everything.table().head(1), rtol=1e-3)
    assert part["bypass"].notna().sum() == 1 < whole["bypass"].notna().sum()


def test_a_depth_without_candidates_measures_all(tiny, found):
    whole, part = (candidate_scores(tiny[0], found, each) for each in (None, {"depth": 0.1}))
    pd.testing.assert_frame_equal(part, whole)
