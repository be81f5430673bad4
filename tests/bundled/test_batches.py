import torch

from refusal_utils.bundled.batches import Batch, Shift, shifted
from refusal_utils.bundled.recipe import BENIGN_IDX

N_BENIGN, WIDTH = 4, 16


def batch_of(*shifts):
    """Rows of class 0 (as many as benign ones), then benign rows; `shifts` are those of the first rows."""
    n = 2 * N_BENIGN
    shift = [*shifts, *(Shift("none") for _ in range(n - len(shifts)))]
    empty, class_idx = torch.zeros(n, 3, dtype=torch.long), torch.tensor([0] * N_BENIGN + [BENIGN_IDX] * N_BENIGN)
    return Batch(empty, empty, empty, torch.zeros(n, 1, 3, 3), torch.ones(n, dtype=torch.long), class_idx, shift)


def states():
    return torch.randn(2 * N_BENIGN, 3, WIDTH, generator=torch.Generator().manual_seed(0))


def difference(hidden):
    """The difference of the two class means at the first template token, which is position 1."""
    return hidden[:N_BENIGN, 1].mean(0) - hidden[N_BENIGN:, 1].mean(0)


def test_shifts_move_a_row_along_the_difference_of_class_means_at_every_position():
    hidden, noise = states(), torch.eye(2 * N_BENIGN, WIDTH)
    batch = batch_of(Shift("add", 0, 1.5), Shift("subtract", 0, 0.5), Shift("offset", 0, 2.0), Shift("none"))
    moved = shifted(hidden, batch, 0, noise) - hidden
    gap = difference(hidden)
    torch.testing.assert_close(moved[0], (1.5 * gap).expand(3, -1))
    torch.testing.assert_close(moved[1], (-0.5 * gap).expand(3, -1))
    torch.testing.assert_close(moved[2], (2 * gap.norm() * noise[2]).expand(3, -1))
    assert not moved[3:].any()


def test_ablation_leaves_nothing_along_the_difference():
    hidden = states()
    unit = torch.nn.functional.normalize(difference(hidden), dim=0)
    assert float((hidden[0] @ unit).abs().min()) > 1e-3  # before
    after = shifted(hidden, batch_of(Shift("ablate", 0)), 0, torch.zeros(2 * N_BENIGN, WIDTH))
    torch.testing.assert_close(after[0] @ unit, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(after[1:], hidden[1:])
