"""The losses of trained directions and their gradient, over many prompts and directions in each pass.

A direction is a mixture of the rows of a basis: v = unit(mixture @ basis). With one row it is the direction itself;
with several, mixtures that are not negative sample the cone that the rows span.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require, require_known
from ..model.batching import plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..steering import Ablation, Addition, Intervention
from ..steering.given_responses import GivenResponse, response_logits
from .targets import Targets

KL = ("paper", "released")
BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}  # padded tokens of a batch; its activations are kept for the gradient
WEIGHTS = (1.0, 0.2, 1.0)  # of answering, refusing and retaining
N_POSITIONS = 30  # over which the released KL is summed


@dataclass(frozen=True, eq=False)
class Losses:
    """Three losses of a direction v [d_model], each a mean over prompts and directions.

    answering: cross-entropy of the answers with v ablated everywhere. refusing: that of the refusals with `strength` v
    added at `layer`. retaining: KL from the unsteered model on its own responses with v ablated; `kl="paper"` is
    KL(unsteered || ablated) averaged over their tokens, `"released"` KL(ablated || unsteered) summed over the last 30
    positions, the last one included, as in the authors' code: about thirty times as much, so a weight of 1 means
    something else. `weights` are in that order.
    Raises `ValueError` for another `kl`, and for a model without gradients. Source: 2502.17420, algorithm 1.
    """

    function: str
    chat: ChatModel = field(repr=False)
    targets: Targets = field(repr=False)
    layer: int
    strength: float
    kl: str = "paper"
    weights: tuple[float, float, float] = WEIGHTS
    batch_tokens: int | None = None

    def __post_init__(self) -> None:  # noqa: D105
        require_known(self.function, "kl", self.kl, KL)
        require_gradients(self.function, self.chat)

    @property
    def kinds(self) -> tuple[list[GivenResponse], list[GivenResponse], list[GivenResponse]]:
        """The targets of each loss, in the order of the weights."""
        retained = (
            self.targets.retained if self.kl == "paper" else [_last_positions(own) for own in self.targets.retained]
        )
        return self.targets.answers, self.targets.refusals, retained

    def gradient(
        self,
        basis: Float[Tensor, "rank d_model"],
        chosen: Sequence[Sequence[int]],
        mixtures: Float[Tensor, "prompt draw rank"],
        shares: Float[Tensor, " draw"],
    ) -> tuple[Float[Tensor, "3"], Float[Tensor, "rank d_model"]]:
        """(the losses, the gradient of their weighted sum with respect to `basis`).

        `chosen`: indices of the prompts of each kind. Their i-th is measured with the directions of `mixtures[i]`,
        which count by `shares`.
        """
        losses, gradient = torch.zeros(3), torch.zeros_like(basis)
        budget = token_budget(self.function, self.batch_tokens, self.chat.device, BATCH_TOKENS)
        for kind, (given, own) in enumerate(zip(self.kinds, chosen, strict=True)):
            rows = [(place, draw) for place in range(len(own)) for draw in range(len(shares))]

            def step(batch: list[int], kind=kind, given=given, own=own, rows=rows) -> tuple[Tensor, Tensor]:
                at = torch.tensor([rows[index] for index in batch])
                leaf = basis.detach().clone().requires_grad_()
                mixed = mixtures[at[:, 0], at[:, 1]] @ leaf
                directions = mixed / mixed.norm(dim=-1, keepdim=True)
                values = self.of_rows(kind, [given[own[place]] for place in at[:, 0].tolist()], directions)
                total = (values.cpu() * shares[at[:, 1]]).sum() / len(own)
                return total.detach(), torch.autograd.grad(total, leaf)[0]

            batches = plan_batches([given[own[place]].ids for place, _ in rows], budget)
            for _, (total, slope) in run_batches(self.function, batches, step, gradients=True):
                losses[kind] += total
                gradient += self.weights[kind] * slope
        return losses, gradient

    def of_rows(
        self, kind: int, given: Sequence[GivenResponse], directions: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, " batch"]:
        """The loss of one kind (0, 1, 2) of each response under its own direction, with gradients."""
        is_one = bool((directions == directions[0]).all())  # then what all prompts begin with is computed once
        vectors = directions[:1] if is_one else directions
        edits: list[list[Intervention]] = [[Ablation(each[None])] for each in vectors]
        if kind == 1:
            edits = [[Addition(self.strength * each, (self.layer,))] for each in vectors]
        edits = edits * len(given) if is_one else edits
        found = response_logits(self.chat, given, edits)
        if kind < 2:
            flat = found.logits.flatten(0, 1), found.tokens.flatten()
            entropy = torch.nn.functional.cross_entropy(*flat, reduction="none")
            return found.mean(entropy.view(found.tokens.shape))
        with torch.no_grad():
            before = response_logits(self.chat, given, [[]] * len(given)).logits.log_softmax(-1)
        after = found.logits.log_softmax(-1)
        if self.kl == "paper":
            return found.mean((before.exp() * (before - after)).sum(-1))
        return found.mean((after.exp() * (after - before)).sum(-1)) * found.is_real.sum(-1)


def _last_positions(given: GivenResponse) -> GivenResponse:
    """The text with its last 30 positions as those that predict: any token after it makes the last one predict, too."""
    return GivenResponse([*given.ids, given.ids[-1]], min(N_POSITIONS, len(given.ids)))


def require_gradients(function: str, chat: ChatModel) -> None:
    """Raise `ValueError` in the name of `function` for a quantized model, and for one in float16 on the CPU."""
    config = getattr(chat.bridge.original_model, "config", None)
    is_quantized = getattr(config, "quantization_config", None) is not None
    must, todo = (
        "training needs gradients in float32 or bfloat16, or in float16 on a GPU",
        "Load the model with dtype='float32'.",
    )
    got = "a quantized model" if is_quantized else f"{str(chat.dtype).removeprefix('torch.')} on the CPU"
    require(not (is_quantized or is_float16_on_cpu(chat)), function, must, got, todo)


def is_float16_on_cpu(chat: ChatModel) -> bool:
    """Whether the model is in float16 on the CPU, where nothing is trained."""
    return chat.device.type == "cpu" and chat.dtype == torch.float16
