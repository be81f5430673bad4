"""Which few of many directions to ablate together: a search over their ranks with a score that needs no generation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from math import comb, perm
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch

from ..checks import invalid, require
from ..directions import DirectionSet
from ..model.chat_model import ChatModel
from ..plotting.look import HEIGHT, WIDTH
from ..steering.conditions import Condition, ablation_condition
from ..steering.first_tokens import kl_spent, refusal_scores

Subset = tuple[str, ...]
AT_ONCE = 8  # subsets that are tried in the same batches
COLUMNS = ["names", "size", "score", "kl", "within"]
OVER_BUDGET = 1e3  # added to the value of a subset that costs too much: worse than any score within the budget


@dataclass(frozen=True, eq=False)
class SubsetSearch:
    """Subsets of directions with what ablating each does.

    `rows`, in the order of trials: names (joined), size, score (mean refusal score of the first token on the harmful
    prompts: lower is less refusal), kl (nats on the benign ones) and within (whether it costs at most `max_kl`).
    """

    directions: DirectionSet = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    max_kl: float
    in_turn: bool

    def table(self) -> pd.DataFrame:
        """The rows, best first: lowest score within the budget, then lowest KL."""
        key = self.rows["score"].where(self.rows["within"], OVER_BUDGET + self.rows["kl"])
        return self.rows.loc[key.sort_values(kind="stable").index].reset_index(drop=True)

    @property
    def best(self) -> Subset:
        """The names of the best subset; if none is within the budget, of the cheapest one."""
        return tuple(self.table()["names"].iloc[0].split(", "))

    @property
    def condition(self) -> Condition:
        """The ablation of the best subset."""
        return ablation_condition(self.directions, *self.best, in_turn=self.in_turn)

    def figure(self, *, title: str) -> go.Figure:
        """Refusal score against KL, a point per subset; the line is the budget."""
        names = {"kl": "KL on benign prompts (nats)", "score": "refusal score of the first token"}
        given: dict[str, Any] = {"x": "kl", "y": "score", "hover_name": "names", "symbol": "within", "title": title}
        figure = px.scatter(self.rows, **given, labels=names, template="refusal", width=WIDTH, height=HEIGHT)
        return figure.add_vline(self.max_kl, line_dash="dot").update_traces(marker_size=9)


def search_subset(
    chat: ChatModel,
    directions: DirectionSet,
    harmful: Sequence[str],
    benign: Sequence[str],
    tokens: Sequence[int],
    *,
    k: int = 2,
    max_kl: float = 0.1,
    n_trials: int = 128,
    in_turn: bool = True,
    seed: int = 0,
) -> SubsetSearch:
    """The search for the `k` directions whose ablation lowers the refusal score most at a KL of at most `max_kl`.

    `tokens`: ids that refusals begin with. `in_turn` ablates one direction after the other, as the source does;
    otherwise their span. All subsets are tried if there are at most `n_trials`; otherwise Optuna's TPE (extra `search`)
    proposes them by rank, the first quarter at random. Test the choice on other prompts. Raises `ValueError` for a `k`
    below 1 or above the number of directions. Source: Piras et al. 2511.08379, section 3, who judge whole responses.
    """
    must = f"k must be from 1 to the number of directions, {len(directions)}"
    require(1 <= k <= len(directions), "search_subset", must, k, "Find more directions, or lower k.")
    known: dict[Subset, tuple[float, float]] = {}

    def measure(subsets: Sequence[Subset]) -> list[float]:
        new = [each for each in dict.fromkeys(subsets) if each not in known]
        if new:
            conditions = [ablation_condition(directions, *each, in_turn=in_turn) for each in new]
            scores = refusal_scores(chat, harmful, conditions, torch.tensor(list(tokens))).mean(1).tolist()
            costs = kl_spent(chat, benign, conditions).tolist()
            known.update(zip(new, zip(scores, costs, strict=True), strict=True))
        return [score if cost <= max_kl else OVER_BUDGET + cost for score, cost in (known[each] for each in subsets)]

    n = len(directions)
    if (perm(n, k) if in_turn else comb(n, k)) <= n_trials:
        measure([*(permutations if in_turn else combinations)(directions.names, k)])
    else:
        _search(directions.names, k, in_turn, n_trials, seed, measure)
    rows = [(", ".join(names), k, *values, values[1] <= max_kl) for names, values in known.items()]
    return SubsetSearch(directions, pd.DataFrame(rows, columns=COLUMNS), max_kl, in_turn)


def _search(
    names: Subset,
    k: int,
    in_turn: bool,
    n_trials: int,
    seed: int,
    measure: Callable[[Sequence[Subset]], list[float]],
) -> None:
    """Ask Optuna for subsets, a few at a time, and tell it their values."""
    try:
        import optuna
    except ImportError as error:
        must = "the package optuna is needed to search among so many subsets"
        raise invalid("search_subset", must, "none", "Run `pip install optuna`, or raise n_trials.") from error
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, n_trials // 4))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    for start in range(0, n_trials, AT_ONCE):
        trials = [study.ask() for _ in range(min(AT_ONCE, n_trials - start))]
        subsets = []
        for trial in trials:
            left = list(names)
            chosen = [left.pop(trial.suggest_int(f"rank {number}", 0, len(names) - 1 - number)) for number in range(k)]
            subsets.append(tuple(chosen if in_turn else sorted(chosen, key=names.index)))
        for trial, value in zip(trials, measure(subsets), strict=True):
            study.tell(trial, value)
