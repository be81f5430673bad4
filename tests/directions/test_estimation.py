from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from refusal_utils.directions.estimation import (
    feature_direction,
    mean_difference,
    mean_direction,
    normalize,
    random_directions,
)

from .planted import planted


def test_mean_direction_recovers_a_planted_direction():
    refused, answered, direction = planted()
    assert float(mean_direction(refused, answered) @ direction) > 0.97
    # before control: without the plant the estimate has nothing to do with it
    assert abs(float(mean_direction(refused - 5.0 * direction, answered) @ direction)) < 0.5


def test_mean_difference_equals_numpy_in_float64():
    refused, answered, _ = planted()
    expected = refused.numpy().astype(np.float64).mean(0) - answered.numpy().astype(np.float64).mean(0)
    np.testing.assert_allclose(mean_difference(refused, answered).numpy(), expected, rtol=1e-6)


def test_mean_difference_of_bfloat16_does_not_accumulate_in_bfloat16():
    refused = torch.full((4096, 4), 1.0, dtype=torch.bfloat16)
    refused[::2] = 1.0078125
    naive = float(refused.cumsum(0)[-1, 0] / len(refused))
    exact = float(mean_difference(refused, torch.zeros(2, 4))[0])
    assert abs(naive - 1.00390625) > 1e-3  # before control: summing in bfloat16 loses the difference
    assert exact == pytest.approx(1.00390625, abs=1e-6)


def test_mean_direction_has_norm_one_and_flips_with_its_sides():
    refused, answered, _ = planted()
    direction = mean_direction(refused, answered)
    assert float(direction.norm()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(mean_direction(answered, refused), -direction)


def test_mean_direction_rejects_coincident_means():
    same = torch.randn(32, 8)
    for refused in (same.clone(), same + 1e-8):
        with pytest.raises(ValueError, match="^mean_direction: the two means must differ; got norm"):
            mean_direction(refused, same)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_mean_difference_rejects_values_that_are_not_finite(bad):
    refused = torch.randn(4, 8)
    refused[2, 3] = bad
    with pytest.raises(ValueError, match="^mean_difference: the refused activations must be finite; got 1 "):
        mean_difference(refused, torch.randn(4, 8))


def test_mean_difference_rejects_an_empty_side():
    with pytest.raises(ValueError, match="^mean_difference: there must be at least one answered prompt"):
        mean_difference(torch.randn(4, 8), torch.empty(0, 8))


def test_normalize_rejects_a_zero_vector():
    with pytest.raises(ValueError, match="^normalize: every vector must have a direction; got 1 zero vectors"):
        normalize(torch.stack([torch.zeros(4), torch.ones(4)]))


def test_feature_direction_recovers_the_axis_of_length():
    generator = torch.Generator().manual_seed(0)
    length = torch.rand(400, generator=generator)
    axis = normalize(torch.randn(20, generator=generator))
    found = feature_direction(0.2 * torch.randn(400, 20, generator=generator) + 5 * length[:, None] * axis, length)
    assert float(found @ axis) > 0.99
    with pytest.raises(ValueError, match="^feature_direction: the feature must vary; got 1 for all 4 prompts"):
        feature_direction(torch.randn(4, 3), torch.ones(4))


def test_random_directions_follow_the_covariance_of_the_residuals():
    scale = torch.tensor([10.0, 1.0, 1.0, 1.0])
    residuals = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)) * scale
    uniform, shaped = random_directions(500, 4), random_directions(500, 4, residuals)
    for drawn in (uniform, shaped):
        torch.testing.assert_close(drawn.norm(dim=1), torch.ones(500))
    assert float(uniform.square().mean(0)[0]) == pytest.approx(0.25, abs=0.05)  # before control
    assert float(shaped.square().mean(0)[0]) > 0.75
    assert not torch.equal(random_directions(2, 4, seed=1), random_directions(2, 4, seed=2))


@pytest.mark.parametrize(("name", "layer", "norm"), [("gemma-2b-it", 10, 10.064), ("qwen-1_8b-chat", 15, 26.287)])
def test_real_directions_equal_their_mean_differences(name, layer, norm):
    path = Path(__file__).parent.parent.parent.parent / "shared/data/directions" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip("the public directions are not here")
    stored = load_file(path)
    difference = stored["mean_diffs"][-2, layer].float()
    assert torch.equal(stored["direction"].float(), difference)
    assert float(difference.norm()) == pytest.approx(norm, abs=1e-3)
    assert float(normalize(difference) @ stored["direction"].float()) == pytest.approx(norm, abs=1e-3)
    at_layer_0 = stored["mean_diffs"][-2, 0].double()
    rows = torch.randn(8, len(at_layer_0)) * 10
    with pytest.raises(ValueError, match=r"^(mean_direction|normalize): "):
        mean_direction(rows + at_layer_0, rows)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_direction_does_not_depend_on_the_unit_of_the_activations(scale):
    refused, answered, _ = planted(40, gap=2.0)
    found = mean_direction(scale * refused, scale * answered)
    torch.testing.assert_close(found, mean_direction(refused, answered), atol=1e-5, rtol=0)


def test_one_prompt_has_no_varying_feature():
    with pytest.raises(ValueError, match="^feature_direction: the feature must vary; got 2 for all 1 prompts"):
        feature_direction(torch.randn(1, 3), torch.tensor([2.0]))


def test_random_directions_of_the_covariance_do_not_see_the_mean():
    residuals = torch.randn(50, 12, generator=torch.Generator().manual_seed(5))
    found, moved = (random_directions(4, 12, states) for states in (residuals, residuals + 3.0))
    torch.testing.assert_close(found, moved, atol=1e-4, rtol=0)
