"""The speed and memory figures, each as a ratio measured in this one run: `python -m tests.bench` (`make bench`)."""

import dataclasses
import gc
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.bundled.check import train_directions
from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import random_directions
from refusal_utils.geometry.gram import contrasts
from refusal_utils.geometry.uncertainty import cosine_intervals
from refusal_utils.heads.shares import component_shares
from refusal_utils.judging import judge_response
from refusal_utils.judging.self_judge import calibration_cases
from refusal_utils.latents import SparseAutoencoder, latent_firing
from refusal_utils.methods.arditi_selection import candidate_scores
from refusal_utils.methods.candidates import Candidates, find_candidates
from refusal_utils.methods.selection import DEPTH, MAX_KL
from refusal_utils.model.batching import FORWARD_TOKENS, plan_batches
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import ChatModel, load_chat_model
from refusal_utils.model.sources import find_source
from refusal_utils.prompts.categories import ALL_CATEGORIES, BENIGN, CATEGORY_IDS
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering.conditions import Condition
from refusal_utils.steering.generation import generate
from refusal_utils.tradeoff.sweep import sweep_conditions

from . import analyses, scaling

POSITIONS = (-2, -1)
MISSED: list[str] = []  # the figures that did not meet their targets
N_PROMPTS, ROUNDS = 600, 3
FIRING = (3584, 16_384, 10_000)  # d_model and latents of Gemma Scope, and prompts
N_MEMORY = 400  # prompts of the smaller of two captures whose peak memory is compared


def mixed_prompts(n: int, seed: int = 0) -> list[str]:
    """`n` different prompts of 3 to some 150 words: built-in prompts, several joined."""
    rng = random.Random(seed)
    texts = list(load_prompts()["text"])
    return [" ".join(rng.choices(texts, k=rng.choice((1, 1, 2, 3, 5, 10)))) + f" ({number})" for number in range(n)]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare_forward(plain: torch.nn.Module, chat: ChatModel, ids: list[list[int]]) -> None:
    """The Hugging Face forward, nothing kept, over the batches that capture makes."""
    with torch.inference_mode():
        for batch in plan_batches(ids, FORWARD_TOKENS["cpu"]):
            plain(**chat.pad([ids[index] for index in batch])._asdict())


def authors_way(plain: torch.nn.Module, chat: ChatModel, ids: list[list[int]], layer: int) -> None:
    """Batches of 4 in arrival order, all hidden states, one layer kept; written from the paper's description."""
    kept = []
    with torch.inference_mode():
        for start in range(0, len(ids), 4):
            batch = chat.pad(ids[start : start + 4])
            hidden = plain(**batch._asdict(), output_hidden_states=True).hidden_states
            kept.append(hidden[layer][:, -2])
    torch.cat(kept)


def report(figure: str, ratios: list[float], target: str, holds: bool | None = None) -> None:
    """Print one figure; `holds`: whether it meets its target, None for one that has none."""
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else "one run"
    said = "" if holds is None else "ok" if holds else "MISSED"
    print(f"{figure:<68} {np.median(ratios):8.2f}  ({spread})   target {target:<8} {said}", flush=True)
    if holds is not None and not holds:
        MISSED.append(figure)


def plain_model(chat: ChatModel) -> torch.nn.Module:
    """The same weights as an ordinary Hugging Face model."""
    return AutoModelForCausalLM.from_pretrained(find_source(chat.name).place, dtype=chat.dtype).eval()


def bench_capture(chat: ChatModel) -> None:
    plain = plain_model(chat)
    prompts = mixed_prompts(N_PROMPTS)
    ids = chat.encode(prompts)
    lengths = [len(row) for row in ids]
    print(
        f"{len(prompts)} prompts, {min(lengths)} to {max(lengths)} tokens, median {np.median(lengths):.0f}; "
        f"{chat.n_layers} layers, positions {POSITIONS}, {torch.get_num_threads()} threads"
    )
    against_bare, against_authors, captures = [], [], []
    n_authors = len(prompts[::4])
    for _ in range(ROUNDS):
        bare = seconds(lambda: bare_forward(plain, chat, chat.encode(prompts)))
        captures.append(seconds(lambda: capture_activations(chat, prompts, positions=POSITIONS)))
        slow = seconds(lambda: authors_way(plain, chat, chat.encode(prompts[::4]), chat.decision_layer))
        against_bare.append(bare / captures[-1])
        against_authors.append(slow * len(prompts) / n_authors / captures[-1])
    first_reads, reads = reading_times(chat, prompts)
    fast = np.median(against_bare) >= 0.9
    report("capture, throughput over the bare Hugging Face forward", against_bare, ">= 0.90", fast)
    # The authors' script keeps one layer a run; what is captured here in one run takes it one run per layer.
    per_layer = [chat.n_layers * ratio for ratio in against_authors]
    one = f"one run, one layer: {np.median(against_authors):.2f}"
    fast = np.median(per_layer) >= 8
    report(f"capture, times faster than the authors' way, {chat.n_layers} runs ({one})", per_layer, ">= 8", fast)
    # Against capturing without a cache, which writes nothing.
    capture = float(np.median(captures))
    ratio = capture / float(np.median(reads))
    report("reading from the cache, times faster than capturing", [ratio], ">= 50", ratio >= 50)
    report("the same, the first read of a process", [capture / np.median(first_reads)], "-")


def reading_times(chat: ChatModel, prompts: list[str]) -> tuple[list[float], list[float]]:
    """Seconds of reading `prompts` from the cache: as the first thing that a process does with a model, and later."""
    first, later = [], []
    with tempfile.TemporaryDirectory() as folder:
        capture_activations(chat, prompts, positions=POSITIONS, cache_dir=folder)
        for _ in range(ROUNDS):
            fresh = dataclasses.replace(chat)  # has not met its hooks yet; its weights are fingerprinted at every read
            work = partial(capture_activations, fresh, prompts, positions=POSITIONS, cache_dir=folder)
            first.append(seconds(work))
            later += [seconds(work) for _ in range(3)]
    return first, later


def peak_without_result(n: int) -> float:
    """Peak resident memory in MiB of a process that captures `n` prompts, less the result tensor."""
    code = f"from tests.bench import measure_peak; measure_peak({n})"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def measure_peak(n: int) -> None:
    prompts = mixed_prompts(n)
    chat = load_chat_model(device="cpu")
    result = capture_activations(chat, prompts, positions=range(-len(chat.suffix), 0))  # all: a copy would show
    peak = memory_of("VmHWM")
    print(json.dumps(peak - result.values.nbytes / 2**20))


def bench_memory() -> None:
    few, many = peak_without_result(N_MEMORY), peak_without_result(10 * N_MEMORY)
    print(f"peak memory, result aside: {few:.0f} MiB for {N_MEMORY} prompts, {many:.0f} MiB for {10 * N_MEMORY}")
    report("peak memory for ten times the prompts, as a multiple", [many / few], "<= 1.1", many <= 1.1 * few)


def planted_states(n: int = 64, d_model: int = 4096) -> dict[str, torch.Tensor]:
    """Activations of eleven categories and as many benign prompts."""
    generator = torch.Generator().manual_seed(0)
    names = [*CATEGORY_IDS, BENIGN]
    return {name: torch.randn(n, d_model, generator=generator) + 0.1 * index for index, name in enumerate(names)}


def loop_over_draws_and_pairs(states: dict[str, torch.Tensor], n_draws: int, once: bool) -> None:
    """The plain way: resample rows, then for every pair two differences in means and their cosine.

    `once`: the better plain way, with the mean of every category taken once per draw.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_draws):
        drawn = {n: rows[torch.randint(len(rows), (len(rows),), generator=generator)] for n, rows in states.items()}
        means = {name: rows.mean(0) for name, rows in drawn.items()} if once else {}
        for pair in combinations(CATEGORY_IDS, 2):
            at = means or {name: drawn[name].mean(0) for name in (*pair, BENIGN)}
            torch.cosine_similarity(*(at[name] - at[BENIGN] for name in pair), dim=0)


def bootstrap(n_draws: int = 1000) -> None:
    states = planted_states()
    cosine_intervals(contrasts({name: states[name] for name in CATEGORY_IDS}, states[BENIGN]), n_draws)


def bench_bootstrap() -> None:
    states, sample = planted_states(), 20
    ratios, better, times = [], [], []
    for _ in range(ROUNDS):
        times.append(seconds(bootstrap))
        for once, found in ((False, ratios), (True, better)):
            loop = seconds(lambda once=once: loop_over_draws_and_pairs(states, 1000 // sample, once))
            found.append(loop * sample / times[-1])
    code = "from tests.bench import bootstrap, memory_of; bootstrap(); print(memory_of('VmHWM') / 2**10)"
    peak = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    n = sum(map(len, states.values()))
    print(f"bootstrap of the 11 x 11 map: 1,000 draws, {n} prompts, d_model 4,096; 1/{sample} sample of the loop")
    report("bootstrap, times faster than a loop over draws and pairs", ratios, ">= 20", np.median(ratios) >= 20)
    report("bootstrap, the same with every mean taken once per draw", better, "-")
    report("bootstrap, seconds", times, "<= 10", np.median(times) <= 10)
    report("bootstrap, peak memory of the whole process, GiB", [peak], "<= 2", peak <= 2)


def hooked_generate(
    plain: torch.nn.Module,
    chat: ChatModel,
    ids: list[list[int]],
    conditions: list[Condition],
    batch: int,
    authors: bool,
    n_new: int = 50,
) -> None:
    """One condition after the other with a hook on plain Hugging Face `generate`, batches in arrival order.

    `authors`: no KV cache and no attention mask, as the paper's code is described (METHOD: baseline to beat).
    """
    for condition in conditions:
        edit = condition.interventions[0]

        def add(module: object, args: tuple, kwargs: dict, vector: torch.Tensor = edit.vector) -> tuple:
            return (args[0] + vector, *args[1:]), kwargs

        handle = plain.model.layers[edit.layers[0]].register_forward_pre_hook(add, with_kwargs=True)
        for start in range(0, len(ids), batch):
            padded = chat.pad(ids[start : start + batch])._asdict()
            if authors:
                padded["attention_mask"] = torch.ones_like(padded["attention_mask"])
            with torch.inference_mode():
                plain.generate(**padded, max_new_tokens=n_new, do_sample=False, use_cache=not authors)
        handle.remove()


def bench_generation(chat: ChatModel) -> None:
    plain = plain_model(chat)
    prompts = list(load_prompts(split="eval").sample(128, random_state=0)["text"])
    ids, layer = chat.encode(prompts), chat.decision_layer
    whole = sweep_conditions(train_directions(chat, layer, chat.decision_pos), gaps=(0.25, 0.5, 0.75, 1.0))
    sample, half = whole[5:7], whole[:22]  # the sample lies in the middle: 0.5 and 0.75 gaps
    print(
        f"a sweep of {len(whole)} conditions x {len(prompts)} prompts x 50 tokens; 1/44 and 1/22 samples of the others"
    )
    against_authors, against_loop, in_prompts, in_conditions = [], [], [], []
    for _ in range(ROUNDS):
        ours = seconds(lambda: generate(chat, prompts, whole))
        half_prompts = seconds(lambda: generate(chat, prompts[::2], whole))
        half_conditions = seconds(lambda: generate(chat, prompts, half))
        authors = seconds(lambda: hooked_generate(plain, chat, ids[::2], sample, 8, True)) * 2 * 22
        loop = seconds(lambda: hooked_generate(plain, chat, ids, sample, 64, False)) * 22
        against_authors.append(authors / ours)
        against_loop.append(loop / ours)
        in_prompts.append(ours / half_prompts / 2)
        in_conditions.append(ours / half_conditions / 2)
    report(
        "steered sweep, times faster than the authors' way", against_authors, ">= 25", np.median(against_authors) >= 25
    )
    report(
        "steered sweep, times faster than generate per condition",
        against_loop,
        ">= 1.6",
        np.median(against_loop) >= 1.6,
    )
    near = abs(np.median(in_prompts) - 1) <= 0.05
    report("steered sweep, cost of twice the prompts over twice the cost", in_prompts, "1 +-0.05", near)
    # Conditions share what they can below the steered layer: more of them cost less each.
    below = np.median(in_conditions) <= 1.05
    report("steered sweep, cost of twice the conditions over twice the cost", in_conditions, "<= 1.05", below)


def stacked_head_shares(chat: ChatModel, prompts: list[str], directions: torch.Tensor) -> torch.Tensor:
    """TransformerLens' own way: cache what the heads give, stack their outputs at full width, project."""
    ids, layer, pos = chat.encode(prompts), chat.decision_layer, chat.decision_pos
    names = [chat.hook_name("z", each) for each in range(chat.n_layers)]  # it computes all layers, whichever are asked
    parts, order = [], []
    for rows in plan_batches(ids, FORWARD_TOKENS["cpu"]):
        batch = chat.pad([ids[row] for row in rows])
        with torch.inference_mode():
            _, cache = chat.bridge.run_with_cache(
                batch.input_ids, attention_mask=batch.attention_mask, names_filter=names
            )
            results = cache.stack_head_results(layer=layer, pos_slice=pos)  # [layer * head_index, batch, d_model]
            parts.append((results @ directions.T).unflatten(0, (layer, -1)).permute(2, 0, 1, 3))
        order += rows
    return torch.cat(parts)[torch.tensor(order).argsort()]


def attribution_peak(kind: str) -> None:
    """Print the peak memory in MiB that one way takes above what is held before it."""
    chat, prompts = load_chat_model(device="cpu"), list(load_prompts(split="train")["text"])
    directions, place = random_directions(11, chat.d_model), [chat.decision_layer]
    work = {
        "forward": lambda: capture_activations(chat, prompts, layers=place, positions=[chat.decision_pos]),
        "ours": lambda: component_shares(chat, prompts, directions),
        "stacked": lambda: stacked_head_shares(chat, prompts, directions),
    }[kind]
    chat.bridge(chat.pad(chat.encode(prompts[:1])).input_ids)  # allocations that every way makes once
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = memory_of("VmRSS")
    work()
    print(memory_of("VmHWM") - before)


def memory_of(name: str) -> float:
    """MiB of this process; unlike `ru_maxrss`, `VmHWM` leaves out the peak of the process that started it."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def bench_attribution(chat: ChatModel) -> None:
    prompts, directions = list(load_prompts(split="train")["text"]), random_directions(11, chat.d_model)
    sample = prompts[::4]  # both ways take as long per prompt whatever their number, and the stacked way takes long
    ratios = []
    for _ in range(ROUNDS):
        ours = seconds(lambda: component_shares(chat, sample, directions))
        ratios.append(seconds(lambda: stacked_head_shares(chat, sample, directions)) / ours)
    both = (
        way(chat, sample, directions) for way in (lambda *given: component_shares(*given).heads, stacked_head_shares)
    )
    gap = float((next(both) - next(both)).abs().max())
    peak = {}
    for kind in ("forward", "ours", "stacked"):
        code = f"from tests.bench import attribution_peak; attribution_peak({kind!r})"
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        peak[kind] = float(run.stdout.splitlines()[-1])
    print(f"head shares of {len(prompts)} prompts, 11 directions; peak MiB { {k: round(v) for k, v in peak.items()} }")
    memory = max(1.0, peak["stacked"] - peak["forward"]) / max(1.0, peak["ours"] - peak["forward"])
    report("head shares, times less memory, the forward pass aside", [memory], ">= 10", memory >= 10)
    report("head shares, times faster than stacking head outputs", ratios, ">= 3", np.median(ratios) >= 3)
    report("head shares, largest difference of the two ways", [gap], "<= 1e-5", gap <= 1e-5)


def firing_case() -> tuple[SparseAutoencoder, dict[str, torch.Tensor]]:
    """An autoencoder as large as Gemma Scope's, and states of all categories; about one latent in 200 fires."""
    d_model, n_latents, n_prompts = FIRING
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n_latents, d_model, generator=generator) / d_model**0.5
    rest = {"b_enc": torch.zeros(n_latents), "b_dec": torch.zeros(d_model), "threshold": torch.full((n_latents,), 2.6)}
    sae = SparseAutoencoder(w_enc=rows.T.contiguous(), w_dec=rows, layer=20, **rest)
    parts = torch.randn(n_prompts, d_model, generator=generator).chunk(len(ALL_CATEGORIES))
    return sae, dict(zip(ALL_CATEGORIES, parts, strict=True))


def bare_product(sae: SparseAutoencoder, sides: dict[str, torch.Tensor]) -> None:
    """The pre-activations in the same batches, nothing kept."""
    for states in sides.values():
        for batch in states.split(512):
            batch @ sae.w_enc


def firing_peak() -> None:
    """Print the peak memory in GB of a process that does nothing else."""
    latent_firing(*firing_case())
    print(memory_of("VmHWM") * 2**20 / 1e9)


def bench_firing() -> None:
    code = "from tests.bench import firing_peak; firing_peak()"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    peak = float(run.stdout.splitlines()[-1])
    case, ratios = firing_case(), []
    for _ in range(ROUNDS):
        bare = seconds(lambda: bare_product(*case))
        ratios.append(seconds(lambda: latent_firing(*case)) / bare)
    print(
        f"firing of {FIRING[1]} latents on {FIRING[2]} prompts, d_model {FIRING[0]}, {torch.get_num_threads()} threads"
    )
    report("firing, time over that of the bare product", ratios, "<= 1.3", np.median(ratios) <= 1.3)
    report("firing, peak memory of the whole process, GB", [peak], "<= 2", peak <= 2)


def bench_judge(n: int = 1000, length: int = 300) -> None:
    """The default judge on `n` different responses of `length` characters, made of the labelled cases."""
    rng, cases = random.Random(0), list(calibration_cases()["response"])
    responses = [" ".join(rng.sample(cases, len(cases)))[:length] for _ in range(n)]
    rates = []
    for _ in range(ROUNDS):
        began = time.process_time()  # one thread, whatever else runs
        for each in responses:
            judge_response("What is this?", each)
        rates.append(n / (time.process_time() - began))
    figure = f"the default judge, responses of {length} characters per second of CPU time"
    report(figure, rates, ">= 200", np.median(rates) >= 200)


def bench_real_model(name: str) -> None:
    """A model of usual size: capture, a sweep on a sample of everything, and 16 against 32 bits."""
    chat = load_chat_model(name, device="cpu", dtype="float32")
    plain, half = plain_model(chat), load_chat_model(name, device="cpu", dtype="bfloat16")
    prompts = list(load_prompts(split="eval").sample(64, random_state=0)["text"])
    ids, train = chat.encode(prompts), load_prompts(split="train")
    policy, benign = (train["text"][train["category"] == each].head(32) for each in ("crime_assistance", BENIGN))
    states = capture_activations(chat, [*policy, *benign]).at(chat.decision_layer, chat.decision_pos)
    sides = {"crime_assistance": states[:32]}, states[32:]
    directions = DirectionSet.from_states(*sides, Provenance(chat.decision_layer, chat.decision_pos))
    conditions = sweep_conditions(directions, gaps=(0.5, 1.0, 2.0, 3.0))
    print(f"{chat.describe()}\na sweep of 4 conditions x 64 prompts x 24 tokens; 1/4 and 1/32 samples of the others")
    bare, loops, authors, captures, generations = [], [], [], [], []
    for _ in range(ROUNDS):
        captured = seconds(lambda: capture_activations(chat, prompts, positions=POSITIONS))
        bare.append(seconds(lambda: bare_forward(plain, chat, ids)) / captured)
        captures.append(captured / seconds(lambda: capture_activations(half, prompts, positions=POSITIONS)))
        ours = seconds(lambda: generate(chat, prompts, conditions, max_new_tokens=24))
        generations.append(ours / seconds(lambda: generate(half, prompts, conditions, max_new_tokens=24)))
        loops.append(4 * seconds(lambda: hooked_generate(plain, chat, ids, conditions[1:2], 64, False, 24)) / ours)
        authors.append(
            32 * seconds(lambda: hooked_generate(plain, chat, ids[::8], conditions[1:2], 8, True, 24)) / ours
        )
    report(f"{name}: capture over the bare forward", bare, ">= 0.90", np.median(bare) >= 0.9)
    report(f"{name}: sweep, times faster than generate per condition", loops, ">= 2", np.median(loops) >= 2)
    report(f"{name}: sweep, times faster than the authors' way", authors, ">= 25", np.median(authors) >= 25)
    report(f"{name}: capture, bfloat16 over float32", captures, "-")
    report(f"{name}: sweep, bfloat16 over float32", generations, "-")
    bench_selection(chat)


def published_selection(plain: torch.nn.Module, chat: ChatModel, found: Candidates, layer: int, pos: int) -> None:
    """One candidate the published way: three passes in batches of 32, hooks on plain Hugging Face, all logits."""
    difference, _ = found.at(layer, pos)
    unit = difference / difference.norm()

    def without(value: torch.Tensor) -> torch.Tensor:
        return value - (value @ unit)[..., None] * unit

    def ablated() -> list:
        blocks = plain.model.layers
        handles = [each.register_forward_pre_hook(lambda m, args: (without(args[0]), *args[1:])) for each in blocks]
        handles += [b.self_attn.register_forward_hook(lambda m, a, out: (without(out[0]), *out[1:])) for b in blocks]
        return handles + [each.mlp.register_forward_hook(lambda m, a, out: without(out)) for each in blocks]

    def added() -> list:
        block = plain.model.layers[layer]
        return [block.register_forward_pre_hook(lambda m, args: (args[0] + difference, *args[1:]))]

    for texts, hook in ((found.refused_val, ablated), (found.answered_val, ablated), (found.answered_val, added)):
        ids, handles = chat.encode(texts), hook()
        for start in range(0, len(ids), 32):
            with torch.inference_mode():
                logits = plain(**chat.pad(ids[start : start + 32])._asdict()).logits
            logits[:, -1].double().softmax(-1)
        for handle in handles:
            handle.remove()


def bench_selection(chat: ChatModel) -> None:
    """Arditi selection against the published way, on samples of the candidates.

    With every score (for its plots) at some layers and all positions, and with the filters first (for the choice, as
    `LAYER = "select"` runs it) at all layers and the last position.
    """
    plain, train = plain_model(chat), load_prompts(split="train")
    how = {"n_train": 128, "n_validation": 32, "needs_tokens": True, "filter_prompts": True}
    found = find_candidates("bench", chat, train, **how)
    stride = max(1, chat.n_layers // 5)
    layers = tuple(range(stride // 2 or 1, chat.n_layers, stride))
    rows = list(layers)
    some = dataclasses.replace(found, layers=layers, differences=found.differences[rows], answered=found.answered[rows])
    slow, place = [], (layers[len(layers) // 2], found.positions[0])
    slow.append(seconds(lambda: published_selection(plain, chat, found, *place)))
    ours = seconds(lambda: candidate_scores(chat, some)) / len(some.places)
    last = dataclasses.replace(
        found, positions=found.positions[-1:], differences=found.differences[:, -1:], answered=found.answered[:, -1:]
    )
    limits = {"depth": DEPTH, "max_kl": MAX_KL, "min_induce": 0.0}
    choosing = seconds(lambda: candidate_scores(chat, last, limits)) / len(last.places)
    slow.append(seconds(lambda: published_selection(plain, chat, found, *place)))
    n = chat.n_layers * len(found.positions)
    sizes = f"{len(found.refused_val)} + {len(found.answered_val)} prompts"
    print(
        f"selection among {n} candidates on {sizes}: {ours:.2f} s a candidate, {np.mean(slow):.2f} s the published way"
    )
    for figure, own in (("every score", ours), ("filters first", choosing)):
        ratios = [each / own for each in slow]
        fast = np.mean(ratios) >= 8
        report(f"selection, {figure}, times faster than one candidate at a time", ratios, ">= 8", fast)


BENCHES = {
    "attribution": lambda: bench_attribution(load_chat_model(device="cpu")),
    "capture": lambda: bench_capture(load_chat_model(device="cpu")),
    "firing": bench_firing,
    "judge": bench_judge,
    "memory": bench_memory,
    "bootstrap": bench_bootstrap,
    "generation": lambda: bench_generation(load_chat_model(device="cpu")),
}


def main(names: list[str]) -> int:
    """Measure the named figures, or all of the bundled model; the exit status: 1 if one misses its target.

    A name that is not among `BENCHES` is that of a model, such as smollm2. `scaling [MODEL]` prints the tables of
    `tests.scaling`, and `analyses SIZE [FOLDER]` renews that of `tests.analyses`.
    """
    MISSED.clear()
    if names[:1] == ["analyses"]:
        analyses.main(*names[1:])
        return 0
    if names[:1] == ["scaling"]:
        for found in scaling.main(*names[1:]):
            report(*found)
        return int(bool(MISSED))
    for name in names or BENCHES:
        BENCHES.get(name, partial(bench_real_model, name))()
    if MISSED:
        print(f"bench: {len(MISSED)} of the targets missed: {'; '.join(MISSED)}", file=sys.stderr)
    return 1 if MISSED else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
