"""Small random-weight models of real chat families, each with its family's turn format.

The templates are short ones of our own that write one system and one user turn as the family's published format does:
the markers, the BOS rule, the system role, the thinking switch. Words come from the bundled model's tokenizer.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AddedToken, AutoModelForCausalLM, AutoTokenizer

from refusal_utils.model.chat_model import BUNDLED_WEIGHTS

LOOP = "{% for m in messages %}"
REFUSE = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
FOLD = "{% set system = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
NO_THINKING = "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"

DATED = "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
LLAMA3 = (  # of version 3.2, which writes today's date unless it is given one
    FOLD
    + DATED
    + "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' }}"
    "{{ system + '<|eot_id|>' }}" + LOOP + "{% if m.role != 'system' %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
CHATML = (
    LOOP
    + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
SMOLLM2 = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
GEMMA_TURNS = (
    "{{ bos_token }}" + LOOP + "{% if m.role == 'user' %}{{ '<start_of_turn>user\n' + SYSTEM m.content | trim }}"
    "{{ '<end_of_turn>\n' }}{% endif %}{% endfor %}{{ '<start_of_turn>model\n' }}"
)
GEMMA2, GEMMA3 = REFUSE + GEMMA_TURNS.replace("SYSTEM", ""), FOLD + GEMMA_TURNS.replace("SYSTEM", "system +")
MISTRAL = FOLD + "{{ bos_token }}" + LOOP + "{% if m.role == 'user' %}[INST]{{ system + m.content }}[/INST]{% endif %}"
PHI3 = LOOP + "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}{{ '<|assistant|>\n' }}"
OLMO2 = "{{ bos_token }}" + LOOP + "{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endfor %}{{ '<|assistant|>\n' }}"


@dataclass(frozen=True)
class Family:
    """A chat family: architecture, turn format, special tokens (`stops`: those that end a response)."""

    model_type: str
    architecture: str
    template: str
    stops: tuple[str, ...]
    bos: str | None = None
    pad: str | None = None
    markers: tuple[str, ...] = ()
    takes_system: bool = True
    thinks: bool = False
    n_suffix_at_least: int = 2
    options: dict[str, Any] = field(default_factory=dict)


IM = ("<|im_start|>",)
GEMMA = {"stops": ("<eos>", "<end_of_turn>"), "bos": "<bos>", "pad": "<pad>", "markers": ("<start_of_turn>",)}
QWEN = {"stops": ("<|im_end|>", "<|endoftext|>"), "pad": "<|endoftext|>", "markers": IM}
HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
WIDE = {"head_dim": 16}  # heads wider than d_model / n_heads, as in Gemma and Qwen 3
TWO_WINDOWS = ["sliding_attention", "full_attention", "sliding_attention"]

FAMILIES = {
    "llama3": Family(
        "llama",
        "LlamaForCausalLM",
        LLAMA3,
        ("<|eot_id|>", "<|end_of_text|>"),
        "<|begin_of_text|>",
        None,
        HEADERS,
        options={"attention_bias": True, "mlp_bias": True},
    ),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM", CHATML, **QWEN),
    "qwen3": Family(
        "qwen3",
        "Qwen3ForCausalLM",
        CHATML + NO_THINKING,
        **QWEN | {"markers": (*IM, "<think>", "</think>")},
        thinks=True,
        options=WIDE | {"attention_bias": True},
    ),
    "qwen2_moe": Family("qwen2_moe", "Qwen2MoeForCausalLM", CHATML, **QWEN, options=EXPERTS),
    "mistral": Family(
        "mistral",
        "MistralForCausalLM",
        MISTRAL + "{% endfor %}",
        ("</s>",),
        "<s>",
        None,
        ("[INST]", "[/INST]"),
        n_suffix_at_least=1,
        options={"sliding_window": 8},
    ),
    "gemma": Family("gemma", "GemmaForCausalLM", GEMMA2, **GEMMA, takes_system=False, options=WIDE),
    "gemma2": Family(
        "gemma2",
        "Gemma2ForCausalLM",
        GEMMA2,
        **GEMMA,
        takes_system=False,
        options=WIDE
        | {"sliding_window": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.0}
        | {"layer_types": TWO_WINDOWS, "query_pre_attn_scalar": 16},
    ),
    "gemma3_text": Family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        GEMMA3,
        **GEMMA,
        options=WIDE | {"sliding_window": 8, "layer_types": TWO_WINDOWS, "query_pre_attn_scalar": 16},
    ),
    "phi3": Family(
        "phi3",
        "Phi3ForCausalLM",
        PHI3,
        ("<|endoftext|>", "<|end|>"),
        "<s>",
        "<|endoftext|>",
        options={"sliding_window": 8},
    ),
    "olmo2": Family("olmo2", "Olmo2ForCausalLM", OLMO2, ("<|endoftext|>",), "<|endoftext|>", "<|pad|>"),
    "smollm2": Family(
        "llama",
        "LlamaForCausalLM",
        SMOLLM2,
        ("<|im_end|>",),
        "<|im_start|>",
        "<|im_end|>",
        options={"tie_word_embeddings": True},
    ),
    "smollm3": Family(
        "smollm3",
        "SmolLM3ForCausalLM",
        CHATML + NO_THINKING,
        ("<|im_end|>",),
        None,
        "<|im_end|>",
        (*IM, "<think>", "</think>"),
        thinks=True,
        options={"no_rope_layers": [1, 0, 1]},
    ),
}


def family_tokenizer(family: Family) -> Any:
    """The bundled model's tokenizer with the family's own special tokens and template."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_WEIGHTS)
    special = dict.fromkeys([*family.stops, *family.markers, *filter(None, (family.bos, family.pad))])
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = family.bos, family.stops[0], family.pad
    tokenizer.chat_template = family.template
    return tokenizer


def family_config(family: Family, tokenizer: Any, **options: Any) -> Any:
    """The configuration of a model with three layers of width 48 and four heads over two key-value heads."""
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "max_position_embeddings": 256}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    config = CONFIG_MAPPING[family.model_type](**sizes, **ids, **family.options, **options)
    config.architectures = [family.architecture]
    return config


def save_family(name: str, folder: Path) -> Path:
    """`folder`, filled with a random-weight model of the family: biases, grouped queries, uneven norms."""
    family = FAMILIES[name]
    tokenizer = family_tokenizer(family)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(family_config(family, tokenizer))
    randomize(model)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(list(family.stops))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def randomize(model: torch.nn.Module) -> None:
    """Weights large enough for every part of the model to matter."""
    for key, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        parameter.data = 0.3 * noise if parameter.ndim > 1 or "bias" in key else parameter.data + 0.3 * noise
    if "gemma" in model.config.model_type:  # it multiplies what it looks up by sqrt(d_model)
        model.get_input_embeddings().weight.data /= model.config.get_text_config().hidden_size ** 0.5
