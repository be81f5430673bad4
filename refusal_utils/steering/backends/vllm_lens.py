"""vLLM through its plugin vllm-lens: per-request additions and projections of the residual stream.

Of the plugins for vLLM, vllm-lens is chosen for four reasons. It is an ordinary package beside an ordinary vLLM, not a
fork (EasySteer). It applies any function to one request's hidden states, so projection works as well as addition
(hotwire and vLLM-Hook only add). It hands back what that function has saved, so the tokens at which it acted can be
counted; its own steering vectors report nothing, and an error inside the engine is a line in its log and an unsteered
answer. And it supports tensor and pipeline parallelism. The price is eager mode, which it forces.

Version: 1.3.0, which requires vllm 0.30.0 and Python 3.12 or newer. It is not a dependency of this package: install
`vllm-lens==1.3.0` into an environment of its own. Releases have changed what steering does (1.2.0 made `norm_match`
stronger, 1.2.1 steered `LLM.chat`, which had not been steered before), so another version is refused.

Not run on vLLM: the tests use an imitation of the interface.

`resid_pre` of layer L is the output of layer L - 1. There the plugin shows the whole stream, the sum of the two parts
that vLLM's fused layers pass on; what it shows before a layer is only one of these, so that place is used for layer 0
alone, where the other does not exist yet.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...checks import invalid, require
from ...model.chat_model import ChatModel
from ..conditions import Condition
from ..decoding import until_stop
from ..interventions import Ablation, Addition, Tokens, require_fit
from ..row_edits import stream_edit
from .backend import Reply, Request

VERSION = "1.3.0"


class StreamEdit:
    """What the plugin calls with one request's hidden states, layer by layer: x <- x - (x read') removed + vector.

    It counts the tokens that it has seen in `context.saved`, by layer. It never raises an error, because the engine
    would drop the edits of the whole batch with it; it counts nothing instead.
    """

    def __init__(
        self,
        vector: Float[Tensor, " d_model"],
        read: Float[Tensor, "rank d_model"],
        removed: Float[Tensor, "rank d_model"],
        *,
        n_prompt: int,
        tokens: Tokens = "all",
        every: int = 1,
        keep_norm: bool = False,
    ) -> None:
        self.content = (vector, read, removed)
        self.n_prompt, self.tokens, self.every, self.keep_norm = n_prompt, tokens, every, keep_norm

    def __call__(self, context: Any, hidden: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"] | None:
        """The edited states; None, which leaves them as they are, after an error."""
        name, n = str(context.layer_idx), len(hidden)
        start = context.saved.get(name, 0)
        try:
            edited = torch.where(self._chosen(start, n).to(hidden.device), self._edited(hidden), hidden)
        except Exception as error:
            context.saved["error"] = f"{type(error).__name__}: {error}"
            return None
        context.saved[name] = start + n
        return edited

    def _edited(self, hidden: Tensor) -> Tensor:
        vector, read, removed = (each.to(hidden.device, hidden.dtype) for each in self.content)
        edited = hidden + vector
        if len(read):
            edited = edited - (hidden @ read.T) @ removed
        if self.keep_norm:
            norm = edited.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            edited = edited * (hidden.norm(dim=-1, keepdim=True) / norm)
        return edited

    def _chosen(self, start: int, n: int) -> Tensor:
        places = torch.arange(start, start + n)[:, None]
        chosen = places % self.every == 0
        return chosen if self.tokens == "all" else chosen & ((places < self.n_prompt) == (self.tokens == "prompt"))


class VllmLens:
    """The backend. `llm` is a `vllm.LLM` of the same model as `chat`, with the plugin; the others are its classes."""

    name = "vllm-lens"

    def __init__(self, chat: ChatModel, llm: Any, sampling_params: Any, hook: Any) -> None:
        self.chat, self.llm, self.sampling_params, self.hook = chat, llm, sampling_params, hook

    def check_condition(self, condition: Condition) -> None:
        """Raise `ValueError` unless the condition is unsteered, or one addition or ablation at named layers."""
        edits, must = condition.interventions, "a condition must be one addition or ablation"
        got = ", ".join(type(each).__name__ for each in edits)
        is_one = len(edits) <= 1 and all(isinstance(each, Addition | Ablation) for each in edits)
        require(is_one, self.name, f"{must} at most", got, "Use generate() for it.")
        for each in edits:
            require_fit(self.chat, each)
            must = "an ablation must name its layers: between attention and MLP the plugin has no place"
            todo = "Name them, which leaves more of the direction, or use generate()."
            require(each.layers is not None, self.name, must, "none", todo)  # type: ignore[union-attr]

    def answer(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        """The replies of the engine, all requests in one call."""
        prompts = [{"prompt_token_ids": each.ids} for each in requests]
        hooks = [self._hooks(each) for each in requests]
        stops = sorted(self.chat.stop_tokens)
        params = [
            self.sampling_params(
                temperature=0.0,
                max_tokens=max_new_tokens,
                stop_token_ids=stops,
                detokenize=False,
                extra_args={"apply_hooks": own} if own else {},
            )
            for own in hooks
        ]
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        return [self._reply(*each) for each in zip(outputs, hooks, strict=True)]

    def _hooks(self, request: Request) -> list[Any]:
        """The hooks of a request: after the layers before the edited ones, and before layer 0."""
        found = []
        for edit in request.condition.interventions:
            assert isinstance(edit, Addition | Ablation)
            assert edit.layers is not None
            layers = sorted({int(layer) % self.chat.n_layers for layer in edit.layers})
            keep_norm = isinstance(edit, Addition) and edit.keep_norm
            how: dict[str, Any] = {"n_prompt": len(request.ids), "tokens": edit.tokens, "every": edit.every}
            change = StreamEdit(*stream_edit(self.chat, edit), **how, keep_norm=keep_norm)
            after = [layer - 1 for layer in layers if layer > 0]
            found += [self.hook(fn=change, layer_indices=after)] if after else []
            found += [self.hook(fn=change, layer_indices=[0], pre=True)] if layers[0] == 0 else []
        return found

    def _reply(self, output: Any, hooks: Sequence[Any]) -> Reply:
        tokens, stopped = until_stop(tuple(output.outputs[0].token_ids), self.chat.stop_tokens)
        saved = getattr(output, "hook_results", None) or {}
        seen = [
            saved.get(str(place), {}).get(str(layer), 0)
            for place, hook in enumerate(hooks)
            for layer in hook.layer_indices
        ]
        return Reply(tuple(tokens), stopped, min(seen, default=0))


def load_vllm_lens(chat: ChatModel, **options: Any) -> VllmLens:
    """The backend with an engine of the model that `chat` was loaded from; `options` are those of `vllm.LLM`.

    The engine gets the dtype of `chat`. Raises `ValueError` unless vllm-lens is installed in the version that this
    adapter was written for.
    """
    try:
        found = version("vllm-lens")
    except PackageNotFoundError as error:
        todo = f"Run pip install vllm-lens=={VERSION} in an environment with Python 3.12 or newer."
        raise invalid("load_vllm_lens", "vllm-lens must be installed", "none", todo) from error
    todo = f"Run pip install vllm-lens=={VERSION}."
    require(found == VERSION, "load_vllm_lens", f"vllm-lens must be version {VERSION}", found, todo)
    from vllm import LLM, SamplingParams
    from vllm_lens import Hook

    dtype = str(chat.dtype).removeprefix("torch.")
    return VllmLens(chat, LLM(model=chat.name, dtype=dtype, **options), SamplingParams, Hook)
