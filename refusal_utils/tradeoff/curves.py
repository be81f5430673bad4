"""Is refusal one knob? Trade-off curves, their bands, and tests of whether two curves are the same. Pure statistics.

A sweep says which prompts are refused under each direction at each strength. A direction's curve is its refusal rate on
harmful prompts (RR) at every overall refusal rate, the mean of RR and of the rate on benign prompts (ORR), whatever
strength brings it there. Two curves a gap apart refuse equally much and tell harmful from benign prompts differently:
RR differs by the gap, ORR by as much the other way. (RR as a function of ORR says the same, but is vertical where
ORR is 0, as it is for any good model.) A curve ends where its direction can bring the model no further, and curves are
compared only where both reach: how far a direction reaches is another question, with its own numbers (`reach`). All
uncertainty comes from resampling prompts, the same ones for every direction and strength.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor

GRID = torch.linspace(0, 1, 41, dtype=torch.float64)
NO_RANGE = "no common range"
VERDICTS = ("equivalent", "different", "undecided", NO_RANGE)


@dataclass(frozen=True, eq=False)
class Sweep:
    """`refused[direction, coefficient, prompt]`, and which of the prompts are harmful.

    `coefficients` are the strengths, in whatever unit; they need not mean the same for every direction. `usable` says
    which points count: too much degenerate text takes a point out of its curve. `stratum` numbers the groups whose sizes were fixed when prompts were chosen, such
    as the four buckets of a controlled set: prompts are resampled within them.
    """

    refused: Bool[Tensor, "direction coefficient prompt"] = field(repr=False)
    harmful: Bool[Tensor, " prompt"] = field(repr=False)
    stratum: Int[Tensor, " prompt"] = field(repr=False)
    directions: tuple[str, ...]
    usable: Bool[Tensor, "direction coefficient"]
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` where no curve can be drawn."""
        for name, n in (("harmful", int(self.harmful.sum())), ("benign", int((~self.harmful).sum()))):
            _require(n > 1, f"at least two {name} prompts", str(n), "Add prompts.")
        empty = [name for name, row in zip(self.directions, self.usable, strict=True) if not row.any()]
        must, todo = "every direction needs a point that is not degenerate", "Lower its strengths."
        _require(not empty, must, f"none for {', '.join(empty)}", todo)


def prompt_weights(sweep: Sweep, n_draws: int, seed: int = 0) -> Float[Tensor, "draw prompt"]:
    """How often each prompt is drawn when every stratum is resampled to its own size; the first row is the data."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(n_draws, len(sweep.harmful), dtype=torch.float64)
    for number in sweep.stratum.unique():
        rows = (sweep.stratum == number).nonzero()[:, 0]
        drawn = rows[torch.randint(len(rows), (n_draws, len(rows)), generator=generator)]
        weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return torch.cat([torch.ones_like(weights[:1]), weights])


def rates(
    sweep: Sweep, weights: Float[Tensor, "draw prompt"]
) -> tuple[Float[Tensor, "draw direction coefficient"], Float[Tensor, "draw direction coefficient"]]:
    """(RR, ORR) of every direction at every strength, for every draw of prompts."""
    found = []
    for side in (sweep.harmful, ~sweep.harmful):
        part = weights[:, side]
        found.append(torch.einsum("np,dcp->ndc", part, sweep.refused[:, :, side].double()) / part.sum(1)[:, None, None])
    return found[0], found[1]


def reach(sweep: Sweep, n_draws: int = 1000, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """How far each direction brings the model: the lowest and the highest overall refusal rate, with bootstrap intervals.

    Rows: directions. Columns `from` and `to`, each with low, high and strength: the weakest coefficient that does it
    (NaN where the sweep does not say). The extremes are over all usable points as they are, not over a monotone
    envelope: text that breaks is out already, an envelope would have to guess from noise which way a direction means
    to go, and a highest rate at a strength below the strongest shows that the direction turns back. The strength is
    chosen on the data, not anew in every draw, where the largest of many noisy rates would be too large once more.
    """
    drawn = _overall(sweep, prompt_weights(sweep, n_draws, seed))
    table = pd.DataFrame(index=pd.Index(sweep.directions, name="direction"))
    strengths = np.array(sweep.coefficients or [np.nan] * drawn.shape[2])
    for name, at in zip(("from", "to"), _extremes(sweep), strict=True):
        rate = drawn[:, torch.arange(len(at)), at]
        low, high = (rate[1:].quantile(q, dim=0) for q in ((1 - level) / 2, (1 + level) / 2))
        for edge, values in (("", rate[0]), (" low", low), (" high", high)):
            table[f"{name}{edge}"] = values.numpy()
        table[f"{name} strength"] = strengths[at.numpy()]
    return table


def _overall(sweep: Sweep, weights: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw direction coefficient"]:
    refused, over_refused = rates(sweep, weights)
    return (refused + over_refused) / 2


def _extremes(sweep: Sweep) -> tuple[Int[Tensor, " direction"], Int[Tensor, " direction"]]:
    """Where on the data each direction's overall rate is lowest, and where highest; of equals the weakest strength."""
    overall = _overall(sweep, torch.ones(1, len(sweep.harmful), dtype=torch.float64))[0]
    weakest = np.argsort(np.abs(sweep.coefficients or range(overall.shape[1])), kind="stable")
    signed = [torch.where(sweep.usable, sign * overall, torch.inf)[:, weakest].numpy() for sign in (1, -1)]
    lowest, highest = (torch.from_numpy(weakest[values.round(9).argmin(1)]) for values in signed)
    return lowest, highest


def _ends(sweep: Sweep) -> Float[Tensor, "side direction"]:
    """The overall rates from which and to which each direction reaches, on the data."""
    overall = _overall(sweep, torch.ones(1, len(sweep.harmful), dtype=torch.float64))[0]
    return torch.stack([overall[torch.arange(len(at)), at] for at in _extremes(sweep)])


def curves(sweep: Sweep, weights: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw direction grid"]:
    """RR of every direction at every overall refusal rate of `GRID`, for every draw: straight lines between points.

    NaN beyond the direction's reach, which is measured on the data and the same for every draw. A draw that falls short
    of it is led on towards the corner where nothing or everything is refused, in which every curve would end.
    """
    refused, over_refused = rates(sweep, weights)
    overall = (refused + over_refused) / 2
    found = torch.empty(len(weights), len(sweep.directions), len(GRID), dtype=torch.float64)
    for direction, usable in enumerate(sweep.usable):
        points = (overall[:, direction, usable].numpy(), refused[:, direction, usable].numpy())
        x, y = (np.pad(np.pad(each, ((0, 0), (1, 0))), ((0, 0), (0, 1)), constant_values=1.0) for each in points)
        order = np.lexsort((y, x), axis=1)
        x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
        for draw in range(len(weights)):
            found[draw, direction] = torch.from_numpy(np.interp(GRID.numpy(), x[draw], y[draw]))
    ends = _ends(sweep)[:, :, None]
    inside = (ends[0] <= GRID + 1e-9) & (ends[1] >= GRID - 1e-9)
    return found.masked_fill(~inside, float("nan"))


def curve_bands(sweep: Sweep, n_draws: int = 1000, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Every direction's curve on `GRID` as far as it reaches, with pointwise bootstrap intervals.

    Columns direction, overall (refusal rate), RR, low, high; no rows beyond the reach, so that nothing is drawn there.
    The same point's ORR is 2 overall - RR.
    """
    drawn = curves(sweep, prompt_weights(sweep, n_draws, seed))
    low, high = (drawn[1:].quantile(q, dim=0) for q in ((1 - level) / 2, (1 + level) / 2))
    parts = []
    for row, name in enumerate(sweep.directions):
        values = {"overall": GRID, "RR": drawn[0, row], "low": low[row], "high": high[row]}
        part = pd.DataFrame({key: value.numpy() for key, value in values.items()}).dropna()
        parts.append(part.assign(direction=name))
    return pd.concat(parts, ignore_index=True)


def knob_test(
    sweep: Sweep,
    *,
    margin: float = 0.10,
    min_range: float = 0.3,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Every pair of directions: how far apart their curves are, and whether that is shown to be little or more than none.

    A pair is compared at the overall refusal rates `from` .. `to` that both reach on the data. `gap` is the largest
    difference of RR at equal overall refusal rate, `area` the mean absolute difference; intervals from the bootstrap,
    simultaneous over the grid. `p_equivalent`: two one-sided tests that the difference lies within `margin`, at every
    overall rate (Schuirmann 1987; intersection-union, Berger & Hsu 1996). `p_different`: the largest difference against
    what resampling alone makes. Both are adjusted over the pairs compared (Benjamini & Hochberg 1995). `verdict` at
    1 - level: equivalent, else different, else undecided; "no common range", and NaN for all numbers, where the range
    is narrower than `min_range`: such a pair does not meet, so that nothing is said about how it trades off. Strengths
    far apart cut the corners of a curve, by as much as 0.04 of RR on planted curves: give all directions close ones.
    """
    drawn = curves(sweep, prompt_weights(sweep, n_draws, seed))
    lowest, highest = _ends(sweep)
    rows: list[tuple] = []
    for pair in combinations(range(len(sweep.directions)), 2):
        start, end = float(lowest[list(pair)].max()), float(highest[list(pair)].min())
        difference = drawn[:, pair[0]] - drawn[:, pair[1]]
        difference = difference[:, ~difference[0].isnan()]
        meet = difference.shape[1] > 0 and end - start > min_range - 1e-9
        found = _compare(difference, margin, level) if meet else (float("nan"),) * 8
        rows.append((*(sweep.directions[each] for each in pair), start, end, *found))
    names = ["first", "second", "from", "to", "gap", "gap_low", "gap_high", "area", "area_low", "area_high"]
    table = pd.DataFrame(rows, columns=[*names, "p_equivalent", "p_different"])
    compared = table["gap"].notna()
    if compared.any():
        for name in ("p_equivalent", "p_different"):
            table.loc[compared, name] = false_discovery_control(table.loc[compared, name].to_numpy())
    shown = [~compared, table["p_equivalent"] < 1 - level, table["p_different"] < 1 - level]
    table["verdict"] = np.select(shown, [NO_RANGE, "equivalent", "different"], "undecided")
    return table


def _compare(difference: Float[Tensor, "draw grid"], margin: float, level: float) -> tuple[float, ...]:
    observed, drawn = difference[0], difference[1:]
    moved = (drawn - observed).abs().amax(1)
    gap, spread = float(observed.abs().max()), float(moved.quantile(level))
    area = float(observed.abs().mean())
    area_spread = float((drawn - observed).abs().mean(1).quantile(level))
    outside = torch.stack([(drawn >= margin).sum(0), (drawn <= -margin).sum(0)])
    at_least = (moved >= gap - 1e-12).sum()
    p_values = [float((1 + count) / (1 + len(drawn))) for count in (outside.max(), at_least)]
    low, high = max(0.0, gap - spread), min(1.0, gap + spread)
    area_low, area_high = max(0.0, area - area_spread), min(1.0, area + area_spread)
    return gap, low, high, area, area_low, area_high, p_values[0], p_values[1]


def variance_shares(sweep: Sweep, n_draws: int = 500, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Shares of the variance of "refused" that strength explains alone, and direction given strength, with intervals.

    Variance components of a layout in which every prompt meets every direction and strength (prompts random); the
    second is the mean over strengths of the component of direction, so pure noise has expectation zero. The columns of
    the sweep must be the same kind of strength for every direction; a strength at which one has no usable point is left
    out. Raises `ValueError` for fewer than two such strengths. Source: Searle, Casella & McCulloch 1992, ch. 4.
    """
    common = sweep.usable.all(0)
    n = int(common.sum())
    _require(n > 1, "directions must share two strengths with text", str(n), "Give all the same strengths.")
    weights, refused = prompt_weights(sweep, n_draws, seed), sweep.refused[:, common].double()
    values = torch.stack([_shares(refused, draw) for draw in weights])
    low, high = (values[1:].quantile(q, dim=0) for q in ((1 - level) / 2, (1 + level) / 2))
    index = pd.Index(["strength", "direction given strength"], name="explained by")
    return pd.DataFrame({"share": values[0], "low": low, "high": high}, index=index)


def _shares(
    refused: Float[Tensor, "direction coefficient prompt"], weights: Float[Tensor, " prompt"]
) -> Float[Tensor, "2"]:
    n_directions, n = len(refused), weights.sum()
    share = weights / n
    total = refused.flatten(0, 1) @ share
    total = total.mean() * (1 - total.mean())
    cells = refused @ share
    by_prompt = refused.mean(0)
    residual = refused - cells[..., None] - by_prompt + cells.mean(0)[:, None]
    noise = (residual.square() * weights).sum((0, 2)) / ((n_directions - 1) * (n - 1))
    by_direction = (cells.var(0, correction=1) - noise / n).clamp(min=0).mean()
    strength = cells.mean(0).var(correction=0)
    return torch.stack([strength, by_direction]) / total.clamp(min=1e-12)


def as_sweep(
    rows: pd.DataFrame,
    directions: Sequence[str],
    coefficients: Sequence[float] | Mapping[str, Sequence[float]],
    max_degenerate: float = 0.1,
) -> Sweep:
    """The sweep in `rows` (columns id, harmful, direction, coefficient, outcome, and bucket if any), for these directions and strengths.

    `coefficients` are the same for all, or given per direction: what was not asked of one is no point of its curve.
    Where `rows` has responses at coefficient 0, under whatever direction, they are the first point of every direction:
    unsteered is unsteered. Broken text is not a refusal; a point with more than `max_degenerate` of it is not used.
    Raises `ValueError` where a direction lacks a strength or a prompt, or has no usable point.
    """
    given = coefficients if isinstance(coefficients, Mapping) else dict.fromkeys(directions, coefficients)
    asked = [(name, float(each)) for name in directions for each in given[name]]
    rows = rows.assign(coefficient=rows["coefficient"].astype(float))
    wanted = rows[pd.MultiIndex.from_frame(rows[["direction", "coefficient"]]).isin(asked)]
    unsteered = rows[(rows["coefficient"] == 0) & rows["id"].isin(wanted["id"])].drop_duplicates("id")
    if len(unsteered):
        asked = [*((name, 0.0) for name in directions), *asked]
        start = [unsteered.assign(direction=name) for name in directions]
        wanted = pd.concat([*start, wanted[wanted["coefficient"] != 0]])
    levels = list(dict.fromkeys(level for _, level in asked))
    table = wanted.pivot(index=["direction", "coefficient"], columns="id", values="outcome")
    table = table.reindex(pd.MultiIndex.from_product([directions, levels]))
    empty = table.isna().any(axis=1).to_numpy()
    missing = list(table.index[empty & table.index.isin(asked)][:3])
    _require(not missing, "every direction needs every strength and prompt", f"gaps at {missing}", "Run it.")
    outcomes = table.to_numpy(dtype=object).reshape(len(directions), len(levels), -1)
    prompts = wanted.drop_duplicates("id").set_index("id").reindex(table.columns)
    harmful = prompts["harmful"].to_numpy(dtype=bool)
    stratum = pd.factorize(prompts["bucket"])[0] if "bucket" in prompts else harmful.astype(int)
    usable = ((outcomes == "broken").mean(-1) <= max_degenerate) & ~empty.reshape(len(directions), -1)
    labels = (torch.tensor(harmful), torch.tensor(stratum), tuple(directions), torch.tensor(usable))
    return Sweep(torch.tensor(outcomes == "refused"), *labels, tuple(levels))


def _require(holds: bool, must: str, got: str, todo: str) -> None:
    if not holds:
        raise ValueError(f"Sweep: {must}; got {got}. {todo}")
