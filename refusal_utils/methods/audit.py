"""What an edit did to a model's refusal directions: which of them a checkpoint lost or moved, how far, at which layers.

Base and edited model read the same few prompts. A direction's gap is the distance between its two means; *lost* is the
share of it that the edited model no longer has along the base model's direction: 1 if the direction was removed, 0 if
nothing happened. Two nulls say how much is something: what the edit changed along random directions, and what another
draw of prompts would have changed.
"""

from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require, require_columns, require_types
from ..directions import random_directions
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel, load_chat_model
from ..model.setup import check_fixed, read_setup
from ..model.sources import find_source
from ..plotting.look import category_lines
from ..prompts.categories import BENIGN, CATEGORY_IDS
from ..prompts.loading import load_prompts
from ..stats import bootstrap_counts

_FUNCTION = "audit"
NULLS = ["random", "redraw"]
_ENCODES, _LIKE_BASE = "both models must have one tokenizer and template", "Use the base model's tokenizer for both."
FALSE_ALARMS = 0.05  # chance that any category of an edit without a target counts as changed, at one layer


@dataclass(frozen=True, eq=False)
class Audit:
    """The gaps of every category in two models; see `audit`.

    `by_layer` has a row per category and layer: lost (share of the gap), low and high (95 %, over prompts drawn for
    both models), cosine (of the edited with the base model's direction), and the nulls: what random directions and
    other prompts (redraw) lose at most, and redraw cosine. All are corrected for the noise of few prompts.
    `overlaps`: absolute cosines between the base model's directions at `layer`, where it is judged.
    """

    by_layer: pd.DataFrame = field(repr=False)
    overlaps: pd.DataFrame = field(repr=False)
    layer: int
    pos: int
    n_prompts: int
    names: tuple[str, str]

    def table(self) -> pd.DataFrame:
        """A row per category, most lost first: `by_layer` at `layer`, overlap, the layers that changed, and a verdict.

        A change of the gap counts if it exceeds both nulls: *removed* if its interval reaches 1, else *weakened*, or
        *strengthened*. *moved*: the gap is as before, and the cosine lower than other prompts make it. What happens
        to other categories with the most lost one is *shared* unless they lose more than their overlap by more than
        the nulls. The overlap is the absolute cosine of the two times the loss: the projection alone takes the
        squared cosine, and layers that read it take more. Else *unchanged*.
        """
        at = self.by_layer.xs(self.layer, level="layer").sort_values("lost", ascending=False, kind="stable")
        lost, changed, moved = at["lost"], _exceeds(at), at["cosine"] < at["redraw cosine"]
        first = lost.index[0] if changed.iloc[0] and lost.iloc[0] > 0 else None
        overlap = self.overlaps[first].reindex(at.index) * lost[first] if first else lost * 0
        within = lost <= overlap + at[NULLS].max(axis=1)
        shared = (changed | moved) & (lost > 0) & within & (overlap > 0) & (at.index != first)
        own = np.where(lost < 0, "strengthened", np.where(at["high"] >= 1, "removed", "weakened"))
        verdict = np.where(changed, own, np.where(moved, "moved", "unchanged"))
        verdict = np.where(shared, f"shared with {first}", verdict)
        layers = _exceeds(self.by_layer).groupby("category").apply(_numbers)
        return at.assign(overlap=overlap, layers=layers, verdict=verdict)

    @property
    def named(self) -> list[str]:
        """The categories whose own direction was removed, weakened or strengthened."""
        verdict = self.table()["verdict"]
        return list(verdict.index[verdict.isin(["removed", "weakened", "strengthened"])])

    def describe(self) -> str:
        """Two sentences: what was read, and which directions the edit named."""
        base, edited = self.names
        told = ", ".join(self.named) or "none"
        read = (
            f"{self.n_prompts} prompts of each category, resid_pre, position {self.pos}, judged at layer {self.layer}."
        )
        return f"{edited} against {base}: {read} Directions that changed by themselves: {told}."

    def figure(self, *, title: str) -> go.Figure:
        """The share lost by layer, a line per category."""
        lost = self.by_layer["lost"].unstack("category")[list(self.overlaps)]
        return category_lines(lost, title=title, x="layer", y=f"share of the gap lost, resid_pre, pos {self.pos}")


def audit(
    base: ChatModel | str | Path,
    edited: ChatModel | str | Path,
    prompts: pd.DataFrame | None = None,
    *,
    n_prompts: int = 16,
    layer: int | None = None,
    pos: int | None = None,
    n_draws: int = 1000,
    seed: int = 0,
) -> Audit:
    """Which refusal directions of the model `base` its copy `edited` lost or moved; each a loaded model or its name.

    `prompts` (columns category and text; by default the built-in ones for training): `n_prompts` of each category and
    of the benign ones are read at the template position `pos` of every layer but the first, by default that of the
    base model's decision state, whose layer is the one judged. Named models are loaded one after the other. Raises
    `ValueError` for models of another shape, tokenizer, template or precision, and for too few prompts.
    """
    rows = load_prompts(split="train") if prompts is None else prompts
    require_columns(_FUNCTION, rows, "category", "text")
    require_types(_FUNCTION, (Integral,), n_prompts=n_prompts, n_draws=n_draws, seed=seed)
    require_types(_FUNCTION, (Integral, type(None)), layer=layer, pos=pos)
    kinds = sorted({*rows["category"]})
    sides, todo = "there must be benign prompts and those of a category", "Add the others."
    require(BENIGN in kinds and {*kinds} & {*CATEGORY_IDS} != set(), _FUNCTION, sides, ", ".join(kinds), todo)
    n, todo = int(rows.groupby("category").size().min()), "Pass more prompts, or a smaller n_prompts."
    require(4 <= n_prompts <= n, _FUNCTION, f"prompts a side must be 4 to {n}", n_prompts, todo)
    require(n_draws >= 1, _FUNCTION, "n_draws must be at least 1", n_draws, "Leave it out.")
    n_layers = _check_models(base, edited, layer, pos)
    draw = rows.groupby("category").sample(n_prompts, random_state=seed)
    before = _read(base, draw, pos)
    after = _read(edited, draw, before.pos, before)
    layer = max(1, before.layer) if layer is None else layer
    found = {each: _compare(before, after, draw["category"], each, n_draws, seed) for each in range(1, n_layers)}
    by_layer = pd.concat({each: own for each, (own, _) in found.items()}, names=["layer"]).swaplevel()
    return Audit(by_layer, found[layer][1], layer, before.pos, n_prompts, (before.name, after.name))


def _check_models(
    base: ChatModel | str | Path, edited: ChatModel | str | Path, layer: int | None, pos: int | None
) -> int:
    """The number of layers. Raises `ValueError` for what is known to be wrong before any weights are loaded."""
    (shape, suffix), (other, ending) = map(_form, (base, edited))
    must, todo = "both models must have one shape (layers, width)", "Compare a model with a copy of itself."
    require(shape == other, _FUNCTION, must, f"{shape} and {other}", todo)
    require(suffix == ending, _FUNCTION, _ENCODES, "other tokens at the end of the template", _LIKE_BASE)
    last, todo = shape[0] - 1, "Choose another."
    require(layer is None or 1 <= layer <= last, _FUNCTION, f"the layer must be one of 1 to {last}", layer, todo)
    check_fixed(_FUNCTION, len(suffix), [] if pos is None else [pos])
    return shape[0]


def _form(model: ChatModel | str | Path) -> tuple[tuple[int, int], tuple[int, ...]]:
    """((layers, width), last tokens of the template) of a model; its weights are not loaded for that."""
    if isinstance(model, ChatModel):
        return (model.n_layers, model.d_model), model.suffix
    own = read_setup(str(model), find_source(model).place, None, None, None, None)
    return (own.config.num_hidden_layers, own.config.hidden_size), own.suffix


@dataclass(frozen=True, eq=False)
class _Reading:
    """What a model is, and its states of all prompts at one position."""

    name: str
    precision: str
    ids: list[list[int]]
    layer: int
    pos: int
    states: Float[Tensor, "prompt layer d_model"]


def _read(model: ChatModel | str | Path, draw: pd.DataFrame, pos: int | None, like: _Reading | None = None) -> _Reading:
    """The states of a model. Raises `ValueError` if it cannot be compared with the one read before."""
    chat = model if isinstance(model, ChatModel) else load_chat_model(model)
    ids, hf = chat.encode(list(draw["text"])), chat.bridge.original_model
    precision = f"{chat.dtype}, {chat.dequantized_from or _quantization(hf) or 'not quantized'}"
    pos = chat.decision_pos if pos is None else pos
    if like is not None:
        todo, got = "Load both alike: rounding would count as an edit.", f"{like.precision} and {precision}"
        require(precision == like.precision, _FUNCTION, "both models must have one precision", got, todo)
        differ = next((at for at, pair in enumerate(zip(ids, like.ids, strict=True)) if pair[0] != pair[1]), None)
        require(differ is None, _FUNCTION, _ENCODES, f"other tokens for prompt {differ}", _LIKE_BASE)
    states = capture_activations(chat, list(draw["text"]), positions=[pos]).values[:, :, 0].double()
    found = _Reading(chat.name, precision, ids, chat.decision_layer, pos, states)
    if chat is not model:
        chat.unload()
    return found


def _quantization(hf: Any) -> str:
    settings = getattr(hf.config, "quantization_config", None)
    return "" if settings is None else f"quantized ({type(settings).__name__})"


def _compare(
    before: _Reading, after: _Reading, labels: pd.Series, layer: int, n_draws: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(columns of `Audit.by_layer` by category, absolute cosines between the base model's directions) at one layer."""
    names = [name for name in CATEGORY_IDS if name in set(labels)]
    member = torch.stack([torch.tensor((labels == name).to_numpy()).double() for name in (*names, BENIGN)])
    means = member / member.sum(1, keepdim=True)
    once = means[:-1] - means[-1]  # a difference in means as weights of prompts
    x, y = before.states[:, layer], after.states[:, layer]
    inner = _products(x, x, member, once), _products(x, y, member, once), _products(y, y, member, once)
    (xx, noise_xx), (xy, noise_xy), (yy, _) = ((each.diagonal(), noise.diagonal()) for each, noise in inner)
    tail = FALSE_ALARMS / len(names)
    drawn, other = ((bootstrap_counts(member.argmax(0), n_draws, seed)[:, None] * once) @ each for each in (x, y))
    own, crossed, redrawn = (
        (drawn * each).sum(-1) - noise for each, noise in ((drawn, noise_xx), (other, noise_xy), (once @ x, noise_xx))
    )  # a draw has the noise of the data, and its own
    random = random_directions(n_draws, x.shape[1], (x - member.T @ (means @ x)).float(), seed).double()
    columns = {
        "lost": 1 - xy / xx,
        "low": (1 - (crossed - noise_xy) / (own - noise_xx)).quantile(0.025, 0),
        "high": (1 - (crossed - noise_xy) / (own - noise_xx)).quantile(0.975, 0),
        "cosine": (xy / (xx * yy).sqrt()).clamp(-1, 1),
        "random": ((once @ (x - y) @ random.T).abs() / xx.sqrt()[:, None]).quantile(1 - tail, 1),
        "redraw": (1 - redrawn / xx).abs().quantile(1 - tail, 0),
        "redraw cosine": (redrawn / (xx * (own - noise_xx)).sqrt()).quantile(tail, 0),
    }
    gram, sizes = inner[0][0], xx.sqrt()
    frame = pd.DataFrame({name: values.numpy() for name, values in columns.items()}, pd.Index(names, name="category"))
    return frame, pd.DataFrame((gram / sizes / sizes[:, None]).abs().numpy(), index=names, columns=names)


def _products(
    x: Tensor, y: Tensor, member: Tensor, once: Tensor
) -> tuple[Float[Tensor, "category category"], Float[Tensor, "category category"]]:
    """(inner products of the differences in means of two models without sampling noise, the noise that was taken off).

    The noise of a mean is the covariance of its prompts over their number; all categories share that of benign prompts.
    """
    n = member.sum(1)
    rest = [each - member.T @ (member @ each / n[:, None]) for each in (x, y)]
    noise = member @ (rest[0] * rest[1]).sum(1) / (n * (n - 1))
    shared = noise[:-1].diag() + noise[-1]
    return once @ x @ (once @ y).T - shared, shared


def _exceeds(rows: pd.DataFrame) -> pd.Series:
    """Whether the change of the gap exceeds both nulls."""
    return rows["lost"].abs() > rows[NULLS].max(axis=1)


def _numbers(changed: pd.Series) -> str:
    """The layers that changed, as text."""
    return " ".join(str(layer) for (_, layer), is_changed in changed.items() if is_changed)
