"""Views of clouds whose structure is planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.geometry.projections import (
    disparity,
    fit_lda,
    fit_pca,
    fit_umap,
    length_held,
    separation,
    told_apart,
    trust_and_continuity,
    view_quality,
)


def clouds(n=60, d_model=30, gap=8.0, seed=0):
    """Three clouds, 8 apart along two planted axes, in noise that is loud along a third one."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d_model, 3, generator=generator))[0].T
    labels = torch.arange(3).repeat_interleave(n)
    centres = gap * torch.stack([torch.zeros(d_model), axes[0], axes[1]])
    noise = torch.randn(3 * n, d_model, generator=generator)
    return centres[labels] + noise + 20 * torch.randn(3 * n, 1, generator=generator) * axes[2], labels.numpy(), axes


def test_pca_finds_the_loud_axis_and_lda_the_telling_ones():
    points, labels, axes = clouds()
    pca, lda = fit_pca(points, 1), fit_lda(points, labels)
    assert abs(float(torch.tensor(pca.components_[0]).float() @ axes[2])) > 0.99
    fresh, fresh_labels, _ = clouds(seed=0, n=61)
    assert lda.score(fresh.double().numpy(), fresh_labels) > 0.98
    assert length_held(axes, pca).tolist() == pytest.approx([0, 0, 1], abs=0.15)


def test_told_apart_tells_what_a_plane_loses():
    points, labels, axes = clouds()
    fresh, fresh_labels, _ = clouds(n=61)
    lda = fit_lda(points, labels)
    views = {"LDA": lambda at: torch.as_tensor(lda.transform(at.double().numpy())), "loud": lambda at: at @ axes[1:].T}
    told = {"all": told_apart(points, labels, fresh, fresh_labels).mean()}
    for name, view in views.items():
        flat, fresh_flat = view(points), view(fresh)
        told[name] = told_apart(flat, labels, fresh_flat, fresh_labels).mean()
        # By another route: the mean that is nearest, in units of the spread within the classes.
        places, fresh_places = flat.numpy(), fresh_flat.numpy()
        means = np.stack([places[labels == label].mean(0) for label in range(3)])
        spread = np.cov((places - means[labels]).T)
        away = fresh_places[:, None] - means
        nearest = np.einsum("pci,ij,pcj->pc", away, np.linalg.inv(spread), away).argmin(1)
        assert told[name] == pytest.approx((nearest == fresh_labels).mean(), abs=0.02)
    assert min(told["all"], told["LDA"]) > 0.98
    assert 0.6 < told["loud"] < 0.75  # one axis tells one cloud from the two others, the loud one nothing
    mixed = np.random.default_rng(0).permutation(labels)
    assert told_apart(points, mixed, fresh, fresh_labels).mean() < 0.6


def test_trust_and_continuity_are_one_for_the_space_itself_and_fall_for_noise():
    points, _, _ = clouds()
    assert trust_and_continuity(points, points) == (1.0, 1.0)
    noise = torch.randn(len(points), 2, generator=torch.Generator().manual_seed(1))
    assert max(trust_and_continuity(points, noise)) < 0.6
    # Folding a plane in half invents neighbours and tears none; cutting it in two tears neighbours and invents few.
    plane = torch.rand(300, 2, generator=torch.Generator().manual_seed(2)) - 0.5
    folded = torch.stack([plane[:, 0].abs(), plane[:, 1]], dim=1)
    trust, continuity = trust_and_continuity(plane, folded)
    assert trust < 0.9 < 0.98 < continuity
    cut = plane + 5 * (plane[:, :1] > 0)
    trust, continuity = trust_and_continuity(plane, cut)
    assert continuity < trust


def test_disparity_ignores_turns_and_sees_shuffles():
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    assert disparity(points, 3 * points @ turn + 1) == pytest.approx(0, abs=1e-9)
    assert disparity(points, points.flip(0)) > 0.5


@pytest.mark.slow
def test_umap_repeats_itself_and_keeps_the_clouds_apart():
    points, labels, axes = clouds()
    quiet = points - (points @ axes[2])[:, None] * axes[2]
    first = fit_umap(quiet, 0, "euclidean")
    assert torch.equal(first, fit_umap(quiet, 0, "euclidean"))
    assert not torch.equal(first, fit_umap(quiet, 1, "euclidean"))
    nearest = torch.cdist(first, first).fill_diagonal_(np.inf).argmin(1)
    assert (labels[nearest] == labels).mean() > 0.95


@pytest.mark.parametrize(
    "fit", [fit_pca, lambda points: fit_umap(points, 0), lambda points: fit_lda(points, np.zeros(9))]
)
def test_a_view_of_fewer_than_ten_prompts_is_refused(fit):
    with pytest.raises(
        ValueError, match=r"^fit_(pca|umap|lda): a view needs at least 10 prompts; got 9\. Take more prompts\.$"
    ):
        fit(torch.randn(9, 5))


def test_a_view_names_the_prompt_that_is_not_finite():
    points = torch.randn(12, 5)
    points[7, 2] = torch.nan
    with pytest.raises(ValueError, match="got NaN or inf in prompt 7"):
        fit_pca(points)


def test_view_quality_holds_every_view_against_the_activations_and_the_reference():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(30, 2, generator=generator))[0].T
    points = 5 * torch.randn(180, 2, generator=generator) @ axes + 0.1 * torch.randn(180, 30, generator=generator)
    plane = points @ axes.T
    turned = 3 * plane @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]]) + 5
    noise = torch.randn(len(points), 2, generator=generator)
    table = view_quality(points, {"plane": plane, "turned": turned, "noise": noise}, "plane")
    assert table["disparity"].to_dict() == pytest.approx({"plane": 0, "turned": 0, "noise": 1}, abs=0.1)
    assert tuple(table.loc["noise"][:2]) == pytest.approx(trust_and_continuity(points, noise))
    assert table.loc["turned", "trustworthiness"] == pytest.approx(table.loc["plane", "trustworthiness"])
    assert table.loc["plane", "trustworthiness"] > 0.95 > table.loc["noise", "trustworthiness"] + 0.3


def test_separation_is_the_share_of_pairs_in_the_right_order():
    generator = np.random.default_rng(0)
    labels = pd.Series(["benign"] * 7 + ["one"] * 5 + ["two"] * 6)
    projected = pd.DataFrame(generator.normal(size=(18, 2)), columns=["one", "two"])
    projected.loc[labels == "one", "one"] += 9
    table = separation(projected, labels)
    for direction in projected:
        for category in projected:
            own = projected.loc[labels == category, direction].to_numpy()
            rest = projected.loc[labels == "benign", direction].to_numpy()
            assert table.loc[direction, category] == pytest.approx((own[:, None] > rest[None]).mean())
    assert table.loc["one", "one"] == 1
    assert table.loc["one", "two"] != table.loc["two", "one"]  # rows are directions
