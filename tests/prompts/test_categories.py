from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from refusal_utils.methods import METHODS
from refusal_utils.prompts.categories import CATEGORIES, category_by_id
from refusal_utils.tradeoff.cost_curves import PALETTE

# sRGB to OKLab (Ottosson 2020), where equal distances look equally far apart.
LMS = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
LAB = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def distance(one: str, other: str) -> float:
    first, second = (LAB @ np.cbrt(LMS @ linear(colour)) for colour in (one, other))
    return float(np.linalg.norm(first - second))


def test_categories_are_eleven_in_clusters_of_seven_and_four():
    assert len({category.id for category in CATEGORIES}) == 11
    assert [category.cluster for category in CATEGORIES].count("content policy") == 7


@pytest.mark.parametrize("colours", [[each.colour for each in CATEGORIES], PALETTE])
def test_no_two_categories_or_methods_have_colours_that_look_alike(colours):
    assert distance("#0072B2", "#0087b1") < 0.1  # before control: two blues that a reader would confuse
    assert min(distance(one, other) for one, other in combinations(colours, 2)) > 0.13


def test_no_two_methods_share_a_colour():
    assert len(METHODS) <= len(PALETTE)


def test_every_colour_can_be_read_on_white():
    assert min(1.05 / (LUMINANCE @ linear(category.colour) + 0.05) for category in CATEGORIES) > 2.6


def test_markers_and_dashes_tell_the_clusters_apart():
    looks = {(category.cluster, category.marker, category.dash) for category in CATEGORIES}
    assert looks == {("content policy", "circle", "solid"), ("cannot comply", "diamond", "dash")}


def test_definitions_are_the_data_cards():
    card = (Path(__file__).parent.parent.parent / "prompts" / "README.md").read_text()
    rows = [line.split("|")[1:-1] for line in card.splitlines() if line.startswith("|")]
    told = {row[0].strip(" `"): row[1].strip() for row in rows if len(row) == 2}
    assert {category.id: category.definition for category in CATEGORIES}.items() <= told.items()


def test_lookup_rejects_an_unknown_name():
    with pytest.raises(ValueError, match="category_by_id: the name must be a known category's; got 'violence'"):
        category_by_id("violence")
