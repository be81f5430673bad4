from pathlib import Path

import pytest

from refusal_utils.prompts.categories import CATEGORIES, OKABE_ITO, category_by_id, category_by_paper_split


def test_categories_are_eleven_in_clusters_of_seven_and_four():
    assert len({category.id for category in CATEGORIES}) == 11
    assert [category.cluster for category in CATEGORIES].count("content policy") == 7


def test_categories_no_two_look_alike_in_a_figure():
    assert len({(category.colour, category.marker) for category in CATEGORIES}) == 11


def test_okabe_ito_is_the_published_palette():
    # Okabe & Ito 2008, RGB as printed there, without black
    rgb = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66)]
    assert tuple(f"#{red:02X}{green:02X}{blue:02X}" for red, green, blue in rgb) == OKABE_ITO


def test_definitions_are_the_data_cards():
    card = (Path(__file__).parent.parent.parent / "prompts" / "README.md").read_text()
    rows = [line.split("|")[1:-1] for line in card.splitlines() if line.startswith("|")]
    told = {row[0].strip(" `"): row[1].strip() for row in rows if len(row) == 2}
    assert {category.id: category.definition for category in CATEGORIES}.items() <= told.items()


def test_lookup_rejects_an_unknown_name():
    with pytest.raises(ValueError, match="category_by_id: the name must be a known category's; got 'violence'"):
        category_by_id("violence")
    assert category_by_paper_split(CATEGORIES[3].paper_split) is CATEGORIES[3]
