"""The process that computes: it loads one model, finds its directions, and answers blocks of prompts.

Two engines give the same rows bit for bit on one kind of device, because everything that decides a number is here: the
directions are read from one file that the first worker of a model writes; a block is computed whole, by one call of
`generate` on the same prompts under the same conditions, so its batches are the same; every worker uses the same number
of threads; and a block that was interrupted is computed again from its beginning. The name of a block's file is a hash
of the model, the device, the threads, the prompts' tokens and the conditions, so rows of different arithmetic never
share a file.
"""

import os
import time
import uuid
from pathlib import Path
from typing import Any

import torch

from ..directions.direction_set import DirectionSet, Provenance
from ..geometry.labelled import Labelled
from ..model.artifacts import load_kept, load_rows, model_notes, save_rows
from ..model.store import content_key, disk_errors
from ..prompts.draws import draw_digest
from ..steering import UNSTEERED, Condition, generate
from ..study import Study, open_study
from ..tradeoff import choose_gaps, sweep_conditions, with_controls
from .sweep_plan import Receipt, SweepPlan, Task


class Worker:
    """A loaded model with the conditions of its sweep.

    Raises `ValueError` as `open_study` and `draw_prompts` do.
    """

    def __init__(self, plan: SweepPlan, model: str) -> None:
        torch.set_num_threads(plan.threads)
        self.plan, self.model = plan, model
        where = {"figures_dir": plan.out, "cache_dir": plan.cache}
        how = {"layer": plan.layer, "pos": plan.pos, "dtype": plan.dtype}
        study = open_study(model, prompts=plan.prompts, seed=plan.seed, **where, **how)
        self.chat = study.chat
        self.notes = model_notes(self.chat)
        self.directions = _directions(study, plan, self.notes["fingerprint"])
        self.conditions = _conditions(self.directions, plan, model)
        self.device = _device(self.chat.device, plan.threads)

    def block(self, number: int) -> Receipt:
        """The receipt of a block, whose rows are on disk. Raises `ValueError` as `generate` does."""
        task, began = Task(self.model, number), time.monotonic()
        path = self.plan.blocks / f"{self._key(number)}.jsonl.gz"
        found = load_kept(load_rows, path)
        if found is not None:
            return Receipt(task, path.name, len(found[0]), 0.0, True, self.device)
        how: dict[str, Any] = {"max_new_tokens": self.plan.max_new_tokens}
        rows = generate(self.chat, self.plan.texts(number), self.conditions, **how)
        rows = rows.assign(id=[self.plan.ids(number)[prompt] for prompt in rows["prompt"]]).drop(columns="prompt")
        save_rows(path, rows, {**self.notes, **self._place(), "device": self.device})
        return Receipt(task, path.name, len(rows), time.monotonic() - began, False, self.device)

    def close(self) -> None:
        """Free the model's memory."""
        self.chat.unload()

    def _place(self) -> dict[str, Any]:
        place = self.directions.provenance
        return {"layer": place.layer, "pos": place.pos, "draw": place.draw}

    def _key(self, number: int) -> str:
        chat = self.chat
        ids, stops = chat.encode(self.plan.texts(number)), sorted(chat.stop_tokens)
        does = [(each.name, each.direction, each.coefficient, each.gaps, each.digest) for each in self.conditions]
        how = (self.plan.max_new_tokens, self.device)
        return content_key("block", self.notes["fingerprint"], stops, self.plan.ids(number), ids, does, how)


def _directions(study: Study, plan: SweepPlan, fingerprint: str) -> DirectionSet:
    """The directions and controls of a model: those on disk, or new ones, which are then on disk."""
    parts = (fingerprint, draw_digest(plan.draw), plan.layer, plan.pos, plan.n_controls, plan.seed)
    path = plan.blocks / f"directions_{content_key(*parts)}.safetensors"
    if load_kept(DirectionSet.load, path) is None:
        _write_once(_estimated(study, plan), path)
    return DirectionSet.load(path)


def _estimated(study: Study, plan: SweepPlan) -> DirectionSet:
    chat, draw = study.chat, plan.draw
    layer, pos = chat.decision_layer, chat.decision_pos
    states = study.capture(list(draw["text"]), layers=[layer], positions=[pos], progress=False)
    sides = Labelled(states, tuple(draw["category"])).sides(layer, pos)
    place = Provenance(layer, pos, draw=draw_digest(draw), model=model_notes(chat))
    return with_controls(DirectionSet.from_states(*sides, place), *sides, plan.n_controls, plan.seed)[0]


def _write_once(directions: DirectionSet, path: Path) -> None:
    """Write a file unless another process has: the first one stays, and all read it. A damaged file is replaced."""
    part = directions.save(path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}.part"))
    with disk_errors("sweep", "the folder of results must be writable", path):
        try:
            if load_kept(DirectionSet.load, path) is None:
                path.unlink(missing_ok=True)
            _link(part, path)
        finally:
            part.unlink(missing_ok=True)


def _link(part: Path, path: Path) -> None:
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links: of two that are written at once, the last one stays
        os.replace(part, path)


def _conditions(directions: DirectionSet, plan: SweepPlan, model: str) -> list[Condition]:
    """Unsteered, then every direction at its strengths; random directions at those of controls."""
    gaps, control_gaps = choose_gaps(model, plan.gaps, plan.control_gaps)
    controls = set(directions.names[-2 * plan.n_controls :])
    levels = {name: control_gaps if name in controls else gaps for name in directions}
    return [UNSTEERED, *sweep_conditions(directions, gaps=levels)]


def _device(device: torch.device, threads: int) -> str:
    """What decides the last bits of a number: the chip, the threads on a CPU, and the version of torch."""
    chip = f"{torch.backends.cpu.get_cpu_capability()}, {threads} threads"
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else chip
    return f"{device.type} {chip}, torch {torch.__version__}"
