"""How and whether: what a steering direction decides about wording and fact of a refusal. Pure statistics on judged rows."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.stats.contingency import association
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from ..judging.judgement import STYLES
from ..stats import wilson

N_FOLDS = 5
N_BOOTSTRAP = 1000


def matched_rows(rows: pd.DataFrame, target: float = 0.9, max_degenerate: float = 0.1) -> pd.DataFrame:
    """The rows of each direction at the one strength whose refusal rate over all prompts comes closest to `target`.

    Columns as `tradeoffs.sweep` gives them. Strengths with more than `max_degenerate` broken text are out. Raises
    `ValueError` for a direction without any strength left.
    """
    outcome = rows.assign(refused=rows["outcome"] == "refused", broken=rows["outcome"] == "broken")
    share = outcome.groupby(["direction", "coefficient"], sort=False)[["refused", "broken"]].mean()
    usable = share[share["broken"] <= max_degenerate]
    lost = set(rows["direction"]) - set(usable.index.get_level_values("direction"))
    _require(
        "matched_rows", not lost, "every direction needs a strength with text", f"none for {sorted(lost)}", "Lower it."
    )
    nearest = (usable["refused"] - target).abs().groupby("direction", sort=False).idxmin()
    return rows[pd.MultiIndex.from_frame(rows[["direction", "coefficient"]]).isin(list(nearest))]


def style_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """The share of each direction's refusals that carry each style, with Wilson intervals: columns share, low, high.

    Indexed by (direction, style). Raises `ValueError` where a direction has no refusal.
    """
    refused = rows[rows["outcome"] == "refused"]
    missing = sorted(set(rows["direction"]) - set(refused["direction"]))
    _require(
        "style_shares", not missing, "every direction needs refusals", f"none for {missing}", "Steer more strongly."
    )
    table = {}
    for direction, group in refused.groupby("direction", sort=False):
        for style in STYLES:
            n = sum(style in styles for styles in group["styles"])
            table[direction, style] = (n / len(group), *wilson(n, len(group)))
    index = pd.MultiIndex.from_tuples(table, names=["direction", "style"])
    return pd.DataFrame(list(table.values()), index=index, columns=["share", "low", "high"])


def purity(rows: pd.DataFrame, column: str = "release_type") -> pd.DataFrame:
    """Per direction the commonest value of `column` among its refusals, and its share (the release's purity)."""
    counts = rows[rows["outcome"] == "refused"].groupby("direction", sort=False)[column].value_counts(normalize=True)
    table = counts.groupby("direction", sort=False).head(1).reset_index(name="purity")
    return table.rename(columns={column: "dominant"}).set_index("direction")


def dependence(
    directions: Iterable[str], values: Iterable[str], prompts: Iterable[str], n_draws: int = 500, seed: int = 0
) -> pd.Series:
    """How strongly the direction decides a value (a style, or whether it refuses), against permutation.

    `bits`: mutual information; `cramer`: Cramer's V, from 0 to 1 however many values there are; `null bits`, `null
    cramer`: their means when directions are dealt out anew among the rows of each prompt (chance alone makes both
    positive); `null cramer high`: 95 % of the deals lie below; `p`, `p cramer`: the share of deals with as many bits, or
    as large a V. Raises `ValueError` for a single direction. Sources: Cramer 1946 (scipy's version); Cover & Thomas
    2006, ch. 2.
    """
    directions, values, prompts = list(directions), list(values), list(prompts)
    _require(
        "dependence",
        len(set(directions)) > 1,
        "there must be at least two directions",
        str(len(set(directions))),
        "Add.",
    )
    first, second = pd.factorize(np.asarray(directions))[0], pd.factorize(np.asarray(values))[0]
    group = pd.factorize(np.asarray(prompts))[0]
    bits, cramer = _association(first, second)
    generator = np.random.default_rng(seed)
    by_prompt = np.argsort(group, kind="stable")
    drawn = []
    for _ in range(n_draws):
        dealt = np.lexsort((generator.random(len(group)), group))
        permuted = np.empty_like(first)
        permuted[by_prompt] = first[dealt]
        drawn.append(_association(permuted, second))
    null = np.array(drawn)
    p, p_cramer = (1 + (null >= np.array([bits, cramer]) - 1e-12).sum(0)) / (1 + n_draws)
    found = {"bits": bits, "null bits": null[:, 0].mean(), "p": p}
    of_cramer = {"null cramer": null[:, 1].mean(), "null cramer high": np.quantile(null[:, 1], 0.95)}
    return pd.Series(found | {"cramer": cramer} | of_cramer | {"p cramer": p_cramer})


def _association(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    table = np.zeros((first.max() + 1, second.max() + 1), dtype=int)
    np.add.at(table, (first, second), 1)
    if min(table.shape) < 2:
        return 0.0, 0.0
    return float(mutual_info_score(None, None, contingency=table) / np.log(2)), float(association(table, "cramer"))


def guess_direction(
    texts: Iterable[str], directions: Iterable[str], prompts: Iterable[str], seed: int = 0
) -> dict[str, float]:
    """How often a classifier that never saw the prompt guesses the direction from the text: accuracy, low, high, chance.

    Words and pairs of words, logistic regression, folds that keep all rows of a prompt together. The 95 % interval is a
    bootstrap over prompts, whose rows are not independent. Chance is the share of the commonest direction. Raises
    `ValueError` for fewer prompts than folds.
    """
    texts, directions, prompts = list(texts), list(directions), list(prompts)
    n_prompts = len(set(prompts))
    _require("guess_direction", n_prompts >= N_FOLDS, f"at least {N_FOLDS} prompts", str(n_prompts), "Add prompts.")
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[^\s]+"),
        LogisticRegression(max_iter=500, random_state=seed),
    )
    truth = np.asarray(directions)
    guessed = cross_val_predict(model, texts, truth, groups=prompts, cv=GroupKFold(N_FOLDS))
    right = pd.Series(guessed == truth).groupby(pd.factorize(np.asarray(prompts))[0]).agg(["sum", "size"]).to_numpy()
    drawn = np.random.default_rng(seed).multinomial(n_prompts, [1 / n_prompts] * n_prompts, N_BOOTSTRAP) @ right
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    chance = float(pd.Series(truth).value_counts(normalize=True).iloc[0])
    return {"accuracy": float((guessed == truth).mean()), "low": float(low), "high": float(high), "chance": chance}


def _require(function: str, holds: bool, must: str, got: str, todo: str) -> None:
    if not holds:
        raise ValueError(f"{function}: {must}; got {got}. {todo}")
