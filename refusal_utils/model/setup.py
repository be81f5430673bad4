"""What is known and checked about a chat model before its weights load: tokenizer, template, decision state."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from ..checks import require, require_known, require_types
from .chat_format import common_suffix, probe_ids
from .defaults import DecisionState, decision_state
from .encoding import checked_tokenizer
from .loading import load_config, load_tokenizer
from .sources import find_source


class Setup(NamedTuple):
    """A tokenizer, its tokens of a few probes and of every ending, the text model's configuration, and the state."""

    tokenizer: PreTrainedTokenizerBase
    probes: list[list[int]]
    suffix: tuple[int, ...]
    config: Any
    state: DecisionState


def read_setup(
    name: str, place: str | Path, hf_model: Any, layer: int | None, pos: int | None, system_prompt: str | None
) -> Setup:
    """The setup of the model at `place`, or of the loaded `hf_model`.

    Raises `ValueError` for a template or system prompt that cannot be used, for a layer or position out of range, and
    as `check_types` does.
    """
    check_types("load_chat_model", {"layer": layer, "pos": pos, "system_prompt": system_prompt})
    tokenizer = checked_tokenizer(load_tokenizer(name, place), system_prompt)
    suffix = common_suffix(probes := probe_ids(tokenizer, system_prompt))
    config = (load_config(name, place) if hf_model is None else hf_model.config).get_text_config()
    state = decision_state(name, place, config.num_hidden_layers, len(suffix), layer, pos)
    check_fixed("load_chat_model", len(suffix), (state.pos,))
    return Setup(tokenizer, probes, suffix, config, state)


def check_setup(
    name: str, *, layer: int | None = None, pos: int | None = None, system_prompt: str | None = None
) -> None:
    """Raise `ValueError` as `load_chat_model` would for these options, without loading weights."""
    read_setup(name, find_source(name).place, None, layer, pos, system_prompt)


def check_types(function: str, loading: Mapping[str, object], choices: Sequence[str] = ()) -> None:
    """Raise `ValueError` in the name of `function` unless these options of loading are of the types they should have.

    A layer is a whole number or one of `choices`, a position a whole number, a system prompt a text; each may be None.
    """
    layer = loading.get("layer")
    if choices and isinstance(layer, str):
        require_known(function, "layer", layer, choices, "Or give its number.")
        layer = None
    require_types(function, (Integral, type(None)), layer=layer, pos=loading.get("pos"))
    require_types(function, (str, type(None)), system_prompt=loading.get("system_prompt"))


def check_fixed(function: str, n_fixed: int, positions: Sequence[int]) -> None:
    """Raise `ValueError` in the name of `function` for a position outside the template's last `n_fixed` tokens."""
    must, todo = f"positions must lie in the template's last {n_fixed} tokens", f"Use -{n_fixed} to -1."
    for pos in positions:
        require(-n_fixed <= pos <= -1, function, must, pos, todo)
