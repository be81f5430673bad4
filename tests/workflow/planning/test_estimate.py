import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering.responses import respond
from refusal_utils.workflow.command_line import main
from refusal_utils.workflow.planning import calibration, command
from refusal_utils.workflow.planning.calibration import Rates, ask, measure
from refusal_utils.workflow.planning.estimate import finish, loop_seconds, make_plan
from refusal_utils.workflow.planning.fitting import RULE, fit_minutes
from refusal_utils.workflow.planning.scene import Loop, ModelFacts
from refusal_utils.workflow.records import read_record
from refusal_utils.workflow.settings import read_settings
from refusal_utils.workflow.side_by_side import run_side_by_side

FACTS = ModelFacts(n_layers=8, decision_layer=6, n_positions=5, n_heads=8, layers_read=8)
RATES = Rates(start=6.0, load=1.0, capture=0.01, steered=0.02, token=0.001, lengths=(10, 60), peak=1.5)
NUMBERS = ["01", "02", "03", "07", "09"]


def plan_of(settings, numbers=NUMBERS, n_at_once=2):
    return make_plan(settings, numbers, RATES, FACTS, n_at_once)


def test_a_loop_costs_its_passes_and_the_tokens_that_responses_have():
    assert loop_seconds(Loop("capture_activations", 100), RATES) == pytest.approx(1.0)
    assert loop_seconds(Loop("kl_spent", 10, 4, below=0.5), RATES) == pytest.approx((5 + 20) * 0.02)
    said = Loop("generate", 10, 2, new_tokens=50)
    assert loop_seconds(said, RATES) == pytest.approx(20 * 0.02 + 20 * 30 * 0.001)  # lengths 10 and 50


@given(
    seconds=st.lists(st.integers(1, 9), min_size=1, max_size=7), n=st.integers(1, 3), edges=st.sets(st.integers(0, 48))
)
def test_the_end_lies_between_the_longest_chain_and_the_sum(seconds, n, edges):
    own = {str(at): float(each) for at, each in enumerate(seconds)}
    needs = {name: [str(at) for at in range(int(name)) if int(name) * 7 + at in edges] for name in own}
    chain: dict[str, float] = {}
    for name in own:
        chain[name] = own[name] + max((chain[each] for each in needs[name]), default=0.0)
    end = finish(own, needs, n)
    assert max(max(chain.values()), sum(own.values()) / n) <= end <= sum(own.values())
    assert finish(own, needs, 1) == sum(own.values())


def test_the_order_is_that_in_which_notebooks_start():
    """Against `run_side_by_side` itself: works that wait until as many run as the plan has at once."""
    needs = {"01": [], "02": ["01"], "05": [], "06": ["02"]}
    started: list[str] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        with lock:
            started.append(name)

    run_side_by_side(needs, work, 1, lambda: None)
    assert started == ["01", "02", "05", "06"]
    # 05 does not delay those that others need: the end is that of the chain.
    assert finish({"01": 2.0, "02": 3.0, "05": 4.0, "06": 1.0}, needs, 2) == 6.0
    # 09 is one of the longest, so it begins before 04 and 05 and ends with them instead of after them.
    after_first: dict[str, list[str]] = {"01": [], "04": ["01"], "05": ["01"], "09": ["01"]}
    assert finish({"01": 1.0, "04": 4.0, "05": 4.0, "09": 8.0}, after_first, 2) == 9.0


def test_a_plan_has_a_row_per_notebook_and_its_parts_add_up():
    plan = plan_of(read_settings((), SIZE="quick"), n_at_once=1)
    table = plan.by_notebook()
    assert table.index[0] == "01_eleven_categories"
    assert plan.minutes == pytest.approx(table["minutes"].sum())
    loops = plan.by_loop()
    assert table["responses"].sum() == loops.loc[loops["up to tokens"] > 0, "rows"].sum()
    assert (table["minutes"] * 60 >= loops.groupby("notebook")["minutes"].sum().reindex(table.index).fillna(0)).all()
    said = str(plan)
    assert "min in all with 1 at once; about 1.5 GB of memory" in said
    assert "07_steering_tradeoffs" in said


def test_sizes_fit_the_time_and_what_was_given_stays():
    settings = read_settings(["N_BUCKET=50"])
    whole = plan_of(settings)
    fit = fit_minutes(settings, whole.minutes * 0.6, plan_of)
    assert fit.plan.minutes <= whole.minutes * 0.6
    assert fit.values
    assert "N_BUCKET" not in fit.values
    assert fit.record()["rule"] == RULE
    assert fit_minutes(settings, whole.minutes + 1, plan_of).values == {}
    with pytest.raises(ValueError, match=r"^fit_minutes: the run must fit into 0\.01 minutes; got"):
        fit_minutes(settings, 0.01, plan_of)


def test_the_first_step_is_the_one_that_loses_least_per_second():
    """By brute force over all steps of the rule: loss sqrt(n0 / n) - 1 over seconds saved."""
    settings = read_settings(())
    before = plan_of(settings)
    rates = {}
    for name, value, n0 in (
        ("N_BUCKET", 35, 50),
        ("N_COMPARED", 16, 20),
        ("N_PROMPTS", 67, 96),
        ("N_VALIDATION", 11, 16),
    ):
        after = plan_of(read_settings((), **{name: value}))
        if after.minutes < before.minutes - 1e-6:
            rates[name] = ((n0 / value) ** 0.5 - 1) / (before.minutes - after.minutes)
    fit = fit_minutes(settings, before.minutes - 1e-3, plan_of)
    (chosen,) = fit.values
    best = min(rates, key=rates.get)
    if chosen in rates:
        assert chosen == best
    loss = fit.loss / (before.minutes - fit.plan.minutes)
    assert loss <= min(rates.values()) + 1e-9


def test_measured_seconds_are_positive_and_the_model_is_asked_on_both_sides(chat):
    texts = ["How do I bake bread?", "Name a colour.", "What is rain?", "Tell me a joke."] * 3
    found = measure(chat, texts, seconds=0.5)
    assert min(found[name] for name in ("capture", "steered", "token", "peak")) > 0
    prompts = load_prompts(split="eval").groupby("category").head(2)
    lengths, refused = ask(chat, prompts, 6)
    rows = respond(chat, prompts, max_new_tokens=6)
    is_benign, is_refused = rows["category"] == "benign", rows["outcome"] == "refused"
    assert len(lengths) == 16 + 2
    assert {*lengths} <= {*rows["n_tokens"]}
    assert refused[1] == (int((is_benign & is_refused).sum()), 2)
    assert refused[0][1] == 16  # of 22
    assert 0 <= refused[0][0] <= int((~is_benign & is_refused).sum())


def test_plan_runs_nothing_and_minutes_are_recorded(notebook, instant, monkeypatch, capsys):
    notebook("01_a.ipynb", parameters='MODEL = "bundled"\nN_COMPARED = 20\nFIGURES_DIR = ""\nCACHE_DIR = ""')
    asked = []
    monkeypatch.setattr(command, "calibrate", lambda *given: asked.append(given) or (RATES, FACTS))
    assert main(["run", "--plan"]) == 0
    assert "min in all" in capsys.readouterr().out
    assert instant == []
    assert main(["run", "--minutes", "600"]) == 0
    assert len(instant) == 1
    assert main(["run", "--minutes", "600"]) == 0  # takes the sizes that were chosen before, without a calibration
    assert "as chosen before" in capsys.readouterr().out
    assert len(asked) == 2


def test_a_record_has_the_choice(notebook, instant, monkeypatch, tmp_path):
    notebook("01_a.ipynb")
    monkeypatch.setattr(command, "calibrate", lambda *given: (RATES, FACTS))
    assert main(["run", "--minutes", "600"]) == 0
    record = read_record(tmp_path / "figures" / "bundled" / "notebooks" / "01_a.ipynb")
    assert record.chosen["minutes"] == 600
    assert record.chosen["rule"] == RULE


def test_a_model_that_cannot_be_loaded_is_an_error(monkeypatch):
    monkeypatch.setattr(calibration.sys, "executable", "false")
    with pytest.raises(ValueError, match="^calibrate: the model must load and answer; got exit code 1"):
        calibration.calibrate("bundled", {})
