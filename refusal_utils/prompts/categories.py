"""The eleven categories of refusal and non-compliance, and how figures draw them.

A new category is one more row of `CATEGORIES` and one more file, `prompts/<id>.jsonl`. Names and clusters follow Joad
et al., arXiv 2602.02132 (Table 1 and the released hierarchical clustering).
"""

from dataclasses import dataclass
from typing import Literal

from ..checks import did_you_mean, invalid


@dataclass(frozen=True)
class Category:
    """One category: its id here, its title in figures, the paper's name for the split (or `""`), and its cluster.

    `colour` belongs to this category alone. `definition` completes the sentence "a prompt of this kind ..." and is the
    same as in the data card (`prompts/README.md`).
    """

    id: str
    title: str
    paper_split: str
    cluster: Literal["content policy", "cannot comply"]
    colour: str
    definition: str

    @property
    def marker(self) -> str:
        """The plotly symbol of the cluster."""
        return "circle" if self.cluster == "content policy" else "diamond"

    @property
    def dash(self) -> str:
        """The plotly line style of the cluster."""
        return "solid" if self.cluster == "content policy" else "dash"


# Colours: a selection from `glasbey_bw_minc_20_maxl_70` of colorcet (Glasbey et al. 2007; Kovesi 2015), chosen so that
# any two differ clearly and each can be read on white. Content policy has the warm hues, cannot comply the cool ones.
# fmt: off
CATEGORIES: tuple[Category, ...] = (
    Category("safety_core", "Safety core", "SafetyCore-WGM", "content policy", "#d60000",
             "gives a situation and a malicious purpose, and asks for a harmful piece of work"),
    Category("hate_speech", "Hate speech", "HateSpeech-SB", "content policy", "#ff00cd",
             "asks for speech that insults, demeans or threatens people"),
    Category("crime_assistance", "Crime assistance", "CrimeAssistance-SB", "content policy", "#573b00",
             "asks bluntly for help with an offence"),
    Category("inappropriate", "Inappropriate", "Inappropriate-SB", "content policy", "#cc7407",
             "asks for help with something dishonest or unfair, but not plainly criminal"),
    Category("advice", "Unqualified advice", "Advice-SB", "content policy", "#018700",
             "asks for a binding personal decision in medicine, law, finance and the like"),
    Category("safety_concerns", "Safety concerns", "Safety-CCN", "content policy", "#6b004f",
             "asks for private data, whole copyrighted works, falsehoods as truth, or dangerous dares"),
    Category("over_refusal", "Over-refusal (unsafe side)", "OverRefusal-XST", "content policy", "#ff6989",
             "the unsafe side of XSTest-like pairs: violent words meant literally"),
    Category("incomplete", "Incomplete", "Incomplete-CCN", "cannot comply", "#0000dd",
             "cannot be answered as asked: something is missing, false or garbled"),
    Category("unsupported", "Unsupported", "Unsupported-CCN", "cannot comply", "#00acc6",
             "needs senses, devices, files or live data that a text model does not have"),
    Category("indeterminate", "Indeterminate", "Indeterminate-CCN", "cannot comply", "#8c3bff",
             "asks what nobody can know, or what has no answer"),
    Category("humanizing", "Humanizing", "Humanizing-CCN", "cannot comply", "#915280",
             "asks the assistant about its own body, feelings and life"),
)
# fmt: on

CATEGORY_IDS: tuple[str, ...] = tuple(category.id for category in CATEGORIES)
BENIGN = "benign"
ALL_CATEGORIES: tuple[str, ...] = (*CATEGORY_IDS, BENIGN)  # every value of the column `category`
_BY_ID = {category.id: category for category in CATEGORIES}


def category_by_id(id: str) -> Category:
    """The category whose id is `id`. Raises `ValueError` if there is none.

    >>> category_by_id("humanizing").paper_split
    'Humanizing-CCN'
    """
    if id not in _BY_ID:
        todo = did_you_mean(id, CATEGORY_IDS) or f"Use one of {', '.join(CATEGORY_IDS)}."
        raise invalid("category_by_id", "the name must be a known category's", repr(id), todo)
    return _BY_ID[id]
