"""Methods side by side: on planted states they agree up to what each agrees with itself."""

from dataclasses import replace

import pytest
import torch

from refusal_utils.directions import normalize
from refusal_utils.methods import METHODS, SearchMethod, StateMethod
from refusal_utils.methods.comparison import compare_methods
from refusal_utils.methods.method import per_category
from tests.methods.test_methods import D_MODEL, PlantedStudy

MEANS = METHODS["difference_in_means"]
OTHER = normalize(torch.randn(D_MODEL, generator=torch.Generator().manual_seed(9)))
BLIND = StateMethod(name="blind", title="b", source="s", find=per_category(lambda refused, answered: OTHER))


def test_a_method_agrees_with_itself_and_not_with_one_that_ignores_the_states():
    study = PlantedStudy()
    found = compare_methods(study, {"means": MEANS, "again": MEANS, "blind": BLIND}, n_splits=4)
    map_ = found.cosines()
    assert map_.loc["means", "again"] == pytest.approx(1)
    assert abs(map_.loc["means", "blind"]) < 0.7
    assert map_.loc["blind", "blind"] == pytest.approx(1)  # it never varies
    assert 0.7 < map_.loc["means", "means"] < 0.999
    table = found.table()
    assert table["cosine with means"].tolist() == pytest.approx(map_.loc["means"].where(map_.columns != "means", 1))
    assert (table["lowest"] <= table["split half"]).all()
    assert (table["seconds"] > 0).all()
    assert (table["passes"] == 0).all()  # states are captured already
    map_of_cosines = found.figure(title="Methods").data[0]
    assert map_of_cosines.z.shape == (3, 3)
    assert list(map_of_cosines.x) == ["means", "again", "b"]  # a title that two share names neither


def test_split_halves_are_the_cosines_of_disjoint_halves_and_noise_lowers_them():
    clean, noisy = (compare_methods(PlantedStudy(noise), {"means": MEANS}, n_splits=6) for noise in (0.5, 5.0))
    assert clean.table()["split half"].item() > 0.9 > 0.6 > noisy.table()["split half"].item()
    halves = compare_methods(PlantedStudy(), {"means": MEANS}, n_splits=1)
    refused, answered = PlantedStudy().sides()
    draw = torch.Generator().manual_seed(0)
    sides = []
    for rows in (*refused.values(), answered):
        order = torch.randperm(len(rows), generator=draw)
        sides.append((rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]))
    first, second = (
        normalize(torch.cat([side[half] for side in sides[:-1]]).mean(0) - sides[-1][half].mean(0)) for half in (0, 1)
    )
    assert halves.split_half.loc["means", 0] == pytest.approx(float(first @ second), abs=1e-5)


def test_the_joined_set_has_every_methods_direction_and_gap_at_the_place_asked_for():
    study = PlantedStudy()
    found = compare_methods(study, {"means": MEANS, "blind": BLIND}, layer=5, pos=-1, categories=["advice"], n_splits=1)
    alone = MEANS.fit(study, 5, -1, categories=["advice"], pooled=True)
    assert torch.equal(found.joined["means"], alone.vectors[0])
    assert found.joined.gap("means") == float(alone.gaps[0])
    assert (found.joined.provenance.layer, found.joined.provenance.pos) == (5, -1)


def test_a_search_brings_its_own_place_and_costs_and_one_that_fails_is_left_out(capsys):
    def search(study, **options):
        own = MEANS.fit(study, 5, -1, pooled=True)
        place = replace(own.provenance, settings={"seconds": 7.5, "passes": 40})
        return replace(own, provenance=place)

    def fail(study, **options):
        raise ValueError("fails: there must be refusals; got none. Use another model.")

    wanted = SearchMethod(name="wanted", title="w", source="s", search=search)
    broken = SearchMethod(name="broken", title="b", source="s", search=fail)
    trained = replace(broken, needs=("gradients",))
    methods = {"means": MEANS, "wanted": wanted, "broken": broken, "trained": trained}
    table = compare_methods(PlantedStudy(), methods, n_splits=2).table()
    assert table.loc["wanted", ["layer", "pos", "seconds", "passes"]].tolist() == [5, -1, 7.5, 40]
    assert table.loc["wanted", "split half"] == pytest.approx(table.loc["means", "split half"])
    assert list(table.index) == ["means", "wanted"]
    assert capsys.readouterr().out.startswith("broken is left out. fails: there must be refusals")


def test_a_method_that_trains_takes_part_if_asked_and_has_no_split_halves():
    def search(study, **options):
        return MEANS.fit(study, 5, -1, pooled=True)

    trained = SearchMethod(name="trained", title="t", source="s", needs=("gradients",), search=search)
    methods = {"means": MEANS, "trained": trained}
    assert list(compare_methods(PlantedStudy(), methods, n_splits=2).found) == ["means"]
    found = compare_methods(PlantedStudy(), methods, n_splits=2, trained=True)
    table = found.table()
    assert table.index.tolist() == ["means", "trained"]
    assert table["split half"].notna().tolist() == [True, False]
    assert table["cosine with means"].notna().all()
    assert found.figure(title="Methods").data
