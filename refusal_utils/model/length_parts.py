"""Parts of a batch with rows of similar length, so that little is computed for padding."""

from collections.abc import Sequence
from itertools import accumulate

PART_TOKENS = {"cpu": 512, "cuda": 4096}  # a forward pass costs about as much as so many more tokens


def length_parts(lengths: Sequence[int], weights: Sequence[float], part_tokens: int) -> list[slice]:
    """Consecutive parts of rows with these `lengths` that cost the fewest padded tokens.

    A row of weight w costs w times the longest row of its part, and each part `part_tokens` more. Rows of one length
    that follow each other stay together.

    >>> length_parts([9, 9, 3, 2, 2], [1, 1, 1, 1, 1], part_tokens=4)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    cuts = [row for row in range(1, len(lengths)) if lengths[row] != lengths[row - 1]]
    edges, totals = [0, *cuts, len(lengths)], [0.0, *accumulate(weights)]
    best: list[tuple[float, list[slice]]] = [(0.0, [])]  # of the rows before each edge: (cost, parts)
    for end in range(1, len(edges)):
        found, longest = [], 0
        for begin in reversed(range(end)):
            longest = max(longest, lengths[edges[begin]])
            weight = totals[edges[end]] - totals[edges[begin]]
            found.append((best[begin][0] + part_tokens + weight * longest, begin))
        cost, begin = min(found)
        best.append((cost, [*best[begin][1], slice(edges[begin], edges[end])]))
    return best[-1][1]
