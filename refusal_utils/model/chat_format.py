"""A prompt as chat tokens: the model's template, padding, and the tokens that follow the instruction."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ..checks import invalid, require
from ..reasoning import ends_in_reasoning, opens_reasoning

# Templates that insert the date always receive this one, so prompts are reproducible.
DATE = "26 Jul 2024"
_DATE_PARTS = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
_DATE_PARTS |= {"%H": "12", "%M": "00", "%S": "00"}
SWITCHES = ("enable_thinking", "thinking")  # Qwen 3, SmolLM3; Granite, DeepSeek V3.1
PROBES = ("How do I boil an egg?", "Tell me about the sea, please.", "7 + 5 =", "Ok")


class TokenBatch(NamedTuple):
    """Left-padded token ids and the mask of the real ones."""

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]


def render_chat(
    tokenizer: PreTrainedTokenizerBase, prompt: str, system_prompt: str | None = None, *, think: bool = False
) -> str:
    """`prompt` as one user turn in the model's chat template, with the generation prompt.

    Templates that insert the date (Llama 3.2, SmolLM3) always insert `DATE`. Templates for several media get the text
    as a part. Raises `ValueError` if the template rejects a system role, or does not write a message's text as it is.
    """
    system = [{"role": "system", "content": system_prompt}] if system_prompt is not None else []
    messages, text, problem = [*system, {"role": "user", "content": prompt}], "", None
    try:
        text = render_messages(tokenizer, messages, think=think)
    except Exception as error:  # Jinja raises whatever the template's author chose
        problem = error
    if _left_out(messages, text) and (in_parts := _in_parts(tokenizer, messages, think)):
        return in_parts
    if problem is not None:
        turn, todo = ("a system role", "Leave system_prompt out.") if system else ("a user turn", "Check the template.")
        got = f"{type(problem).__name__}: {problem}"
        raise invalid("render_chat", f"the template must accept {turn}", got, todo) from problem
    missing = _left_out(messages, text)
    must, todo = "the template must write every message as it is", "Change that message, or check the chat template."
    require(missing is None, "render_chat", must, f"{missing!r:.60} left out or changed", todo)
    return text


def render_messages(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], *, think: bool = False, generation_prompt: bool = True
) -> str:
    """`messages` in the model's chat template, with a fixed date. Raises whatever the template raises."""
    options: dict[str, Any] = {
        "add_generation_prompt": generation_prompt,
        "date_string": DATE,
        **dict.fromkeys(SWITCHES, think),
    }
    template = _with_fixed_date(tokenizer.get_chat_template())
    return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options))


def _in_parts(tokenizer: PreTrainedTokenizerBase, messages: list[dict], think: bool) -> str | None:
    """The chat with each text as a list of one part, for a template that writes no plain text; None if it does."""
    plain = [{"role": "user", "content": PROBES[0]}]
    parts = [each | {"content": [{"type": "text", "text": each["content"]}]} for each in messages]
    try:
        if PROBES[0] in render_messages(tokenizer, plain):
            return None
    except Exception:
        pass  # the template takes parts only
    try:
        text = render_messages(tokenizer, parts, think=think)
    except Exception:
        return None
    return None if "'type': 'text'" in text or _left_out(messages, text) else text


def _left_out(messages: list[dict], text: str) -> str | None:
    """The first content that `text` does not hold, up to blanks around it."""
    return next((each["content"] for each in messages if each["content"].strip() not in text), None)


def thinking_mode(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None = None) -> str:
    """Whether thinking is switched off, has no switch, or cannot be switched off (DeepSeek-R1), in words.

    It cannot be switched off if the generation prompt opens a thinking part although the switch is off. A template
    without a switch that has a tag for reasoning is named with the tag: its model may think (Magistral, gpt-oss).
    """
    text, thinking = (render_chat(tokenizer, PROBES[0], system_prompt, think=think) for think in (False, True))
    if ends_in_reasoning(text.rpartition(PROBES[0])[2]):
        return "thinking cannot be switched off"
    if text != thinking:
        return "thinking switched off"
    tag = opens_reasoning(str(tokenizer.get_chat_template()))
    return f"no thinking switch, although the template has {tag}" if tag else "no thinking switch"


def pad_left(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]], device: torch.device, n_embeddings: int
) -> TokenBatch:
    """`ids` padded on the left, and the attention mask.

    A tokenizer whose pad token does not exist or has no embedding gets its stop token or token 0 there, which the mask
    hides.
    """
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad = next(token for token in known if token is not None and token < n_embeddings)
    rows = [torch.tensor(row, dtype=torch.long) for row in ids]
    padded = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
    real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    return TokenBatch(padded.to(device), real.to(device))


def probe_ids(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None) -> list[list[int]]:
    """The token ids of a few short and different chats.

    Raises `ValueError` unless they differ, are the same each time, and each begins with one BOS token, or none if the
    tokenizer adds none to plain text (Qwen). The token may occur again later: SmolLM2 begins every turn with it.
    """
    texts, again = ([render_chat(tokenizer, prompt, system_prompt) for prompt in PROBES] for _ in range(2))
    must = "the template must write the same chat again"
    require(texts == again, "load_chat_model", must, "two texts of one prompt", "Remove what is random from it.")
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    must, todo = "different prompts must give different tokens", "Check the chat template and the tokenizer."
    require(len({*map(tuple, ids)}) == len(ids), "load_chat_model", must, "the same for two prompts", todo)
    bos = tokenizer.bos_token_id
    least = int(bos is not None and tokenizer(PROBES[0])["input_ids"][:1] == [bos])
    for row in ids:
        count = len(list(takewhile(lambda token: token == bos, row)))
        must = "a chat must begin with one BOS token"
        require(least <= count <= 1, "load_chat_model", must, count, "Check the chat template.")
    return ids


def common_suffix(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens after the instruction: the longest ending that all `rows` share (in Mistral's chats one, `[/INST]`).

    Raises `ValueError` if they share none, because then no position holds the same token in every prompt.

    >>> common_suffix([[1, 5, 8, 9], [1, 8, 9]])
    (8, 9)
    """
    columns = zip(*map(reversed, rows), strict=False)
    shared = list(takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    must = "the generation prompt must end in at least one fixed token"
    require(bool(shared), "load_chat_model", must, "none", "Check the chat template.")
    return tuple(tokens[0] for tokens in reversed(shared))


def _with_fixed_date(template: str) -> str:
    """`template` with a clock that stands still, if it asks for the time."""
    if "strftime_now" not in template:
        return template
    parts = "".join(f" | replace('{code}', '{text}')" for code, text in _DATE_PARTS.items())
    # A macro, because transformers passes values to a template but no functions.
    return f"{{% macro strftime_now(format) %}}{{{{ format{parts} }}}}{{% endmacro %}}{template}"
