"""Which latents fire on refused and on answered prompts, and how well firing tells the two apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import require, require_known
from ..plotting.look import LINE_LOOK, label
from .sae import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class Firing:
    """Whether each latent fires at the decision state of each prompt, by side.

    `answered`: the side that the others are compared with.
    """

    fires: dict[str, Bool[Tensor, "prompt latent"]] = field(repr=False)
    answered: str

    @property
    def names(self) -> list[str]:
        """The sides but the answered one."""
        return [name for name in self.fires if name != self.answered]

    def rates(self, name: str) -> Float[Tensor, " latent"]:
        """The share of a side's prompts on which each latent fires."""
        return self.fires[name].sum(0) / len(self.fires[name])

    def separation(self, name: str) -> Float[Tensor, " latent"]:
        """The rate on a side minus that on the answered side. Source: Joad et al. 2602.02132, section 5."""
        return self.rates(name) - self.rates(self.answered)

    def top(self, name: str, k: int) -> list[int]:
        """The at most `k` latents of the largest positive separation, best first; of equal ones the lower number."""
        separation = self.separation(name)
        best = separation.sort(descending=True, stable=True).indices[:k]
        return best[separation[best] > 0].tolist()

    def filled(self, sizes: Sequence[int]) -> pd.DataFrame:
        """By length of lists: latents in all of them if they are filled up, and how many of these never fire.

        Lists without a condition on the separation go on with latents that do not tell the sides apart. Of equal ones
        the lowest numbers are taken, so all lists are filled with the same latents. The authors' release of Joad et al.
        2602.02132 makes its lists of 1,000 in this way.
        """
        order = [self.separation(name).sort(descending=True, stable=True).indices for name in self.names]
        fires, rows = torch.cat([*self.fires.values()]).any(0), {}
        for k in sizes:
            counts = torch.bincount(torch.cat([each[:k] for each in order]), minlength=len(fires))
            shared = counts == len(order)
            rows[k] = {"in all lists": int(shared.sum()), "of these never fire": int((shared & ~fires).sum())}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("K")

    def table(self) -> pd.DataFrame:
        """By side: prompts, latents that fire at a time (L0), that ever fire, and the largest separation."""
        rows = {}
        for name, fires in self.fires.items():
            most = float("nan") if name == self.answered else float(self.separation(name).max())
            l0, ever = float(fires.sum(1).float().mean()), int(fires.any(0).sum())
            rows[name] = {"prompts": len(fires), "L0": l0, "ever fire": ever, "largest separation": most}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("side")

    def figure(self, k: int = 100) -> go.Figure:
        """The separation of each side's `k` best latents, in order."""
        sorted_ = {label(name): self.separation(name).sort(descending=True).values[:k] for name in self.names}
        rows = pd.DataFrame({name: values.tolist() for name, values in sorted_.items()})
        long = rows.rename_axis("rank").reset_index().melt("rank", var_name="category", value_name="separation")
        title = "Sparse-autoencoder latents by how well their firing tells refused from answered prompts"
        how: dict[str, Any] = {**LINE_LOOK, "title": title, "log_x": True, "line_dash": "category"}
        how.pop("symbol_map")
        return px.line(long.assign(rank=long["rank"] + 1), x="rank", y="separation", color="category", **how)


def latent_firing(
    sae: SparseAutoencoder,
    sides: Mapping[str, Float[Tensor, "_ d_model"]],
    *,
    answered: str = "benign",
    n_batch: int = 512,
) -> Firing:
    """The latents that fire at the states of each side, `n_batch` states at a time.

    The states must be of the stream that the SAE reads (`SparseAutoencoder.require_place`). Raises `ValueError` for an
    `answered` side that is missing or alone, for a side without states, and for states of another width or not finite.
    """
    require_known("latent_firing", "answered", answered, sides)
    require(len(sides) > 1, "latent_firing", "another side is needed", str([*sides]), "Pass the refused prompts too.")
    fires = {}
    for name, states in sides.items():
        require(len(states) > 0, "latent_firing", "every side needs states", f"none for {name}", "Leave it out.")
        finite, todo = bool(torch.isfinite(states).all()), "Capture them again."
        require(finite, "latent_firing", "states must be finite", f"NaN or infinity in {name}", todo)
        fires[name] = torch.cat([sae.fires(batch).cpu() for batch in states.split(n_batch)])
    return Firing(fires, answered)
