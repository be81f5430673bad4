"""Clamps of autoencoder latents as edits of the rows of a batch."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.chat_model import ChatModel
from .interventions import Intervention, LatentClamp
from .token_marks import TokenMarks


@dataclass(frozen=True, eq=False)
class LatentEdit:
    """One clamp in some `rows` of a batch; None: in every row of any batch."""

    clamp: LatentClamp
    rows: Int[Tensor, " row"] | None

    @property
    def needs_marks(self) -> bool:
        """Whether the edit depends on which token is which."""
        return self.clamp.tokens != "all" or self.clamp.every != 1

    def keep(self, rows: Int[Tensor, " kept"], new_index: dict[int, int]) -> "LatentEdit | None":
        """The edit at the new indices of its rows, None if all of them have left."""
        if self.rows is None:
            return self
        left = [new_index[row] for row in self.rows.tolist() if row in new_index]
        return replace(self, rows=torch.tensor(left)) if left else None

    def apply(self, value: Float[Tensor, "batch pos d_model"], marks: TokenMarks) -> Float[Tensor, "batch pos d_model"]:
        """`value` with the latents of these rows clamped."""
        rows = torch.arange(len(value)) if self.rows is None else self.rows
        own = value[rows.to(value.device)]
        edited = own + latent_shift(self.clamp, own)
        if self.needs_marks:
            chosen = marks.chosen(self.clamp.tokens, self.clamp.every)[rows]
            edited = torch.where(chosen.to(value.device)[..., None], edited, own)
        return value.index_copy(0, rows.to(value.device), edited)


def latent_shift(clamp: LatentClamp, states: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    """What a clamp adds to states: 0, bit for bit, if no latent is clamped."""
    w_enc, b_enc, w_dec, targets = (
        each.to(states.device, torch.float32) for each in (clamp.w_enc, clamp.b_enc, clamp.w_dec, clamp.targets)
    )
    before = states.float() @ w_enc + b_enc
    if clamp.threshold is None:
        values, places = before.topk(clamp.k or 1, dim=-1)
        latents = torch.zeros_like(before).scatter(-1, places, values.relu())
    else:
        latents = before.relu() * (before > clamp.threshold.to(before))
    moved = torch.where(targets.isnan(), 0.0, targets.nan_to_num() - latents)
    return (clamp.share * moved @ w_dec).to(states)


def latent_edits(chat: ChatModel, rows: Sequence[Sequence[Intervention]]) -> Iterator[tuple[str, LatentEdit]]:
    """(hook name, edit) for every clamp and layer; rows with the same clamp share one edit."""
    clamps: dict[int, LatentClamp] = {}
    members: dict[int, list[int]] = defaultdict(list)
    for row, interventions in enumerate(rows):
        for each in interventions:
            if isinstance(each, LatentClamp):
                clamps[id(each)] = each
                members[id(each)].append(row)
    for key, clamp in clamps.items():
        for layer in clamp.layers:
            place = None if len(rows) == 1 else torch.tensor(members[key])
            yield chat.hook_name("resid_pre", layer), LatentEdit(clamp, place)
