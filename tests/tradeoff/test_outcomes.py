from dataclasses import replace

import pytest
import torch

from refusal_utils.tradeoff.outcomes import Outcomes

from .planted import STRENGTHS, planted, rows_of


def test_rates_of_the_data_are_plain_shares_and_draws_keep_the_sizes():
    outcomes = planted()
    weights = outcomes.weights(5)
    refused, over_refused = outcomes.rates(weights)
    harmful = outcomes.refused[:, :, outcomes.harmful]
    assert torch.equal(weights[:, outcomes.harmful].sum(1), torch.full((6,), 100.0, dtype=torch.float64))
    assert refused[0].numpy() == pytest.approx(harmful.double().mean(-1).numpy())
    assert over_refused[0].numpy() == pytest.approx(outcomes.refused[:, :, ~outcomes.harmful].double().mean(-1).numpy())
    repeated = harmful.repeat_interleave(weights[3, outcomes.harmful].long(), dim=-1)
    assert refused[3].numpy() == pytest.approx(repeated.double().mean(-1).numpy())
    assert torch.equal(outcomes.overall(weights), (refused + over_refused) / 2)


def test_prompts_are_resampled_within_their_buckets_so_that_the_start_is_fixed():
    """A controlled set holds as many refused as answered prompts by construction: strength 0 is 0.5 in every draw."""
    outcomes = planted(n=40)
    start = torch.arange(80) % 2 == 0
    bucketed = replace(
        outcomes,
        refused=torch.cat([start.expand(2, 1, 80), outcomes.refused], dim=1),
        stratum=2 * outcomes.harmful.long() + start.long(),
        usable=torch.ones(2, 1 + len(STRENGTHS), dtype=torch.bool),
        strengths=(0.0, *outcomes.strengths),
    )
    drawn = bucketed.rates(bucketed.weights(50))
    assert all(torch.equal(rate[:, :, 0], torch.full((51, 2), 0.5, dtype=torch.float64)) for rate in drawn)
    assert all(float(rate[:, :, 4].std()) > 0.01 for rate in drawn)


def test_rows_are_read_in_any_order_and_degenerate_points_are_dropped():
    outcomes = planted(n=10)
    rows = rows_of(outcomes).sample(frac=1, random_state=0)
    last = rows[(rows["direction"] == "direction 1") & (rows["gaps"] == outcomes.strengths[-1])]
    rows.loc[last.index[:4], "outcome"] = "broken"
    read = Outcomes.from_rows(rows, dict.fromkeys(outcomes.directions, outcomes.strengths))
    expected, found = (each.rates(torch.ones(1, 20, dtype=torch.float64)) for each in (outcomes, read))
    assert torch.equal(found[0][0, 0], expected[0][0, 0])
    assert torch.equal(found[1][0, 0], expected[1][0, 0])
    assert read.usable.tolist() == [[True] * 8, [True] * 7 + [False]]
    assert read.strengths == outcomes.strengths


def test_what_is_not_judged_counts_in_no_rate():
    outcomes = planted(n=10)
    rows = rows_of(outcomes)
    point = (rows["direction"] == "direction 0") & (rows["gaps"] == outcomes.strengths[0]) & rows["harmful"]
    rows.loc[point, "outcome"] = ["not judged"] + ["refused"] * 3 + ["answered"] * 6
    read = Outcomes.from_rows(rows, dict.fromkeys(outcomes.directions, outcomes.strengths))
    assert float(read.rates(read.weights(0))[0][0, 0, 0]) == pytest.approx(3 / 9)
    rows.loc[rows[point].index[:3], "outcome"] = "not judged"
    assert not Outcomes.from_rows(rows, dict.fromkeys(outcomes.directions, outcomes.strengths)).usable[0, 0]


def test_buckets_are_the_strata_of_the_bootstrap():
    rows = rows_of(planted(n=10))
    rows["bucket"] = rows["harmful"].map({True: "H", False: "B"}) + (rows["id"] > "p0004").map({True: "1", False: "2"})
    read = Outcomes.from_rows(rows, {"direction 0": planted(n=10).strengths})
    assert torch.bincount(read.stratum).tolist() == [5, 5, 10]


def test_unsteered_responses_belong_to_every_direction():
    rows = rows_of(planted(n=10, strengths=torch.tensor([0.0, 1.0, 2.0])))
    start = rows[(rows["gaps"] == 0) & (rows["direction"] == "direction 0")]["outcome"]
    rows.loc[(rows["gaps"] == 0) & (rows["direction"] == "direction 1"), "outcome"] = start.to_numpy()
    names = ["direction 0", "direction 1"]
    whole = Outcomes.from_rows(rows, dict.fromkeys(names, (0.0, 1.0, 2.0)))
    once = rows[(rows["gaps"] > 0) | (rows["direction"] == "direction 0")]
    read = Outcomes.from_rows(once, dict.fromkeys(names, (1.0, 2.0)))
    assert read.strengths == whole.strengths == (0.0, 1.0, 2.0)
    assert torch.equal(read.refused, whole.refused)


def test_strengths_may_differ_between_directions():
    outcomes = planted(n=40, jitter=0.0, strengths=torch.tensor([0.0, 1.0, 2.0, 3.0]))
    rows = rows_of(outcomes)
    rows = rows[(rows["direction"] == "direction 0") | rows["gaps"].isin([0.0, 2.0])]
    read = Outcomes.from_rows(rows, {"direction 0": [1.0, 2.0, 3.0], "direction 1": [2.0]})
    assert read.usable.tolist() == [[True] * 4, [True, False, True, False]]
    assert torch.equal(read.refused[read.usable], outcomes.refused[read.usable])
    with pytest.raises(
        ValueError, match=r"^Outcomes: every direction needs every strength and prompt; .*'direction 1', 1"
    ):
        Outcomes.from_rows(rows, dict.fromkeys(outcomes.directions, (1.0, 2.0)))


def test_rows_with_gaps_or_without_text_are_refused():
    outcomes = planted(n=5)
    rows, levels = rows_of(outcomes), dict.fromkeys(outcomes.directions, outcomes.strengths)
    with pytest.raises(ValueError, match="^Outcomes: every direction needs every strength and prompt; got gaps at"):
        Outcomes.from_rows(rows.iloc[1:], levels)
    with pytest.raises(
        ValueError, match="^Outcomes: every direction needs a point that is not degenerate; .* direction 1"
    ):
        Outcomes.from_rows(rows.assign(outcome="broken"), levels)
    with pytest.raises(ValueError, match="^Outcomes: there must be at least two benign prompts; got 0"):
        Outcomes.from_rows(rows.assign(harmful=True), levels)
    with pytest.raises(ValueError, match="^Outcomes: every direction needs every strength"):
        Outcomes.from_rows(rows, {"direction 0": [0.0, *outcomes.strengths]})
