"""A caller's own model as it was found: what TransformerLens changes in it, to be put back."""

from typing import Any

from torch import nn

from ..checks import require


class AsFound:
    """What a bridge replaces or fills in `model`: submodules, empty slots, methods, mode and attention kernels.

    Weights are not among them, since the bridge leaves them alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = [(module, {**module._modules}, _empty(module), module.training) for module in model.modules()]
        self.with_forward = {id(module) for module, *_ in self.modules if "forward" in vars(module)}
        configs = {id(each.config): each.config for each in model.modules() if hasattr(each, "config")}
        self.configs = [(config, _kernels(config)) for config in configs.values()]

    def restore(self) -> None:
        """Put everything back. What was changed inside the bridge's own modules, such as hooks, is lost with them."""
        for module, children, empty, training in self.modules:
            module._modules.clear()
            module._modules.update(children)
            module._parameters.update(dict.fromkeys(empty))
            module.training = training
            if id(module) not in self.with_forward:
                vars(module).pop("forward", None)
        for config, kernels in self.configs:
            vars(config).update(kernels)


def _empty(module: nn.Module) -> list[str]:
    return [name for name, value in module._parameters.items() if value is None]


def _kernels(config: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if "_implementation" in name}


def unwrapped(hf_model: Any) -> Any:
    """The model inside a `PeftModel`, adapters in place. Raises `ValueError` if it adds tokens to prompts."""
    must, todo = "an adapter must not add tokens to prompts", "Use one that changes weights, such as LoRA."
    config = getattr(hf_model, "active_peft_config", None)
    tuned = bool(getattr(config, "is_prompt_learning", False))
    require(not tuned, "load_chat_model", must, type(config).__name__, todo)
    return getattr(hf_model, "get_base_model", lambda: hf_model)()
