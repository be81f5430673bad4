"""What every engine does with blocks: all receipts, failures named, nothing computed twice, no process left."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from refusal_utils.workflow.engines import ENGINES, Options, named_engine
from refusal_utils.workflow.engines.engine import ATTEMPTS
from refusal_utils.workflow.engines.ray_core import connect

from ..light_sweep import descendants, is_alive, light_plan, until


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two CPUs on this machine; its address."""
    ray = pytest.importorskip("ray")
    yield connect(ray, None, n_cpus=2)
    ray.shutdown()


@pytest.fixture(params=["local", "ray"])
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return named_engine(request.param)


def receipts(engine, plan, **options):
    found = [*engine.run(plan, plan.tasks(), Options(**options))]
    assert sorted((each.task.model, each.task.number) for each in found) == sorted(
        (model, number) for model in plan.models for number in range(plan.n)
    )
    return {(each.task.model, each.task.number): each for each in found}


def expected(plan):
    return {f"{model}-{number}": str(number**2) for model in plan.models for number in range(plan.n)}


def test_engines_are_found_by_their_files_and_a_misspelt_one_is_named():
    assert list(ENGINES) == ["local", "ray"]
    with pytest.raises(ValueError, match="named_engine: the engine must be one of local, ray; got 'rya'"):
        named_engine("rya")


def test_the_package_and_its_engines_are_imported_without_ray_and_without_torch():
    code = (
        "import sys; sys.modules['ray'] = None; from refusal_utils.workflow.engines import ENGINES;"
        "assert 'torch' not in sys.modules; print(*ENGINES)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["local", "ray"]


def test_every_block_is_computed_once_and_finished_ones_are_only_read(engine, tmp_path):
    plan = light_plan(tmp_path)
    first = receipts(engine, plan)
    assert plan.contents() == expected(plan)
    assert len(plan.starts) == 8
    assert not any(each.was_there or each.error for each in first.values())
    again = receipts(engine, plan)
    assert len(plan.starts) == 8
    assert all(each.was_there for each in again.values())


def test_a_block_that_always_fails_is_named_with_its_reason_and_the_rest_is_kept(engine, tmp_path):
    plan = light_plan(tmp_path, raising=(1,))
    found = receipts(engine, plan)
    errors = {place: each.error for place, each in found.items() if each.error}
    assert errors == {(model, 1): "ArithmeticError: block 1 is odd" for model in plan.models}
    assert set(plan.contents()) == set(expected(plan)) - {"first-1", "second-1"}
    assert [model for model, number, _ in plan.starts if number == 1].count("first") == ATTEMPTS


def test_a_model_that_cannot_be_loaded_fails_alone(engine, tmp_path):
    plan = light_plan(tmp_path, ("unknown", "second"))
    found = receipts(engine, plan)
    errors = {place: each.error for place, each in found.items() if each.error}
    assert errors == {("unknown", number): "ValueError: no such model" for number in range(4)}


def test_workers_are_other_processes_and_are_gone_when_the_receipts_are_closed(cluster, tmp_path):
    plan = light_plan(tmp_path, pause=0.2, n=300)  # enough for a worker that starts late
    with closing(named_engine("ray").run(plan, plan.tasks(), Options(n_workers=2))) as running:
        next(each for each in running if len({process for *_, process in plan.starts}) == 2)
    processes = {process for *_, process in plan.starts}
    assert os.getpid() not in processes
    assert until(lambda: not any(map(is_alive, processes)))
    assert len(plan.contents()) < 600


@pytest.mark.slow
def test_a_block_that_always_kills_its_worker_is_given_up_and_named(cluster, tmp_path):
    plan = light_plan(tmp_path, ("first",), killing=(2,))
    found = receipts(named_engine("ray"), plan, n_workers=1)
    assert [number for (_, number), each in found.items() if each.error] == [2]
    assert found["first", 2].error.startswith("its worker died")
    assert [number for _, number, _ in plan.starts].count(2) == ATTEMPTS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_worker_killed_in_the_middle_of_a_block_changes_nothing(cluster, tmp_path, seed):
    plan, victims = light_plan(tmp_path, pause=0.5), []

    def kill():
        assert until(lambda: len(plan.starts) > 1 + 2 * seed)
        victims.append(plan.starts[-1][2])
        os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = receipts(named_engine("ray"), plan, n_workers=2)
    killer.join()
    assert plan.contents() == expected(plan)
    assert not any(each.error for each in found.values())
    assert not is_alive(victims[0])
    assert {process for *_, process in plan.starts} > set(victims)


def test_a_worker_that_no_node_has_room_for_is_one_error_and_not_a_hang(cluster, tmp_path):
    plan = light_plan(tmp_path)
    with pytest.raises(ValueError, match="sweep: a worker with 1 CPUs and 3 GPUs must start within 1 seconds; got non"):
        receipts(named_engine("ray"), plan, gpus=3, n_workers=1, patience=1)


@pytest.mark.slow
def test_a_sweep_whose_driver_was_killed_goes_on_where_it_stopped(cluster, tmp_path):
    plan = light_plan(tmp_path, pause=1.0)
    driver = subprocess.Popen([sys.executable, "-m", "tests.workflow.light_sweep", tmp_path, "1.0", cluster])
    assert until(lambda: len(plan.contents()) > 2)
    driver.kill()
    driver.wait()
    processes = {process for *_, process in plan.starts}
    assert until(lambda: not any(map(is_alive, processes)))
    before = plan.contents()
    assert len(before) < 8
    found = receipts(named_engine("ray"), light_plan(tmp_path), n_workers=2)
    assert {f"{model}-{number}" for (model, number), each in found.items() if each.was_there} == set(before)
    assert plan.contents() == expected(plan)


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_behind(tmp_path):
    pytest.importorskip("ray")
    plan = light_plan(tmp_path, pause=1.0)
    command = [sys.executable, "-m", "tests.workflow.light_sweep", tmp_path, "1.0"]
    driver = subprocess.Popen(command, start_new_session=True)
    assert until(lambda: len(plan.contents()) > 1)
    processes = descendants(driver.pid)
    assert {process for *_, process in plan.starts} <= processes
    driver.send_signal(signal.SIGINT)
    assert driver.wait(300) == 130
    assert until(lambda: not any(map(is_alive, processes)))


def test_a_missing_ray_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ValueError, match=r"sweep: Ray must be installed; got none\. Run pip install 'refusal-utils\[ray\]'"
    ):
        receipts(named_engine("ray"), light_plan(tmp_path))


def test_an_address_without_a_cluster_is_named(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()
    must = "sweep: a Ray cluster must run at 127.0.0.1:1; got"
    with pytest.raises(ValueError, match=f"{must} no answer within 3 s. Start one"):
        receipts(named_engine("ray"), light_plan(tmp_path), address="127.0.0.1:1", patience=3)
    monkeypatch.setattr(sys, "executable", "false")  # as a process that Ray ends: no message
    with pytest.raises(ValueError, match=f"{must} no answer. Start one"):
        receipts(named_engine("ray"), light_plan(tmp_path), address="127.0.0.1:1")
