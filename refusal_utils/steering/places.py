"""A quick causal choice of the decision state: where does the refusal direction, read there, steer the model best?

At every second layer and every template position, the pooled direction of the content-policy prompts is read from
some train prompts, then ablated on others that the model refuses, and added on others that it answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch

from ..checks import require
from ..directions.direction_set import DirectionSet, Provenance
from ..model.artifacts import load_rows, model_notes, require_same_model, save_rows
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel, check_positions
from ..model.defaults import DEFAULT_POS
from ..model.store import content_key
from ..plotting.look import heatmap
from ..prompts.categories import BENIGN, CATEGORIES
from .conditions import Condition, ablation_condition, steering_condition
from .responses import respond

GAPS = (1.0, 2.0, 4.0)  # strengths of the additions
N_PROBE, N_AT_LEAST = 16, 4  # probes a side: wanted, and needed for a choice
N_ASKED, N_AT_ONCE = 96, 32  # prompts a side that are asked to find them
N_DIRECTION = 112  # prompts a side that directions are estimated from, at most
N_PLACES = 8  # places whose additions run together
N_TOKENS = 16  # of each response: enough for the judge to tell a refusal
COLUMNS = ["layer", "pos", "bypassed", "induced", "broken", "effect"]
POLICY = tuple(category.id for category in CATEGORIES if category.cluster == "content policy")


@dataclass(frozen=True, eq=False)
class PlaceEffects:
    """What the direction read at each candidate place does: a row per layer and position in `rows`; see `.table()`.

    `n_refused`, `n_answered`: how many probes there are a side. There are no rows if either is below 4.
    """

    rows: pd.DataFrame
    n_refused: int
    n_answered: int

    @property
    def are_measured(self) -> bool:
        """Whether there were probes enough."""
        return min(self.n_refused, self.n_answered) >= N_AT_LEAST

    def table(self) -> pd.DataFrame:
        """A row per candidate, best first: layer, pos, bypassed, induced, broken, effect, n_refused, n_answered.

        `bypassed`: the share of the refused probes that are answered, in text that is not broken, when the direction is
        ablated. `induced`: the share of the answered probes that are refused when it is added, averaged over the
        strengths, so that a place comes first if it needs less and if its text survives more. `broken`: the share of
        broken text, averaged over the ablation and the strengths. `effect`: the mean of `bypassed` and `induced`. Places
        with equal effects are ordered by less broken text, then the paper's position, then depth. Where even an
        `induced` of 1 would leave a place behind the best, additions are not tried: `induced` and `effect` are NaN.
        """
        effect = self.rows["effect"].fillna(self.rows["bypassed"] - 1)  # those without come last
        order = self.rows.assign(
            effect=effect, published=self.rows["pos"] == DEFAULT_POS, whole=-self.rows["broken"]
        ).round(9)
        order = order.sort_values(["effect", "whole", "published", "layer"], ascending=False, kind="stable")
        table = self.rows.loc[order.index].reset_index(drop=True)
        return table.assign(n_refused=self.n_refused, n_answered=self.n_answered)

    @property
    def best(self) -> tuple[int, int]:
        """(layer, pos) of the first row of the table. Raises `ValueError` if there were too few probes to measure it."""
        must = f"{N_AT_LEAST} train prompts must be refused and {N_AT_LEAST} answered for a causal choice of the place"
        got, todo = f"{self.n_refused} and {self.n_answered}", "Pass more train prompts, or give layer and pos."
        require(self.are_measured, "place_effects", must, got, todo)
        layer, pos = self.table().loc[0, ["layer", "pos"]]
        return int(layer), int(pos)

    @property
    def source(self) -> str:
        """The origin of the choice in words, for `ChatModel.decision_source`."""
        n = f"{self.n_refused} + {self.n_answered} train prompts"
        return f"causal choice on {n}, effect {self.rows['effect'].max():.2f}"

    def figure(self) -> go.Figure:
        """A map of the effects, layer by position; empty where additions were not tried."""
        shown = self.rows.pivot(index="layer", columns="pos", values="effect").rename_axis(columns="position")
        title = "Effect of ablating and adding the direction read at each place"
        figure = heatmap(shown, title=title, value="mean of bypassed and induced, resid_pre", limits=(0, 1))
        note = "empty: what ablation bypassed there is too little for the place to be the best"
        return figure.update_yaxes(autorange=True).update_layout(title_subtitle_text=note)


def place_effects(
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> PlaceEffects:
    """The causal effect of the pooled policy direction read at each of `layers` and `positions`.

    `prompts`: a frame like that of `load_prompts`; only its train split is used. The direction is the difference in
    means of up to 112 content-policy prompts and as many benign ones, at most half of each category. Probes come from
    the other half, in a fixed random order: the first 16 that the model refuses among up to 96 content-policy prompts,
    and the first 16 benign ones that it answers. `layers`: by default every second one from layer 2; `positions`: all
    template positions. With `cache_dir`, a call that was killed resumes, and the finished table is read from disk.

    The effect of the best place is measured on the prompts that it was chosen on, so on others it is somewhat smaller.
    Raises `ValueError` for a layer or position that the model does not have.
    Source: Arditi et al. 2406.11717 (section 2.3), whose choice also weighs induction and bypass on such prompts.
    """
    layers = tuple(range(min(2, chat.n_layers - 1), chat.n_layers, 2)) if layers is None else tuple(layers)
    positions = tuple(range(-len(chat.suffix), 0)) if positions is None else tuple(positions)
    check_positions("place_effects", chat, positions)
    train = prompts[prompts["split"] == "train"].sample(frac=1, random_state=0)
    stored = _stored(chat, cache_dir, [list(train["id"]), list(train["text"]), layers, positions])
    if stored is not None and stored.is_file():
        rows, notes = load_rows(stored)
        require_same_model("place_effects", notes, chat)
        return PlaceEffects(rows, notes["n_refused"], notes["n_answered"])
    policy, benign = train[train["category"].isin(POLICY)], train[train["category"] == BENIGN]
    refused = _probes(chat, policy, "refused", cache_dir)
    answered = _probes(chat, benign, "answered", cache_dir)
    n = {"n_refused": len(refused), "n_answered": len(answered)}
    if min(n.values()) < N_AT_LEAST:
        print(f"No place was chosen: only {len(refused)} prompts refused and {len(answered)} answered serve as probes")
        return PlaceEffects(pd.DataFrame(columns=COLUMNS), **n)
    if progress:
        n_places, n_most = len(layers) * len(positions), len(refused) + len(GAPS) * len(answered)
        n_rows = f"{n_places * len(refused)} to {n_places * n_most} responses of {N_TOKENS} tokens"
        print(f"Choosing layer and position among {n_places} places: {n_rows}")
    ablations, additions = _conditions(chat, _reading(policy), _reading(benign), layers, positions, cache_dir)
    how: dict[str, Any] = {"max_new_tokens": N_TOKENS, "cache_dir": cache_dir, "progress": progress}
    rows = _ablated(respond(chat, refused, ablations, **how))
    while len(open_places := _can_be_best(rows)):
        tried = [each for place in open_places[:N_PLACES] for each in additions[place]]
        _add_induced(rows, open_places[:N_PLACES], respond(chat, answered, tried, **how))
    rows = rows.reset_index(drop=True)
    if stored is not None:
        save_rows(stored, rows, {**model_notes(chat), **n})
    return PlaceEffects(rows, **n)


def place_by_effect(
    chat: ChatModel, prompts: pd.DataFrame, *, pos: int | None, required: bool, cache_dir: str | Path | None
) -> tuple[ChatModel, PlaceEffects | None]:
    """(`chat` at its best place, at `pos` if that is given; the effects), or (`chat`, None) if probes are too few.

    Raises `ValueError` instead if the choice is `required`.
    """
    positions = None if pos is None else (pos,)
    effects = place_effects(chat, prompts, positions=positions, cache_dir=cache_dir, progress=True)
    if not (required or effects.are_measured):
        return chat, None
    return chat.at_place(*effects.best, effects.source), effects


def _stored(chat: ChatModel, cache_dir: str | Path | None, asked: list) -> Path | None:
    """The file of the finished table, of this model, these prompts and places, and this procedure."""
    if cache_dir is None:
        return None
    key = content_key(chat.fingerprint, *asked, GAPS, N_PROBE, N_ASKED, N_DIRECTION, N_TOKENS)
    return Path(cache_dir) / f"places_{key}.jsonl.gz"


def _reading(side: pd.DataFrame) -> pd.DataFrame:
    """The prompts that directions are estimated from: equally many of each category, at most half of it."""
    most = N_DIRECTION // side["category"].nunique() if len(side) else 0
    halves = side.groupby("category").cumcount() < side.groupby("category")["id"].transform("size") // 2
    return side[halves].groupby("category").head(most)


def _probes(chat: ChatModel, side: pd.DataFrame, outcome: str, cache_dir: str | Path | None) -> pd.DataFrame:
    """The first prompts of `side`, none of them of `_reading`, to which the model's response has this outcome."""
    rest = side.drop(_reading(side).index).head(N_ASKED)
    found = rest[:0]
    for start in range(0, len(rest), N_AT_ONCE):
        asked = rest[start : start + N_AT_ONCE]
        given = respond(chat, asked, max_new_tokens=N_TOKENS, cache_dir=cache_dir)
        found = pd.concat([found, asked[(given["outcome"] == outcome).to_numpy()]]).head(N_PROBE)
        if len(found) == N_PROBE:
            break
    return found


def _conditions(
    chat: ChatModel,
    refused: pd.DataFrame,
    answered: pd.DataFrame,
    layers: Sequence[int],
    positions: Sequence[int],
    cache_dir: str | Path | None,
) -> tuple[list[Condition], list[list[Condition]]]:
    """(an ablation at each place, the additions at each place), of directions from one capture."""
    texts = [*refused["text"], *answered["text"]]
    states = capture_activations(chat, texts, layers=layers, positions=positions, cache_dir=cache_dir)
    is_refused = torch.arange(len(texts)) < len(refused)
    ablations: list[Condition] = []
    additions: list[list[Condition]] = []
    for layer in layers:
        for pos in positions:
            values, name = states.at(layer, pos), f"{layer} {pos}"
            sides = {name: values[is_refused]}, values[~is_refused]
            direction = DirectionSet.from_states(*sides, Provenance(layer, pos))
            ablations.append(ablation_condition(direction, name))
            additions.append([steering_condition(direction, name, gaps=gaps) for gaps in GAPS])
    return ablations, additions


def _ablated(responses: pd.DataFrame) -> pd.DataFrame:
    """The rows of `PlaceEffects`, in the order of the conditions, with what the ablations show alone."""
    rows = []
    for name, own in responses.groupby("direction", sort=False):
        shares = [float((own["outcome"] == outcome).mean()) for outcome in ("answered", "broken")]
        rows.append((*map(int, str(name).split()), shares[0], nan, shares[1], nan))
    return pd.DataFrame(rows, columns=COLUMNS)


def _can_be_best(rows: pd.DataFrame) -> list[int]:
    """The places without additions that would be the best if all of these induced refusal, most bypassed first."""
    left = rows[rows["effect"].isna()].sort_values("bypassed", ascending=False, kind="stable")
    return list(left.index[(left["bypassed"] + 1) / 2 >= rows["effect"].fillna(0).max()])


def _add_induced(rows: pd.DataFrame, places: Sequence[int], responses: pd.DataFrame) -> None:
    """Fill in what additions at these places show; text counts as broken over ablations and additions alike."""
    for place in places:
        layer, pos, bypassed, _, broken, _ = rows.loc[place]
        outcomes = responses.loc[responses["direction"] == f"{layer:.0f} {pos:.0f}", "outcome"]
        induced = float((outcomes == "refused").mean())
        broken = (broken + len(GAPS) * float((outcomes == "broken").mean())) / (1 + len(GAPS))
        rows.loc[place, COLUMNS[3:]] = induced, broken, (bypassed + induced) / 2
