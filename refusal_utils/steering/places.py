"""A quick causal choice of the decision state: the place whose refusal direction steers the model best.

At every second layer and every template position, the pooled direction of the content-policy prompts is read from
some train prompts, then ablated on others that the model refuses, and added on others that it answers. All places are
screened with a few of these probes, and the best quarter is measured with all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch

from ..checks import require
from ..directions.direction_set import DirectionSet, Provenance
from ..model.artifacts import load_kept, load_rows, model_notes, require_same_model, save_rows
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel, check_positions
from ..model.defaults import DEFAULT_POS, searched_layers
from ..model.store import content_key
from ..plotting.look import heatmap
from ..prompts.categories import BENIGN, CATEGORIES
from .conditions import Condition, ablation_condition, steering_condition
from .responses import NOT_JUDGED, judged, respond

GAPS = (1.0, 2.0, 4.0)  # strengths of the additions
SCREENING_GAPS = (2.0,)  # those of the screening
N_SCREENED, N_FINALISTS = 4, 8  # probes a side that screen all places; places measured with all probes, at least
N_PROBE, N_AT_LEAST = 16, 4  # probes a side: wanted, and needed for a choice
N_ASKED, N_AT_ONCE = 96, 32  # prompts a side that are asked to find them
N_DIRECTION = 112  # prompts a side that directions are estimated from, at most
N_TOKENS = 32  # of each response: the judge then finds nine in ten of the refusals that it finds in 50 tokens
COLUMNS = ["layer", "pos", "bypassed", "induced", "broken", "effect", "n_refused", "n_answered", NOT_JUDGED]
Place = tuple[int, int]  # (layer, pos)
POLICY = tuple(category.id for category in CATEGORIES if category.cluster == "content policy")


@dataclass(frozen=True, eq=False)
class PlaceEffects:
    """What the direction read at each candidate place does: a row per layer and position in `rows`; see `.table()`.

    `n_refused`, `n_answered`: how many probes there are a side; places that were only screened have fewer in `rows`.
    There are no rows if either is below 4.
    """

    rows: pd.DataFrame
    n_refused: int
    n_answered: int

    @property
    def are_measured(self) -> bool:
        """Whether there were enough probes."""
        return min(self.n_refused, self.n_answered) >= N_AT_LEAST

    def table(self) -> pd.DataFrame:
        """A row per candidate, best first; the columns are `COLUMNS`.

        `bypassed`: the share of the refused probes that are answered, in text that is not broken, when the direction
        is ablated. `induced`: the share of the answered probes that are refused when it is added, averaged over the
        strengths, so that a place comes first if it needs less and if its text survives more. `broken`: the share of
        broken text among all these responses. `effect`: the mean of `bypassed` and `induced`. `n_refused`,
        `n_answered`: how many probes it was measured with. `not judged`: responses without a verdict, which no share
        counts. Places that were only screened come last. Equal effects are ordered by less broken text, then the
        paper's position, then depth.
        """
        order = self.rows.assign(published=self.rows["pos"] == DEFAULT_POS, whole=-self.rows["broken"]).round(9)
        by = ["n_refused", "n_answered", "effect", "whole", "published", "layer"]
        order = order.sort_values(by, ascending=False, kind="stable")
        return self.rows.loc[order.index].reset_index(drop=True)

    @property
    def best(self) -> tuple[int, int]:
        """(layer, pos) of the table's first row. Raises `ValueError` if there were too few probes to measure it."""
        must = f"{N_AT_LEAST} train prompts must be refused and {N_AT_LEAST} answered for a causal choice of the place"
        got, todo = f"{self.n_refused} and {self.n_answered}", "Pass more train prompts, or give layer and pos."
        require(self.are_measured, "place_effects", must, got, todo)
        layer, pos = self.table().loc[0, ["layer", "pos"]]
        return int(layer), int(pos)

    @property
    def source(self) -> str:
        """The origin of the choice in words, for `ChatModel.decision_source`."""
        n = f"{self.n_refused} + {self.n_answered} train prompts"
        return f"causal choice on {n}, effect {self.table().loc[0, 'effect']:.2f}"

    def figure(self) -> go.Figure:
        """A map of the effects, layer by position; its subtitle says how many places were only screened."""
        shown = self.rows.pivot(index="layer", columns="pos", values="effect").rename_axis(columns="position")
        title = "Effect of ablating and adding the direction read at each place"
        figure = heatmap(shown, title=title, value="mean of bypassed and induced, resid_pre", limits=(0, 1))
        is_screened = self.rows["n_refused"] + self.rows["n_answered"] < self.n_refused + self.n_answered
        if is_screened.any():
            note = f"{self.n_refused} + {self.n_answered} prompts at the best {(~is_screened).sum()} places"
            figure.update_layout(title_subtitle_text=f"{note}; others screened with {N_SCREENED} + {N_SCREENED}")
        return figure.update_yaxes(autorange=True)


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

    From the train split of `prompts`, the direction is the difference in means of up to 112 content-policy prompts and
    as many benign ones, at most half of each category. Probes are of the other half, in a fixed random order: the first
    16 that the model refuses of up to 96 content-policy prompts, and the first 16 benign ones that it answers. All
    places are screened with 4 probes a side at 2 gaps; the best quarter, at least 8, get all probes at 1, 2 and 4 gaps.
    By default every second layer from 2 on and all template positions. On other prompts, the effect of the best place
    is somewhat smaller. Raises `ValueError` for an unknown layer or position. Source: Arditi et al. 2406.11717 (2.3).
    """
    layers = searched_layers(chat.n_layers) if layers is None else tuple(layers)
    positions = tuple(range(-len(chat.suffix), 0)) if positions is None else tuple(positions)
    check_positions("place_effects", chat, positions)
    train = prompts[prompts["split"] == "train"].sample(frac=1, random_state=0)
    stored = _stored(chat, cache_dir, [list(train["id"]), list(train["text"]), layers, positions])
    if kept := load_kept(partial(_load, chat), stored):
        return kept
    policy, benign = train[train["category"].isin(POLICY)], train[train["category"] == BENIGN]
    refused, answered = _probes(chat, policy, "refused", cache_dir), _probes(chat, benign, "answered", cache_dir)
    n = {"n_refused": len(refused), "n_answered": len(answered)}
    if min(n.values()) < N_AT_LEAST:
        print(f"No place was chosen: only {len(refused)} prompts refused and {len(answered)} answered serve as probes")
        return PlaceEffects(pd.DataFrame(columns=COLUMNS), **n)
    at = _conditions(chat, reading_half(policy), reading_half(benign), layers, positions, cache_dir)
    how: dict[str, Any] = {"max_new_tokens": N_TOKENS, "cache_dir": cache_dir, "progress": progress}
    rows = _in_two_stages(chat, at, refused, answered, how)
    if stored is not None:
        save_rows(stored, rows, {**model_notes(chat), **n})
    return PlaceEffects(rows, **n)


def place_by_effect(
    chat: ChatModel, prompts: pd.DataFrame, *, pos: int | None, required: bool, cache_dir: str | Path | None
) -> tuple[ChatModel, PlaceEffects | None]:
    """(`chat` at its best place, at `pos` if that is given; the effects), or (`chat`, None) if probes are too few.

    Raises `ValueError` instead if the choice is `required`.
    """
    how: dict[str, Any] = {"positions": None if pos is None else (pos,), "cache_dir": cache_dir, "progress": True}
    effects = place_effects(chat, prompts, **how)
    if not (required or effects.are_measured):
        return chat, None
    return chat.at_place(*effects.best, effects.source), effects


def _stored(chat: ChatModel, cache_dir: str | Path | None, asked: list) -> Path | None:
    """The file of the finished table, of this model, these prompts and places, and this procedure."""
    if cache_dir is None:
        return None
    procedure = (COLUMNS, GAPS, SCREENING_GAPS, N_SCREENED, N_FINALISTS, N_PROBE, N_ASKED, N_DIRECTION, N_TOKENS)
    return Path(cache_dir) / f"places_{content_key(chat.fingerprint, *asked, *procedure)}.jsonl.gz"


def _load(chat: ChatModel, path: Path) -> PlaceEffects:
    rows, notes = load_rows(path)
    require_same_model("place_effects", notes, chat)
    return PlaceEffects(rows, notes["n_refused"], notes["n_answered"])


def reading_half(side: pd.DataFrame, n: int = N_DIRECTION) -> pd.DataFrame:
    """Up to `n` prompts that directions are read from: equally many of each category, at most half of it."""
    most = n // side["category"].nunique() if len(side) else 0
    halves = side.groupby("category").cumcount() < side.groupby("category")["id"].transform("size") // 2
    return side[halves].groupby("category").head(most)


def _probes(chat: ChatModel, side: pd.DataFrame, outcome: str, cache_dir: str | Path | None) -> pd.DataFrame:
    """The first prompts of `side`, none of them of `reading_half`, to which the model's response has this outcome."""
    rest = side.drop(reading_half(side).index).head(N_ASKED)
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
) -> dict[Place, tuple[Condition, list[Condition]]]:
    """(an ablation, an addition at each of `GAPS`) at each place, of directions from one capture."""
    texts = [*refused["text"], *answered["text"]]
    states = capture_activations(chat, texts, layers=layers, positions=positions, cache_dir=cache_dir)
    is_refused = torch.arange(len(texts)) < len(refused)
    found = {}
    for layer, pos in product(layers, positions):
        values, name = states.at(layer, pos), f"{layer} {pos}"
        sides = {name: values[is_refused]}, values[~is_refused]
        direction = DirectionSet.from_states(*sides, Provenance(layer, pos))
        additions = [steering_condition(direction, name, gaps=gaps) for gaps in GAPS]
        found[layer, pos] = ablation_condition(direction, name), additions
    return found


def _in_two_stages(
    chat: ChatModel,
    at: Mapping[Place, tuple[Condition, list[Condition]]],
    refused: pd.DataFrame,
    answered: pd.DataFrame,
    how: dict[str, Any],
) -> pd.DataFrame:
    """The rows of `PlaceEffects`: the best places of the screening with all probes, then the others as screened."""
    n_finalists = max(N_FINALISTS, len(at) // 4)
    if how["progress"]:
        print(f"Choosing layer and position: {len(at)} places, then the best {n_finalists} of them in detail")
    if len(at) <= n_finalists:
        return _measure(chat, at, refused, answered, GAPS, how)
    screened = _measure(chat, at, refused.head(N_SCREENED), answered.head(N_SCREENED), SCREENING_GAPS, how)
    ranked = PlaceEffects(screened, N_SCREENED, N_SCREENED).table()
    first = [*zip(ranked["layer"], ranked["pos"], strict=True)][:n_finalists]
    detailed = _measure(chat, {place: at[place] for place in sorted(first)}, refused, answered, GAPS, how)
    return pd.concat([detailed, ranked[n_finalists:]], ignore_index=True)


def _measure(
    chat: ChatModel,
    at: Mapping[Place, tuple[Condition, list[Condition]]],
    refused: pd.DataFrame,
    answered: pd.DataFrame,
    gaps: Sequence[float],
    how: dict[str, Any],
) -> pd.DataFrame:
    """The rows of `PlaceEffects` for the places `at`, from the responses to the refused and to the answered probes."""
    wanted = [each for _, additions in at.values() for each in additions if each.gaps in gaps]
    ablated = respond(chat, refused, [ablation for ablation, _ in at.values()], **how)
    added = respond(chat, answered, wanted, **how)
    rows, n_asked = [], len(refused) + len(answered) * len(gaps)
    for (layer, pos), (ablation, _) in at.items():
        own, steered = (judged(each[each["direction"] == ablation.direction]) for each in (ablated, added))
        shares = [(own["outcome"] == "answered").mean(), (steered["outcome"] == "refused").mean()]
        broken = ((read := pd.concat([own, steered]))["outcome"] == "broken").mean()
        rows.append((layer, pos, *shares, broken, sum(shares) / 2, len(refused), len(answered), n_asked - len(read)))
    return pd.DataFrame(rows, columns=COLUMNS)
