"""A prompt as chat tokens: the model's template around it, padding, and the tokens that follow the instruction."""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

# What a template that writes today's date is told instead: prompts must be the same tomorrow.
DATE = "26 Jul 2024"
_DATE_PARTS = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
_DATE_PARTS |= {"%H": "12", "%M": "00", "%S": "00"}
SWITCHES = ("enable_thinking", "thinking")  # Qwen 3, SmolLM3; Granite, DeepSeek V3.1
_OPEN = re.compile(r"<(think|thinking|reasoning)>(?!.*</\1>)", re.DOTALL | re.IGNORECASE)
PROBES = ("How do I boil an egg?", "Tell me about the sea, please.", "7 + 5 =", "Ok")


class TokenBatch(NamedTuple):
    """Left-padded tokens and the mask that says which are real."""

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]


def render_chat(
    tokenizer: PreTrainedTokenizerBase, prompt: str, system_prompt: str | None = None, *, think: bool = False
) -> str:
    """`prompt` as one user turn in the model's chat template, with the generation prompt, thinking off unless `think`.

    A template that writes a date (Llama 3.2, SmolLM3) writes `DATE`, whatever the day. Raises `ValueError` where the template rejects a system role.
    """
    system = [{"role": "system", "content": system_prompt}] if system_prompt is not None else []
    messages = [*system, {"role": "user", "content": prompt}]
    options: dict[str, Any] = {"add_generation_prompt": True, "date_string": DATE}
    options |= dict.fromkeys(SWITCHES, think)
    try:
        template = _dated(tokenizer.get_chat_template())
        return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options))
    except Exception as error:  # Jinja raises whatever the template's author chose
        what = "a system role" if system else "a user turn"
        raise ValueError(
            f"render_chat: the template must accept {what}; got {type(error).__name__}: {error}. "
            + ("Leave system_prompt out." if system else "Check the model's chat template.")
        ) from error


def thinking_mode(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None = None) -> str:
    """What became of thinking, in words: switched off, without a switch, or on all the same (DeepSeek-R1 and its like).

    On: the generation prompt of the template opens a thinking part and has no switch that keeps it from that.
    """
    text, thinking = (render_chat(tokenizer, PROBES[0], system_prompt, think=think) for think in (False, True))
    if _OPEN.search(text.rpartition(PROBES[0])[2]):
        return "thinking cannot be switched off"
    return "no thinking switch" if text == thinking else "thinking switched off"


def _dated(template: str) -> str:
    """`template` with a clock that stands still, where it asks for the time."""
    if "strftime_now" not in template:
        return template
    parts = "".join(f" | replace('{code}', '{text}')" for code, text in _DATE_PARTS.items())
    # A macro, since transformers hands values to a template but no functions.
    return f"{{% macro strftime_now(format) %}}{{{{ format{parts} }}}}{{% endmacro %}}{template}"


def left_pad(ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> TokenBatch:
    """`ids` padded on the left with `pad_token_id`, and the mask.

    >>> left_pad([[5, 6], [7]], 0, torch.device("cpu")).input_ids.tolist()
    [[5, 6], [0, 7]]
    """
    length = max(map(len, ids))
    rows = [[pad_token_id] * (length - len(row)) + list(row) for row in ids]
    masks = [[0] * (length - len(row)) + [1] * len(row) for row in ids]
    return TokenBatch(torch.tensor(rows, device=device), torch.tensor(masks, device=device))


def probe_ids(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None) -> list[list[int]]:
    """The token ids of a few short, different chats. Raises `ValueError` where one does not begin with one BOS token.

    None is right where the tokenizer puts none before plain text (Qwen). Further on the BOS token may come again: SmolLM2
    begins every turn with it.
    """
    texts = [render_chat(tokenizer, prompt, system_prompt) for prompt in PROBES]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    least = int(bos is not None and tokenizer(PROBES[0])["input_ids"][:1] == [bos])
    for row in ids:
        count = len(list(takewhile(lambda token: token == bos, row)))
        if not least <= count <= 1:
            raise ValueError(
                f"load_chat_model: a chat must begin with one BOS token; got {count}. Check the chat template."
            )
    return ids


def common_suffix(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None) -> tuple[int, ...]:
    """The tokens after the instruction: the longest ending that all probes share.

    Raises `ValueError` where there is none (Mistral has a single one, `[/INST]`): then no position means the same token for every prompt.
    """
    rows = probe_ids(tokenizer, system_prompt)
    length = 0
    while len({tuple(row[-length - 1 :]) for row in rows}) == 1 and length < min(map(len, rows)):
        length += 1
    if not length:
        raise ValueError(
            "load_chat_model: the generation prompt must end in at least one fixed token; got none. Check the chat template."
        )
    return tuple(rows[0][-length:])
