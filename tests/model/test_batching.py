import pytest
import torch

from refusal_utils.model.batching import count_rows, in_order, plan_batches, run_batches, token_budget

ROWS = [list(range(8)), [8, 9]]


def test_a_plan_holds_every_row_once_within_the_budget():
    lengths = torch.randint(1, 40, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    ids = [[7] * length for length in lengths]
    plan = plan_batches(ids, 128, n_new=5)
    assert sorted(index for batch in plan for index in batch) == list(range(100))
    assert all(len(batch) * (max(lengths[row] for row in batch) + 5) <= 128 for batch in plan)
    assert len(plan_batches(ids, 1)) == 100  # a row above the budget is a batch of its own
    with pytest.raises(ValueError, match="^f: batch_tokens must be at least 1; got 0"):
        token_budget("f", 0, torch.device("cpu"))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory"), MemoryError()]
)
def test_a_batch_that_does_not_fit_is_halved_with_a_message(capsys, error):
    def step(rows):
        if len(rows) > 3:
            raise error
        return (torch.tensor(rows),)

    found = list(run_batches("f", ROWS, step))
    assert [rows for rows, _ in found] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert torch.equal(in_order(found)[0], torch.arange(10))
    assert "f: out of memory at 8 prompts, continuing with 4" in capsys.readouterr().err


def test_a_single_row_that_does_not_fit_is_an_error():
    def step(rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ValueError, match="^f: a single prompt must fit into memory; got out of memory"):
        list(run_batches("f", ROWS, step))


def test_other_errors_are_raised_as_they_are():
    def step(rows):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(run_batches("f", ROWS, step))


def test_finished_rows_are_not_computed_again_even_after_memory_ran_out():
    finished, calls = {1}, []

    def step(rows):
        calls.append(rows)
        if len(rows) > 4:
            finished.add(rows[0])
            raise MemoryError
        finished.update(rows)

    list(run_batches("f", ROWS, step, left=lambda rows: [row for row in rows if row not in finished]))
    assert calls == [[0, 2, 3, 4, 5, 6, 7], [2, 3], [4, 5, 6, 7], [8, 9]]
    list(run_batches("f", ROWS, step, left=lambda rows: []))
    assert len(calls) == 4


def test_gradients_are_off_unless_asked_for():
    weight = torch.ones(3, requires_grad=True)
    for gradients in (False, True):
        ((_, value), *_) = run_batches("f", ROWS, lambda rows: 2 * weight, gradients=gradients)
        assert value.requires_grad == gradients


def test_rows_that_run_are_counted_in_every_open_count_and_those_already_done_are_not():
    with count_rows() as outer:
        list(run_batches("f", ROWS, lambda rows: None))
        with count_rows() as inner:
            list(run_batches("f", ROWS, lambda rows: None, left=lambda rows: rows[:1]))
    list(run_batches("f", ROWS, lambda rows: None))
    assert (outer.rows, inner.rows) == (12, 2)


def test_progress_counts_rows(capsys):
    list(run_batches("f", ROWS, lambda rows: None, progress="capture"))
    assert "capture: 100%" in (shown := capsys.readouterr().err)
    assert "10/10" in shown
    list(run_batches("f", ROWS, lambda rows: None))
    assert capsys.readouterr().err == ""
