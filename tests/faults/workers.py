"""Workers of a Ray cluster that are killed."""

import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from refusal_utils.workflow.engines import Options, named_engine
from refusal_utils.workflow.sweep_plan import Receipt, SweepPlan

from ..families import save_family
from ..workflow.light_sweep import descendants
from . import World, fault

SIZE: dict[str, Any] = {"n_prompts": 3, "n_held_out": 2, "gaps": [1.0], "control_gaps": [1.0], "n_controls": 1}
SIZE |= {"max_new_tokens": 24, "layer": 1, "pos": -1, "block": 2}


def computed(world: World, out: Path, engine: str, **options: Any) -> dict[str, bytes]:
    """The contents of all blocks, by their names. No block may fail."""

    def make() -> str:
        world.results["cache of the swept model"] = folder = Path(tempfile.mkdtemp(prefix="refusal_utils_faults_"))
        return save_family("qwen2", folder).as_posix()

    plan = SweepPlan((world.once("swept model", make),), out, **SIZE)
    plan.blocks.mkdir(parents=True)
    found: list[Receipt] = [*named_engine(engine).run(plan, plan.tasks(), Options(**options))]
    assert not [each.error for each in found if each.error]
    return {each.file: (plan.blocks / each.file).read_bytes() for each in found}


@fault("kill -9 of a Ray worker at work: the rows of the engine `local`, bit-identical", 20)
def a_worker_is_killed(number: int, folder: Path, world: World) -> None:
    pytest.importorskip("ray")
    expected = world.once("blocks of local", lambda: computed(world, folder / "local", "local"))
    out, killed = folder / "ray", list[int]()

    def kill() -> None:
        while not [*out.glob("blocks/*.gz")]:
            time.sleep(0.02)
        time.sleep((chance := random.Random(number)).uniform(0, 0.3))
        killed.append(victim := chance.choice(sorted(actors())))
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert computed(world, out, "ray", n_workers=2) == expected
    killer.join()
    assert killed


def actors() -> set[int]:
    """The processes of actors that this process has started, through its cluster."""
    return {each for each in descendants(os.getpid()) if "_Actor" in Path(f"/proc/{each}/cmdline").read_text()}
