import numpy as np
import pytest
import torch

from refusal_utils.geometry.subspaces import principal_angles, space_summary, span_size


def test_rank_and_participation_count_the_dimensions():
    axes = torch.linalg.qr(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))[0].T
    mixed = axes[[0, 1, 2, 3, 0, 1, 2, 3]]
    assert span_size(mixed)["effective rank"] == pytest.approx(4.0, abs=1e-4)
    assert span_size(mixed)["participation ratio"] == pytest.approx(4.0, abs=1e-4)
    assert span_size(axes[[0, 0, 0]])["effective rank"] == pytest.approx(1.0, abs=1e-3)


def test_the_common_axis_holds_the_planted_share():
    axes = torch.linalg.qr(torch.randn(50, 7, generator=torch.Generator().manual_seed(1)))[0].T
    share = span_size(0.8 * axes[0] + 0.6 * axes[1:])["common axis"]
    # Every pair has cosine 0.64, so the largest of the 6 eigenvalues is 1 + 5 * 0.64.
    assert share == pytest.approx((1 + 5 * 0.64) / 6, abs=1e-4)


def test_principal_angles_are_the_planted_ones():
    axes = torch.eye(6)
    turned = torch.stack([axes[0], np.cos(0.5) * axes[1] + np.sin(0.5) * axes[2]])
    assert principal_angles(axes[:2], turned).tolist() == pytest.approx([0.0, np.degrees(0.5)], abs=1e-3)


def test_space_summary_counts_dimensions_and_knows_planted_clusters():
    basis = torch.eye(20)
    means = [basis[0] + 0.4 * basis[k] for k in (2, 3, 4)] + [basis[1] + 0.4 * basis[k] for k in (5, 6, 7)]
    directions = {f"c{i}": mean for i, mean in enumerate(means)}
    found = space_summary(directions, {name: "left" if name < "c3" else "right" for name in directions})
    assert found["same two clusters"] == 1
    assert found["silhouette 2, average"] == max(value for name, value in found.items() if name.startswith("silh"))
    assert found["cluster angle"] > 80
    assert found["common axis"] == pytest.approx(0.5, abs=0.05)
    mixed = {name: "left" if name in ("c1", "c3", "c5") else "right" for name in directions}
    assert space_summary(directions, mixed)["same two clusters"] == 0
    alike = space_summary(directions, dict.fromkeys(directions, "left"))
    assert np.isnan(alike["cluster angle"])  # a draw by behaviour may leave one cluster alone
    three = space_summary({name: directions[name] for name in ("c0", "c1", "c3")}, {"c0": "a", "c1": "a", "c3": "b"})
    assert [name for name in three if name.startswith("silhouette")] == [
        "silhouette 2, average",
        "silhouette 2, complete",
    ]
