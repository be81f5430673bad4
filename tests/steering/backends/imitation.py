"""An imitation of the part of vLLM and vllm-lens 1.3.0 that the adapter calls, on a plain Hugging Face model.

`llm.generate(prompts, sampling_params)` answers each request with the key-value cache. The functions of
`extra_args["apply_hooks"]` get the states of one request at a time, first those of all prompt tokens and then of
one token after the other, and what they save comes back as `hook_results`, under the number of the hook. As in the
plugin, an error in a function is swallowed, the extra arguments are taken out of the parameters, and the stop token
is returned.

A fault changes one thing that a real engine could get wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

FAULTS = (
    "hooks are ignored",
    "hooks run on the prompt alone",
    "hooks run one layer later",
    "hooks act on all requests of the call",
    "hooked states come back rounded",
    "steering is twice as strong",
    "another template",
)


@dataclass
class SamplingParams:
    temperature: float
    max_tokens: int
    stop_token_ids: list[int]
    detokenize: bool
    extra_args: dict[str, Any] = field(default_factory=dict)


@dataclass
class Hook:
    fn: Callable[[Any, torch.Tensor], torch.Tensor | None]
    layer_indices: list[int]
    pre: bool = False


class Context:
    def __init__(self) -> None:
        self.layer_idx, self.seq_len, self.saved = 0, 0, {}


class LLM:
    """`model` is a Hugging Face model whose blocks are `model.model.layers`."""

    def __init__(self, model: Any, fault: str = "") -> None:
        assert fault in ("", *FAULTS)
        self.model, self.fault = model, fault

    def generate(self, prompts: list[dict], params: list[SamplingParams], use_tqdm: bool) -> list[SimpleNamespace]:
        assert all(each.temperature == 0 for each in params)
        hooks = [each.extra_args.pop("apply_hooks", None) for each in params]
        if self.fault == "hooks act on all requests of the call":
            hooks = [each or next(filter(None, hooks), None) for each in hooks]
        return [
            self._answer(prompt["prompt_token_ids"], how, own)
            for prompt, how, own in zip(prompts, params, hooks, strict=True)
        ]

    def _answer(self, ids: list[int], how: SamplingParams, hooks: list[Hook] | None) -> SimpleNamespace:
        contexts = [Context() for _ in hooks or []]
        ids = ids[:-1] if self.fault == "another template" else ids
        new: list[int] = []
        past, given = None, torch.tensor([ids])
        with torch.no_grad():
            while len(new) < how.max_tokens and not (new and new[-1] in how.stop_token_ids):
                skip = self.fault == "hooks are ignored" or (new and self.fault == "hooks run on the prompt alone")
                with self._open([] if skip else [*zip(hooks or [], contexts, strict=True)]):
                    out = self.model(given, past_key_values=past, use_cache=True)
                past = out.past_key_values
                new.append(int(out.logits[0, -1].argmax()))
                given = torch.tensor([new[-1:]])
        found = SimpleNamespace(outputs=[SimpleNamespace(token_ids=new)])
        if hooks and any(each.saved for each in contexts):
            found.hook_results = {str(place): each.saved for place, each in enumerate(contexts)}
        return found

    @contextmanager
    def _open(self, hooks: list[tuple[Hook, Context]]) -> Iterator[None]:
        layers = self.model.model.layers
        late = self.fault == "hooks run one layer later"
        with ExitStack() as stack:
            for hook, context in hooks:
                for layer in hook.layer_indices:
                    block = layers[min(layer + late, len(layers) - 1)]
                    stack.callback(self._attach(block, hook, context, layer).remove)
            yield

    def _attach(self, block: Any, hook: Hook, context: Context, layer: int) -> Any:
        def changed(states: torch.Tensor) -> torch.Tensor:
            context.layer_idx, context.seq_len = layer, states.shape[1]
            try:
                found = hook.fn(context, states[0])
            except Exception:
                return states
            if found is None:
                return states
            if self.fault == "hooked states come back rounded":
                found = found.round()
            if self.fault == "steering is twice as strong":
                found = 2 * found - states[0]
            return found[None]

        if hook.pre:
            return block.register_forward_pre_hook(lambda module, args: (changed(args[0]), *args[1:]))
        return block.register_forward_hook(
            lambda module, args, out: (changed(out[0]), *out[1:]) if isinstance(out, tuple) else changed(out)
        )
