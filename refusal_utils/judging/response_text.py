"""The part of a response that is judged, and whether it is text at all."""

import re
import unicodedata
import zlib
from collections import Counter

from ..reasoning import without_reasoning

# The marks that a chat template leaves if generation did not stop at the end of the turn.
_TURN_END = re.compile(
    r"(?<=\S)\s*(?:<\|(?:eot|im_end|end|eos|user|assistant|return|call)\w*\|>|<end_of_turn>|</s>|\[/?INST\]|(?<=[.!?\s])(?:assistant|user|model)\n\n)"
)
_MIN_REPEATS = {1: 5, 2: 4, 3: 4}  # repeats that make a loop of so many words; 3 for longer ones
_LETTERS_LOOP = re.compile(r"(\D{1,40}?)\1{4,}", re.DOTALL)
_ADDRESS = re.compile(r"\(?(?:https?://|www\.)\S+")
_MAX_LOOP = 14  # words; a longer passage that is repeated is judged by its content


def own_turn(response: str) -> str:
    """`response` without reasoning and without anything after the end of the model's turn.

    >>> own_turn("Yes.<|im_end|>And you?")
    'Yes.'
    """
    return _TURN_END.split(without_reasoning(response))[0]


def repetition(text: str) -> str | None:
    """What makes a text degenerate: repeated words, non-words, or "" if it has no words. None for other texts.

    A text is degenerate if at least half of it is a loop, if it compresses as only loops do, or if at least half of its
    words cannot be words (no vowel, or more than 25 letters).

    >>> repetition("egg: 6. egg: 6. egg: 6. egg: 6."), repetition("one egg, two eggs")
    ('egg 6', None)
    """
    words = re.findall(r"\w+(?:['’]\w+)*", text.lower())
    if not words:
        return ""
    return _loop(words) or _frequent_triple(words) or _letters_loop(text) or _no_words(text)


def _loop(words: list[str]) -> str | None:
    """The shortest run of words that makes up half of `words` by being repeated at least 3 to 5 times in a row."""
    for period in range(1, min(len(words) // 3, _MAX_LOOP) + 1):
        run = longest = end = 0
        for at in range(period, len(words)):
            run = run + 1 if words[at] == words[at - period] else 0
            if run > longest:
                longest, end = run, at + 1
        said = (longest + period) / period
        unit = words[end - period : end]
        letters = period == 1 or any(word[0].isalpha() for word in unit)  # tables of numbers have a period too
        if letters and said >= _MIN_REPEATS.get(period, 3) and 2 * (longest + period) >= len(words):
            return " ".join(unit)
    return None


def _frequent_triple(words: list[str]) -> str | None:
    """Three consecutive words so frequent that they make up half of `words`: a loop with small changes."""
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    triple, count = triples.most_common(1)[0] if triples else ((), 0)
    often = count >= 4 and 3 * count > len(words) / 2 and not "".join(triple).isdigit()
    return " ".join(triple) if often else None


def _letters_loop(text: str) -> str | None:
    """A loop in a script without spaces or within one long word; only texts that compress well are searched."""
    raw = text.encode()[:2000]
    compressed = len(zlib.compress(raw)) < len(raw) / 2 or len(raw) < 100
    found = _LETTERS_LOOP.search(text[:2000]) if compressed else None
    enough = found and len(found[0]) >= 20 and 2 * len(found[0]) >= len(text[:2000])
    return found[1] if found and enough and re.search(r"[^\W\d_]", found[1]) else None


def _no_words(text: str) -> str | None:
    """Strings that cannot be words, if they are half of all words (acronyms and other scripts do not count)."""
    plain = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    plain = _ADDRESS.sub(" ", plain)
    if 2 * len(re.findall("[A-Za-z]", plain)) < sum(each.isalpha() for each in plain):
        return None  # a text in another script may quote a few of these
    words = [word for word in re.findall("[A-Za-z]{3,}", plain) if not (word.isupper() and len(word) < 6)]
    odd = [word for word in words if len(word) > 25 or not re.search("[aeiouy]", word, re.IGNORECASE)]
    return " ".join(odd[:5]) if odd and 2 * len(odd) >= len(words) and (len(odd) > 2 or len(odd[0]) > 25) else None
