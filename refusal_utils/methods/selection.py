"""The outcome of a choice among candidate directions: scores, filters, the best, and what nearly passed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..directions import DirectionSet, Provenance
from ..model.artifacts import load_kept, load_rows, model_notes, require_same_model, save_rows
from ..model.batching import count_rows
from ..model.chat_model import ChatModel
from ..model.store import content_key, one_at_a_time
from ..plotting.look import HEIGHT, WIDTH
from .candidates import Candidates
from .method import POOLED

DEPTH, MAX_KL = 0.8, 0.1  # candidates lie below this share of the layers and cost less than this
UNUSABLE = ("layer 0", "no difference", "not finite")  # filters that are never relaxed


@dataclass(frozen=True, eq=False)
class Selection:
    """Every candidate with its scores and the filters that killed it, and the raw difference of the best.

    `rows` has columns layer, pos, scores, kl, norm (of the difference), miss and killed by (filters joined by commas,
    "" for a survivor). `objective`: the score that decides; `lowest`: whether the lowest wins. `notes`: counts and
    tokens.
    """

    name: str
    rows: pd.DataFrame = field(repr=False)
    objective: str
    lowest: bool
    difference: Float[Tensor, " d_model"] = field(repr=False)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """A row per candidate: survivors first, the best of them on top; then those that were killed, nearest first.

        A candidate is nearer if a filter that is never relaxed (layer 0, no difference, not finite) or the depth did
        not kill it, then by `miss`: how far the other limits would have to be relaxed for it, KL in shares of its
        limit.
        """
        return _ranked(self.rows, self.objective, self.lowest).drop(columns="miss")

    @property
    def survivors(self) -> pd.DataFrame:
        """The rows of `table` that passed all filters."""
        table = self.table()
        return table[table["killed by"] == ""]

    def filters(self) -> pd.DataFrame:
        """How many candidates each filter killed, and how many of them no other filter killed."""
        killed = self.rows["killed by"].str.split(", ")
        named = killed.explode()
        alone = killed[killed.str.len() == 1].explode()
        counts = {"killed": named[named != ""].value_counts(), "alone": alone[alone != ""].value_counts()}
        return pd.DataFrame(counts).fillna(0).astype(int).rename_axis("filter").sort_values("killed", ascending=False)

    @property
    def scores(self) -> list[str]:
        """The columns of `rows` that score a candidate."""
        return [name for name in self.rows if name not in ("layer", "pos", "norm", "miss", "killed by")]

    @property
    def best(self) -> tuple[int, int]:
        """(layer, pos) of the first row of the table: the best survivor, or else the candidate that nearly passed."""
        layer, pos = self.table().loc[0, ["layer", "pos"]]
        return int(layer), int(pos)

    @property
    def source(self) -> str:
        """The origin of the choice in words, for `ChatModel.decision_source`."""
        best, n = self.table().iloc[0], len(self.survivors)
        told = f"{self.name}, {self.objective} {best[self.objective]:.2f}, KL {best['kl']:.2g}"
        if n:
            return f"{told}, best of {n} survivors among {len(self.rows)} candidates"
        return f"{told}: nearest of {len(self.rows)} candidates, none of which passed ({self._killers()})"

    def _killers(self) -> str:
        return ", ".join(f"{name} killed {n}" for name, n in self.filters()["killed"].items())

    def figure(self) -> go.Figure:
        """Each score over the layers, a line per position, with a star at the best; open circles were killed."""
        shown = [name for name in self.scores if name != "total"]
        kept = self.rows.assign(position=self.rows["pos"].astype(str), survives=self.rows["killed by"] == "")
        by = ["layer", "position", "survives", "killed by"]
        long = kept.melt(by, shown, "score", "value").astype({"value": "float64"}).round({"value": 5})
        title = f"{self.name}: scores of the direction read at each place (resid_pre)"
        figure = px.line(
            long, x="layer", y="value", color="position", facet_col="score", facet_col_spacing=0.06, title=title,
            hover_data=["killed by"], markers=True, template="refusal", width=WIDTH, height=HEIGHT,
        )  # fmt: skip
        figure.for_each_annotation(lambda each: each.update(text=each.text.removeprefix("score=")))
        figure.update_yaxes(matches=None, showticklabels=True, title="")
        alive = dict(zip(zip(kept["position"], kept["layer"], strict=True), kept["survives"], strict=True))
        for trace in figure.data:
            trace.marker.symbol = ["circle" if alive[trace.name, layer] else "circle-open" for layer in trace.x]
        layer, pos = self.best
        best = self.rows[(self.rows["layer"] == layer) & (self.rows["pos"] == pos)]
        for column, name in enumerate(shown, 1):
            star = {"symbol": "star", "size": 16, "color": "#222222"}
            figure.add_scatter(
                x=[layer], y=[float(best[name].iloc[0])], mode="markers", marker=star, row=1, col=column,
                name="chosen", showlegend=column == 1,
            )  # fmt: skip
        return figure

    def directions(self, place: Provenance, **settings: Any) -> DirectionSet:
        """The chosen direction, called "refusal"; its gap is the norm of the difference of means.

        The settings record the seconds and the prompts run through the model that the choice took.
        """
        layer, pos = self.best
        told = {**settings, "norms": [float(self.difference.norm())], "reads": "resid_pre", "choice": self.source}
        row = self.table().iloc[0]
        told["scores"] = {name: float(row[name]) for name in self.scores}
        told |= {name: self.notes[name] for name in ("seconds", "passes") if name in self.notes}
        where = replace(place, layer=layer, pos=pos, settings=told)
        unit = self.difference / self.difference.norm()
        return DirectionSet((POOLED,), unit[None], self.difference.norm()[None], where)


def choose(
    name: str,
    candidates: Candidates,
    scores: pd.DataFrame,
    limits: Mapping[str, pd.Series],
    miss: pd.Series,
    *,
    objective: str,
    lowest: bool,
    depth: float,
    notes: Mapping[str, Any],
) -> Selection:
    """The selection from `scores` (columns layer, pos, scores, kl, in the order of `Candidates.places`).

    `limits` maps a filter to the candidates that it kills, in addition to layer 0, coincident means, values that are
    not finite, and the layers from the share `depth` on. `miss`: how far other limits were missed. Raises `ValueError`
    if no candidate can be used at all.
    """
    layers = scores["layer"]
    deepest = int(depth * len(candidates.layers))
    has_difference = pd.Series(candidates.has_difference.tolist(), scores.index)
    elsewhere = pd.concat([layers >= deepest, *limits.values()], axis=1).any(axis=1)  # these need not be measured
    is_finite = scores[[objective, "kl"]].apply(lambda each: each.abs() < float("inf")).all(axis=1)
    filters = {
        "layer 0": layers == 0,
        "no difference": ~has_difference,
        "not finite": has_difference & ~is_finite & ~elsewhere & (layers > 0),
        f"layer >= {deepest}": layers >= deepest,
        **limits,
    }
    killed = [", ".join(key for key, mask in filters.items() if mask[index]) for index in scores.index]
    norms = candidates.differences.norm(dim=-1).flatten().tolist()
    rows = scores.assign(norm=norms, miss=miss.clip(lower=0).fillna(float("inf")), **{"killed by": killed})
    first = _ranked(rows, objective, lowest).iloc[0]
    counts = ", ".join(f"{key} killed {int(mask.sum())}" for key, mask in filters.items() if mask.any())
    usable = not any(each in first["killed by"].split(", ") for each in UNUSABLE)
    must, todo = "at least one candidate must be usable", "Use a deeper model, other prompts, or float32."
    require(usable, name, must, f"none of {len(rows)}: {counts}", todo)
    difference = candidates.at(int(first["layer"]), int(first["pos"]))[0]
    return Selection(name, rows, objective, lowest, difference, notes)


def kept_selection(
    chat: ChatModel, cache_dir: str | Path | None, name: str, asked: Sequence[Any], select: Callable[[], Selection]
) -> Selection:
    """The selection that `select` returns, or the one that an earlier call with the same `asked` kept in `cache_dir`.

    Its notes tell the seconds that it took and the prompts that it ran. A message is printed if no candidate passed all
    filters.
    """
    key = content_key(chat.fingerprint, name, *asked)
    path = None if cache_dir is None else Path(cache_dir) / f"selection_{key}.jsonl.gz"
    with one_at_a_time(cache_dir, key):
        if (found := load_kept(partial(_load, chat), path)) is None:
            found = _timed(select)
            told = {each: getattr(found, each) for each in ("name", "objective", "lowest")}
            kept = {"difference": found.difference.tolist(), "selection": dict(found.notes)}
            if path is not None:
                save_rows(path, found.rows, {**model_notes(chat), **told, **kept})
    if found.survivors.empty:
        print(f"No candidate passed all filters: {found.source}")
    return found


def _timed(select: Callable[[], Selection]) -> Selection:
    began = time.perf_counter()
    with count_rows() as ran:
        made = select()
    return replace(made, notes={**made.notes, "seconds": time.perf_counter() - began, "passes": ran.rows})


def _load(chat: ChatModel, path: Path) -> Selection:
    rows, notes = load_rows(path)
    require_same_model("kept_selection", notes, chat)
    scores = [name for name in rows if name != "killed by"]
    rows = rows.astype(dict.fromkeys(scores, float) | {"layer": int, "pos": int})
    rows["miss"] = rows["miss"].fillna(float("inf"))  # JSON has no infinity
    difference = torch.tensor(notes["difference"])
    return Selection(notes["name"], rows, notes["objective"], notes["lowest"], difference, notes["selection"])


def _ranked(rows: pd.DataFrame, objective: str, lowest: bool) -> pd.DataFrame:
    killed = rows["killed by"].str.split(", ")
    unusable = killed.map(lambda names: any(name in UNUSABLE for name in names))
    deep = killed.map(lambda names: any(name.startswith("layer >=") for name in names))
    keys = pd.DataFrame({"dead": rows["killed by"] != "", "unusable": unusable, "deep": deep, "miss": rows["miss"]})
    keys["objective"] = rows[objective] if lowest else -rows[objective]
    order = keys.sort_values(list(keys), kind="stable").index
    return rows.loc[order].reset_index(drop=True)
