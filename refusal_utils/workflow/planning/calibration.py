"""What a row costs on this machine: a few prompts are captured, steered and answered, for about 20 seconds.

It runs in processes of its own, as many at once as notebooks will run, with as many threads each: they slow each other.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ...checks import invalid
from .scene import ModelFacts

SECONDS = 20.0
_N_FIRST, _N_MOST, _N_ASKED = 8, 96, 16  # prompts of the first measurement, of the longest, and asked on each side
_N_NEW = 8  # tokens by which the time of one more token is measured
_N_CONDITIONS, _N_GENERATED = 4, 16  # of a measured pass and of measured responses, whose batches are as large as usual


@dataclass(frozen=True)
class Rates:
    """Seconds on this machine, each per row, and what the model's responses and memory are like.

    `start`: from the start of a process until the packages are imported; `load`: until the model is loaded. `capture`:
    a prompt whose activations are read. `steered`: a pass over a prompt with an edit at every layer. `token`: one more
    token of a response. `lengths`: tokens of unsteered responses. `peak`: most memory of a process, in GB.
    """

    start: float
    load: float
    capture: float
    steered: float
    token: float
    lengths: tuple[int, ...]
    peak: float

    def tokens(self, most: int) -> float:
        """The mean length of a response of at most `most` tokens."""
        return sum(min(length, most) for length in self.lengths) / max(1, len(self.lengths))


def calibrate(
    model: str, parameters: dict[str, Any], n_at_once: int = 1, variables: dict[str, str] | None = None
) -> tuple[Rates, ModelFacts]:
    """The rates of `n_at_once` processes that measure at the same time (their means), and facts about the model.

    `parameters`: those of a run. `variables` are added to the environment. Raises `ValueError` if a process fails.
    """
    asked = json.dumps({**parameters, "MODEL": model, "began": time.time()})
    command = [sys.executable, "-m", f"{__package__}.calibration", asked]
    env = {**os.environ, **(variables or {})}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(n_at_once)]
    said = [process.communicate()[0].splitlines() for process in started]
    failed = next((process for process in started if process.returncode), None)
    if failed is not None:
        got, todo = f"exit code {failed.returncode}", "Read the error above."
        raise invalid("calibrate", "the model must load and answer", got, todo)
    found = [json.loads(lines[-1]) for lines in said]
    rates = [each["rates"] for each in found]
    numbers = {name: sum(each[name] for each in rates) / len(rates) for name in rates[0] if name != "lengths"}
    return Rates(**numbers, lengths=tuple(rates[0]["lengths"])), ModelFacts(**found[0]["facts"])


def measure(chat: Any, texts: list[str], seconds: float = SECONDS) -> dict[str, Any]:
    """Seconds per row of each kind, in about `seconds` altogether, and gigabytes."""
    import torch

    from ...model.capture import capture_activations, profile_places
    from ...model.progress import peak_gigabytes
    from ...steering import Ablation, Condition, generate
    from ...steering.first_tokens import kl_spent

    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(_N_GENERATED, chat.d_model, generator=generator))
    conditions = [Condition(f"random {at}", (Ablation(row[None]),), f"random {at}") for at, row in enumerate(rows)]
    places: dict[str, Any] = dict(profile_places(chat))
    capture = partial(capture_activations, chat, **places)
    per_capture = _per_row(capture, texts, 1, seconds / 5)
    per_pass = _per_row(
        lambda own: kl_spent(chat, own, conditions[:_N_CONDITIONS]), texts, _N_CONDITIONS + 1, seconds / 5
    )

    def longer(own: list[str]) -> float:
        """Seconds that the tokens after the first take."""
        took = [_timed(lambda n=n: generate(chat, own, conditions, max_new_tokens=n)) for n in (1, 1 + _N_NEW)]
        return max(took[1] - took[0], 1e-6)

    n_rows = _fitting(longer, texts, seconds / 3)
    per_token = longer(texts[:n_rows]) / (n_rows * _N_GENERATED * _N_NEW)
    found = {"capture": per_capture, "steered": per_pass, "token": per_token}
    return {**found, "peak": peak_gigabytes() or 0.0}


def ask(chat: Any, prompts: Any, max_new_tokens: int) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of the unsteered responses to a few prompts, and on each side (refused, asked): harmful, benign."""
    from ...prompts.categories import BENIGN
    from ...steering.responses import respond

    sides = [prompts[(prompts["category"] == BENIGN) == is_benign] for is_benign in (False, True)]
    asked = [side.sample(min(_N_ASKED, len(side)), random_state=0) for side in sides]
    rows = [respond(chat, side, max_new_tokens=max_new_tokens) for side in asked if len(side)]
    lengths = [int(length) for side in rows for length in side["n_tokens"]]
    return lengths, [(int((side["outcome"] == "refused").sum()), len(side)) for side in rows]


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _fitting(work: Any, texts: list[str], seconds: float) -> int:
    """How many of `texts` take at most `seconds`, judged by a few; at least those."""
    few = min(_N_FIRST, len(texts))
    work(texts[:2])  # the first call allocates and compiles
    took = _timed(lambda: work(texts[:few]))
    return int(min(len(texts), _N_MOST, max(few, few * seconds / max(took, 1e-6) / 2)))


def _per_row(work: Any, texts: list[str], n_rows: int, seconds: float) -> float:
    n = _fitting(work, texts, seconds)
    return _timed(lambda: work(texts[:n])) / (n * n_rows)


def facts_of(chat: Any, layer: Any, pos: int | None) -> ModelFacts:
    """The facts about a loaded model that the counts need; `layer` and `pos` are parameters of the run."""
    from ...model.capture import profile_places
    from ...model.defaults import NOT_PUBLISHED, searched_layers

    is_searched = layer in ("causal", "select") or chat.decision_source.startswith(NOT_PUBLISHED)
    n_positions = len(chat.suffix)
    searched = len(searched_layers(chat.n_layers)) * (n_positions if pos is None else 1) if is_searched else 0
    heads = chat.bridge.original_model.config.get_text_config().num_attention_heads
    read = len(profile_places(chat)["layers"])
    return ModelFacts(chat.n_layers, chat.decision_layer, n_positions, heads, searched, read)


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """The rates and facts of the model that `asked` names, as plain values."""
    from ...model.chat_model import load_chat_model
    from ...study import open_study

    start = time.time() - asked["began"]
    layer, pos = asked.get("LAYER"), asked.get("POS")
    loading = {"dtype": asked.get("DTYPE"), "system_prompt": asked.get("SYSTEM_PROMPT"), "pos": pos}
    chat = load_chat_model(asked["MODEL"], layer=layer if isinstance(layer, int) else None, **loading)
    load = time.time() - asked["began"] - start
    prompts = open_study(asked["MODEL"], prompts=asked.get("PROMPTS", "builtin")).prompts
    texts = list(prompts.sample(min(_N_MOST, len(prompts)), random_state=0)["text"])
    lengths, refused = ask(chat, prompts, asked.get("MAX_NEW_TOKENS", 50))
    rates = {"start": start, "load": load, "lengths": lengths, **measure(chat, texts)}
    facts = replace(facts_of(chat, layer, pos), refused=(refused[0], refused[1]) if len(refused) == 2 else None)
    return {"rates": rates, "facts": asdict(facts)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
