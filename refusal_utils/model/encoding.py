"""Prompts as tokens: each as a user's turn that ends in the template's fixed tokens and holds no markup of its own."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from ..checks import require
from .chat_format import PROBES, render_chat
from .markup import Markup, read_markup

_FUNCTION = "encode"
_ENCODED_AT_ONCE = 256  # prompts: a tokenizer's encoding takes about 10 kB for each in addition to the ids


def encode_chats(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    system_prompt: str | None,
    suffix: tuple[int, ...],
    markup: Markup,
    n_context: int,
    n_embeddings: int,
) -> list[list[int]]:
    """The unpadded token ids of each prompt as a user's chat turn, with the generation prompt.

    Raises `ValueError` for a prompt that is empty or no Unicode text, that holds chat markup, that is longer than the
    context, that has a token without an embedding, or that does not end in the tokens of `suffix`.
    """
    todo = "Put a single one in brackets."
    require(not isinstance(prompts, str), _FUNCTION, "prompts must be a list of texts", f"{prompts!r:.60}", todo)
    for index, prompt in enumerate(prompts):
        must = "a prompt must be a text that is not empty"
        is_text = isinstance(prompt, str) and is_visible(prompt) and is_unicode(prompt)
        require(is_text, _FUNCTION, must, f"{prompt!r:.60} as prompt {index}", "Drop it.")
    ids = _tokens(tokenizer, [render_chat(tokenizer, prompt, system_prompt) for prompt in prompts])
    (own,) = _tokens(tokenizer, [render_chat(tokenizer, PROBES[0], system_prompt)]) if ids else ((),)
    allowed = markup.control(own)
    for index, (prompt, row) in enumerate(zip(prompts, ids, strict=True)):
        where = f"prompt {index} ({prompt[:40]!r}...)"
        _check_markup(prompt, row, markup, allowed, where)
        must = f"a prompt must fit the context of {n_context} tokens"
        require(len(row) <= n_context, _FUNCTION, must, f"{len(row)} in {where}", "Shorten or drop it.")
        check_known(_FUNCTION, tokenizer, row, n_embeddings, where)
        _check_ending(prompt, row, suffix, where)
    return ids


def check_known(
    function: str, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], n_embeddings: int, where: str
) -> None:
    """Raise `ValueError` in the name of `function` for a token that the model has no embedding for."""
    if max(ids) >= n_embeddings:
        must = f"every token must be one of the model's {n_embeddings} embeddings"
        got = f"token {max(ids)} ({tokenizer.convert_ids_to_tokens(max(ids))!r}) in {where}"
        require(False, function, must, got, "Use the tokenizer that belongs to the weights, or leave that text out.")


def is_visible(text: str) -> bool:
    """Whether `text` holds more than blanks, control characters and invisible ones.

    >>> is_visible(" a"), is_visible(chr(0x200B) + " ")
    (True, False)
    """
    return any(unicodedata.category(letter) not in ("Cc", "Cf", "Zs", "Zl", "Zp") for letter in text)


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8, which lone surrogates cannot.

    >>> is_unicode("smile"), is_unicode(chr(0xD83D))
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_tokenizer(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None) -> PreTrainedTokenizerBase:
    """`tokenizer`, after a check that the system prompt holds no marker of turns. Raises `ValueError` if it does.

    Other special tokens may stand in it (Magistral).
    """
    if system_prompt is None:
        return tokenizer
    markup, (own,) = read_markup(tokenizer), _tokens(tokenizer, [render_chat(tokenizer, PROBES[0])])
    turns = replace(
        markup, ids=frozenset({*markup.control(own), *([] if markup.end_of_turn is None else [markup.end_of_turn])})
    )
    must, found = "the system prompt must not contain chat markup", turns.find(system_prompt)
    require(found is None, "load_chat_model", must, repr(found), "Remove it.")
    return tokenizer


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = []
    for start in range(0, len(texts), _ENCODED_AT_ONCE):
        found += tokenizer(list(texts[start : start + _ENCODED_AT_ONCE]), add_special_tokens=False)["input_ids"]
    return found


def _check_markup(prompt: str, ids: list[int], markup: Markup, allowed: tuple[int, ...], where: str) -> None:
    """The tokens of the whole chat are compared, so that nothing is missed where prompt and template meet."""
    if markup.control(ids) == allowed and markup.find(prompt, ()) is None:
        return
    must = "a prompt must not contain chat markup, which the model would read as further turns"
    got = f"{markup.find(prompt) or 'markup'!r} in {where}"
    require(False, _FUNCTION, must, got, "Remove it, or write it with spaces.")


def _check_ending(prompt: str, ids: list[int], suffix: tuple[int, ...], where: str) -> None:
    end, blank = ids[-len(suffix) :], prompt[len(prompt.rstrip()) :]
    got, todo = f"{end} in {where}, not {list(suffix)}", "Change how the prompt ends."
    if blank:
        got, todo = f"{blank!r} at the end of {where}, which merges with them", "Remove that blank."
    must = "every prompt must end in the same template tokens"
    require(tuple(end) == suffix, _FUNCTION, must, got, todo)
