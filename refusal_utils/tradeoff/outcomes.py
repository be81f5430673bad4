"""Which prompts are refused under each direction at each strength, as one array for statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..checks import require
from ..stats import bootstrap_counts, percentile_interval
from ..steering.responses import NOT_JUDGED
from .rates import MAX_DEGENERATE


@dataclass(frozen=True, eq=False)
class Outcomes:
    """`refused[direction, coefficient, prompt]`, and which of the prompts are harmful.

    `strengths` are in gaps. `usable` is false for a point whose text is too often degenerate, or that was not measured.
    `stratum` numbers the groups of fixed size within which prompts are resampled, such as the buckets of a controlled
    set. `judged` leaves responses out of the rates (None: all are judged). Raises `ValueError` for fewer than two
    prompts on a side, and for a direction without a usable point.
    """

    refused: Bool[Tensor, "direction coefficient prompt"] = field(repr=False)
    harmful: Bool[Tensor, " prompt"] = field(repr=False)
    stratum: Int[Tensor, " prompt"] = field(repr=False)
    directions: tuple[str, ...]
    usable: Bool[Tensor, "direction coefficient"]
    strengths: tuple[float, ...]
    judged: Bool[Tensor, "direction coefficient prompt"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raise `ValueError` if no statistics can be computed."""
        for side, n in (("harmful", int(self.harmful.sum())), ("benign", int((~self.harmful).sum()))):
            require(n > 1, "Outcomes", f"there must be at least two {side} prompts", n, "Add prompts.")
        empty = [name for name, row in zip(self.directions, self.usable, strict=True) if not row.any()]
        must = "every direction needs a point that is not degenerate"
        require(not empty, "Outcomes", must, f"none for {', '.join(empty)}", "Use lower strengths.")

    @classmethod
    def from_rows(cls, rows: pd.DataFrame, levels: Mapping[str, Sequence[float]]) -> "Outcomes":
        """The outcomes in `rows` (columns id, harmful, direction, gaps, outcome, maybe bucket) at these strengths.

        `levels` gives the strengths of every direction in gaps. Unsteered rows are a point of every direction,
        whichever direction they are listed under. Broken text is not a refusal, what was not judged does not count, and
        a point with more than `MAX_DEGENERATE` of them is not usable. Raises `ValueError` if a direction lacks a
        strength or a prompt.
        """
        cells = pd.MultiIndex.from_tuples([(name, float(gaps)) for name in levels for gaps in levels[name]])
        asked = pd.MultiIndex.from_frame(rows[["direction", "gaps"]]).isin(cells)
        steered = rows[asked & (rows["gaps"] != 0)]
        table = steered.pivot(index=["direction", "gaps"], columns="id", values="outcome")
        unsteered = rows[rows["gaps"] == 0].drop_duplicates("id").set_index("id")["outcome"]
        start = {(name, 0.0): unsteered.reindex(table.columns) for name in levels if len(unsteered)}
        table = pd.concat([pd.DataFrame(start).T, table])
        strengths = list(dict.fromkeys([gaps for _, gaps in start] + [gaps for _, gaps in cells]))
        table = table.reindex(pd.MultiIndex.from_product([levels, strengths]))
        empty = table.isna().any(axis=1)
        missing = [cell for cell in (*start, *cells) if empty[cell]][:3]
        must = "every direction needs every strength and prompt"
        require(not missing, "Outcomes", must, f"gaps at {missing}", "Run the sweep for them.")
        values = table.to_numpy(dtype=object).reshape(len(levels), len(strengths), -1)
        unread = (values == "broken") | (values == NOT_JUDGED)
        usable = (unread.mean(-1) <= MAX_DEGENERATE) & ~empty.to_numpy().reshape(len(levels), -1)
        prompts = rows.drop_duplicates("id").set_index("id").loc[table.columns]
        harmful = torch.tensor(prompts["harmful"].to_numpy(dtype=bool))
        codes = torch.tensor(pd.factorize(prompts["bucket"])[0]) if "bucket" in prompts else harmful.long()
        refused, judged = torch.tensor(values == "refused"), torch.tensor(values != NOT_JUDGED)
        return cls(refused, harmful, codes, tuple(levels), torch.tensor(usable), tuple(strengths), judged)

    def weights(self, n_draws: int, seed: int = 0) -> Float[Tensor, "draw prompt"]:
        """How often each prompt counts: once in the first row (the data), then as often as it is resampled."""
        data = torch.ones(1, len(self.harmful), dtype=torch.float64)
        return torch.cat([data, bootstrap_counts(self.stratum, n_draws, seed)])

    def rates(
        self, weights: Float[Tensor, "draw prompt"]
    ) -> tuple[Float[Tensor, "draw direction coefficient"], Float[Tensor, "draw direction coefficient"]]:
        """(RR, ORR): the refused share of the harmful and of the benign prompts, for every draw of prompts."""
        return self._share(weights, self.harmful), self._share(weights, ~self.harmful)

    def overall(self, weights: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw direction coefficient"]:
        """The overall refusal rate, the mean of RR and ORR, for every draw of prompts."""
        refused, over_refused = self.rates(weights)
        return (refused + over_refused) / 2

    def variance_shares(self, n_draws: int = 500, seed: int = 0) -> pd.DataFrame:
        """Shares of the variance of "refused" that strength explains alone and direction explains given strength.

        Columns: share, low, high. They are variance components of a crossed design with prompts as a random effect. The
        second share averages the component of direction over strengths, corrected for noise. A strength at which a
        direction has no usable point is left out; all numbers are NaN if fewer than two are left, or for a single
        direction. Source: Searle, Casella & McCulloch 1992, ch. 4.
        """
        common = self.usable.all(0)
        refused = self.refused[:, common].double()
        if min(len(refused), int(common.sum())) > 1:
            values = torch.stack([_shares(refused, draw) for draw in self.weights(n_draws, seed)])
        else:
            values = torch.full((n_draws + 1, 2), float("nan"), dtype=torch.float64)
        low, high = percentile_interval(values[1:])
        index = pd.Index(["strength", "direction given strength"], name="explained by")
        return pd.DataFrame({"share": values[0], "low": low, "high": high}, index=index)

    def _share(self, weights: Tensor, side: Tensor) -> Tensor:
        part = weights[:, side]
        counted = torch.ones_like(self.refused) if self.judged is None else self.judged
        refused, total = (
            torch.einsum("np,dcp->ndc", part, each[:, :, side].double()) for each in (self.refused, counted)
        )
        return refused / total


def _shares(
    refused: Float[Tensor, "direction coefficient prompt"], weights: Float[Tensor, " prompt"]
) -> Float[Tensor, "2"]:
    n_directions, n = len(refused), weights.sum()
    cells = refused @ (weights / n)
    total = cells.mean() * (1 - cells.mean())
    by_prompt = refused.mean(0)
    residual = refused - cells[..., None] - by_prompt + cells.mean(0)[:, None]
    noise = (residual.square() * weights).sum((0, 2)) / ((n_directions - 1) * (n - 1))
    by_direction = (cells.var(0, correction=1) - noise / n).clamp(min=0).mean()
    strength = cells.mean(0).var(correction=0)
    return torch.stack([strength, by_direction]) / total.clamp(min=1e-12)
