"""The kinds of long work that faults interrupt, each with a cache; what they return is equal only if bit-identical."""

import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from refusal_utils.latents.command import train_and_measure
from refusal_utils.latents.training import WEIGHTS
from refusal_utils.methods.rdo import rdo
from refusal_utils.model.capture import capture_activations
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering import UNSTEERED, Addition, Condition, generate

from ..conftest import forty_prompts
from . import World

Work = Callable[[Path], bytes]
OPTIONS = {"place": (3, -3), "tokens": (311,), "n_train": 14, "n_validation": 8, "filter_prompts": False}


def captured(world: World, cache: Path) -> bytes:
    """States of twenty prompts at three places, in a dozen batches."""
    found = capture_activations(world.chat, forty_prompts()[:20], layers=(1, 4, 7), batch_tokens=60, cache_dir=cache)
    return found.values.numpy().tobytes()


def generated(world: World, cache: Path) -> bytes:
    """Responses of six prompts under two conditions, in several batches."""
    vector = torch.randn(world.chat.d_model, generator=torch.Generator().manual_seed(0))
    conditions = [UNSTEERED, Condition("added", (Addition(vector, (4,)),))]
    how = {"max_new_tokens": 12, "batch_tokens": 120, "cache_dir": cache}
    return generate(world.chat, forty_prompts()[:6], conditions, **how).to_json().encode()


def searched(world: World, cache: Path) -> bytes:
    """A direction after six updates of gradient descent, with its targets and its losses."""
    prompts = world.once("prompts", lambda: load_prompts(split="train"))
    found = rdo(world.chat, prompts, n_updates=6, n_prompts=2, cache_dir=cache, **OPTIONS)
    return found.direction.numpy().tobytes() + found.table().to_json().encode()


def trained(world: World, cache: Path) -> bytes:
    """Autoencoders of two layers, trained on the responses to a dozen prompts, and their measures on others."""
    prompts = world.once("few prompts", lambda: load_prompts().groupby(["category", "split"]).head(1))
    how = {"n_latents": 32, "l0": 4, "n_samples": 2048, "max_new_tokens": 6, "cache_dir": cache}
    quality = train_and_measure(world.chat, prompts, (2, 5), cache / "saes", **how)
    weights = [(cache / "saes" / f"layer_{layer}" / WEIGHTS).read_bytes() for layer in (2, 5)]
    return b"".join([*weights, quality.table().to_json().encode()])


WORKS = {"capture": captured, "generation": generated, "search by gradients": searched, "SAE training": trained}
NEEDS = {"SAE training": "sae_lens"}  # packages whose import takes seconds, or that may be missing


def whole(world: World, name: str) -> bytes:
    """What the work returns if nothing goes wrong; its cache is kept."""

    def make() -> bytes:
        if name in NEEDS:
            pytest.importorskip(NEEDS[name], exc_type=ImportError)
        world.results[f"cache of {name}"] = cache = Path(tempfile.mkdtemp(prefix="refusal_utils_faults_"))
        began = time.monotonic() if world.chat else 0.0  # once the model is loaded
        found = WORKS[name](world, cache)
        world.results[f"seconds of {name}"] = time.monotonic() - began
        return found

    return world.once(name, make)


def start(work: Callable[[], object]) -> int:
    """The number of a forked process that does `work` and ends with 0, or with 1 if it fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the parent has threads, none of which the child needs
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        tqdm.set_lock(threading.RLock())  # its own is a semaphore of all forked processes, and a killed one keeps it
        work()
        code = 0
    finally:
        os._exit(code)


def killed(work: Callable[[], object], seconds: float) -> None:
    """Do `work` in a process of its own, and kill it after so many seconds."""
    child = start(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def bound(world: World, name: str, cache: Path) -> Callable[[], bytes]:
    """The work, for `start` and `killed`."""
    return partial(WORKS[name], world, cache)
