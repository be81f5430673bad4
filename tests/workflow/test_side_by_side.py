import threading

import pytest

from refusal_utils.workflow import side_by_side
from refusal_utils.workflow.side_by_side import needs_cache_first, run_side_by_side, shared_threads, usual_jobs

NEEDS = {"01": [], "02": ["01"], "03": ["01", "02"], "04": [], "05": [], "06": ["03"]}


class Work:
    """Notes when names begin and end; waits inside a name until those in `until[name]` have begun."""

    def __init__(self, until=(), failing=()):
        self.until, self.failing, self.events, self.changed = dict(until), failing, [], threading.Condition()

    def __call__(self, name):
        with self.changed:
            self.events.append(f"+{name}")
            self.changed.notify_all()
            awaited = [f"+{each}" for each in self.until.get(name, ())]
            assert self.changed.wait_for(lambda: set(awaited) <= set(self.events), timeout=10)
            self.events.append(f"-{name}")
        if name in self.failing:
            raise ValueError(name)

    @property
    def most_at_once(self):
        sums = [sum(1 if each[0] == "+" else -1 for each in self.events[: n + 1]) for n in range(len(self.events))]
        return max(sums)


def never():
    raise AssertionError("nothing was interrupted")


@pytest.mark.parametrize("n_jobs", [1, 2, 3, 8])
def test_each_runs_once_after_those_that_it_needs(n_jobs):
    work = Work()
    run_side_by_side(NEEDS, work, n_jobs, never)
    assert sorted(work.events) == sorted(sign + name for name in NEEDS for sign in "+-")
    for name, needed in NEEDS.items():
        for each in needed:
            assert work.events.index(f"-{each}") < work.events.index(f"+{name}")
    assert work.most_at_once <= n_jobs


def test_one_that_others_need_comes_first_and_two_run_at_once():
    work = Work(until={"01": ["04"], "04": ["02"], "02": ["05"]})
    run_side_by_side(NEEDS, work, 2, never)
    assert work.most_at_once == 2
    alone = Work()
    run_side_by_side(NEEDS, alone, 1, never)
    assert alone.events[::2] == ["+01", "+02", "+03", "+04", "+05", "+06"]


def test_of_several_at_once_the_longest_begin_before_the_rest_and_alone_they_keep_their_order():
    needs = {"01": [], "04": ["01"], "09": ["01"], "12": ["01"], "14": ["01"]}
    work = Work(until={"09": ["14"], "14": ["09"]})
    run_side_by_side(needs, work, 2, never)
    begun = [each for each in work.events if each[0] == "+"]
    assert set(begun[1:3]) == {"+09", "+14"}
    assert begun[3:] == ["+04", "+12"]
    alone = Work()
    run_side_by_side(needs, alone, 1, never)
    assert alone.events[::2] == [f"+{name}" for name in needs]


def test_after_a_failure_none_begins_and_the_running_ones_are_finished():
    work = Work(until={"02": ["04"], "04": ["02"]}, failing=["02"])
    with pytest.raises(ValueError, match="02"):
        run_side_by_side(NEEDS, work, 2, never)
    assert {"-02", "-04"} <= set(work.events)
    assert not {"+03", "+06"} & set(work.events)


def test_an_interrupt_ends_what_runs(monkeypatch):
    ended, begun = threading.Event(), threading.Event()

    def work(name):
        begun.set()
        assert ended.wait(10)

    def interrupted(running, return_when):
        begun.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_side_by_side(NEEDS, work, 2, ended.set)
    assert ended.is_set()


def test_cores_are_shared_unless_the_user_has_chosen(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for n_cores, n_jobs, expected in ((2, 2, "1"), (8, 2, "4"), (1, 2, "1")):
        monkeypatch.setattr(side_by_side, "n_cores", lambda n=n_cores: n)
        assert shared_threads(n_jobs) == {"OMP_NUM_THREADS": expected}
        assert (usual_jobs("bundled"), usual_jobs("google/gemma-2-9b-it")) == (min(2, n_cores), 1)
    assert shared_threads(1) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert shared_threads(2) == {}


def test_later_notebooks_wait_for_the_cache():
    needs = {"01": [], "02": ["01"], "03": ["01"], "09": ["01"], "explorer": ["03"]}
    assert needs_cache_first(needs) == {
        "01": set(), "02": {"01"}, "03": {"01", "02"}, "09": {"01", "02"}, "explorer": {"02", "03"}
    }  # fmt: skip
    assert needs_cache_first({"03": [], "09": ["03"]}) == {"03": set(), "09": {"03"}}
