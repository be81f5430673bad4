"""What works on which architecture: small random models of every one that both libraries know, tried one by one.

`python -m tests.support` writes the table into docs/models.md.
"""

import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import ChatModel, load_chat_model
from refusal_utils.steering import UNSTEERED, Addition, Condition, generate

from .families import FAMILIES, family_tokenizer, randomize

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 12, "linear_value_head_dim": 12}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
LATENT |= (
    EXPERTS
    | {"num_key_value_heads": 4}
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
)
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 12, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
# model_type: what its configuration needs in addition to SIZES
OPTIONS: dict[str, dict[str, Any]] = {
    "afmoe": EXPERTS,
    "apertus": {},
    "arcee": {},
    "bamba": MAMBA2 | {"attn_layer_indices": [1, 3]},
    "bitnet": {},
    "bloom": {"n_layer": 4, "n_head": 4},
    "codegen": {"n_embd": 48, "n_layer": 4, "n_head": 4, "rotary_dim": 8, "n_positions": 256},
    "cohere": {},
    "cohere2": {},
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "deepseek_v4": LATENT,
    "ernie4_5": {},
    "ernie4_5_moe": EXPERTS,
    "exaone4": {},
    "falcon": {"multi_query": True},
    "falcon_h1": MAMBA2 | {"mamba_d_ssm": 96},
    "falcon_mamba": {},
    "flex_olmo": EXPERTS,
    "gemma": {"head_dim": 12},
    "gemma2": {"head_dim": 12},
    "gemma3_text": {"head_dim": 12},
    "gemma3n_text": {
        "head_dim": 12,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gemma4_text": {
        "head_dim": 12,
        "global_head_dim": 12,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "glm": {"head_dim": 12},
    "glm4": {"head_dim": 12},
    "glm4_moe": LATENT | {"head_dim": 12},
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT,
    "gpt2": {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 256},
    "gpt_bigcode": {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 256},
    "gpt_neo": {"num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]]},
    "gpt_neox": {},
    "gpt_oss": EXPERTS | {"head_dim": 12},
    "gptj": {"n_embd": 48, "n_layer": 4, "n_head": 4, "rotary_dim": 8, "n_positions": 256},
    "granite": {},
    "granitemoe": EXPERTS,
    "granitemoehybrid": EXPERTS | MAMBA2 | {"layer_types": ["mamba", "attention"] * 2},
    "hrm_text": {},
    "hunyuan_v1_dense": {"head_dim": 12},
    "jais2": {},
    "jamba": EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "jetmoe": EXPERTS,
    "laguna": EXPERTS,
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": EXPERTS | {"layer_types": ["conv", "full_attention"] * 2},
    "llama": {},
    "llama4_text": EXPERTS | {"head_dim": 12},
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 12, "n_groups": 1, "state_size": 8, "chunk_size": 8},
    "minimax_m2": EXPERTS,
    "ministral3": {"head_dim": 12},
    "mistral": {},
    "mixtral": EXPERTS,
    "modernbert-decoder": {"bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1},
    "mpt": {"d_model": 48, "n_layers": 4, "n_heads": 4},
    "nanochat": {},
    "nemotron": {},
    "nemotron_h": EXPERTS
    | {
        "mamba_num_heads": 8,
        "mamba_head_dim": 12,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
        "layers_block_type": ["mamba", "attention", "mamba", "attention"],
    },
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "olmo_hybrid": DELTA | {"layer_types": ["linear_attention", "full_attention"] * 2},
    "olmoe": EXPERTS,
    "openai-gpt": {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 48},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3": {"head_dim": 12},
    "qwen3_5_text": DELTA | {"head_dim": 16},
    "qwen3_5_moe_text": DELTA | EXPERTS | {"head_dim": 16},
    "qwen3_moe": EXPERTS | {"head_dim": 12},
    "qwen3_next": DELTA | EXPERTS | {"head_dim": 16, "shared_expert_intermediate_size": 32},
    "recurrent_gemma": {"lru_width": 48},
    "rwkv": {"attention_hidden_size": 48, "context_length": 256},
    "seed_oss": {"head_dim": 12},
    "smollm3": {},
    "stablelm": {"partial_rotary_factor": 0.5},
    "starcoder2": {},
    "vaultgemma": {"head_dim": 12},
    "xglm": {"pad_token_id": 1, "d_model": 48, "attention_heads": 4, "num_layers": 4, "ffn_dim": 64},
    "youtu": LATENT,
    "zamba2": {
        "layer_types": ["mamba", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
        "n_mamba_heads": 8,
        "mamba_headdim": 12,
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "chunk_size": 8,
    },
}


def save_architecture(model_type: str, folder: Path) -> Path:
    """`folder`, with a small random model of an architecture and Qwen's turn format."""
    tokenizer = family_tokenizer(FAMILIES["qwen2"])
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    sizes = {"vocab_size": len(tokenizer), "vocab_size_per_layer_input": len(tokenizer)}
    torch.manual_seed(0)
    known = CONFIG_MAPPING[model_type]()
    usual = {name: value for name, value in {**sizes, **SIZES}.items() if hasattr(known, name)}
    config = CONFIG_MAPPING[model_type](**usual | ids | OPTIONS[model_type])
    model = AutoModelForCausalLM.from_config(config)
    randomize(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


BLOCK = re.compile(r"(<!-- support: .*? -->\n)(.*?)(<!-- end of support -->)", re.S)
PROMPTS = ["Is it late?", "Tell me all about the sea and the ships on it, please.", "Ok"]
REFUSALS = {
    "bridge must reproduce": "refused when loading: TransformerLens' logits differ from Hugging Face's",
    "must support the architecture": "refused when loading: TransformerLens does not support it",
}


def outcome(model_type: str, folder: Path) -> str:
    """What works on a small random model of this architecture, in words."""
    place = save_architecture(model_type, folder / model_type)
    try:
        chat = load_chat_model(place, device="cpu")
    except ValueError as error:
        return next((words for part, words in REFUSALS.items() if part in str(error)), str(error))
    wrong = [
        words
        for words, holds in (("states", states_are_exact(chat, place)), ("steering", is_steered(chat)))
        if not holds
    ]
    if wrong:
        return f"wrong {' and '.join(wrong)}"
    missing = [words for words, has in (("KV cache", chat.has_cache), ("ablation", chat.writes)) if not has]
    return "capture, steering and ablation work" + (f", without {' or '.join(missing)}" if missing else "")


def states_are_exact(chat: ChatModel, folder: Path) -> bool:
    """Whether captured states equal what plain Hugging Face passes to its blocks."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    blocks = next(each for each in model.modules() if isinstance(each, nn.ModuleList) and len(each) == chat.n_layers)
    seen: list[torch.Tensor] = []

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"])[0, -1].detach())

    for block in blocks:
        block.register_forward_pre_hook(note, with_kwargs=True)
    captured = capture_activations(chat, PROMPTS, positions=[-1]).values[:, :, 0]
    for prompt, own in zip(chat.encode(PROMPTS), captured, strict=True):
        seen.clear()
        with torch.no_grad():
            model(torch.tensor([prompt]))
        if not torch.allclose(torch.stack(seen), own, rtol=1e-3, atol=1e-3):
            return False
    return True


def is_steered(chat: ChatModel) -> bool:
    """Whether a batch of steered and unsteered rows gives the responses that single rows give."""
    steered = Condition("steered", (Addition(torch.ones(chat.d_model), (1,)),))
    together = generate(chat, PROMPTS, [UNSTEERED, steered], max_new_tokens=6)["response"]
    alone = [
        generate(chat, [prompt], [each], max_new_tokens=6)["response"][0]
        for each in (UNSTEERED, steered)
        for prompt in PROMPTS
    ]
    return list(together) == alone


def table(folder: Path) -> str:
    """The architectures (transformers' `model_type`) by what works on them, as a Markdown table."""
    found: dict[str, list[str]] = defaultdict(list)
    for model_type in OPTIONS:
        found[outcome(model_type, folder)].append(model_type)
    rows = sorted(found.items(), key=lambda each: -len(each[1]))
    lines = [f"| {what} | {len(names)} | {', '.join(f'`{name}`' for name in names)} |" for what, names in rows]
    return "\n".join(["| what works | n | architectures |", "|---|---|---|", *lines]) + "\n"


def written() -> str:
    """The table that docs/models.md has."""
    return BLOCK.search(DOCS.read_text(encoding="utf-8"))[2]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        text = table(Path(work))
    DOCS.write_text(
        BLOCK.sub(lambda each: each[1] + text + each[3], DOCS.read_text(encoding="utf-8")), encoding="utf-8"
    )
