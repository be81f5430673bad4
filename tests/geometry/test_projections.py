"""Views of clouds whose structure is planted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.manifold import trustworthiness

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.geometry.projections import LayerViews, Projections, Views, fit_views, project
from refusal_utils.prompts.categories import CATEGORY_IDS


def clouds(n=60, d_model=30, gap=8.0, seed=0):
    """Three clouds, 8 apart along two planted axes, in noise that is loud along a third one."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d_model, 3, generator=generator))[0].T
    labels = torch.arange(3).repeat_interleave(n)
    centres = gap * torch.stack([torch.zeros(d_model), axes[0], axes[1]])
    noise = torch.randn(3 * n, d_model, generator=generator)
    return centres[labels] + noise + 20 * torch.randn(3 * n, 1, generator=generator) * axes[2], labels.numpy(), axes


def views_of(states, labels, fitted=None, fitted_labels=None) -> Views:
    points = pd.DataFrame({"id": range(len(states)), "category": labels, "outcome": "refused"})
    fitted, fitted_labels = (states, labels) if fitted is None else (fitted, fitted_labels)
    return fit_views(states, points, fitted, fitted_labels, where="here")


def test_pca_finds_the_loud_axis_and_lda_the_telling_ones():
    points, labels, axes = clouds()
    views = views_of(points, labels)
    assert abs(float(torch.tensor(views.pca.components_[0]).float() @ axes[2])) > 0.99
    fresh, fresh_labels, _ = clouds(seed=0, n=61)
    assert views.lda.score(fresh.double().numpy(), fresh_labels) > 0.98
    # The directions' shadows in the plane of the two loudest axes, by numpy.
    first = np.linalg.svd((points - points.mean(0)).numpy(), full_matrices=False)[2][:2]
    assert views.length_held(axes).tolist() == pytest.approx(np.linalg.norm(axes.numpy() @ first.T, axis=1), abs=1e-4)
    assert views.length_held(axes)[2] > 0.99


def test_lda_of_all_axes_tells_what_a_plane_loses():
    fitted, fitted_labels, _ = clouds(n=200, gap=4)
    shown, labels, _ = clouds(n=201, gap=4)
    views = views_of(shown, labels, fitted, fitted_labels)
    told = {name: found.mean() for name, found in views.lda_correct.items()}
    # By another route: the mean that is nearest, in units of the spread within the classes.
    places, shown_places = (views.pca.transform(each.double().numpy())[:, :2] for each in (fitted, shown))
    means = np.stack([places[fitted_labels == label].mean(0) for label in range(3)])
    spread = np.cov((places - means[fitted_labels]).T)
    away = shown_places[:, None] - means
    nearest = np.einsum("pci,ij,pcj->pc", away, np.linalg.inv(spread), away).argmin(1)
    assert told["plane of PCA"] == pytest.approx((nearest == labels).mean(), abs=0.02)
    assert min(told["all axes"], told["plane of LDA"]) > 0.95 > 0.91 > told["plane of PCA"]
    mixed = np.random.default_rng(0).permutation(fitted_labels)
    assert views_of(shown, labels, fitted, mixed).lda_correct["all axes"].mean() < 0.6


def test_trustworthiness_and_continuity_are_one_for_the_space_itself_and_fall_for_noise(monkeypatch):
    # Folding a plane in half invents neighbours and tears none; cutting it in two tears neighbours and invents few.
    plane = torch.rand(300, 2, generator=torch.Generator().manual_seed(2)) - 0.5
    space = torch.cat([plane, 1e-6 * torch.randn(300, 1, generator=torch.Generator().manual_seed(3))], dim=1)
    labels = np.arange(300) % 2
    folded, cut = torch.stack([plane[:, 0].abs(), plane[:, 1]], dim=1), plane + 5 * (plane[:, :1] > 0)
    noise = torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
    turned = 3 * plane @ torch.tensor([[0.0, -1.0], [1.0, 0.0]]) + 1
    seen = {"plane": plane, "turned": turned, "folded": folded, "cut": cut, "noise": noise}
    monkeypatch.setattr(Views, "lda", views_of(space, labels).pca)  # classes in a plane have one axis only
    table = replace(views_of(space, labels), umaps=seen).table()
    trust, continuity = table["trustworthiness"], table["continuity"]
    assert (trust["plane"], continuity["plane"], trust["PCA"]) == pytest.approx((1, 1, 1), abs=1e-3)
    assert max(trust["noise"], continuity["noise"]) < 0.6
    assert trust["folded"] < 0.9 < 0.98 < continuity["folded"]
    assert continuity["cut"] < trust["cut"]
    # Disparity is to the first embedding: it ignores turns and sees noise.
    assert table["disparity"][["plane", "turned", "PCA"]].tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert table["disparity"]["noise"] > 0.9


def test_few_prompts_are_compared_by_as_many_neighbours_as_the_measure_allows():
    points, labels, _ = clouds(n=8)
    views = views_of(points, labels)
    shown = views.coordinates("PCA").iloc[:, :2].to_numpy()
    expected = [trustworthiness(*pair, n_neighbors=11) for pair in ((points, shown), (shown, points))]
    found = views.table().loc["PCA", ["trustworthiness", "continuity"]]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_umap_repeats_itself_and_keeps_the_clouds_apart():
    points, labels, axes = clouds()
    quiet = points - (points @ axes[2])[:, None] * axes[2]
    first, again = (views_of(quiet, labels).with_umaps(seeds, "euclidean").umaps for seeds in ([0, 1], [0]))
    assert torch.equal(first["UMAP, seed 0"], again["UMAP, seed 0"])
    assert not torch.equal(first["UMAP, seed 0"], first["UMAP, seed 1"])
    own = first["UMAP, seed 0"]
    nearest = torch.cdist(own, own).fill_diagonal_(np.inf).argmin(1)
    assert (labels[nearest] == labels).mean() > 0.95


def test_views_need_ten_prompts_and_finite_states():
    points, labels, _ = clouds()
    with pytest.raises(ValueError, match="^fit_views: a view needs at least 10 prompts; got 9"):
        views_of(points[:9], labels[:9], points, labels)
    with pytest.raises(ValueError, match="^fit_views: a view needs at least 10 prompts; got 9"):
        views_of(points, labels, points[:9], labels[:9])
    points[7, 2] = torch.nan
    with pytest.raises(ValueError, match="^fit_views: states must be finite; got 1 NaN"):
        views_of(points, labels)


def named_views(seed: int, gap: float) -> Views:
    """Views of three clouds called benign, advice and humanizing."""
    states, labels, _ = clouds(gap=gap, seed=seed)
    return views_of(states, np.array(["benign", "advice", "humanizing"])[labels])


def test_figures_show_the_coordinates_and_the_arrows_start_at_the_benign_mean():
    views = named_views(0, 8.0)
    frame = views.coordinates("PCA")
    directions = torch.nn.functional.normalize(torch.randn(11, 30, generator=torch.Generator().manual_seed(0)), dim=1)
    named = DirectionSet(CATEGORY_IDS, directions, torch.ones(11), Provenance(layer=1))
    figure = views.figure("PCA", directions=named)
    points = [trace for trace in figure.data if trace.mode == "markers"]
    arrows = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert sum(len(trace.x) for trace in points) == len(frame)
    benign = frame[frame["category"] == "benign"][["PC 1", "PC 2"]].mean()
    reach = 0.5 * np.ptp(frame["PC 1"])
    held = views.length_held(directions)
    for arrow, share in zip(arrows, held, strict=True):
        assert (arrow.x[0], arrow.y[0]) == pytest.approx(tuple(benign))
        assert np.hypot(arrow.x[1] - arrow.x[0], arrow.y[1] - arrow.y[0]) == pytest.approx(
            reach * float(share), rel=1e-4
        )
    with pytest.raises(ValueError, match="^Views.coordinates: the view must be one of PCA, LDA"):
        views.figure("UMAP, seed 0")


def test_layer_views_tell_more_if_the_clouds_lie_further_apart():
    layers = LayerViews({1: named_views(0, 0.0), 4: named_views(0, 8.0)})
    table = layers.table()
    told = table["category told (all axes)"]
    assert told[1] < 0.6 < 0.98 < told[4]
    assert table.loc[4, "share of variance"] == layers.views[4].pca.explained_variance_ratio_[:2].sum()
    slider = layers.figure(4, where="here").layout.sliders[0]
    assert (slider.active, [step.label[0] for step in slider.steps]) == (1, ["1", "4"])


def test_auc_is_the_share_of_pairs_in_the_right_order():
    labels = pd.Series(["benign"] * 7 + ["one"] * 5 + ["two"] * 6)
    states = np.random.default_rng(0).normal(size=(18, 4))
    states[7:12, 0] += 9
    directions = DirectionSet(("one", "two"), torch.eye(4)[:2], torch.ones(2), Provenance(layer=1))
    found: Projections = project(
        torch.tensor(states).float(), directions, pd.DataFrame({"category": labels}), where="here"
    )
    for axis, direction in enumerate(found.auc.index):
        for category in found.auc:
            own, rest = (states[labels == name, axis] for name in (category, "benign"))
            share = (own[:, None] > rest[None]).mean()
            assert found.auc.loc[direction, category] == pytest.approx(share)  # rows are directions
    assert found.auc.loc["one", "one"] == 1
    assert found.auc.loc["one", "two"] != found.auc.loc["two", "one"]
    row = found.table().loc["two"]
    assert row["own"] == found.auc.loc["two", "two"]
    assert row["mean of others"] == found.auc.loc["one", "two"]
    assert row["largest"] == max(row["own"], row["mean of others"])
