"""How or whether: does a steering direction decide the wording of a refusal, or the refusal itself?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.special import xlogy
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from ..judging import STYLES
from ..judging.plain_text import plain_text
from ..judging.response_text import own_turn
from ..judging.styles import refusal_styles
from ..plotting.look import heatmap
from ..plotting.tradeoff import interval_bars
from ..prompts.categories import CATEGORY_IDS
from ..stats import wilson
from ..steering.responses import judged
from .sweep import Sweep

N_FOLDS = 5
N_BOOTSTRAP = 1000
DEPENDENCE = ("bits", "null bits", "p", "cramer", "null cramer", "null cramer high", "p cramer", "n")
GUESS = ("accuracy", "low", "high", "chance", "n")


@dataclass(frozen=True, eq=False)
class StyleShares:
    """The share of each direction's refusals that carry each style.

    `values` is indexed by (direction, style), with columns share, low, high (Wilson) and interval (as text).
    """

    values: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """The shares, directions in rows and styles in columns; the categories come first."""
        table = self.values["share"].unstack("style")[list(STYLES)]
        return table.loc[sorted(table.index, key=[*CATEGORY_IDS, *table.index].index)]

    def spread(self) -> pd.Series:
        """How far apart the highest and the lowest share of each style are."""
        return self.table().max() - self.table().min()

    def figure(self, *, title: str) -> go.Figure:
        """The shares as a map, coloured from 0 to 1; the hover text gives the intervals."""
        table = self.table()
        intervals = self.values["interval"].unstack("style").loc[table.index, table.columns].to_numpy()
        hover = "%{y}<br>%{x}: %{z:.2f}<br>95 % interval %{customdata}<extra></extra>"
        figure = heatmap(table, title=title, value="share of refusals", limits=(0, 1))
        return figure.update_traces(customdata=intervals, hovertemplate=hover)


@dataclass(frozen=True, eq=False)
class Guesses:
    """The numbers of `guess_direction` for several kinds of evidence, keyed by the evidence."""

    guesses: Mapping[str, pd.Series]

    def table(self) -> pd.DataFrame:
        """Accuracy, low, high and chance of each."""
        return pd.DataFrame(self.guesses).T

    def figure(self, *, title: str, marks: Mapping[str, float]) -> go.Figure:
        """The accuracies as bars with their intervals, and labelled lines at the heights in `marks`."""
        y = "share of directions guessed, 95 % interval"
        bars = self.table().rename(index=lambda name: name.replace(", ", ",<br>"))
        return interval_bars(bars, title=title, y=y, marks=marks)


@dataclass(frozen=True, eq=False)
class Wording(Sweep):
    """A sweep whose rows have `styles`, `wording` (the styles, joined) and `refused` ("refused" or "not")."""

    @classmethod
    def of(cls, swept: Sweep) -> "Wording":
        """The judged rows of a sweep with styles found by phrases, whichever judge decided the outcomes."""
        rows = judged(swept.rows)
        found = {text: refusal_styles(plain_text(own_turn(text))) for text in rows["response"].unique()}
        styles = [found[text] for text in rows["response"]]
        refused = np.where(rows["outcome"] == "refused", "refused", "not")
        return cls(rows.assign(styles=styles, wording=[*map(" + ".join, styles)], refused=refused), swept.notes)

    def counts(self) -> dict[str, float]:
        """How many refusals, wordings and texts there are, and the shares of the commonest wording and text."""
        wordings, texts = (self.refusals[name].value_counts(normalize=True) for name in ("wording", "response"))
        n = {"refusals": len(self.refusals), "wordings": len(wordings), "texts": len(texts)}
        return {**n, "commonest wording": wordings.max(), "commonest text": texts.max()}

    def summary(self) -> str:
        """`counts` in a sentence, with the commonest wording itself."""
        if self.refusals.empty:
            return "nothing is refused"
        counts, commonest = self.counts(), self.refusals["wording"].value_counts().index[0]
        n = f"{counts['refusals']} refusals have {counts['wordings']} wordings and {counts['texts']} texts"
        wording = f"the commonest wording ({commonest}) makes up {counts['commonest wording']:.0%}"
        return f"{n}; {wording}, text {counts['commonest text']:.0%}"

    def shares(self) -> StyleShares:
        """The share of each direction's refusals with each style; NaN for a direction without refusals."""
        table: dict[tuple[str, str], tuple[float, float, float, str]] = {}
        for direction, group in self.rows.groupby("direction", sort=False):
            refusals = group.loc[group["outcome"] == "refused", "styles"]
            for style in STYLES:
                if refusals.empty:
                    table[str(direction), style] = (float("nan"), float("nan"), float("nan"), "no refusals")
                    continue
                n = sum(style in styles for styles in refusals)
                low, high = wilson(n, len(refusals))
                table[str(direction), style] = (n / len(refusals), low, high, f"{low:.2f} to {high:.2f}")
        index = pd.MultiIndex.from_tuples(table, names=["direction", "style"])
        return StyleShares(pd.DataFrame(list(table.values()), index, ["share", "low", "high", "interval"]))

    def purity(self) -> pd.DataFrame:
        """For each direction, the commonest release type of its refusals (dominant) and its share (purity)."""
        types = self.refusals.groupby("direction", sort=False)["release_type"].value_counts(normalize=True)
        table = types.groupby("direction", sort=False).head(1).reset_index(name="purity")
        return table.rename(columns={"release_type": "dominant"}).set_index("direction")

    def dependence(self, column: str, n_draws: int = 500, seed: int = 0) -> pd.Series:
        """How strongly the direction determines `column` (a style, or whether it refuses), compared with permutation.

        `bits`: mutual information. `cramer`: Cramer's V, from 0 to 1. `null bits` and `null cramer`: their means when
        directions are permuted among the rows of each prompt (chance alone makes both positive). `null cramer high`:
        the 95th percentile of V under permutation. `p` and `p cramer`: the share of permutations with as many bits, or
        as large a V. `n`: the number of rows. All others are NaN for fewer than two directions, and V is 0 if the
        column has one value alone. Sources: Cramer 1946; Cover & Thomas 2006, ch. 2.
        """
        if self.rows["direction"].nunique() < 2:
            return pd.Series({**dict.fromkeys(DEPENDENCE, float("nan")), "n": len(self.rows)})
        first, second, group = (pd.factorize(self.rows[name])[0] for name in ("direction", column, "id"))
        (bits,), (cramer,) = _association(first[None], second)
        keys = np.random.default_rng(seed).random((n_draws, len(self.rows)))
        permuted = np.empty((n_draws, len(self.rows)), dtype=int)
        permuted[:, np.argsort(group, kind="stable")] = first[np.lexsort((keys, np.broadcast_to(group, keys.shape)))]
        null_bits, null_cramer = _association(permuted, second)
        as_large = [(null_bits >= bits - 1e-12).sum(), (null_cramer >= cramer - 1e-12).sum()]
        p, p_cramer = ((1 + n) / (1 + n_draws) for n in as_large)
        null_v = null_cramer.mean(), np.quantile(null_cramer, 0.95)
        return pd.Series([bits, null_bits.mean(), p, cramer, *null_v, p_cramer, len(self.rows)], list(DEPENDENCE))

    def guess_direction(self, column: str, seed: int = 0) -> pd.Series:
        """How often a classifier that never saw the prompt guesses the direction from the text in `column`.

        Accuracy with low and high of its 95 % interval (a bootstrap over prompts); chance, the share of the commonest
        direction; and n, the number of rows. The classifier is a logistic regression on words and pairs of words,
        cross-validated with all rows of a prompt in one fold. All but n are NaN for fewer than 5 prompts, the number of
        folds, or for a single direction.
        """
        prompts, n_prompts = pd.factorize(self.rows["id"])[0], self.rows["id"].nunique()
        if n_prompts < N_FOLDS or self.rows["direction"].nunique() < 2:
            return pd.Series({**dict.fromkeys(GUESS, float("nan")), "n": len(self.rows)})
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[^\s]+"),
            LogisticRegression(max_iter=500, random_state=seed),
        )
        truth = self.rows["direction"].to_numpy(dtype=str)
        texts, guessed = self.rows[column].to_numpy(dtype=object), truth.copy()
        for seen, others in GroupKFold(N_FOLDS).split(texts, groups=self.rows["id"].tolist()):
            only_one = (truth[seen] == truth[seen[0]]).all()  # a direction whose few refusals are all in one fold
            guessed[others] = truth[seen[0]] if only_one else model.fit(texts[seen], truth[seen]).predict(texts[others])
        right = pd.Series(guessed == truth).groupby(prompts).agg(["sum", "size"]).to_numpy()
        drawn = np.random.default_rng(seed).multinomial(n_prompts, [1 / n_prompts] * n_prompts, N_BOOTSTRAP) @ right
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
        chance = pd.Series(truth).value_counts(normalize=True).iloc[0]
        return pd.Series([(guessed == truth).mean(), low, high, chance, len(self.rows)], list(GUESS))


def _association(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mutual information in bits, Cramer's V) of every row of `first` with `second`; both are integer codes."""
    n_draws, shape = len(first), (first.max() + 1, second.max() + 1)
    cells = (np.arange(n_draws)[:, None] * shape[0] + first) * shape[1] + second
    joint = np.bincount(cells.ravel(), minlength=n_draws * shape[0] * shape[1]).reshape(n_draws, *shape) / len(second)
    expected = joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True)
    bits = xlogy(joint, joint / expected).sum((1, 2)) / np.log(2)
    chi_square = ((joint - expected) ** 2 / expected).sum((1, 2))
    return bits, np.sqrt(chi_square / max(min(shape) - 1, 1))
