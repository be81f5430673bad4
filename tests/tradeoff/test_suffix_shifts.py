"""Statistics of suffixes against plain captures, and regressions against planted coefficients and plain formulas."""

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance, normalize
from refusal_utils.model.capture import capture_activations
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.suffixes import load_suffixes, with_suffixes
from refusal_utils.steering import first_token_logits
from refusal_utils.steering.first_tokens import refusal_logit
from refusal_utils.tradeoff.suffix_shifts import SuffixShifts, suffix_shifts

TOKENS = [5, 9]


@pytest.fixture(scope="module")
def pairs():
    prompts = load_prompts("advice", "eval").head(4)[["id", "text"]]
    return with_suffixes(prompts, load_suffixes().groupby("kind").head(1))


@pytest.fixture(scope="module")
def directions(chat):
    vectors = normalize(torch.randn(2, chat.d_model, generator=torch.Generator().manual_seed(0)))
    return DirectionSet(("a", "b"), vectors, torch.tensor([2.0, 4.0]), Provenance(3, -1))


@pytest.fixture(scope="module")
def found(chat, pairs, directions):
    return suffix_shifts(chat, pairs, directions, tokens=TOKENS)


def test_statistics_are_those_of_plain_states(chat, pairs, directions, found):
    assert len(found.rows) == 2 * len(pairs) == 24
    pair = pairs.iloc[7]
    texts = [pair["text"], f"{pair['text']} {pair['suffix']}"]
    base, moved = capture_activations(chat, texts, layers=[3], positions=[-1]).at(3, -1).double()
    row = found.rows[found.rows["direction"] == "b"].iloc[7]
    r = directions["b"].double()
    assert row["connectivity"] == pytest.approx(float(base @ r), abs=1e-4)
    assert row["cosine"] == pytest.approx(float(base @ r / base.norm()), abs=1e-5)
    assert row["push"] == pytest.approx(float((base - moved) @ r), abs=1e-4)
    projector = torch.eye(len(r)) - torch.outer(r, r)
    assert row["shift"] == pytest.approx(float((projector @ (moved - base)).norm()), abs=1e-4)
    assert row["push in gaps"] == pytest.approx(row["push"] / 4, rel=1e-6)
    before, after = refusal_logit(first_token_logits(chat, texts).double(), torch.tensor(TOKENS))
    assert row["score"] == pytest.approx(float(before), abs=1e-4)
    assert row["change"] == pytest.approx(float(after - before), abs=1e-4)


def test_push_and_shift_add_up_to_the_whole_change_and_turn_with_the_direction(chat, pairs, directions, found):
    opposite = DirectionSet(directions.names, -directions.vectors, directions.gaps, directions.provenance)
    other = suffix_shifts(chat, pairs, opposite).rows
    np.testing.assert_allclose(other["push"], -found.rows["push"], atol=1e-4)
    np.testing.assert_allclose(other["shift"], found.rows["shift"], atol=1e-4)
    whole = (found.rows["push"] ** 2 + found.rows["shift"] ** 2).to_numpy().reshape(2, -1)
    np.testing.assert_allclose(whole[0], whole[1], rtol=1e-4)  # the same change seen from both directions


def test_the_table_and_the_figure_give_means_by_direction(found):
    own = found.rows[(found.rows["direction"] == "a") & (found.rows["suffix_kind"] == "format")]
    assert found.table().loc[("a", "format"), "push"] == pytest.approx(own["push"].mean())
    assert np.array(found.figure(title="Pushes").data[0].z).shape == (2, 3)
    assert found.by_suffix("a").loc["format", "shift"].item() == pytest.approx(own["shift"].mean())
    fits = found.regressions("ratio")
    pd.testing.assert_frame_equal(fits.table().loc["b"], found.regression("b", "ratio"))
    points = fits.figure(title="Coefficients").data
    assert [list(panel.y) for panel in points] == [["a", "b"]] * 3
    row = fits.table().loc[("b", "joint", "push")]
    assert points[1].x[1] + points[1].error_x.array[1] == pytest.approx(row["high"])
    assert points[1].x[1] - points[1].error_x.arrayminus[1] == pytest.approx(row["low"])


def test_without_opening_tokens_the_change_is_unknown_and_nothing_explains_it(chat, pairs, directions):
    found = suffix_shifts(chat, pairs, directions, tokens=[])
    assert found.rows["change"].isna().all()
    assert found.regression("a")["coefficient"].isna().all()
    assert found.regression("a", "ratio")["coefficient"].notna().all()  # before control


def planted(n_prompts=60, n_suffixes=20, seed=0, binary=False) -> SuffixShifts:
    """Outcomes fall with connectivity and rise with push; prompts and suffixes add effects of their own."""
    draw = np.random.default_rng(seed)
    prompt, suffix = (each.ravel() for each in np.meshgrid(np.arange(n_prompts), np.arange(n_suffixes)))
    x = {name: draw.normal(size=prompt.size) for name in ("connectivity", "push", "shift")}
    own = 0.5 * draw.normal(size=n_prompts)[prompt] + 0.5 * draw.normal(size=n_suffixes)[suffix]
    logit = -1.0 * x["connectivity"] + 2.0 * x["push"] + own
    outcome = draw.random(prompt.size) < 1 / (1 + np.exp(-logit)) if binary else logit
    frame = {"id": prompt.astype(str), "suffix_id": suffix.astype(str), "direction": "a", "change": outcome, **x}
    return SuffixShifts(pd.DataFrame(frame))


@pytest.mark.parametrize("binary", [False, True])
def test_planted_coefficients_are_found_within_their_intervals(binary):
    found = planted(seed=2, binary=binary)
    table = found.regression("a", interactions=True)
    joint = table.loc["joint"]
    shrink = 0.9 if binary else 1.0  # unmodelled effects flatten a logistic curve
    for name, value in {"connectivity": -1.0, "push": 2.0, "shift": 0.0}.items():
        expected = shrink * value * found.rows[name].std()
        assert joint.loc[name, "low"] < expected < joint.loc[name, "high"]
        assert joint.loc[name, "coefficient"] == pytest.approx(expected, abs=0.25)
    assert joint.loc["push", "p"] < 1e-3
    assert joint.loc["shift", "p"] > 0.01
    assert set(joint.index) - {"connectivity", "push", "shift"} == {
        "connectivity x push",
        "connectivity x shift",
        "push x shift",
    }
    assert table.loc[("push", "push"), "coefficient"] > 1


def test_the_interval_of_one_clustering_is_the_sandwich_formula_and_two_cover_dependence_in_both():
    found = planted(20, 10)
    rows = found.rows
    table = found.regression("a", clusters=["id"], predictors=["push"])
    x = (rows["push"] - rows["push"].mean()) / rows["push"].std()
    design = np.stack([np.ones(len(x)), x], axis=1)
    bread = np.linalg.inv(design.T @ design)
    left = rows["change"].to_numpy() - design @ (bread @ design.T @ rows["change"].to_numpy())
    sums = np.stack([design[rows["id"] == each].T @ left[rows["id"] == each] for each in rows["id"].unique()])
    n, groups = len(x), 20
    covariance = bread @ (sums.T @ sums) @ bread * groups / (groups - 1) * (n - 1) / (n - 2)
    half = 2.0930 * covariance[1, 1] ** 0.5  # Student's t with 19 degrees of freedom
    row = table.loc[("joint", "push")]
    assert row["high"] - row["coefficient"] == pytest.approx(half, rel=1e-3)
    of_prompts = found.rows.assign(push=found.rows["id"].astype(float))  # constant within a prompt
    naive, clustered = (
        SuffixShifts(of_prompts.assign(one=np.arange(200))).regression("a", predictors=["push"], clusters=[by])
        for by in ("one", "id")
    )
    width = [float((each["high"] - each["low"]).iloc[0]) for each in (naive, clustered)]
    assert width[1] > 1.2 * width[0]


def test_a_perfect_prediction_has_no_coefficients_and_constants_are_refused():
    rows = planted(20, 5).rows
    perfect = SuffixShifts(rows.assign(change=rows["push"] > 0))
    assert perfect.regression("a").loc["joint"].isna().all(axis=None)
    with pytest.raises(ValueError, match="^regression: values must vary; got one value of .*shift"):
        SuffixShifts(rows.assign(shift=1.0)).regression("a")
    with pytest.raises(ValueError, match="^regression: direction, outcome, predictors .*; got b"):
        perfect.regression("b")


def test_pairs_without_columns_and_other_hooks_are_refused(chat, pairs, directions):
    with pytest.raises(ValueError, match="^suffix_shifts: pairs need their columns; got no .*suffix_id"):
        suffix_shifts(chat, pairs.drop(columns="suffix_id"), directions)
    outputs = DirectionSet(directions.names, directions.vectors, directions.gaps, Provenance(3, -1, "resid_post"))
    with pytest.raises(ValueError, match="^suffix_shifts: directions must have been read at resid_pre; got resid_post"):
        suffix_shifts(chat, pairs, outputs)
