"""A sweep over models: what its files hold, that it resumes, and that nothing is missing without an error."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from refusal_utils.judging import judge_response
from refusal_utils.steering import UNSTEERED, generate, respond
from refusal_utils.tradeoff import Sweep
from refusal_utils.workflow.command_line import main
from refusal_utils.workflow.engines import Engine, Options, named_engine
from refusal_utils.workflow.forecast import Forecast
from refusal_utils.workflow.model_sweep import FILE, RATES, sweep_models
from refusal_utils.workflow.sweep_plan import Receipt, SweepPlan, Task
from refusal_utils.workflow.sweep_worker import Worker
from refusal_utils.workflow.turns import Turns

from ..families import save_family

SMALL = {"n_prompts": 3, "n_held_out": 1, "gaps": [1.0], "control_gaps": [1.0], "n_controls": 1, "max_new_tokens": 4}
SMALL |= {"layer": 1, "pos": -1, "block": 5}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return tuple(save_family(name, root / name).as_posix() for name in ("qwen2", "llama3"))


@pytest.fixture(scope="module")
def swept(models, tmp_path_factory):
    """(a plan, the files of its sweep, what was printed)."""
    plan, lines = SweepPlan(models, tmp_path_factory.mktemp("out"), **SMALL), list[str]()
    return plan, sweep_models(plan, named_engine("local"), Options(), judge_response, lines.append), lines


def test_every_condition_has_every_prompt_once_and_the_counts_are_told(swept):
    plan, paths, lines = swept
    assert [path.name for path in paths] == [FILE, FILE]
    for path, line in zip(paths, lines, strict=True):
        rows = Sweep.load(path).rows
        n_conditions = 1 + 12 + 2  # unsteered, the eleven and the pooled direction, a control of each kind
        counts = rows.groupby(["condition", "direction"])["id"].agg(["size", "nunique"])
        assert len(counts) == n_conditions
        assert (counts == len(plan.swept)).all(axis=None)
        assert f"{n_conditions} conditions x {len(plan.swept)} prompts = {len(rows)} rows" in line
        assert (path.parent / RATES).is_file()


def test_the_rows_are_those_of_the_modules_that_it_puts_together(swept, models):
    plan, paths, _ = swept
    found = Sweep.load(paths[0])
    worker = Worker(plan, models[0])
    own = respond(worker.chat, plan.swept, [UNSTEERED], max_new_tokens=4)
    unsteered = found.rows[found.rows["condition"] == "unsteered"]
    assert list(unsteered["id"]) == list(own["id"])
    for column in ("response", "outcome", "n_tokens"):
        assert list(unsteered[column]) == list(own[column])
    condition = worker.conditions[5]
    steered = found.rows[(found.rows["direction"] == condition.direction) & (found.rows["gaps"] == condition.gaps)]
    alone = generate(worker.chat, list(plan.swept["text"]), [condition], max_new_tokens=4)
    assert list(steered["response"]) == list(alone["response"])
    assert found.notes["layer"] == 1
    assert found.notes["fingerprint"] == worker.chat.fingerprint


def test_no_swept_prompt_made_a_direction_and_all_models_get_the_same(swept):
    plan, paths, _ = swept
    first, second = (Sweep.load(path).rows for path in paths)
    assert not set(first["id"]) & set(plan.draw["id"])
    assert list(first["id"]) == list(second["id"])


def test_a_second_run_computes_only_what_is_missing_or_damaged(swept, monkeypatch):
    plan, paths, _ = swept
    before = {path: path.read_bytes() for path in [*paths, *plan.blocks.iterdir()]}
    missing, damaged = sorted(plan.blocks.glob("*.gz"))[:2]
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-9])
    asked = []
    monkeypatch.setattr(
        "refusal_utils.workflow.sweep_worker.generate", lambda *args, **how: asked.append(1) or generate(*args, **how)
    )
    sweep_models(plan, named_engine("local"), Options(), judge_response)
    assert len(asked) == 2
    assert {path: path.read_bytes() for path in before} == before


def test_a_block_that_fails_is_named_after_the_rest_has_been_written(swept, monkeypatch, tmp_path):
    plan = replace(swept[0], out=tmp_path, models=swept[0].models[:1])
    wrong = plan.texts(1)

    def failing(chat, prompts, *args, **how):
        if list(prompts) == wrong:
            raise RuntimeError("no room")
        return generate(chat, prompts, *args, **how)

    monkeypatch.setattr("refusal_utils.workflow.sweep_worker.generate", failing)
    with pytest.raises(
        ValueError, match=r"got 1 failed \(.*qwen2, block 1: RuntimeError: no room\)\. All others are k"
    ):
        sweep_models(plan, named_engine("local"), Options(), judge_response)
    rows = Sweep.load(tmp_path / "qwen2" / FILE).rows
    assert set(rows["id"]) == set(plan.swept["id"]) - set(plan.ids(1))


def test_rows_that_an_engine_loses_or_doubles_are_an_error(swept):
    plan = replace(swept[0], models=swept[0].models[:1])

    def run(plan, tasks, options):
        found = [*named_engine("local").run(plan, tasks, options)]
        yield from [found[0], *(replace(each, file=found[0].file) for each in found[1:])]

    with pytest.raises(ValueError, match="sweep: every condition must have"):
        sweep_models(plan, Engine("double", "", run), Options(), judge_response)


def test_the_command_ends_with_0_and_after_a_failed_model_with_1(swept, tmp_path, capsys):
    plan, _, _ = swept
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    small = (
        "--n-prompts 3 --held-out 1 --gaps 1 --controls 1 --max-new-tokens 4 --layer 1 --pos -1 --block 5 --threads 1"
    )
    command = ["sweep", *small.split(), "--out", str(plan.out), "--models", plan.models[0]]
    assert main(command) == 0
    assert main([*command, str(tmp_path / "empty")]) == 1
    assert re.search(r"3 failed \(.*empty, block 0, 1, 2: ", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "bundled", "--engine", "rya"], "Did you mean 'ray'?"),
        (["--models", "bundled", "bundled"], "there must be models, each of them once; got bundled"),
        (["--models", "bundled", "--block", "0"], "block must be at least 1; got 0"),
        (["--models", "bundled", "bundeld"], "Did you mean 'bundled'?"),
    ],
)
def test_wrong_options_of_the_command_are_one_sentence(options, message, capsys, tmp_path):
    assert main(["sweep", *options, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_free_workers_spread_over_the_models_by_what_is_left():
    turns = Turns([Task("large", number) for number in range(6)] + [Task("small", 0)], attempts=2)
    assert turns.model([]) == "large"
    assert turns.model(["large"]) == "large"  # three each, and one of the small model
    assert turns.model(["large"] * 6) == "small"
    assert turns.take("small") == Task("small", 0)
    assert turns.take("small") is None
    assert turns.failed(Task("small", 0), "first") is None
    assert turns.take("small") == Task("small", 0)
    assert turns.failed(Task("small", 0), "second") == Receipt(Task("small", 0), error="second")
    assert [each.task.number for each in turns.give_up("large", "why")] == [*range(6)]
    assert turns.n_open == 0
    assert turns.model([]) is None


def test_the_time_left_is_the_work_left_at_the_pace_so_far():
    forecast = Forecast({"fast": 10, "slow": 10, "unseen": 10})
    assert forecast.seconds_left(1.0) is None
    for number in range(4):
        forecast.add(Receipt(Task("fast", number), seconds=1.0))
    forecast.add(Receipt(Task("slow", 0), seconds=3.0))
    forecast.add(Receipt(Task("slow", 1), was_there=True))
    forecast.add(Receipt(Task("slow", 2), error="no room"))
    work = 6 * 1.0 + 7 * 3.0 + 10 * 2.0  # the model without a block is expected to lie between the two
    assert forecast.seconds_left(7.0) == pytest.approx(work)
    assert forecast.seconds_left(3.5) == pytest.approx(work / 2)  # two workers side by side
    assert re.fullmatch(
        r"sweep: 7 of 30 blocks, 0 of 3 models, 1 failed, .* left \(1 models not measured yet\)", forecast.text()
    )


def test_rows_on_disk_keep_their_order_and_their_columns(swept):
    _, paths, _ = swept
    rows = Sweep.load(paths[0]).rows
    places = pd.factorize(rows["condition"] + rows["direction"])[0]
    assert (places[:-1] <= places[1:]).all()
    assert {"id", "category", "kind", "text", "harmful", "response", "outcome", "gaps", "stopped"} <= set(rows)
