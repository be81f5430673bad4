"""How a model's refusals begin, and which components push towards these first tokens."""

from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.chat_model import ChatModel
from ..prompts.categories import BENIGN, CATEGORY_IDS
from ..steering.first_tokens import refusal_logit
from ..steering.openings import first_ids, opening_ids
from .contributions import contributions
from .overlap import top_heads
from .shares import logit_shares

MOST = 0.5  # of a category's refusals must begin with them for its refusal logit to mean something
N_PUSHED = 24  # prompts of a category over which a push is averaged


@dataclass(frozen=True, eq=False)
class RefusalOpening:
    """The first tokens of a model's own refusals, and the share of each category's refusals that begin with one.

    `tokens` are in order of frequency; `words` are their texts; `of_answers` is the share of answers that begin with
    one: if it is not small, the refusal logit says little about refusing. There are no tokens if refusals begin as
    answers do, or if nothing was refused; every logit is NaN then.
    """

    tokens: Int[Tensor, " token"]
    words: tuple[str, ...]
    share: pd.Series = field(repr=False)
    of_answers: float = float("nan")

    @classmethod
    def from_responses(cls, chat: ChatModel, responses: pd.DataFrame) -> "RefusalOpening":
        """The tokens that open more of the refusals than of the answers, until they open 80 % of the refusals.

        `responses` has columns category, response and outcome.
        """
        first = first_ids(chat, responses["response"])
        refused, answered = (responses["outcome"] == name for name in ("refused", "answered"))
        tokens = opening_ids(first[refused], first[answered])
        share = first.isin(tokens)[refused].astype(float).groupby(responses["category"]).mean()
        words = tuple(str(chat.tokenizer.decode([token])) for token in tokens)
        of_answers = float(first[answered].isin(tokens).astype(float).mean())
        own = torch.tensor(tokens, dtype=torch.long)
        return cls(own, words, share.reindex(list(CATEGORY_IDS)), of_answers)

    def __str__(self) -> str:
        """The tokens, and how many answers begin with them too."""
        if not self.words:
            return "none: refusals begin as answers do, or nothing was refused"
        return f"{', '.join(map(repr, self.words))} (they also open {self.of_answers:.0%} of the answers)"

    @property
    def categories(self) -> list[str]:
        """The categories in which at least half of the refusals begin with the tokens, or else the best ones.

        None without tokens.

        Elsewhere the refusal logit may rise while refusals become fewer.
        """
        return list(self.share.index[self.share >= min(MOST, self.share.max())]) if self.words else []

    def table(self) -> pd.DataFrame:
        """The share of each category's refusals that begin with one of the tokens; NaN if it refused nothing."""
        return self.share.to_frame("share of refusals that begin with an opening token")

    def logit(self, logits: Float[Tensor, "prompt d_vocab"]) -> Float[Tensor, " prompt"]:
        """The log odds that the response begins with one of the tokens (refusal score of Arditi et al. 2406.11717)."""
        if not self.words:
            return torch.full((len(logits),), float("nan"))
        return refusal_logit(logits, self.tokens)

    def push(self, chat: ChatModel, prompts: pd.DataFrame, k: int) -> pd.Series:
        """What components add to the tokens' mean logit, refused minus benign prompts: the top `k` heads and sums.

        Over the first 24 prompts of each of `categories` and of the benign ones; `prompts` has columns text and
        category. All are NaN without tokens. Raises `ValueError` as `logit_shares` does.
        """
        if not self.words:
            return pd.Series(float("nan"), ["all heads", "all MLPs"], name="logits")
        sample = prompts[prompts["category"].isin([*self.categories, BENIGN])].groupby("category").head(N_PUSHED)
        shares = logit_shares(chat, list(sample["text"]), self.tokens)
        benign = torch.tensor((sample["category"] == BENIGN).to_numpy())
        heads, mlps = (contributions(each[~benign], each[benign])[..., 0] for each in (shares.heads, shares.mlps))
        top = {f"head {layer}.{head}": heads[layer, head] for layer, head in top_heads(heads, k)}
        sums = {"all heads": heads.sum(), "all MLPs": mlps.sum()}
        return pd.Series({name: float(value) for name, value in (top | sums).items()}, name="logits")
