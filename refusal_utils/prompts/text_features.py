"""What can be read off a prompt without a model: its words, their overlap with another's, and its form."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

_WORDS = "a an the of to in on for and or my your is are was be do does i you it this that with at by from me"
_COMMON = frozenset(_WORDS.split())
NEAR_DUPLICATE = 0.5  # `jaccard` of the word 3-grams of two texts from which they count as the same
_QUESTION_WORDS = ("how", "what", "who", "why", "when", "where", "which", "is", "are", "can", "do", "does")


def folded(text: str) -> str:
    """`text` without case, kinds of blanks and Unicode forms, as a key: equal for two writings of the same prompt.

    >>> folded("Cafe\u0301  au lait") == folded("caf\u00e9 au LAIT")
    True
    """
    if text.isascii():  # a shortcut: 200,000 prompts are read in seconds
        return " ".join(text.casefold().split())
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(letter for letter in plain if unicodedata.category(letter) != "Cf").split())


def words_of(text: str) -> list[str]:
    """The words of `text` in order, in lower case and without punctuation (apostrophes stay).

    >>> words_of("I can’t, sorry.")
    ['i', "can't", 'sorry']
    """
    return re.findall(r"(?:[^\W_]|')+", text.lower().replace("’", "'"))


def word_ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The word n-grams of `text` in order.

    >>> word_ngrams("I can't, sorry", 2)
    [('i', "can't"), ("can't", 'sorry')]
    """
    words = words_of(text)
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def content_words(text: str) -> set[str]:
    """The words of `text` without the most common ones, or all of them if nothing else is left.

    >>> sorted(content_words("How do I boil an egg?"))
    ['boil', 'egg', 'how']
    """
    words = set(words_of(text))
    return words - _COMMON or words


def jaccard(first: set, second: set) -> float:
    """Shared members over all members of two sets; 0 if both are empty.

    >>> jaccard({1, 2}, {2, 3}) == 1 / 3
    True
    """
    return len(first & second) / max(len(first | second), 1)


def form_features(texts: Iterable[str]) -> dict[str, list[bool]]:
    """The form of texts, whatever they are about: final punctuation, capital first letter, and opening like a question.

    >>> form_features(["Is it late?", "tell me"])["is a question"]
    [True, False]
    """
    texts = [text.strip() for text in texts]
    return {
        "ends with ? . or !": [text[-1:] in ("?", ".", "!") for text in texts],
        "starts with a capital": [text[:1].isupper() for text in texts],
        "is a question": [text.lower().startswith(_QUESTION_WORDS) for text in texts],
    }


def varying_form(texts: Sequence[str], n_tokens: Sequence[int]) -> pd.DataFrame:
    """What `texts` look like, a row each: the log of their number of tokens, and those `form_features` that vary."""
    form = pd.DataFrame({"length (log tokens)": np.log(n_tokens), **form_features(texts)})
    return form.loc[:, form.nunique() > 1]
