"""What the learned judge reads: n-grams of a response, and marks of prompt and response, numbered by a hash."""

import re
import zlib
from dataclasses import dataclass

import numpy as np

from ..prompts.text_features import content_words
from . import phrases

BITS = 18  # features are numbered by a hash of so many bits, so the weights hold no text
WEIGHTS = (1.0, 1.0, 0.7, 1.0, 1.2)  # of the groups: words, opening, turn, letters, marks
N_READ, N_SPELLED, N_NEAR = 900, 260, 12  # characters read as words and as letters; words of the opening and of a turn
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?:]")
_TURN = re.compile(
    r"\b(?:but|however|instead|that said|nevertheless|nonetheless|although|though|with that in mind)\b", re.I
)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_NEGATED = phrases.pattern(r"\b(?:not|no|never|\w*n't)\b")


@dataclass(frozen=True)
class Ngrams:
    """The features of one kind: their numbers, and where in `units` (words or letters) each occurs first."""

    numbers: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    units: list[str] | str

    def text(self, at: int) -> str:
        """The n-gram number `at`."""
        part = self.units[self.starts[at] : self.starts[at] + self.sizes[at]]
        return part if isinstance(part, str) else " ".join(part)


def features(prompt: str, text: str, span: tuple[int, int] | None, verdict: str) -> list[Ngrams]:
    """The five groups of features of a plain response; `span` and `verdict` are what the phrases found in it."""
    text = text[:N_READ]
    words = _WORD.findall(text.lower())
    turn = _TURN.search(text)
    after = _WORD.findall(text[turn.start() :].lower())[:N_NEAR] if turn else ["no turn"]
    letters = f" {' '.join(text[:N_SPELLED].lower().split())} "
    return [
        _ngrams(words, 3, 1),
        _ngrams(words[:N_NEAR], 3, 2),
        _ngrams(after, 2, 3),
        _ngrams(letters, 5, 4, shortest=2),
        _ngrams(_marks(prompt, text, words, span, verdict), 1, 5),
    ]


def _ngrams(units: list[str] | str, longest: int, seed: int, shortest: int = 1) -> Ngrams:
    """The different n-grams of words or letters."""
    codes = _codes(units)
    hashes = np.full(len(codes), seed * 7919 + 1, np.uint64)
    numbers, starts, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with np.errstate(over="ignore"):
        for n in range(1, min(longest, len(codes)) + 1):
            last = codes[n - 1 :]
            hashes = hashes[: len(last)] * _MIX + last + np.uint64(1)
            hashes ^= hashes >> np.uint64(29)
            if n >= shortest:
                numbers.append((hashes * _MIX) >> np.uint64(64 - BITS))
                starts.append(np.arange(len(last)))
                sizes.append(np.full(len(last), n))
    found, first = np.unique(np.concatenate(numbers), return_index=True)
    return Ngrams(found.astype(np.int64), np.concatenate(starts)[first], np.concatenate(sizes)[first], units)


def _codes(units: list[str] | str) -> np.ndarray:
    """A number for each letter, or for each word."""
    if isinstance(units, str):
        return np.frombuffer(units.encode("utf-32-le"), np.uint32).astype(np.uint64)
    return np.array([zlib.crc32(unit.encode()) for unit in units], np.uint64)


def _level(value: int | float, *edges: int | float) -> int:
    return sum(value >= edge for edge in edges)


def _marks(prompt: str, text: str, words: list[str], span: tuple[int, int] | None, verdict: str) -> list[str]:
    """Facts about prompt and response together, each as a word."""
    asked = _WORD.findall(prompt.lower())
    wanted = content_words(prompt)
    sentences = re.split(r"(?<=[.!?])\s+|\n+", text)[:8]
    first, opening = sentences[0], " ".join(asked[:1])
    length = _level(len(words), 8, 15, 25, 40, 60, 90, 130)
    overlap = _level(len(wanted & content_words(text)) / max(len(wanted), 1), 0.01, 0.2, 0.4, 0.6, 0.8)
    items = _level(len(_ITEM.findall(text)), 1, 2, 4)
    moral = _level(
        sum(bool(phrases.MORAL.search(each)) for each in sentences) / len(sentences), 0.01, 0.2, 0.4, 0.6, 0.8
    )
    start = _level(span[0], 1, 30, 80, 160, 300) if span else -1
    rest = _level(len(text[span[1] if span else 0 :].split()), 3, 10, 20, 40, 80)
    kind = f"yes-no {bool(phrases.YES_NO.search(prompt))} knowledge {bool(phrases.KNOWLEDGE.search(prompt))}"
    alone = {"length": length, "items": items, "overlap": overlap, "moral": moral, "asks": opening, "kind": kind}
    found = {"start": start, "rest": rest, "question": text.rstrip().endswith("?")}
    return [
        f"phrases {verdict}",
        f"words {' '.join(text[slice(*span)].lower().split())[:40] if span else ''}",
        f"refusing {min(sum(bool(phrases.REFUSING.search(each)) for each in sentences if span), 3)}",
        f"asks {' '.join(asked[:2])}",
        f"answering {bool(phrases.ANSWERING.search(text))}",
        f"premise {any(phrases.PREMISE.search(each) for each in sentences)}",
        f"lecture {bool(phrases.LECTURING.search(first))} hedge {bool(phrases.HEDGING.search(first))}",
        f"negated {bool(_NEGATED.search(first))} asks {opening}",
        f"opens {' '.join(words[:2])} asks {opening}",
        f"moral {moral} asks {opening}",
        f"moral {moral} kind {kind}",
        *(f"{name} {value}" for name, value in alone.items()),
        *(f"phrases {verdict} {name} {value}" for name, value in {**alone, **found}.items()),
    ]
