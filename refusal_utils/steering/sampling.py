"""How the next token is chosen: the most likely one, or drawn with a seed of its own for every row.

A drawn response does not depend on the other rows of its batch, because each row has its own stream of random numbers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import require


@dataclass(frozen=True)
class Sampling:
    """`n` responses per prompt, drawn at a `temperature` from the `top_k` tokens and the first `top_p` of their mass.

    `seed` and the number of the sample determine the response. Raises `ValueError` for a value out of range.
    """

    n: int = 5
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:  # noqa: D105
        must, todo = "n and top_k must be at least 1, temperature and top_p above 0, top_p at most 1", "Correct it."
        holds = self.n >= 1 and self.temperature > 0 and 0 < self.top_p <= 1 and (self.top_k is None or self.top_k >= 1)
        require(holds, "Sampling", must, self, todo)

    def parts(self, sample: int, max_new_tokens: int) -> list[object]:
        """What a stored response depends on besides prompt and condition."""
        return ["sample", self.temperature, self.top_p, self.top_k, self.seed, sample, max_new_tokens]


class TokenChoice:
    """The next tokens of a batch, chosen row by row; `log_probs` collects those of the chosen tokens, untempered.

    `keys` (one per row, all different texts) seed the rows' random numbers. Without `sampling` the most likely token is
    chosen and no log probabilities are collected.
    """

    def __init__(self, sampling: Sampling | None, keys: Sequence[str], max_new_tokens: int) -> None:
        self.sampling = sampling
        uniforms = [_uniforms(key, max_new_tokens) for key in keys] if sampling else []
        self.uniforms = torch.stack(uniforms) if uniforms else torch.empty(len(keys), 0, dtype=torch.float64)
        self.log_probs = torch.empty(len(keys), 0, dtype=torch.float64)

    def choose(self, logits: Float[Tensor, "batch d_vocab"]) -> Int[Tensor, " batch"]:
        """The next token of every row."""
        if self.sampling is None:
            # The first of the largest, as by argmax, which is five times slower in bfloat16 on a CPU.
            return logits.max(-1).indices
        log_probs = logits.double().cpu().log_softmax(-1)
        uniforms = self.uniforms[:, self.log_probs.shape[1]]
        tokens = draw_tokens(log_probs / self.sampling.temperature, uniforms, self.sampling)
        chosen = log_probs.gather(1, tokens[:, None])
        self.log_probs = torch.cat([self.log_probs, chosen], dim=1)
        return tokens.to(logits.device)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Continue with these rows of the batch only."""
        self.uniforms, self.log_probs = self.uniforms[rows.cpu()], self.log_probs[rows.cpu()]

    def mean_log_prob(self, row: int) -> tuple[float, ...]:
        """The mean log probability of a row's tokens so far; nothing if tokens are not drawn."""
        return () if self.sampling is None else (float(self.log_probs[row].mean()),)


def draw_tokens(
    logits: Float[Tensor, "batch d_vocab"], uniforms: Float[Tensor, " batch"], sampling: Sampling
) -> Int[Tensor, " batch"]:
    """One token per row: the first, by falling probability, whose cumulative probability exceeds the uniform.

    Only the `top_k` most likely tokens count, and of these the fewest whose probabilities add up to `top_p`.
    """
    n_kept = logits.shape[-1] if sampling.top_k is None else min(sampling.top_k, logits.shape[-1])
    values, order = logits.topk(n_kept, sorted=True)
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= sampling.top_p, 0)
    cumulative = probabilities.cumsum(-1)
    at = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(-1).clamp(max=n_kept - 1)
    return order.gather(1, at[:, None])[:, 0]


def _uniforms(key: str, n: int) -> Float[Tensor, " token"]:
    """`n` random numbers in [0, 1) that depend on `key` alone; longer streams begin alike."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
