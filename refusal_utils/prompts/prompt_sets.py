"""Read and validate `prompts/`: the eleven categories and the benign prompts."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from .categories import BENIGN, CATEGORY_IDS

FIELDS = ("id", "category", "text", "split", "pair_id")
SPLITS = ("train", "eval")
BENIGN_KINDS = ("ordinary", "look_alike", "twin")
NEAR_DUPLICATE = 0.5
MIN_PER_CATEGORY = {"train": 96, "eval": 64}
MIN_BENIGN, MIN_LOOK_ALIKES, MIN_TWINS = 640, 200, 40
MAX_SAME_OPENING = 0.1  # share of a category's prompts that may begin with the same three words
WORDS = (3, 60)
_COMMON = frozenset(
    "a an the of to in on for and or my your is are was be do does i you it this that with at by from me".split()  # noqa: SIM905
)

_QUESTIONS = ("how", "what", "who", "why", "when", "where", "which", "is", "are", "can", "do", "does")


def prompts_dir() -> Path:
    """Where the prompt files lie: inside an installed wheel, or `prompts/` of the checkout."""
    installed = Path(__file__).parents[1] / "_prompts"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "prompts"


def load_prompts(
    category: str | None = None, split: str | None = None, folder: str | Path | None = None
) -> pd.DataFrame:
    """The prompts of `folder`, or the built-in ones: columns id, category, text, split, pair_id (empty without a twin), kind.

    `category` is one of the eleven or `"benign"`, `split` is `"train"` or `"eval"`; None takes all. `kind` is the
    category for its own prompts, and `ordinary`, `look_alike` or `twin` for benign ones. A folder holds one
    `<category>.jsonl` each and `benign.jsonl`. Raises `ValueError` for an unknown category or split, a file that is not
    there, and a broken line (file and line number).
    """
    if category is not None and category not in (*CATEGORY_IDS, BENIGN):
        known = ", ".join((*CATEGORY_IDS, BENIGN))
        raise ValueError(f"load_prompts: the category must be a known one; got {category!r}. Use one of {known}.")
    if split not in (None, *SPLITS):
        raise ValueError(f"load_prompts: the split must be 'train' or 'eval'; got {split!r}. Leave it out for both.")
    names = [category] if category else [*CATEGORY_IDS, BENIGN]
    frame = pd.concat(
        [read_prompts(Path(folder or prompts_dir()) / f"{name}.jsonl") for name in names], ignore_index=True
    )
    return frame if split is None else frame[frame["split"] == split].reset_index(drop=True)


def read_prompts(path: str | Path) -> pd.DataFrame:
    """The rows of one JSONL prompt file, as `load_prompts` gives them. Raises `ValueError` naming file and line."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"read_prompts: the file must exist; got {path}. Give the path of a JSONL file of prompts.")
    lines = enumerate(path.read_bytes().split(b"\n"), 1)
    rows = [_row(path, number, line) for number, line in lines if line.strip()]
    frame = pd.DataFrame(rows, columns=[*FIELDS]).astype(str)
    return frame.assign(
        kind=[prompt_kind(id, category) for id, category in zip(frame["id"], frame["category"], strict=True)]
    )


def _row(path: Path, number: int, line: bytes) -> dict[str, str]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        reason = "bytes that are not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"invalid JSON ({error.msg})"
    else:
        reason = _fault(row)
        if not reason:
            return {name: row[name] or "" for name in FIELDS}
    raise ValueError(
        f"read_prompts: every line must be a JSON object with {', '.join(FIELDS)}; "
        f"got {reason} at {path}, line {number}. Mend or remove that line."
    )


def _fault(row: object) -> str:
    """What is wrong with one line's object; empty where nothing is."""
    if missing := [name for name in FIELDS if not isinstance(row, dict) or name not in row]:
        return f"the fields {', '.join(missing)} missing"
    fields: dict = row  # type: ignore[assignment]
    if wrong := [name for name in FIELDS if not isinstance(fields[name] or "", str)]:
        return f"no text in the field {wrong[0]}"
    if empty := [name for name in ("id", "text") if not (fields[name] or "").strip()]:
        return f"an empty {empty[0]}"
    known = {"category": (*CATEGORY_IDS, BENIGN), "split": ("", *SPLITS)}
    unknown = [name for name, values in known.items() if (fields[name] or "") not in values]
    return f"the {unknown[0]} {fields[unknown[0]]!r}" if unknown else ""


def prompt_kind(id: str, category: str) -> str:
    """The category of a prompt, or for a benign one what its id begins with: ordinary, look_alike or twin.

    >>> prompt_kind("twin-advice-0001", "benign"), prompt_kind("advice-0001", "advice")
    ('twin', 'advice')
    """
    return id.split("-")[0] if category == BENIGN else category


def word_ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The word n-grams of `text` in order, lower-cased, punctuation dropped.

    >>> word_ngrams("I can't, sorry", 2)
    [('i', "can't"), ("can't", 'sorry')]
    """
    words = _words(text)
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def content_words(text: str) -> set[str]:
    """The words of `text` that carry its topic: all but the commonest, or all where it has no other.

    >>> sorted(content_words("How do I boil an egg?"))
    ['boil', 'egg', 'how']
    """
    words = set(_words(text))
    return words - _COMMON or words


def jaccard(first: set, second: set) -> float:
    """Shared members over all members of two sets; 0 when both are empty.

    >>> jaccard({1, 2}, {2, 3}) == 1 / 3
    True
    """
    return len(first & second) / max(len(first | second), 1)


def compare_texts(first: Iterable[str], second: Iterable[str]) -> pd.DataFrame:
    """By pair of texts, `shared_words`: the Jaccard overlap of their sets of words, and `extra_words` of the second.

    >>> compare_texts(["how to bake"], ["how to bake a cake"]).values.tolist()
    [[0.6, 2.0]]
    """
    words = [(_words(one), _words(other)) for one, other in zip(first, second, strict=True)]
    rows = [(jaccard(set(one), set(other)), len(other) - len(one)) for one, other in words]
    return pd.DataFrame(rows, columns=["shared_words", "extra_words"])


def form_features(texts: Iterable[str]) -> dict[str, list[bool]]:
    """How texts are written, whatever they are about: their last mark, first letter, and whether they begin as questions.

    >>> form_features(["Is it late?", "tell me"])["is a question"]
    [True, False]
    """
    texts = [text.strip() for text in texts]
    return {
        "ends with ? . or !": [text[-1:] in ("?", ".", "!") for text in texts],
        "starts with a capital": [text[:1].isupper() for text in texts],
        "is a question": [text.lower().startswith(_QUESTIONS) for text in texts],
    }


def twin_pairs(prompts: pd.DataFrame) -> pd.DataFrame:
    """The prompts that have a benign twin among `prompts`, indexed by pair_id, with the twin's text as column `twin`."""
    paired = prompts[prompts["pair_id"] != ""].drop_duplicates(["pair_id", "category"])
    benign = paired[paired["category"] == BENIGN].set_index("pair_id")["text"]
    own = paired[(paired["category"] != BENIGN) & paired["pair_id"].isin(benign.index)].set_index("pair_id")
    return own.assign(twin=benign.reindex(own.index))


def near_duplicates(texts: Iterable[str], threshold: float = NEAR_DUPLICATE) -> list[tuple[int, int, float]]:
    """All pairs (i, j, Jaccard) of texts whose word 3-grams overlap by at least `threshold`, i < j.

    Only pairs that share a 3-gram are compared, so thousands of texts take a second.
    """
    grams = [set(word_ngrams(text, 3)) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = {}
    pairs = []
    for index, own in enumerate(grams):
        shared = Counter(other for gram in own for other in holders.get(gram, ()))
        for other, count in shared.items():
            overlap = count / (len(own) + len(grams[other]) - count)
            if overlap >= threshold:
                pairs.append((other, index, overlap))
        for gram in own:
            holders.setdefault(gram, []).append(index)
    return pairs


def validate_prompts(frame: pd.DataFrame) -> list[str]:
    """Every way in which `frame` breaks the rules of `prompts/README.md`, one sentence each; empty when it keeps them.

    Counts per category and split, ids, lengths, pairs (one prompt of a category and one benign twin, same split),
    templates (at most a tenth of a category begin with the same three words), and near-duplicates: word 3-gram Jaccard
    below 0.5 between any two prompts, twins included.
    """
    checks = (_count_faults, _row_faults, _pair_faults, _template_faults, _duplicate_faults)
    return [fault for check in checks for fault in check(frame)]


def _count_faults(frame: pd.DataFrame) -> list[str]:
    faults = []
    for category in CATEGORY_IDS:
        rows = frame[frame["category"] == category]
        for split, least in MIN_PER_CATEGORY.items():
            if (count := int((rows["split"] == split).sum())) < least:
                faults.append(f"{category}: {count} {split} prompts, at least {least} needed")
        if (twins := int((rows["pair_id"] != "").sum())) < MIN_TWINS:
            faults.append(f"{category}: {twins} prompts with a twin, at least {MIN_TWINS} needed")
    benign = frame[frame["category"] == BENIGN]
    for name, count, least in (
        ("benign", len(benign), MIN_BENIGN),
        ("look_alike", int((benign["kind"] == "look_alike").sum()), MIN_LOOK_ALIKES),
    ):
        if count < least:
            faults.append(f"{name}: {count} prompts, at least {least} needed")
    return faults


def _row_faults(frame: pd.DataFrame) -> list[str]:
    faults = [f"{id}: the id occurs twice" for id in frame["id"][frame["id"].duplicated()]]
    for row in frame.itertuples():
        if row.category not in (*CATEGORY_IDS, BENIGN):
            faults.append(f"{row.id}: unknown category {row.category!r}")
        if row.split not in SPLITS:
            faults.append(f"{row.id}: unknown split {row.split!r}")
        if not WORDS[0] <= (count := len(_words(str(row.text)))) <= WORDS[1]:
            faults.append(f"{row.id}: {count} words, {WORDS[0]} to {WORDS[1]} allowed")
    return faults


def _template_faults(frame: pd.DataFrame) -> list[str]:
    faults = []
    for category, rows in frame.groupby("category"):
        openings = rows["text"].map(lambda text: " ".join(text.lower().split()[:3])).value_counts()
        if openings.iloc[0] > max(1, MAX_SAME_OPENING * len(rows)):
            faults.append(f"{category}: {openings.iloc[0]} of {len(rows)} prompts begin with {openings.index[0]!r}")
    return faults


def _pair_faults(frame: pd.DataFrame) -> list[str]:
    faults = []
    for pair_id, rows in frame[frame["pair_id"] != ""].groupby("pair_id"):
        benign = int((rows["category"] == BENIGN).sum())
        if len(rows) != 2 or benign != 1:
            faults.append(f"{pair_id}: {len(rows)} prompts, {benign} of them benign; a pair is one of each")
        elif rows["split"].nunique() != 1:
            faults.append(f"{pair_id}: the pair is divided between train and eval")
    return faults


def _duplicate_faults(frame: pd.DataFrame) -> list[str]:
    ids = list(frame["id"])
    return [
        f"{ids[i]} and {ids[j]}: near-duplicates, word 3-gram Jaccard {overlap:.2f}"
        for i, j, overlap in near_duplicates(frame["text"])
    ]


def _words(text: str) -> list[str]:
    kept = "".join(char if char.isalnum() or char == "'" else " " for char in text.lower().replace("’", "'"))
    return kept.split()


def main() -> int:
    """Validate the built-in prompts, print counts and faults; the exit status is 1 when there are faults."""
    frame = load_prompts()
    print(frame.groupby(["category", "split"], sort=False).size().unstack().to_string())
    faults = validate_prompts(frame)
    print("\n".join(faults) if faults else f"{len(frame)} prompts, no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
