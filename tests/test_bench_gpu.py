import torch
from transformers import Gemma2Config

from refusal_utils.paper.tables import published_manifest

from .bench_gpu import GEMMA_2_9B, bench, random_chat


def test_the_gpu_bench_runs_on_a_small_model_of_the_same_architecture(tmp_path, capsys):
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16, "vocab_size": 4200}
    assert set(small) <= set(GEMMA_2_9B)
    chat = random_chat(GEMMA_2_9B | small, "cpu", torch.float32, tmp_path, layer=1)
    assert (chat.n_layers, chat.d_model, chat.decision_layer) == (2, 32, 1)
    bench(chat, n_prompts=8, n_swept=2, n_strengths=1, sample=11)
    said = capsys.readouterr().out
    assert "sweep of 11 conditions x 2 prompts x 50 tokens" in said
    assert said.count("times faster") == 3


def test_the_gpu_bench_steers_at_the_layer_of_table_12(tmp_path):
    narrow = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    chat = random_chat(GEMMA_2_9B | narrow | {"vocab_size": 4200}, "cpu", torch.float32, tmp_path)
    assert (chat.n_layers, chat.decision_layer) == (42, published_manifest()["layer"])
    assert GEMMA_2_9B["hidden_size"] == published_manifest()["d_model"] != Gemma2Config().hidden_size  # 2b's
