"""The paper's steering vectors of latents, with their controls, and how they lie to the activation-space directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require, require_known
from ..directions import DirectionSet, normalize
from ..plotting.look import LOOK, label
from .firing import Firing
from .rebuilding import latent_alignment
from .sae import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class Alignment:
    """By prompt, the cosine of a category's direction with what its top latents write; NaN if none fires.

    `rows`: category and cosine.
    """

    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Mean and standard deviation over the prompts of each category, and the share without a firing latent."""
        by = self.rows.groupby("category", sort=False)["cosine"]
        silent = self.rows["cosine"].isna().groupby(self.rows["category"], sort=False).mean()
        return pd.DataFrame({"mean": by.mean(), "std": by.std(), "silent": silent})

    def figure(self) -> go.Figure:
        """The cosines of all prompts, by category."""
        shown = self.rows.assign(category=self.rows["category"].map(label))
        how: dict[str, Any] = {**LOOK, "title": "Alignment of top latents with each category's direction, by prompt"}
        return px.box(shown, x="category", y="cosine", color="category", **how).update_layout(showlegend=False)


def alignment(
    sae: SparseAutoencoder,
    sides: dict[str, Float[Tensor, "_ d_model"]],
    firing: Firing,
    directions: DirectionSet,
    k: int,
) -> Alignment:
    """The alignment of the `k` best latents of each category with its direction, at the states of its prompts.

    Source: Joad et al. 2602.02132, Table 4. Raises `ValueError` for directions of another place than the SAE's, and for
    a direction without a side.
    """
    sae.require_place("alignment", directions.provenance.layer, directions.provenance.hook)
    parts = []
    for name, vector in directions.items():
        require_known("alignment", "a direction", name, sides)
        cosines = latent_alignment(sae, sides[name], firing.top(name, k), vector)
        parts.append(pd.DataFrame({"category": name, "cosine": cosines.tolist()}))
    return Alignment(pd.concat(parts, ignore_index=True))


def sae_directions(
    sae: SparseAutoencoder, firing: Firing, directions: DirectionSet, k: int, n_random: int = 3, seed: int = 0
) -> DirectionSet:
    """The mean decoder row of each category's `k` best latents, with controls, as a set at the place of `directions`.

    Controls, `n_random` of each: the mean row of k random latents (`random latents 0`, ...), and random unit vectors
    (`random 0`, ...). A category without a list is left out. Gaps are those of `directions` along the vectors; controls
    have the mean gap. Source: Joad et al. 2602.02132, section 5. Raises `ValueError` for directions of another place.
    """
    function = "sae_directions"
    sae.require_place(function, directions.provenance.layer, directions.provenance.hook)
    lists = {name: each for name in directions if (each := firing.top(name, k))}
    require(bool(lists), function, "some latents must fire more on refused prompts", "none", "Use another SAE.")
    own = [sae.direction(each) for each in lists.values()]
    gaps = [directions.gap(name) * float(vector @ directions[name]) for name, vector in zip(lists, own, strict=True)]
    generator, n = torch.Generator().manual_seed(seed), min(k, sae.n_latents)
    drawn = [torch.randperm(sae.n_latents, generator=generator)[:n].tolist() for _ in range(n_random)]
    noise = normalize(torch.randn(n_random, sae.d_model, generator=generator))
    names = [f"{kind} {number}" for kind in ("random latents", "random") for number in range(n_random)]
    vectors = torch.stack([*own, *map(sae.direction, drawn), *noise])
    mean = float(directions.gaps.mean())
    place = replace(directions.provenance, estimator="sae_latents", settings={"k": k})
    return DirectionSet((*lists, *names), vectors, torch.tensor([*gaps, *[mean] * len(names)]), place)


def part_directions(
    sae: SparseAutoencoder, directions: DirectionSet, core: Sequence[int], tails: Mapping[str, Sequence[int]]
) -> DirectionSet:
    """The mean decoder row of the core, and that of each category's tail (`tail advice`), at the place of `directions`.

    Empty tails are left out; gaps are unknown. Raises `ValueError` for an empty core, and for directions of another
    place than the SAE's.
    """
    sae.require_place("part_directions", directions.provenance.layer, directions.provenance.hook)
    parts = {"core": core} | {f"tail {name}": each for name, each in tails.items() if each}
    vectors = torch.stack([sae.direction(each) for each in parts.values()])
    return DirectionSet(tuple(parts), vectors, torch.full((len(parts),), torch.nan), directions.provenance)


def kind(name: str) -> str:
    """The kind of a direction by its name.

    >>> kind("advice"), kind("core"), kind("tail advice"), kind("random latents 2"), kind("random 0")
    ('list', 'core', 'tail', 'random latents', 'random')
    """
    plain = name.rstrip("0123456789 ")
    return plain if plain.startswith(("core", "random")) else "tail" if plain.startswith("tail ") else "list"
