"""Tables with the columns and label counts of the four public data sets, and harmless made-up texts."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from refusal_utils.prompts.public_sources import SOURCES

COCONOT_TEST = {"safety concerns": 395, "Humanizing": 82, "Incomplete": 225, "Unsupported": 157, "Indeterminate": 142}
COCONOT_TRAIN = {
    "safety concerns": 3136,
    "Incomplete": 3838,
    "Unsupported": 1807,
    "Indeterminate": 901,
    "Humanizing": 1795,
}


def wildguard() -> list[dict]:
    # The released pools name harmful rows among 29 and 41 to 72, harmless ones below 43.
    first = ["harmful" if number in (29, 41) else "unharmful" for number in range(43)]
    labels = [*first, *["harmful"] * 411, *["unharmful"] * 449, *[None] * 12]
    vanilla = [
        {"prompt": f"wildguard question {number}", "adversarial": False, "prompt_harm_label": label}
        for number, label in enumerate(labels)
    ]
    other = [{"prompt": "in disguise", "adversarial": True, "prompt_harm_label": "harmful"}] * 30
    return [*other[:10], *vanilla[:400], *other[10:], *vanilla[400:]]


def sorrybench() -> list[dict]:
    return [
        {
            "question_id": id,
            "category": str((id - 1) // 10 + 1),
            "turns": [f"sorry {id} {style}"],
            "prompt_style": style,
        }
        for style in ("slang", "base")
        for id in range(440, 0, -1)
    ]


def coconot(sizes: dict[str, int]) -> list[dict]:
    names = {name: "Requests with safety concerns" if " " in name else f"{name} requests" for name in sizes}
    labels = [names[name] for name, size in sizes.items() for _ in range(size)]
    return [
        {"id": f"c{number}", "category": label, "subcategory": "", "prompt": f"{label} {number} of {len(labels)}"}
        for number, label in enumerate(labels)
    ]


def xstest() -> list[dict]:
    labels = [label for label in ("safe", "unsafe") * 8 for _ in range(25)] + ["safe"] * 50
    return [
        {"id": number + 1, "prompt": f"xstest question {number}", "type": "", "label": label, "focus": "", "note": ""}
        for number, label in enumerate(labels)
    ]


HUB = {
    ("allenai/wildguardmix", "wildguardtest", "test"): wildguard,
    ("sorry-bench/sorry-bench-202503", None, "train"): sorrybench,
    ("allenai/coconot", "original", "test"): lambda: coconot(COCONOT_TEST),
    ("allenai/coconot", "original", "train"): lambda: coconot(COCONOT_TRAIN),
    ("Paul/XSTest", None, "train"): xstest,
}


class Hub:
    """A hub that holds these tables: `changed` replaces some of them, `asked` are the requests that came."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple] = []
        self.changed: dict[str, list[dict] | Exception] = {}
        monkeypatch.setattr(datasets, "load_dataset", self.load)

    def load(self, hub_id: str, config: str | None, *, split: str, revision: str) -> datasets.Dataset:
        self.asked.append((hub_id, config, split, revision))
        table = self.changed.get(hub_id) or HUB[hub_id, config, split]()
        if isinstance(table, Exception):
            raise table
        return datasets.Dataset.from_list(table)


def write_paper_files(folder: Path, text: Callable[[str, dict], str] | None = None) -> Path:
    """The folder, with the five tables as files; `text` gives a row of a source another text."""
    folder.mkdir(parents=True)
    for name, source in SOURCES.items():
        rows = HUB[source.hub_id, source.config, source.split]()
        for row in rows if text else ():
            new = text(name, row)
            row[source.text] = [new] if name == "sorrybench" else new
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
