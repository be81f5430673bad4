"""A cache with room holds what caches that grow by copies hold."""

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from refusal_utils.model.roomy_cache import RoomyLayer, can_have_room, keep_places, with_room

N_BEGIN, N_HEADS, D_HEAD = 3, 2, 4


def drawn(n_rows, n_pos, seed=0):
    return torch.randn(n_rows, N_HEADS, n_pos, D_HEAD, generator=torch.Generator().manual_seed(seed + 10 * n_pos))


def cache_of(*states, layer=DynamicLayer):
    """A cache with one layer for each pair of states."""
    cache = DynamicCache()
    for each in states:
        part = layer() if layer is DynamicLayer else layer(sliding_window=8)
        part.update(each, -each)
        cache.layers.append(part)
    return cache


def layout(states, n_most):
    """The padding put where it belongs, one row at a time."""
    rows = [
        torch.cat([row[:, :N_BEGIN], torch.zeros(N_HEADS, n_most - row.shape[1], D_HEAD), row[:, N_BEGIN:]], 1)
        for row in states
    ]
    return torch.stack(rows)


def test_prompts_computed_apart_stand_in_one_cache_padded_after_what_they_share():
    long, short = drawn(2, 9), drawn(3, 5)
    joined = with_room([cache_of(long, 2 * long), cache_of(short, 2 * short)], N_BEGIN, 20, 5)
    expected = torch.cat([layout(long, 9), layout(short, 9)])
    assert joined.get_seq_length() == 9
    for layer, factor in zip(joined.layers, (1, 2), strict=True):
        torch.testing.assert_close(layer.keys, factor * expected, atol=0, rtol=0)
        torch.testing.assert_close(layer.values, -factor * expected, atol=0, rtol=0)
        assert layer.get_mask_sizes(1) == (10, 0)


@pytest.mark.parametrize("seed", range(5))
def test_tokens_and_rows_come_and_go_as_in_a_cache_that_is_copied(seed):
    states, choose = drawn(5, 6), torch.Generator().manual_seed(seed)
    roomy, grown = with_room([cache_of(states)], N_BEGIN, 6 + 12, 8), cache_of(states)
    n_rows = len(states)
    for step in range(12):
        new = drawn(n_rows, 1, seed=step)
        for found, wanted in zip(roomy.update(new, 2 * new, 0), grown.update(new, 2 * new, 0), strict=True):
            torch.testing.assert_close(found, wanted, atol=0, rtol=0)
        if step % 3 == 1:  # rows leave, and groups split
            n_rows = min(8, max(1, n_rows + int(torch.randint(-4, 5, (), generator=choose))))
            rows = torch.randint(len(new), (n_rows,), generator=choose)
            roomy.layers[0].reorder_cache(rows)
            grown.layers[0].reorder_cache(rows)
    assert roomy.get_seq_length() == grown.get_seq_length() == 18
    with pytest.raises(RuntimeError):
        roomy.update(new, new, 0)  # there is no more room


def test_a_new_token_is_written_in_place():
    layer = RoomyLayer(cache_of(drawn(2, 6)).layers, N_BEGIN, 9, 6)
    places = layer.keys.data_ptr(), layer.values.data_ptr()
    for step in range(3):
        keys, values = layer.update(drawn(2, 1, step), drawn(2, 1, step))
        assert (keys.data_ptr(), values.data_ptr()) == places
    grown = cache_of(drawn(2, 6)).layers[0]
    before = grown.keys.data_ptr()
    assert grown.update(drawn(2, 1), drawn(2, 1))[0].data_ptr() != before  # before control


def test_only_plain_caches_can_have_room():
    class Other(DynamicLayer):
        """Keeps more than keys and values, perhaps."""

    states = drawn(2, 5)
    sliding = cache_of(states, layer=DynamicSlidingWindowLayer)
    assert can_have_room(cache_of(states), 10_000)
    assert [can_have_room(sliding, n) for n in (7, 8)] == [True, False]
    assert with_room([sliding], N_BEGIN, 7, 2).is_sliding == [True]
    assert not can_have_room(cache_of(states, layer=lambda sliding_window: Other()), 10)
    empty = DynamicCache()
    empty.layers.append(DynamicLayer())
    assert not any(can_have_room(each, 10) for each in (None, DynamicCache(), empty))


@pytest.mark.parametrize("seed", range(20))
def test_as_many_rows_as_can_keep_their_places(seed):
    drawing = torch.Generator().manual_seed(seed)
    n_before = int(torch.randint(1, 9, (), generator=drawing))
    rows = torch.randint(n_before, (int(torch.randint(1, 12, (), generator=drawing)),), generator=drawing).sort().values
    found = rows[keep_places(rows)].tolist()
    assert sorted(found) == rows.tolist()
    assert sum(place == row for place, row in enumerate(found)) == len({row for row in found if row < len(found)})


def test_rows_that_keep_their_places_are_not_copied():
    layer = RoomyLayer(cache_of(drawn(6, 6)).layers, N_BEGIN, 9, 6)
    room, before = layer.keys.data_ptr(), layer.keys.clone()
    stay = torch.tensor([0, 2, 3, 5])
    stay = stay[keep_places(stay)]
    layer.reorder_cache(stay)
    assert (layer.keys.data_ptr(), stay.tolist()) == (room, [0, 5, 2, 3])
    torch.testing.assert_close(layer.keys, before[[0, 5, 2, 3]], atol=0, rtol=0)


def test_the_room_holds_no_more_rows_than_there_can_be_and_shrinks_when_most_have_left():
    layer = RoomyLayer(cache_of(drawn(2, 6)).layers, N_BEGIN, 9, 8)
    held = []
    for n_rows in (3, 7, 8, 5, 2, 1):
        before, rows = layer.keys.clone(), torch.arange(n_rows) % len(layer.keys)
        layer.reorder_cache(rows)
        torch.testing.assert_close(layer.keys, before[rows], atol=0, rtol=0)
        held.append(layer.keys.untyped_storage().nbytes() // (N_HEADS * 9 * D_HEAD * 4))
    assert held == [6, 8, 8, 8, 4, 2]


def test_what_a_cache_with_room_cannot_do_is_an_error():
    layer = RoomyLayer(cache_of(drawn(2, 6)).layers, N_BEGIN, 9, 2)
    for work in (layer.reset, lambda: layer.crop(-1), lambda: layer.batch_select_indices(torch.tensor([0]))):
        with pytest.raises(NotImplementedError, match="continued and reordered"):
            work()
