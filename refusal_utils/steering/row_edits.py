"""The interventions of one batch: a list per row, so that different conditions can ride in one forward pass."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..directions.ablation import orthonormal_basis, require_unit
from ..model.chat_model import ChatModel, check_positions
from .interventions import Ablation, Addition, HeadReplacement, Intervention, Tokens


class RowEdits:
    """The interventions of a batch, one list per row (a single list serves every row of any batch)."""

    def __init__(self, chat: ChatModel, rows: Sequence[Sequence[Intervention]]) -> None:
        self.chat, self.marks, self.n_rows = chat, _TokenMarks(chat.suffix), len(rows)
        self.edits: dict[str, list[_Edit | _HeadEdit]] = defaultdict(list)
        groups: dict[tuple, dict[int, list[Addition | Ablation]]] = defaultdict(lambda: defaultdict(list))
        for row, interventions in enumerate(rows):
            for each in interventions:
                _check(chat, each)
                if isinstance(each, HeadReplacement):
                    for name, edit in _head_edits(chat, each, row):
                        self.edits[name].append(edit)
                    continue
                for name in _hooks(chat, each):
                    key = (name, each.tokens, each.every, isinstance(each, Addition) and each.keep_norm)
                    groups[key][row].append(each)
        first = chat.hook_name("resid_pre", 0)
        for (name, tokens, every, keep_norm), members in groups.items():
            content = [_content_at(chat, members.get(row, []), name == first) for row in range(len(rows))]
            self.edits[name].append(_Edit.stack(chat, content, tokens, every, keep_norm))

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these rows of the batch only."""
        places = {int(row): place for place, row in enumerate(rows)}
        for name, edits in self.edits.items():
            self.edits[name] = [kept for edit in edits if (kept := edit.keep(rows, places)) is not None]

    @contextmanager
    def open(self, spread: Callable[[Any], Any] = lambda value: value) -> Iterator[None]:
        """The edits are in force while open. `spread` turns the model's input into one row per row of the batch."""
        hooks = [(name, self._hook(name)) for name in self.edits]
        handle = None
        if any(edit.needs_marks for edits in self.edits.values() for edit in edits):
            see = partial(self.marks.see, spread)
            handle = self.chat.bridge.original_model.register_forward_pre_hook(see, with_kwargs=True)
        try:
            with self.chat.bridge.hooks(fwd_hooks=hooks):
                yield
        finally:
            if handle is not None:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def edit_all(value: Tensor, hook: object) -> Tensor:
            for edit in self.edits[name]:
                value = edit.apply(value, self.marks, self.n_rows == 1)
            return value

        return edit_all


@dataclass(eq=False)
class _Edit:
    """x <- x - basis' basis x + vector at the marked tokens; rows of `basis` are orthonormal or zero."""

    vector: Float[Tensor, "batch 1 d_model"]
    basis: Float[Tensor, "batch rank d_model"]
    tokens: Tokens
    every: int
    keep_norm: bool

    @property
    def needs_marks(self) -> bool:
        """Whether it matters which token is which."""
        return self.tokens != "all" or self.every != 1

    def keep(self, rows: Int[Tensor, " kept"], places: dict[int, int]) -> "_Edit":
        """The edit of these rows."""
        self.vector, self.basis = self.vector[rows], self.basis[rows]
        return self

    @classmethod
    def stack(cls, chat: ChatModel, content: list[tuple[Tensor, Tensor]], *options: Any) -> "_Edit":
        rank = max(len(basis) for _, basis in content)
        bases = torch.zeros(len(content), rank, chat.d_model, dtype=torch.float64)
        for row, (_, basis) in enumerate(content):
            bases[row, : len(basis)] = basis
        vectors = torch.stack([vector for vector, _ in content])[:, None]
        return cls(vectors.to(chat.device, chat.dtype), bases.to(chat.device, chat.dtype), *options)

    def apply(
        self, value: Float[Tensor, "batch pos d_model"], marks: "_TokenMarks", same_for_all: bool
    ) -> Float[Tensor, "batch pos d_model"]:
        """`value` after the edit; rows of size 1 serve every row of the batch."""
        vector, basis = self.vector.to(value.device), self.basis.to(value.device)
        edited = value + vector
        if basis.shape[1]:
            edited = edited - (value @ basis.mT) @ basis
        if self.keep_norm:
            edited = edited * (value.norm(dim=-1, keepdim=True) / edited.norm(dim=-1, keepdim=True).clamp(min=1e-12))
        if not self.needs_marks:
            return edited
        return torch.where(marks.chosen(self.tokens, self.every).to(value.device)[..., None], edited, value)


@dataclass(frozen=True, eq=False)
class _HeadEdit:
    """One row's heads of one layer: their z at some of the prompt's last tokens becomes `values`."""

    row: int
    head_index: Int[Tensor, " replaced_head_index"]
    positions: Int[Tensor, " pos"]
    values: Float[Tensor, "pos replaced_head_index d_head"]
    needs_marks = True

    def keep(self, rows: Int[Tensor, " kept"], places: dict[int, int]) -> "_HeadEdit | None":
        """The edit at its row's new place, None where the row has left."""
        return replace(self, row=places[self.row]) if self.row in places else None

    def apply(
        self, value: Float[Tensor, "batch pos head_index d_head"], marks: "_TokenMarks", same_for_all: bool
    ) -> Float[Tensor, "batch pos head_index d_head"]:
        """`value` with the heads replaced; on the prompt only."""
        if marks.n_past:
            return value
        value = value.clone()
        rows = range(len(value)) if same_for_all else [self.row]
        ends = marks.prompt_ends()
        for row in rows:
            at = (int(ends[row]) + 1 + self.positions).to(value.device)
            value[row, at[:, None], self.head_index.to(value.device)] = self.values.to(value.device, value.dtype)
        return value


class _TokenMarks:
    """Number and kind (prompt or generated) of every token of the forward pass under way."""

    def __init__(self, suffix: tuple[int, ...]) -> None:
        self.suffix = suffix
        self.ids: Int[Tensor, "batch pos"]
        self.numbers: Int[Tensor, "batch pos"]
        self.n_past = 0

    def see(self, spread: Callable[[Any], Any], module: object, args: tuple, kwargs: dict) -> None:
        """Read the arguments of the model's forward pass."""
        self.ids = spread(args[0] if args else kwargs["input_ids"])
        past, mask = kwargs.get("past_key_values"), spread(kwargs.get("attention_mask"))
        self.n_past = past.get_seq_length() if past is not None else 0
        if mask is None:
            mask = torch.ones(len(self.ids), self.n_past + self.ids.shape[1], device=self.ids.device)
        self.numbers = mask.long().cumsum(-1)[:, -self.ids.shape[1] :] - 1

    def chosen(self, tokens: Tokens, every: int) -> Bool[Tensor, "batch pos"]:
        """Which tokens an edit is for."""
        due = self.numbers % every == 0
        return due if tokens == "all" else due & (self._generated() == (tokens == "generation"))

    def _generated(self) -> Bool[Tensor, "batch pos"]:
        if self.n_past:
            return torch.ones_like(self.ids, dtype=torch.bool)
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return places > self.prompt_ends()[:, None]

    def prompt_ends(self) -> Int[Tensor, " batch"]:
        """The place of each row's last prompt token. Raises `ValueError` for tokens without the template's ending."""
        n_suffix = len(self.suffix)
        ends = (self.ids.unfold(1, n_suffix, 1) == torch.tensor(self.suffix, device=self.ids.device)).all(-1)
        if not ends.any(-1).all():
            raise ValueError(
                "intervene: prompt and generation can only be told apart by the chat template's last tokens; got a row "
                f"without {list(self.suffix)}. Encode prompts with chat.encode, or use tokens='all'."
            )
        places = torch.arange(ends.shape[1], device=self.ids.device)
        return (ends * places).amax(-1) + n_suffix - 1


def _head_edits(chat: ChatModel, intervention: HeadReplacement, row: int) -> Iterator[tuple[str, _HeadEdit]]:
    """(hook name, edit) for every layer that has one of the heads."""
    for layer in sorted({layer for layer, _ in intervention.heads}):
        chosen = [number for number, head in enumerate(intervention.heads) if head[0] == layer]
        head_index = torch.tensor([intervention.heads[number][1] for number in chosen])
        values = intervention.values[chosen].transpose(0, 1)
        yield chat.hook_name("z", layer), _HeadEdit(row, head_index, torch.tensor(intervention.positions), values)


def written_hooks(chat: ChatModel) -> list[str]:
    """The names of all hooks at which something is written to the residual stream.

    Not `resid_mid`: an edit there is without effect, since TransformerLens' bridge gives a copy.
    """
    writes = [chat.hook_name(hook, layer) for layer in range(chat.n_layers) for hook in ("attn_out", "mlp_out")]
    return [chat.hook_name("resid_pre", 0), *writes]


def _hooks(chat: ChatModel, intervention: Addition | Ablation) -> list[str]:
    if intervention.layers is None:
        return written_hooks(chat)
    return [chat.hook_name("resid_pre", layer) for layer in intervention.layers]


def _content_at(chat: ChatModel, members: list[Addition | Ablation], at_first_write: bool) -> tuple[Tensor, Tensor]:
    """(what is added, orthonormal basis of what is removed) by one row's interventions at one hook."""
    vector, basis = torch.zeros(chat.d_model, dtype=torch.float64), torch.zeros(0, chat.d_model)
    for each in members:
        if isinstance(each, Addition):
            vector = vector + each.vector.double().cpu()
    ablations = [each for each in members if isinstance(each, Ablation)]
    if ablations:
        basis = orthonormal_basis(torch.cat([each.directions.double().cpu() for each in ablations]))
    for each in ablations:
        # What is put back must be put back once: where the stream begins, or at the layers that were named.
        if each.reference is not None and (each.layers is not None or at_first_write):
            own = orthonormal_basis(each.directions.double().cpu())
            vector = vector + (own @ each.reference.double().cpu()) @ own
    return vector, basis


def _check(chat: ChatModel, intervention: Intervention) -> None:
    """Raise `ValueError` where `intervention` does not fit the model."""
    if isinstance(intervention, HeadReplacement):
        _check_heads(chat, intervention)
        return
    kind = type(intervention).__name__
    if intervention.layers is not None and not len(intervention.layers):
        todo = (
            "Name them" if kind == "Addition" else "Name them, or leave them None for everything written to the stream"
        )
        raise ValueError(f"intervene: layers must name at least one; got () in an {kind}. {todo}.")
    if isinstance(intervention, Ablation) and not len(intervention.directions):
        raise ValueError(
            "intervene: an Ablation needs at least one direction; got none. Pass [rank, d_model], rank >= 1."
        )
    vectors = [intervention.vector] if isinstance(intervention, Addition) else [*intervention.directions]
    if isinstance(intervention, Ablation) and intervention.reference is not None:
        vectors.append(intervention.reference)
    for vector in vectors:
        if vector.shape[-1] != chat.d_model:
            raise ValueError(
                f"intervene: the width must be that of {chat.name}, {chat.d_model}; got {vector.shape[-1]}. "
                "Take direction and model from the same place."
            )
        if not torch.isfinite(vector).all():
            raise ValueError("intervene: a vector must be finite; got NaN or inf. Estimate it in float32.")
    if isinstance(intervention, Ablation):
        for direction in intervention.directions:
            require_unit("intervene", direction)
    if intervention.every < 1:
        raise ValueError(f"intervene: every must be at least 1; got {intervention.every}. Use 1 for all tokens.")


def _check_heads(chat: ChatModel, intervention: HeadReplacement) -> None:
    model: Any = chat.bridge.original_model
    n_heads = model.config.get_text_config().num_attention_heads
    wrong = [head for head in intervention.heads if not (0 <= head[0] < chat.n_layers and 0 <= head[1] < n_heads)]
    if wrong:
        raise ValueError(
            f"intervene: a head must be one of {chat.n_layers} layers x {n_heads} heads; got {wrong[0]}. Count from 0."
        )
    shape = (len(intervention.heads), len(intervention.positions))
    if tuple(intervention.values.shape[:2]) != shape:
        raise ValueError(
            f"intervene: values must be given for {shape[0]} heads at {shape[1]} positions; got "
            f"{tuple(intervention.values.shape[:2])}. Pass [head, pos, d_head]."
        )
    check_positions("intervene", chat, intervention.positions)
