"""The eleven categories of refusal and non-compliance: ids, titles, clusters, definitions, fixed colours and markers.

Source of names and clusters: Joad et al., arXiv 2602.02132, Table 1 and the released hierarchical clustering.
"""

from dataclasses import dataclass
from typing import Any, Literal

from ..checks import require

Cluster = Literal["content policy", "cannot comply"]

# Okabe-Ito qualitative palette (Okabe & Ito 2008), without black.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")


@dataclass(frozen=True)
class Category:
    """One category: its id here, a title for people, the paper's split name, its cluster, and how figures draw it.

    `definition`: what a prompt of this kind does, in the words of the data card (`prompts/README.md`).
    """

    id: str
    title: str
    paper_split: str
    cluster: Cluster
    colour: str
    marker: str
    definition: str


_DEFINITIONS = {
    "safety_core": "gives a situation and a malicious purpose, and asks for a harmful piece of work",
    "hate_speech": "asks for speech that insults, demeans or threatens people",
    "crime_assistance": "asks bluntly for help with an offence",
    "inappropriate": "asks for help with something dishonest or unfair, but not plainly criminal",
    "advice": "asks for a binding personal decision in medicine, law, finance and the like",
    "safety_concerns": "asks for private data, whole copyrighted works, falsehoods as truth, or dangerous dares",
    "over_refusal": "the unsafe side of XSTest-like pairs: violent words meant literally",
    "incomplete": "cannot be answered as asked: something is missing, false or garbled",
    "unsupported": "needs senses, devices, files or live data that a text model has not",
    "indeterminate": "asks what nobody can know, or what has no answer",
    "humanizing": "asks the assistant about its own body, feelings and life",
}


def _category(position: int, id: str, title: str, paper_split: str, cluster: Any) -> Category:
    # Eleven hues cannot be told apart: seven colours, and the marker changes when they come round again.
    marker = ("circle", "diamond")[position // len(OKABE_ITO)]
    colour = OKABE_ITO[position % len(OKABE_ITO)]
    return Category(id, title, paper_split, cluster, colour, marker, _DEFINITIONS[id])


CATEGORIES: tuple[Category, ...] = tuple(
    _category(position, *row)
    for position, row in enumerate(
        (
            ("safety_core", "Safety core", "SafetyCore-WGM", "content policy"),
            ("hate_speech", "Hate speech", "HateSpeech-SB", "content policy"),
            ("crime_assistance", "Crime assistance", "CrimeAssistance-SB", "content policy"),
            ("inappropriate", "Inappropriate", "Inappropriate-SB", "content policy"),
            ("advice", "Unqualified advice", "Advice-SB", "content policy"),
            ("safety_concerns", "Safety concerns", "Safety-CCN", "content policy"),
            ("over_refusal", "Over-refusal (unsafe side)", "OverRefusal-XST", "content policy"),
            ("incomplete", "Incomplete", "Incomplete-CCN", "cannot comply"),
            ("unsupported", "Unsupported", "Unsupported-CCN", "cannot comply"),
            ("indeterminate", "Indeterminate", "Indeterminate-CCN", "cannot comply"),
            ("humanizing", "Humanizing", "Humanizing-CCN", "cannot comply"),
        )
    )
)

CATEGORY_IDS: tuple[str, ...] = tuple(category.id for category in CATEGORIES)
BENIGN = "benign"
ALL_CATEGORIES: tuple[str, ...] = (*CATEGORY_IDS, BENIGN)  # every value of the column `category`
_BY_ID = {category.id: category for category in CATEGORIES}
_BY_SPLIT = {category.paper_split: category for category in CATEGORIES}


def category_by_id(id: str) -> Category:
    """The category called `id`. Raises `ValueError` for an unknown one.

    >>> category_by_id("humanizing").paper_split
    'Humanizing-CCN'
    """
    return _lookup("category_by_id", _BY_ID, id)


def category_by_paper_split(paper_split: str) -> Category:
    """The category that the paper calls `paper_split`. Raises `ValueError` for an unknown one.

    >>> category_by_paper_split("Safety-CCN").id
    'safety_concerns'
    """
    return _lookup("category_by_paper_split", _BY_SPLIT, paper_split)


def require_category(function: str, category: object) -> None:
    """Raise `ValueError` unless `category` is the id of a category or `"benign"`."""
    known = f"Use one of {', '.join(ALL_CATEGORIES)}."
    require(category in ALL_CATEGORIES, function, "the category must be a known one or 'benign'", repr(category), known)


def _lookup(function: str, table: dict[str, Category], key: str) -> Category:
    require(key in table, function, "the name must be a known category's", repr(key), f"Use one of {', '.join(table)}.")
    return table[key]
