"""Planted knobs: prompts with thresholds, and directions that push along one scale or along two."""

import pandas as pd
import torch

from refusal_utils.tradeoff.outcomes import Outcomes

STRENGTHS = torch.linspace(-3, 6, 8)


def planted(seed=0, n=100, gains=((1.0, 1.0), (1.0, 1.0)), jitter=0.3, names=None, strengths=STRENGTHS):
    """Outcomes of `n` harmful and `n` benign prompts; benign thresholds lie higher.

    `gains` of each direction: how strongly it pushes harmful and benign prompts.
    """
    generator = torch.Generator().manual_seed(seed)
    harmful = torch.arange(2 * n) < n
    threshold = torch.randn(2 * n, generator=generator) + torch.where(harmful, 0.0, 2.0)
    push = torch.stack([torch.where(harmful, *(torch.tensor(gain) for gain in pair)) for pair in gains])
    noise = jitter * torch.randn(len(gains), len(strengths), 2 * n, generator=generator)
    refused = push[:, None] * strengths[None, :, None] + noise > threshold
    names = names or tuple(f"direction {index}" for index in range(len(gains)))
    usable = torch.ones(len(gains), len(strengths), dtype=torch.bool)
    return Outcomes(refused, harmful, harmful.long(), names, usable, tuple(strengths.tolist()))


def rows_of(outcomes):
    """The outcomes as rows of a sweep."""
    grid = [
        (f"p{prompt:04}", bool(outcomes.harmful[prompt]), name, gaps, bool(outcomes.refused[d, c, prompt]))
        for d, name in enumerate(outcomes.directions)
        for c, gaps in enumerate(outcomes.strengths)
        for prompt in range(len(outcomes.harmful))
    ]
    rows = pd.DataFrame(grid, columns=["id", "harmful", "direction", "gaps", "refused"])
    return rows.assign(outcome=rows.pop("refused").map({True: "refused", False: "answered"}))
