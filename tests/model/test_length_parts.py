"""Of all ways to cut a batch, the cheapest is found."""

import random
from itertools import combinations

import pytest

from refusal_utils.model.length_parts import length_parts


def padded_cost(lengths, weights, cuts, part_tokens):
    """What the parts between these cuts cost, by the definition."""
    parts = list(zip([0, *cuts], [*cuts, len(lengths)], strict=True))
    return sum(sum(weights[a:b]) * max(lengths[a:b]) + part_tokens for a, b in parts)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_cut_costs_less(seed):
    rng = random.Random(seed)
    lengths = [rng.choice((1, 2, 5, 6, 20)) for _ in range(rng.randint(1, 9))]
    if seed % 2:
        lengths.sort(reverse=True)
    part_tokens = rng.choice((0, 1, 4, 30))
    weights = [rng.choice((0.25, 0.5, 1.0)) for _ in lengths]
    parts = length_parts(lengths, weights, part_tokens)
    found = padded_cost(lengths, weights, [part.stop for part in parts[:-1]], part_tokens)
    cuts = [each for n in range(len(lengths)) for each in combinations(range(1, len(lengths)), n)]
    assert found == pytest.approx(min(padded_cost(lengths, weights, each, part_tokens) for each in cuts))


def test_the_parts_are_the_batch_in_its_order_and_equal_lengths_stay_together():
    lengths = [9, 9, 9, 4, 4, 1]
    parts = length_parts(lengths, [1] * 6, 0)
    assert [lengths[part] for part in parts] == [[9, 9, 9], [4, 4], [1]]
    assert length_parts(lengths, [1] * 6, 1000) == [slice(0, 6)]  # before control: a costly pass is not made twice
