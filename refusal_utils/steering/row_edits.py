"""The interventions of one batch as hooks: one list per row, so different conditions share a forward pass."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..directions.ablation import orthonormal_basis
from ..model.chat_model import ChatModel
from ..model.hooks import open_hooks
from ..model.stream_writes import replaces_stream
from .interventions import (
    Ablation,
    Addition,
    HeadReplacement,
    Intervention,
    LatentClamp,
    PartialAblation,
    SequentialAblation,
    Tokens,
    require_fit,
)
from .latent_edits import latent_edits
from .removed_part import removed_part
from .token_marks import TokenMarks


class RowEdits:
    """The interventions of a batch, one list per row, or a single list for every row of any batch.

    The first `n_begin` tokens of the prompts may be computed in a pass of their own.
    Raises `ValueError` for an intervention that does not fit the model.
    """

    def __init__(self, chat: ChatModel, rows: Sequence[Sequence[Intervention]], n_begin: int = 0) -> None:
        for each in {id(each): each for interventions in rows for each in interventions}.values():
            require_fit(chat, each)
        self.chat, self.marks = chat, TokenMarks(chat.suffix, n_begin)
        self.edits: dict[str, list[Any]] = defaultdict(list)
        for name, edit in (*_stream_edits(chat, rows), *_head_edits(chat, rows), *latent_edits(chat, rows)):
            self.edits[name].append(edit)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Continue with these rows of the batch only."""
        new_index = {int(row): index for index, row in enumerate(rows)}
        for name, edits in self.edits.items():
            self.edits[name] = [kept for edit in edits if (kept := edit.keep(rows, new_index)) is not None]

    @property
    def needs_marks(self) -> bool:
        """Whether an edit depends on which token is which."""
        return any(edit.needs_marks for edits in self.edits.values() for edit in edits)

    @contextmanager
    def open(self, spread: Callable[[Any], Any] = lambda value: value) -> Iterator[None]:
        """Apply the edits while open. `spread` turns the model's input into one row per row of the batch."""
        hooks = [(name, partial(self._apply, name)) for name in self.edits]
        watched = self.marks.watch(self.chat, spread) if self.needs_marks else nullcontext()
        with open_hooks(self.chat, hooks), watched:
            yield

    def _apply(self, name: str, value: Tensor, hook: object) -> Tensor:
        for edit in self.edits[name]:
            value = edit.apply(value, self.marks)
        return value


def written_hooks(chat: ChatModel) -> list[str]:
    """The names of all hooks at which something is written to the residual stream (see `stream_writes`)."""
    return list(chat.writes)


@dataclass(frozen=True, eq=False)
class _StreamEdit:
    """x <- x - (x read') removed + vector at the chosen tokens. Rows of `read` and `removed` may be zero padding."""

    vector: Float[Tensor, "batch 1 d_model"]
    read: Float[Tensor, "batch rank d_model"]
    removed: Float[Tensor, "batch rank d_model"]
    tokens: Tokens
    every: int
    keep_norm: bool

    @property
    def needs_marks(self) -> bool:
        """Whether the edit depends on which token is which."""
        return self.tokens != "all" or self.every != 1

    def keep(self, rows: Int[Tensor, " kept"], new_index: dict[int, int]) -> "_StreamEdit":
        """The edit of these rows."""
        return replace(self, vector=self.vector[rows], read=self.read[rows], removed=self.removed[rows])

    def apply(self, value: Float[Tensor, "batch pos d_model"], marks: TokenMarks) -> Float[Tensor, "batch pos d_model"]:
        """`value` after the edit."""
        vector, read, removed = (each.to(value.device) for each in (self.vector, self.read, self.removed))
        edited = value + vector
        if read.shape[1]:
            edited = edited - removed_part(value, read, removed)
        if self.keep_norm:
            edited = edited * (value.norm(dim=-1, keepdim=True) / edited.norm(dim=-1, keepdim=True).clamp(min=1e-12))
        if not self.needs_marks:
            return edited
        return torch.where(marks.chosen(self.tokens, self.every).to(value.device)[..., None], edited, value)


@dataclass(frozen=True, eq=False)
class _HeadEdit:
    """Heads of one layer in one row (None: in every row): their z at some of the prompt's last tokens is replaced."""

    row: int | None
    head_index: Int[Tensor, " replaced_head_index"]
    positions: Int[Tensor, " pos"]
    values: Float[Tensor, "pos replaced_head_index d_head"]
    needs_marks = True

    def keep(self, rows: Int[Tensor, " kept"], new_index: dict[int, int]) -> "_HeadEdit | None":
        """The edit at the new index of its row, None if the row has left."""
        if self.row is None:
            return self
        return replace(self, row=new_index[self.row]) if self.row in new_index else None

    def apply(
        self, value: Float[Tensor, "batch pos head_index d_head"], marks: TokenMarks
    ) -> Float[Tensor, "batch pos head_index d_head"]:
        """`value` with the heads replaced; the prompt's beginning and generated tokens are left alone."""
        if marks.n_past != marks.n_begin:
            return value
        value, ends = value.clone(), marks.prompt_ends()
        head_index, new = self.head_index.to(value.device), self.values.to(value.device, value.dtype)
        for row in range(len(value)) if self.row is None else [self.row]:
            at = (int(ends[row]) + 1 + self.positions).to(value.device)
            value[row, at[:, None], head_index] = new
        return value


def _stream_edits(chat: ChatModel, rows: Sequence[Sequence[Intervention]]) -> Iterator[tuple[str, _StreamEdit]]:
    """(hook name, edit): additions and ablations with the same options at the same hook are one edit of all rows."""
    groups: dict[tuple, list[list[Addition | Ablation]]] = defaultdict(lambda: [[] for _ in rows])
    for row, interventions in enumerate(rows):
        for each in interventions:
            if isinstance(each, HeadReplacement | LatentClamp):
                continue
            keep_norm = isinstance(each, Addition) and each.keep_norm
            for name in _hooks(chat, each):
                groups[name, each.tokens, each.every, keep_norm, _removal_of(each)][row].append(each)
    # Rows of one condition share their content, and so do the hooks at which it acts, so it is computed once.
    content: dict[tuple, tuple[Tensor, Tensor, Tensor]] = {}
    for (name, *options, removal), members in groups.items():
        keys = [(tuple(map(id, own)), replaces_stream(name), removal) for own in members]
        for key, own in zip(keys, members, strict=True):
            if key not in content:
                content[key] = _content(chat, own, *key[1:])
        vectors, *removals = zip(*(content[key] for key in keys), strict=True)
        vector = torch.stack(vectors)[:, None].to(chat.device, chat.dtype)
        padded = (torch.nn.utils.rnn.pad_sequence(list(each), batch_first=True) for each in removals)
        read, removed = (each.to(chat.device, chat.dtype) for each in padded)
        yield name, _StreamEdit(vector, read, removed, *options)


def stream_edit(
    chat: ChatModel, intervention: Addition | Ablation
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, "rank d_model"], Float[Tensor, "rank d_model"]]:
    """(vector, read, removed) of x <- x - (x read') removed + vector, in float64: one intervention on the whole stream.

    For other engines, which apply it themselves.
    """
    return _content(chat, [intervention], True, _removal_of(intervention))


def _hooks(chat: ChatModel, intervention: Addition | Ablation) -> list[str]:
    if intervention.layers is None:
        return written_hooks(chat)
    return [chat.hook_name("resid_pre", int(layer)) for layer in intervention.layers]


def _removal_of(intervention: Addition | Ablation) -> "Removal":
    in_part, in_turn = isinstance(intervention, PartialAblation), isinstance(intervention, SequentialAblation)
    return _share if in_part else _each_in_turn if in_turn else _span


def _content(
    chat: ChatModel, members: list[Addition | Ablation], on_stream: bool, removal: "Removal"
) -> tuple[Tensor, Tensor, Tensor]:
    """(what is added, what is read, what is removed for it) by one row's interventions at one hook, in float64."""
    vector = torch.zeros(chat.d_model, dtype=torch.float64)
    ablations = [each for each in members if isinstance(each, Ablation)]
    for each in members:
        if isinstance(each, Addition):
            vector = vector + each.vector.double().cpu()
        # The reference is put back where the whole stream is edited, not where one block adds to it.
        elif each.reference is not None and on_stream:
            read, removed = removal([each])
            vector = vector + (read @ each.reference.double().cpu()) @ removed
    return vector, *(removal(ablations) if ablations else vector.new_zeros(2, 0, chat.d_model))


# (read, removed) such that x - (x read') removed is what the ablations leave of x
Removal = Callable[[Sequence[Ablation]], tuple[Tensor, Tensor]]


def _span(ablations: Sequence[Ablation]) -> tuple[Tensor, Tensor]:
    """Nothing is left in the span of all directions."""
    basis = orthonormal_basis(torch.cat([each.directions.double().cpu() for each in ablations]))
    return basis, basis


def _share(ablations: Sequence[Ablation]) -> tuple[Tensor, Tensor]:
    """Each takes its share of what was in its span."""
    bases = [orthonormal_basis(each.directions.double().cpu()) for each in ablations]
    shares = [each.share for each in ablations if isinstance(each, PartialAblation)]
    return torch.cat(bases), torch.cat([share * basis for share, basis in zip(shares, bases, strict=True)])


def _each_in_turn(ablations: Sequence[Ablation]) -> tuple[Tensor, Tensor]:
    """One direction after the other.

    (I - a a')(I - b b') ... = I - D' T D, where the inverse of T is the upper triangle of D D' (compact WY form,
    Schreiber & Van Loan 1989).
    """
    directions = torch.cat([each.directions.double().cpu() for each in ablations])
    unit = directions / directions.norm(dim=-1, keepdim=True)
    return unit, torch.linalg.solve_triangular(unit @ unit.T, unit, upper=True, unitriangular=True)


def _head_edits(chat: ChatModel, rows: Sequence[Sequence[Intervention]]) -> Iterator[tuple[str, _HeadEdit]]:
    """(hook name, edit) for every head replacement of every row and every layer that has one of its heads."""
    for row, interventions in enumerate(rows):
        for each in interventions:
            if not isinstance(each, HeadReplacement):
                continue
            for layer in sorted({layer for layer, _ in each.heads}):
                chosen = [number for number, head in enumerate(each.heads) if head[0] == layer]
                head_index = torch.tensor([each.heads[number][1] for number in chosen])
                values, positions = each.values[chosen].transpose(0, 1), torch.tensor(each.positions)
                place = None if len(rows) == 1 else row
                yield chat.hook_name("z", layer), _HeadEdit(place, head_index, positions, values)
