"""The learned judge: a logistic regression on the hashed features of `features`, trained by `training`."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file

from .features import WEIGHTS, Ngrams, features

FILE = Path(__file__).parent / "data" / "learned_judge.safetensors"
N_EVIDENCE = 3  # n-grams that are named


class Learned(NamedTuple):
    """The probability that a response refuses, and the n-grams of the response that weighed most in that direction."""

    probability: float
    evidence: str


def learned_judgement(prompt: str, text: str, span: tuple[int, int] | None, verdict: str) -> Learned:
    """What the model says of a plain response; `span` and `verdict` are what the phrases found in it."""
    weights, bias = _model()
    groups = features(prompt, text, span, verdict)
    parts = [scale(group, at) * weights[group.numbers] for at, group in enumerate(groups)]
    logit = bias + float(sum(part.sum() for part in parts))
    side = 1 if logit > 0 else -1
    best = sorted(((value, at, n) for at in range(4) for n, value in _largest(side * parts[at])), reverse=True)
    named = dict.fromkeys(groups[at].text(n).strip() for value, at, n in best if value > 0)
    kept = [name for name in named if len(name) > 1][:N_EVIDENCE]
    return Learned(float(1 / (1 + np.exp(-logit))), ", ".join(map(repr, kept)))


def _largest(values: np.ndarray) -> list[tuple[int, float]]:
    """The positions and values of the few largest values."""
    return [(int(at), float(values[at])) for at in np.argsort(-values, kind="stable")[: 2 * N_EVIDENCE]]


def scale(group: Ngrams, at: int) -> float:
    """The value of every feature of the group number `at`: each group has a fixed norm."""
    return WEIGHTS[at] / max(len(group.numbers), 1) ** 0.5


@cache
def _model() -> tuple[np.ndarray, float]:
    stored = load_file(FILE)
    return stored["weights"].astype(np.float32), float(stored["bias"][0])
