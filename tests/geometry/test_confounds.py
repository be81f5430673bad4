import pandas as pd
import pytest
import torch

from refusal_utils.directions.comparison import cosine_frame
from refusal_utils.directions.estimation import mean_directions
from refusal_utils.geometry.confounds import measure_confounds

from .planted import WIDTH, N, four_categories

NAMES = ("one", "same", "apart", "opposite")


def plain_cosine(sides, first, second):
    return cosine_frame(mean_directions(*sides), list(sides[0])).loc[first, second]


def test_confounds_find_a_planted_feature_and_twins_are_free_of_it():
    refused, answered = four_categories()
    length = torch.randn(N, generator=torch.Generator().manual_seed(1))
    answered = answered + 3 * length[:, None] * torch.eye(WIDTH)[5]
    longer = {name: own + 8 * torch.eye(WIDTH)[5] for name, own in refused.items()}
    twins = {name: (longer[name], longer[name] - own.mean(0)) for name, own in refused.items()}
    found = measure_confounds(longer, answered, pd.DataFrame({"length": length.numpy()}), twins)
    assert found.by_category["length"].min() > 0.8
    assert found.by_category["without features"].max() < 0.6
    assert (found.by_category["twins"] < 0.6).all()
    pair = found.by_pair.loc[("one", "apart")]
    assert pair["plain"] == pytest.approx(plain_cosine((longer, answered), "one", "apart"), abs=1e-6)
    assert pair["plain"] > 0.7  # before control: length alone makes the two alike
    assert abs(pair["without features"]) < 0.25
    assert abs(pair["twins"]) < 0.25
    assert found.numbers()["strongest feature"] == found.by_category["length"].abs().max()


def test_confounds_find_a_planted_topic():
    refused, answered = four_categories()
    generator = torch.Generator().manual_seed(1)
    own_topic = dict(zip(NAMES, 6 * torch.eye(WIDTH)[10:14], strict=True))
    topic = {name: axis + 5 * torch.eye(WIDTH)[20] for name, axis in own_topic.items()}  # and one that all share
    about = {name: own + topic[name] for name, own in refused.items()}
    twins = {name: (about[name], torch.randn(N, WIDTH, generator=generator) + topic[name]) for name in refused}
    found = measure_confounds(about, answered, pd.DataFrame({"row": range(N)}), twins)
    assert found.by_category["topic"].min() > 0.7
    apart, opposite = (found.by_pair.loc[("one", name)] for name in ("apart", "opposite"))
    assert apart["plain"] > 0.25  # before control
    assert abs(apart["without topics"]) < 0.2
    assert opposite["without topics"] < -0.6 < opposite["plain"]


def test_twins_that_differ_as_the_sides_do_give_the_plain_map():
    refused, answered = four_categories()
    shift = torch.eye(WIDTH)[30]
    twins = {name: (own + shift, answered + shift) for name, own in refused.items()}
    found = measure_confounds(refused, answered, pd.DataFrame({"length": range(N)}), twins)
    assert found.maps().loc["twins", "correlation with plain"] == pytest.approx(1)
    assert found.maps().loc["plain", "mean cosine"] == pytest.approx(found.by_pair["plain"].mean())
    assert found.numbers()["cosine with twins"] == pytest.approx(1)
    figure = found.figure("bundled", "layer 6")
    assert figure.data[0].z[:, 0] == pytest.approx(found.by_category["length"].to_numpy(), abs=1e-4)
