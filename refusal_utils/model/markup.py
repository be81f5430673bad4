"""Chat markup: what a template marks turns with. A prompt's text must not hold any, or it becomes extra turns."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..checks import require
from .chat_format import render_messages

_LIKE_MARKUP = re.compile(r"[<\[].+[>\]]")
_LIKE_CONTROL = re.compile(r"<[|｜].+[|｜]>")
_HTML = (
    "a b i p u s br em hr li ol td th tr ul col del div img ins pre sub sup code h1 h2 h3 h4 h5 h6 "
    "span table tbody thead tfoot strong caption blockquote"
)
_HTML_TAG = re.compile(rf"</?(?:{'|'.join(_HTML.split())})\s*/?>", re.IGNORECASE)  # Gemma has a token for each
# A turn named by a plain word ("assistant") is none of the prompt's faults.
_LIKE_HEADING = re.compile(r"[<>\[\]|#:{}]")
_LONGEST = 40  # characters of a marker; longer ones are sentences of the template
_RARE = "\U000fabcd"  # a character for private use
_ASKED, _ANSWERED, _ASKED_AGAIN, _TOLD = "Ask7", "Answer7", "AskAgain7", "Told7"  # contents of messages, easy to find


@dataclass(frozen=True)
class Markup:
    """What marks turns in the chats of a tokenizer.

    `ids`: special and control tokens. `words`: markers that the template writes as ordinary text, such as `<|user|>` in
    OLMo 2 or `USER:` in Vicuna. `end_of_turn`: the token that ends an answer in the template, if there is one.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    ids: frozenset[int] = field(repr=False)
    words: tuple[str, ...] = ()
    end_of_turn: int | None = None

    def control(self, ids: Iterable[int]) -> tuple[int, ...]:
        """The control tokens among `ids`, in order."""
        return tuple(token for token in ids if token in self.ids)

    def find(self, text: str, ids: Sequence[int] | None = None) -> str | None:
        """The first piece of markup in `text`, or None; `ids` are its tokens if they are known."""
        forms = (text, unicodedata.normalize("NFKC", text), _normalized(self.tokenizer, text))
        named = next((word for word in self.words if any(word in form for form in forms)), None)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] if ids is None else ids
        control = self.control(ids)
        return str(self.tokenizer.convert_ids_to_tokens(control[0])) if control else named

    def as_text(self, text: str) -> str:
        """`text` with a space inside each piece of markup, which makes it ordinary text; other texts are unchanged.

        Raises `ValueError` if markup remains all the same.
        """
        while found := self.find(text):
            plain = re.sub(re.escape(found), lambda part: f"{part[0][0]} {part[0][1:]}", text, flags=re.IGNORECASE)
            if plain == text or len(found) < 2:  # another Unicode form, which the tokenizer reads as markup
                plain = re.sub(r"[^\w\s.,;:?!'-]", " ", unicodedata.normalize("NFKC", text))
                must, todo = "a text must be free of chat markup", "Remove it."
                require(plain != text, "as_text", must, repr(found), todo)
            text = plain
        return text


def read_markup(tokenizer: PreTrainedTokenizerBase) -> Markup:
    """The markup of a tokenizer and its chat template."""
    ids = control_ids(tokenizer, str(tokenizer.get_chat_template()))
    between = _between_turns(tokenizer)
    special = re.compile("|".join(map(re.escape, sorted(_texts(tokenizer, ids), key=len, reverse=True))) or r"(?!)")
    lines = [line.strip() for part in between for piece in special.split(part) for line in piece.splitlines()]
    words = [line for line in lines if _LIKE_HEADING.search(line) and 1 < len(line) <= _LONGEST]
    unknown = [str(tokenizer.unk_token)] if tokenizer.unk_token and tokenizer.unk_token_id not in ids else []
    return Markup(tokenizer, ids, tuple(dict.fromkeys([*words, *unknown])), _end_of_turn(tokenizer, ids))


def stop_tokens(model: Any, markup: Markup) -> frozenset[int]:
    """The ids of the tokens that end a response: the generation config's, the tokenizer's, the template's.

    Any of the three may be incomplete in a published model. Empty if the model has none: responses then end at their
    limit.
    """
    given = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    given = given if isinstance(given, list | tuple) else [given]
    return frozenset({*given, markup.tokenizer.eos_token_id, markup.end_of_turn} - {None})


def control_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> frozenset[int]:
    """The ids of special tokens, and of others that look like markup: added ones, and any that the template writes.

    A token for blanks or for an HTML tag is ordinary text. So is the unknown token if rare characters become one.
    """
    special = set(tokenizer.all_special_ids)
    for id, token in tokenizer.added_tokens_decoder.items():
        text = str(token).strip()
        is_markup = _LIKE_MARKUP.fullmatch(text) and (text in template or not _HTML_TAG.fullmatch(text))
        special |= {id} if token.special or is_markup else set()
    special |= {id for text, id in tokenizer.get_vocab().items() if _LIKE_CONTROL.fullmatch(text)}
    rare = tokenizer(_RARE, add_special_tokens=False)["input_ids"]
    return frozenset(special - {None, tokenizer.unk_token_id if tokenizer.unk_token_id in rare else None})


def _between_turns(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the template writes between the messages of a chat, and after the last one."""
    turns = [("user", _ASKED), ("assistant", _ANSWERED), ("user", _ASKED_AGAIN)]
    chats = [[("system", _TOLD), *turns], turns, turns[:1]]
    found: list[str] = []
    for chat in chats:
        text = _try(tokenizer, chat, True) or ""
        parts = re.split("|".join(rf"{content}(?!\w)" for _, content in chat), text)
        found += parts[1:]
    return found


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, ids: frozenset[int]) -> int | None:
    """The control token after an answer that ends a chat, or else after one that is followed by a question."""
    turns = [("user", _ASKED), ("assistant", _ANSWERED)]
    ends = _try(tokenizer, turns, False) != _try(tokenizer, turns, True)  # else the next answer is opened here too
    for chat in ([turns] if ends else []) + [[*turns, ("user", _ASKED_AGAIN)]]:
        after = (_try(tokenizer, chat, False) or "").partition(_ANSWERED)[2].lstrip()
        first = tokenizer(after, add_special_tokens=False)["input_ids"][:1] if after else []
        if first:
            return first[0] if first[0] in ids else None
    return None


def _try(tokenizer: PreTrainedTokenizerBase, chat: Sequence[tuple[str, str]], generation_prompt: bool) -> str | None:
    try:
        messages = [{"role": role, "content": content} for role, content in chat]
        return render_messages(tokenizer, messages, generation_prompt=generation_prompt)
    except (
        Exception
    ):  # some templates take no system role or no second turn, and Jinja raises whatever their author chose
        return None


def _texts(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> list[str]:
    return [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids)) if token]


def _normalized(tokenizer: Any, text: str) -> str:
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    return normalizer.normalize_str(text) if normalizer is not None else text
