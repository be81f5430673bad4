"""The entry point: a study of one model on one set of prompts, with its draw and its folders for figures and caches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from .checks import did_you_mean, require, require_types
from .directions.direction_set import DirectionSet, Provenance
from .geometry.labelled import Labelled
from .methods import Selection, named_method, select_place
from .model.artifacts import model_notes, note_seed
from .model.capture import Activations, capture_activations, profile_places
from .model.chat_model import BUNDLED, ChatModel, load_chat_model
from .model.defaults import NOT_PUBLISHED
from .model.loading import is_plain
from .model.names import cache_key, claim_folder, model_folder
from .model.setup import check_types
from .model.sources import origin, require_model
from .paper.tables import published_pool_rows
from .plotting.saving import save_figure, save_table
from .prompts.categories import ALL_CATEGORIES, BENIGN
from .prompts.draws import DRAW_COLUMNS, confidence_by_category, draw_digest, draw_prompts, held_out, read_draw
from .prompts.loading import load_prompts
from .prompts.text_features import varying_form
from .steering.places import PlaceEffects, place_by_effect
from .steering.responses import respond


@dataclass(frozen=True, eq=False)
class Study:
    """A model, its prompts and its draw, loaded when first used; see `open_study`."""

    model: str
    source: str
    figures_dir: Path
    cache_dir: Path
    seed: int
    loading: dict[str, Any]
    _captured: dict[Any, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def chat(self) -> ChatModel:
        """The chat model; loading it prints one line that describes it."""
        chat = self._placed[0]
        print(chat.describe())
        return chat

    @cached_property
    def places(self) -> PlaceEffects | Selection | None:
        """The effects that the decision state was chosen by; None if it was given, recorded or published."""
        return self._placed[1]

    @cached_property
    def _placed(self) -> tuple[ChatModel, PlaceEffects | Selection | None]:
        layer, pos = self.loading.get("layer"), self.loading.get("pos")
        asked = layer in ("causal", "select")
        chat = load_chat_model(self.model, **{**self.loading, "layer": None if asked else layer})
        if not (asked or chat.decision_source.startswith(NOT_PUBLISHED)):  # a given layer or pos comes first there
            return chat, None
        choose = select_place if layer == "select" else partial(place_by_effect, required=asked)
        return choose(chat, self.prompts, pos=pos, cache_dir=self.cache_dir)

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """All prompts of the source, with the columns of `load_prompts`."""
        return load_prompts(source=self.source, cache_dir=self.cache_dir)

    @property
    def folder(self) -> Path:
        """The folder of this model's figures and tables: `<figures_dir>/<model>`, see `model_folder`."""
        return model_folder(self.model, self.figures_dir)

    def cache_file(self, name: str) -> Path:
        """The file that keeps rows of this model between notebooks: `<cache_dir>/<name>_<model>.jsonl.gz`."""
        return self.cache_dir / f"{name}_{cache_key(self.model)}.jsonl.gz"

    def with_model(self, model: str, **loading: Any) -> "Study":
        """A study of another model, or of this one loaded otherwise, with this one's draw and remaining options."""
        other = replace(self, model=model, loading={**self.loading, **loading}, _captured={})
        vars(other)["draw"] = self.draw
        return other

    @property
    def is_reference(self) -> bool:
        """Whether this is the bundled model as it comes, in float32, on the built-in prompts: its numbers are known."""
        return (self.model, self.source) == (BUNDLED, "builtin") and is_plain(**self.loading)

    @property
    def place(self) -> str:
        """The decision layer and position, for axis titles: `resid_pre, layer 6, pos -2`."""
        return f"resid_pre, layer {self.chat.decision_layer}, pos {self.chat.decision_pos}"

    @cached_property
    def draw(self) -> pd.DataFrame:
        """The prompts that directions are estimated from. Raises `ValueError` if notebook 01 has not written them."""
        return read_draw(self.folder / "01_draw.csv", self.prompts, self.source)

    def make_draw(
        self, select_by: str = "label", n: int = 32, *, over_refusal: str = "unsafe", **responding: Any
    ) -> pd.DataFrame:
        """Draw `n` prompts of every category and `n` benign ones, and write them to `01_draw.csv`, which `.draw` reads.

        `select_by` and `over_refusal` are those of `draw_prompts`. `n` is at most the smallest category's size, and 32
        unless selected by label. Only a selection by behaviour loads the model (`responding`: options of `respond`).
        Prompts are from the train split, or from both if neither built in nor selected by label.
        """
        rows = self.prompts[(self.prompts["split"] == "train") | (select_by != "label" and self.source != "builtin")]
        most = min(n if select_by == "label" else min(n, 32), int(rows.groupby("category").size().min()))
        how: dict[str, Any] = {"outcome_of": lambda asked: self.respond(asked, **responding)["outcome"]}
        how |= {"seed": self.seed, "over_refusal": over_refusal, "published": published_pool_rows()}
        draw = draw_prompts(rows, select_by, most, **how).assign(prompts=self.source)
        require_model(self.model)  # a draw by label loads no model, and a misspelt one should leave no folder
        path = note_seed(claim_folder(self.model, self.figures_dir), "01_draw.csv", self.seed)
        draw[[*DRAW_COLUMNS, "over_refusal", "prompts"]].to_csv(path, index=False)
        vars(self).pop("draw", None)  # so that `.draw` reads the new file
        return draw

    def rate_draw(self, confidence: Sequence[float] | pd.Series) -> None:
        """Keep in `01_draw.csv` how consistently each drawn prompt is refused, as `refusal_confidence` finds it."""
        self.draw["confidence"] = list(confidence)
        self.draw.drop(columns="text").to_csv(self.folder / "01_draw.csv", index=False)

    def confidence(self) -> dict[str, Float[Tensor, " _"]] | None:
        """The confidence of the drawn prompts by category; None before `rate_draw`."""
        rated = confidence_by_category(self.draw)
        return None if rated is None else {name: Tensor(values) for name, values in rated.items()}

    def held_out(self, n: int | None = None) -> pd.DataFrame:
        """The prompts that no direction was estimated from, or `n` random ones of each kind."""
        rows = held_out(self.prompts, self.draw)
        return rows if n is None else rows.sample(frac=1, random_state=self.seed).groupby("kind").head(n).sort_index()

    def unsteered(self, max_new_tokens: int = 50, n: int | None = None, **options: Any) -> pd.DataFrame:
        """The judged responses of the unsteered model to `held_out(n)`, cached; `options` as in `respond`."""
        return self.respond(self.held_out(n), max_new_tokens=max_new_tokens, **options)

    def widened(self, n_prompts: int) -> pd.DataFrame:
        """The draw; one by label is topped up with prompts of its kinds if a category has fewer than `n_prompts`."""
        if set(self.draw["selection"]) != {"label"}:
            return self.draw  # what the model does with other prompts is unknown
        kinds = self.prompts.set_index("id").loc[self.draw["id"], "kind"]
        others = self.held_out().sample(frac=1, random_state=self.seed)
        n_missing = max(0, n_prompts - int(self.draw["category"].value_counts().min()))
        spare = others[others["kind"].isin(kinds)].groupby("category").head(n_missing)
        return pd.concat([self.draw, spare], ignore_index=True)

    def capture(self, texts: Sequence[str], **options: Any) -> Activations:
        """Activations of `texts`, by default at a profile's places, cached; `options` as in `capture_activations`."""
        usual = {**profile_places(self.chat), "cache_dir": self.cache_dir, "progress": True}
        return capture_activations(self.chat, list(texts), **{**usual, **options})

    @property
    def activations(self) -> Activations:
        """The drawn prompts' activations at all layers and template positions, in the order of `draw`."""
        key = (self.chat.signature, draw_digest(self.draw))
        if key not in self._captured:  # edited, or another draw
            self._captured.clear()
            self._captured[key] = self.capture(list(self.draw["text"]))
        return self._captured[key]

    def states(
        self, category: str, layer: int | None = None, pos: int | None = None
    ) -> Float[Tensor, "prompt d_model"]:
        """The states of a category's drawn prompts, or of the benign ones. Raises `ValueError` if none were drawn."""
        refused, answered = self.sides(layer, pos)
        states = {**refused, BENIGN: answered}.get(category, answered[:0])
        todo = did_you_mean(category, ALL_CATEGORIES) or f"Use one of {', '.join(ALL_CATEGORIES)}."
        require(len(states) > 0, "Study.states", "the category must have been drawn", repr(category), todo)
        return states

    def labelled(self, prompts: pd.DataFrame) -> Labelled:
        """The activations of `prompts` (columns text and category) with their categories, at all captured places."""
        return Labelled(self.capture(list(prompts["text"])), tuple(prompts["category"]))

    @property
    def drawn(self) -> Labelled:
        """`activations` with the categories of the drawn prompts."""
        return Labelled(self.activations, tuple(self.draw["category"]))

    @cached_property
    def benign_form(self) -> pd.DataFrame:
        """The form of the drawn benign prompts: log of their number of tokens, and those `form_features` that vary."""
        texts = list(self.draw.loc[self.draw["category"] == BENIGN, "text"])
        return varying_form(texts, [len(ids) for ids in self.chat.encode(texts)])

    def sides(
        self, layer: int | None = None, pos: int | None = None
    ) -> tuple[dict[str, Float[Tensor, "_ d_model"]], Float[Tensor, "answered_prompt d_model"]]:
        """(states of the refused prompts by category, of the benign prompts), by default at the decision place."""
        own_layer, own_pos = self.chat.decision_layer, self.chat.decision_pos
        return self.drawn.sides(own_layer if layer is None else layer, own_pos if pos is None else pos)

    @property
    def directions(self) -> DirectionSet:
        """The eleven directions of this draw at the decision layer and position: differences in means."""
        return self.directions_at(self.chat.decision_layer, self.chat.decision_pos)

    def directions_at(self, layer: int, pos: int, method: str = "difference_in_means", **options: Any) -> DirectionSet:
        """The directions of this draw at any layer and position, by any of `methods.METHODS` with its `options`."""
        return named_method(method).fit(self, layer=layer, pos=pos, **options)

    def provenance(self, layer: int | None = None, pos: int | None = None) -> Provenance:
        """Where the states of `sides(layer, pos)` come from."""
        layer = self.chat.decision_layer if layer is None else layer
        pos = self.chat.decision_pos if pos is None else pos
        return Provenance(layer, pos, draw=draw_digest(self.draw), model=model_notes(self.chat))

    def respond(self, prompts: pd.DataFrame, **options: Any) -> pd.DataFrame:
        """The judged responses of the unsteered model to `prompts`, cached; `options` as in `respond`."""
        return respond(self.chat, prompts, **{"cache_dir": self.cache_dir, "progress": True, **options})

    def save(self, figure: go.Figure, name: str, table: pd.DataFrame | None = None, note: str = "") -> go.Figure:
        """The figure, written as HTML (and PNG if Chrome is present), with its table as CSV; `note` is a subtitle."""
        figure.update_layout({"title_subtitle_text": note} if note else {})
        save_figure(figure, name, self.model, table, self.figures_dir, origin(self.model), self.seed)
        return figure

    def save_table(self, table: pd.DataFrame | Mapping[str, float], name: str) -> pd.DataFrame:
        """Write a table, or single numbers called by what they measure, as `<name>.csv` next to the figures."""
        return save_table(table, name, self.model, self.figures_dir, seed=self.seed)


def open_study(
    model: str | Path = BUNDLED,
    *,
    prompts: str | Path = "builtin",
    figures_dir: str | Path = "figures",
    cache_dir: str | Path = ".cache",
    seed: int = 0,
    **loading: Any,
) -> Study:
    """A study of `model` on `prompts`: `.chat`, `.prompts`, `.draw`, `.states("advice")`, `.directions`, `.save(...)`.

    `prompts`: `"builtin"`, `"paper"`, a folder or a file (`load_prompts`). `loading`: options of `load_chat_model`,
    such as dtype, layer and pos. `layer="causal"` chooses layer and position (or the layer, for a given `pos`) by
    effect on train prompts, the default if none is known; `"select"` by first tokens. A wrong type raises `ValueError`.
    """
    check_types("open_study", loading, choices=("causal", "select"))
    require_types("open_study", (str, Path), model=model, prompts=prompts, figures_dir=figures_dir, cache_dir=cache_dir)
    require_types("open_study", (Integral,), seed=seed)
    return Study(str(model), str(prompts), Path(figures_dir), Path(cache_dir), seed, loading)
