"""Speed and memory on a GPU at the size of a real model: `python -m tests.bench_gpu`.

A random-weight model with the exact configuration of Gemma-2-9b-it in bfloat16; ours against the authors' way (written
from the paper's description) as ratios of one run. Random weights never stop, so every response has all its tokens.
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Gemma2Config

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import random_directions
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import ChatModel, load_chat_model
from refusal_utils.paper.setting import GEMMA
from refusal_utils.steering.generation import generate
from refusal_utils.tradeoff.sweep import sweep_conditions

from .bench import authors_way, hooked_generate, mixed_prompts, report, seconds
from .families import FAMILIES, family_tokenizer

# google/gemma-2-9b-it, config.json: what differs from the defaults of `Gemma2Config`, which are those of the 2b model.
GEMMA_2_9B = {
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
}


def random_chat(
    sizes: dict[str, int], device: str, dtype: torch.dtype, folder: Path, layer: int = GEMMA.layers[0]
) -> ChatModel:
    """A chat model of these sizes with random weights, made on `device`, steered at the layer of Table 12."""
    tokenizer = family_tokenizer(FAMILIES["gemma2"])
    tokenizer.save_pretrained(folder)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    config = Gemma2Config(**sizes, **ids)
    config.architectures = ["Gemma2ForCausalLM"]
    config.save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return load_chat_model(folder, hf_model=model, layer=layer)


def bench(chat: ChatModel, n_prompts: int, n_swept: int, n_strengths: int, sample: int) -> None:
    """Capture of `n_prompts`, and a sweep of 11 x `n_strengths` x `n_swept`; the authors' way on 1/`sample`."""
    plain, prompts = chat.bridge.original_model, mixed_prompts(n_prompts)
    layer, cuda = chat.decision_layer, chat.device.type == "cuda"
    ids = chat.encode(prompts)

    peaks: dict[str, float] = {}

    def timed(what: str, work) -> float:
        """Seconds of `work`; its peak memory on the GPU goes into `peaks`."""

        def and_wait() -> None:
            work()
            if cuda:
                torch.cuda.synchronize()

        if cuda:
            torch.cuda.reset_peak_memory_stats()
        took = seconds(and_wait)
        peaks[what] = torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan")
        return took

    ours = timed("capture", lambda: capture_activations(chat, prompts, positions=(-2, -1)))
    part = ids[: max(4, n_prompts // sample)]
    authors = timed("authors' capture", lambda: authors_way(plain, chat, part, layer)) * n_prompts / len(part)
    print(f"capture of {n_prompts} prompts, all layers, two positions: {ours:.1f} s")
    report("capture, times faster than the authors' way (one layer a run)", [authors / ours], "-", True)
    drawn = random_directions(11, chat.d_model)
    directions = DirectionSet(tuple("abcdefghijk"), drawn, torch.full((11,), torch.nan), Provenance(layer))
    strengths = [10.0 * (step + 1) for step in range(n_strengths)]
    whole = sweep_conditions(directions, coefficients=strengths)
    ours = timed("sweep", lambda: generate(chat, prompts[:n_swept], whole))
    few = whole[: max(1, len(whole) // sample)]
    ratio = len(whole) / len(few)
    authors = timed("authors' sweep", lambda: hooked_generate(plain, chat, ids[:n_swept], few, 8, True)) * ratio
    loop = timed("loop of generate", lambda: hooked_generate(plain, chat, ids[:n_swept], few, 64, False)) * ratio
    print(f"sweep of {len(whole)} conditions x {n_swept} prompts x 50 tokens: {ours:.1f} s")
    report("steered sweep, times faster than the authors' way", [authors / ours], ">= 25", authors / ours >= 25)
    report("steered sweep, times faster than generate per condition", [loop / ours], ">= 1.6", loop / ours >= 1.6)
    for what in ("capture", "sweep") if cuda else ():
        ratio = peaks[f"authors' {what}"] / peaks[what]
        report(f"peak memory of the {what}, the authors' way over ours", [ratio], "-")
    if cuda:
        said = ", ".join(f"{what} {peak:.1f} GiB" for what, peak in peaks.items())
        print(f"peak memory, weights included: {said} on {torch.cuda.get_device_name()}")


def main() -> int:
    if not torch.cuda.is_available():
        print("bench_gpu: a CUDA device must be there; got none. Run it on a machine with one.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        bench(random_chat(GEMMA_2_9B, "cuda", torch.bfloat16, Path(folder)), 1000, 200, 4, 44)
    return 0


if __name__ == "__main__":
    sys.exit(main())
