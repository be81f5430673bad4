"""Sparse autoencoders in one form: encoding, decoding, and removing latents with the error kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import require
from ..directions import normalize
from ..model.names import short_name
from ..steering.interventions import LatentClamp

FUNCTION = "SparseAutoencoder"


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """The weights of a sparse autoencoder (SAE), and where in which model it reads.

    A latent fires if its pre-activation is above 0 and above its `threshold`; with `k`, only the k largest of a state
    fire.
    `subtracts_bias`: whether `b_dec` is subtracted from a state before encoding. `hook`, `layer`: the stream it was
    trained on; all published ones read `resid_post`, the output of a block. `model`: the name that its file gives.
    """

    w_enc: Float[Tensor, "d_model latent"] = field(repr=False)
    b_enc: Float[Tensor, " latent"] = field(repr=False)
    w_dec: Float[Tensor, "latent d_model"] = field(repr=False)
    b_dec: Float[Tensor, " d_model"] = field(repr=False)
    layer: int
    threshold: Float[Tensor, " latent"] | None = field(default=None, repr=False)
    k: int | None = None
    subtracts_bias: bool = False
    hook: str = "resid_post"
    model: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` for weights that do not fit each other, are not finite, or have no rule of firing."""
        d_model, n = self.w_enc.shape
        shapes = {"w_enc": (d_model, n), "w_dec": (n, d_model), "b_enc": (n,), "b_dec": (d_model,), "threshold": (n,)}
        for name, shape in shapes.items():
            weights: Tensor | None = getattr(self, name)
            if weights is None:
                continue
            got, todo = str(tuple(weights.shape)), "Declare the kind of file that it is."
            require(weights.shape == shape, FUNCTION, f"{name} must have the shape {shape}", got, todo)
            finite = bool(torch.isfinite(weights).all())
            require(finite, FUNCTION, f"{name} must be finite", "NaN or infinity", "Fetch the file again.")
        must = "an SAE must have either thresholds or the number k of latents that fire"
        got = f"{'thresholds' if self.threshold is not None else 'no thresholds'} and k = {self.k}"
        require((self.threshold is None) != (self.k is None), FUNCTION, must, got, "Pass one of them.")
        fits = self.k is None or 1 <= self.k <= n
        require(fits, FUNCTION, f"k must be from 1 to the number of latents, {n}", self.k, "Choose another.")

    @property
    def n_latents(self) -> int:
        """The number of latents."""
        return self.w_enc.shape[1]

    @property
    def d_model(self) -> int:
        """The width of the stream it reads."""
        return self.w_enc.shape[0]

    @property
    def resid_pre_layer(self) -> int:
        """The layer whose `resid_pre` is the stream it reads: the output of a block is the input of the next."""
        return self.layer + (self.hook == "resid_post")

    def encode(self, states: Float[Tensor, "... d_model"]) -> Float[Tensor, "... latent"]:
        """The latents' activations, 0 where one does not fire. Raises `ValueError` for states of another width."""
        before = self._before("encode", states)
        if self.threshold is not None:
            return before.relu() * (before > self.threshold)
        values, places = before.topk(self.k or self.n_latents, dim=-1)
        return torch.zeros_like(before).scatter(-1, places, values.relu())

    def fires(self, states: Float[Tensor, "... d_model"]) -> Bool[Tensor, "... latent"]:
        """Whether each latent is above 0: `encode(states) > 0` without the amounts. Raises as `encode` does."""
        if self.threshold is None:
            return self.encode(states) > 0
        return self._before("fires", states) > self.threshold.clamp(min=0)

    def decode(self, latents: Float[Tensor, "... latent"]) -> Float[Tensor, "... d_model"]:
        """The states that the activations stand for."""
        return latents @ self.w_dec + self.b_dec

    def error(self, states: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """What the latents do not explain: the states minus their reconstruction."""
        return states.to(self.w_enc) - self.decode(self.encode(states))

    def without(self, states: Float[Tensor, "... d_model"], latents: Sequence[int]) -> Float[Tensor, "... d_model"]:
        """The states with some latents set to 0 and the error kept: only what these latents write is taken away.

        Raises `ValueError` for a latent that does not exist.
        """
        which = self._known("without", latents)
        return states - (self.encode(states)[..., which] @ self.w_dec[which]).to(states)

    def clamp(
        self, latents: Sequence[int], targets: Float[Tensor, " latent"] | float = 0.0, **options: Any
    ) -> LatentClamp:
        """The intervention that sets some latents to `targets`, one each or one for all, and keeps the error.

        `options` are those of `LatentClamp`, such as the `share` of the way. Raises `ValueError` for a latent that does
        not exist.
        """
        which = self._known("clamp", latents)
        aims = torch.full((self.n_latents,), torch.nan)
        aims[which] = torch.as_tensor(targets, dtype=torch.float32).expand(len(which))
        b_enc = self.b_enc - self.b_dec @ self.w_enc if self.subtracts_bias else self.b_enc
        where: dict[str, Any] = {"layers": (self.resid_pre_layer,), "k": self.k, **options}
        if self.threshold is None:  # which latents fire depends on all of them
            return LatentClamp(self.w_enc, b_enc, self.w_dec, aims, **where)
        own = (self.w_enc[:, which], b_enc[which], self.w_dec[which], aims[which])
        return LatentClamp(*own, threshold=self.threshold[which], **where)

    def direction(self, latents: Sequence[int]) -> Float[Tensor, " d_model"]:
        """The unit vector along the mean of the decoder rows of `latents`. Source: Joad et al. 2602.02132, section 5.

        Raises `ValueError` for no latent, or one that does not exist.
        """
        which = self._known("direction", latents)
        require(len(which) > 0, "direction", "at least one latent is needed", "none", "Name some.")
        return normalize(self.w_dec[which].float().mean(0))

    def require_place(self, function: str, layer: int, hook: str = "resid_pre") -> None:
        """Raise `ValueError` in the name of `function` unless states of `hook` at `layer` are what the SAE reads."""
        same = (hook, layer) == (self.hook, self.layer) or (hook, layer) == ("resid_pre", self.resid_pre_layer)
        must = f"this SAE reads {self.hook} of layer {self.layer}"
        if self.hook == "resid_post":
            must += f", which is resid_pre of layer {self.resid_pre_layer}"
        todo = f"Read resid_pre of layer {self.resid_pre_layer}, or load the SAE of another layer."
        require(same, function, must, f"{hook} of layer {layer}", todo)

    def require_model(self, function: str, name: str) -> None:
        """Raise `ValueError` in the name of `function` unless its file names no model, or `name` or its base model."""
        own, asked = (short_name(each).lower().removeprefix("meta-") for each in (self.model or name, name))
        same = own == asked or asked.startswith((f"{own}-", own.removesuffix("-base")))
        must = f"this SAE was trained on {self.model}"
        require(same, function, must, name, "Use an SAE that was trained on this model.")

    def _before(self, function: str, states: Tensor) -> Tensor:
        """The pre-activations."""
        must, todo = f"states must have the SAE's width, {self.d_model}", "Use an SAE that was trained on this model."
        require(states.shape[-1] == self.d_model, function, must, states.shape[-1], todo)
        states = states.to(self.w_enc)
        return (states - self.b_dec if self.subtracts_bias else states) @ self.w_enc + self.b_enc

    def _known(self, function: str, latents: Sequence[int]) -> list[int]:
        which = [int(each) for each in latents]
        outside = [each for each in which if not 0 <= each < self.n_latents]
        must = f"latents must be numbers from 0 to {self.n_latents - 1}"
        require(not outside, function, must, str(outside[:3]), "Leave them out.")
        return which
