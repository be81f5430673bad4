"""How many latents a refusal direction is made of: rebuilt from a few rows of the decoder, and alignment by prompt."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from sklearn.linear_model import orthogonal_mp
from torch import Tensor

from ..checks import require, require_known
from ..directions import DirectionSet, normalize
from ..plotting.look import HEIGHT, WIDTH
from .firing import Firing
from .sae import SparseAutoencoder

SIZES = (1, 2, 4, 8, 16, 32, 64)
PURSUIT, SEPARATION, MEAN = "matching pursuit", "best separation, fitted", "best separation, mean row"
RANDOM_PURSUIT, RANDOM_FIT = "matching pursuit, random dictionary", "random latents, fitted"


@dataclass(frozen=True, eq=False)
class Rebuilding:
    """The cosine of each direction with what a number of latents can rebuild of it.

    `rows`: direction, how (how the latents were chosen and combined), latents (how many) and cosine.
    """

    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """The mean cosine over the directions, by how (rows) and number of latents (columns)."""
        return self.rows.pivot_table(index="how", columns="latents", values="cosine", sort=False)

    def figure(self) -> go.Figure:
        """The mean cosine over the directions against the number of latents."""
        mean = self.rows.groupby(["how", "latents"], sort=False)["cosine"].mean().reset_index()
        title = "Refusal directions rebuilt from a few latents (mean cosine over directions)"
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT, "log_x": True}
        figure = px.line(mean, x="latents", y="cosine", color="how", markers=True, **how)
        return figure.update_xaxes(tickvals=mean["latents"].unique())


def rebuild_directions(
    sae: SparseAutoencoder, directions: DirectionSet, firing: Firing, *, sizes: Sequence[int] = SIZES, seed: int = 0
) -> Rebuilding:
    """The directions rebuilt from k rows of the decoder, for k in `sizes`, in five ways.

    *Matching pursuit* adds the row that explains most of what is left, and fits all rows again (orthogonal matching
    pursuit); it need not choose latents that have to do with refusing, so a *random dictionary* of as many unit rows is
    its control. *Best separation* takes the k latents whose firing tells that category best from answered prompts:
    fitted, or their mean row, which is the paper's direction; *random latents* are the control of the fit. A direction
    whose list has fewer than k latents uses those.

    Raises `ValueError` for directions of another place than the SAE's, for a direction that `firing` has no side of,
    and for a size below 1 or above the width.
    """
    function = "rebuild_directions"
    sae.require_place(function, directions.provenance.layer, directions.provenance.hook)
    for name in directions:
        require_known(function, "a direction", name, firing.names, "Pass the states of its prompts to latent_firing.")
    fit = all(1 <= size <= sae.d_model for size in sizes) and len(sizes) > 0
    require(fit, function, f"sizes must be from 1 to {sae.d_model}", list(sizes), "Choose others.")
    generator = torch.Generator().manual_seed(seed)
    targets = directions.vectors.float()
    noise = normalize(torch.randn(sae.w_dec.shape, generator=generator))
    found = {PURSUIT: _pursued(sae.w_dec.float(), targets, sizes), RANDOM_PURSUIT: _pursued(noise, targets, sizes)}
    lists = [firing.top(name, max(sizes)) for name in directions]
    drawn = [torch.randperm(sae.n_latents, generator=generator)[: max(sizes)].tolist() for _ in directions]
    for how, chosen in {SEPARATION: lists, RANDOM_FIT: drawn}.items():
        found[how] = [[_fitted(sae.w_dec, each[:k], v) for k in sizes] for each, v in zip(chosen, targets, strict=True)]
    found[MEAN] = [
        [float(sae.direction(each[:k]) @ v) if each else 0.0 for k in sizes]
        for each, v in zip(lists, targets, strict=True)
    ]
    rows = [
        {"direction": name, "how": how, "latents": size, "cosine": cosine}
        for how, cosines in found.items()
        for name, own in zip(directions, cosines, strict=True)
        for size, cosine in zip(sizes, own, strict=True)
    ]
    return Rebuilding(pd.DataFrame(rows))


def latent_alignment(
    sae: SparseAutoencoder,
    states: Float[Tensor, "prompt d_model"],
    latents: Sequence[int],
    direction: Float[Tensor, " d_model"],
) -> Float[Tensor, " prompt"]:
    """By prompt, the cosine of a direction with what the chosen latents write at its state; NaN if none of them fires.

    Source: Joad et al. 2602.02132, Table 4 (mean and standard deviation over prompts). Raises as `encode` does.
    """
    which = [int(each) for each in latents]
    written = sae.encode(states)[:, which].float() @ sae.w_dec[which].float()
    norms = written.norm(dim=-1)
    return torch.where(norms > 0, written @ direction.float() / norms, torch.nan) / direction.float().norm()


def _pursued(rows: Tensor, targets: Tensor, sizes: Sequence[int]) -> list[list[float]]:
    """Cosines of orthogonal matching pursuit of each target at each size."""
    units = normalize(rows).double().numpy()
    found = []
    for target in targets.double().numpy():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # it ends early once the target is rebuilt exactly
            path = orthogonal_mp(units.T, target, n_nonzero_coefs=max(sizes), return_path=True, precompute=False)
        path = path[:, None] if path.ndim == 1 else path
        fits = [path[:, min(size, path.shape[1]) - 1] @ units for size in sizes]
        found.append([float(fit @ target / (np.linalg.norm(fit) * np.linalg.norm(target))) for fit in fits])
    return found


def _fitted(rows: Tensor, chosen: Sequence[int], target: Tensor) -> float:
    """The cosine of a unit target with its projection onto the span of some rows."""
    if not chosen:
        return 0.0
    basis = torch.linalg.svd(rows[list(chosen)].double(), full_matrices=False)
    kept = basis.Vh[1e-9 * basis.S.max() < basis.S]
    return float((kept @ target.double()).norm() / target.double().norm())
