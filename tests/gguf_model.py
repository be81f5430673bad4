"""A small random Llama and the GGUF file of it, written by the gguf package as llama.cpp's converter writes one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tests.families import FAMILIES, family_config, family_tokenizer, randomize

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def small_llama() -> tuple[Any, Any]:
    """(model, tokenizer): two layers of random weights with SmolLM2's turn format and tied embeddings."""
    family = FAMILIES["smollm2"]
    tokenizer = family_tokenizer(family)
    tokenizer.backend_tokenizer.pre_tokenizer.add_prefix_space = False  # as in every file of this kind
    config = family_config(family, tokenizer)
    config.update({**SIZES, "head_dim": 16})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    randomize(model)
    model.tie_weights()
    return model, tokenizer


def write_gguf(
    path: Path, model: Any, tokenizer: Any, kind: str, *, skip: str = "", file_type: int | None = None
) -> Path:
    """`path`, after writing matrices as `kind` (F32, Q8_0) and vectors as F32, without tensors named in `skip`."""
    import gguf

    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_name("A small Llama")
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, gguf.TokenType)
    for name, values in model.state_dict().items():
        stored = _stored_name(name)
        if stored is None or stored == skip:
            continue
        numbers = _in_ggml_order(stored, values, config).numpy().astype(np.float32)
        type_ = gguf.GGMLQuantizationType[kind if numbers.ndim > 1 else "F32"]
        writer.add_tensor(stored, gguf.quants.quantize(numbers, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, tokenizer: Any, types: Any) -> None:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.added_tokens_encoder)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([types.CONTROL if token in special else types.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_eot_token_id(tokenizer.convert_tokens_to_ids("<|end|>"))
    writer.add_chat_template(tokenizer.chat_template)


def _stored_name(name: str) -> str | None:
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if not name.startswith("model.layers."):
        return whole.get(name)  # the unembedding is the embedding, and is not stored again
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{NAMES[part.removesuffix('.weight')]}.weight"


def _in_ggml_order(stored: str, values: torch.Tensor, config: Any) -> torch.Tensor:
    """`values` with the rows of queries and keys in ggml's order, in which rotated pairs are neighbours."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    n_heads = heads.get(stored.split(".")[-2])
    if n_heads is None:
        return values
    return values.view(n_heads, 2, -1, values.shape[1]).transpose(1, 2).reshape(values.shape)
