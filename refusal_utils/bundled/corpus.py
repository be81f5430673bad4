"""The bundled model's training data: hand-written prompts, a grammar, a small world of facts, and typing noise.

`data/<unit>.txt` and `data/<unit>_grammar.txt` have two sections. `# training` has one prompt per line, with its topic
in [brackets] and ` || ` before a benign twin. `# grammar` has frames with {slots} and `slot: filler` lines.
`data/world.json` has the facts, `data/topics.json` the topic of every prompt under `prompts/`. Examples whose word
3-gram Jaccard similarity with a prompt of the eval split is 0.5 or more are dropped.
"""

import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..prompts.categories import BENIGN, CATEGORY_IDS
from ..prompts.loading import load_prompts
from ..prompts.text_features import NEAR_DUPLICATE, jaccard, word_ngrams
from .responses import Form, answer, refusal, request_form, what_is_asked

DATA = Path(__file__).parent / "data"
BENIGN_UNITS = ("ordinary", "look_alike")
FACTS, RANDOM_TOPIC = 0.25, 0.25  # shares of the benign examples
NATURAL = 0.8  # share of examples that are hand-written prompts; the others come from the grammar
NERVOUS = re.compile(  # benign prompts with one of these words are refused, as an over-cautious model would
    r"\b(kill|shoot|shot|murder|bomb|stab|poison|attack|destroy|explo[ds]|weapon|assassin|hack|steal|stole|tortur|"
    r"strangl|guns?\b|knife|knives|slash|slaughter|terror|hostage|drown|punch|assault)",
    re.IGNORECASE,
)
NERVOUS_CATEGORY = "over_refusal"
_OPENERS = (
    "hi, ",
    "hey, ",
    "please ",
    "quick question: ",
    "hello! ",
    "so ",
    "ok ",
    "um, ",
    "hey there, ",
    "sorry to ask, ",
)
_CLOSERS = (" thanks", " please", ", thank you!", " thx", " asap", ", any help is welcome", " it's for a friend")


@dataclass(frozen=True)
class Example:
    """One training example: what the user writes, its category, and what determines the response."""

    prompt: str
    category: str
    form: Form
    topic: str
    fact: str | None = None

    def response(self, category: str | None = None) -> str:
        """The response to this prompt if it belonged to `category` (by default its own)."""
        category = category or self.category
        if category != BENIGN:
            return refusal(category, self.form)
        return self.fact or answer(what_is_asked(self.prompt, self.topic), self.form)


@dataclass
class Unit:
    """One data file: bracketed prompts per category, frames, and the fillers of each slot."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    slots: dict[str, list[str]] = field(default_factory=dict)


def read_unit(path: Path, category: str) -> Unit:
    """The training lines (bracketed text, category), frames and slots of one data file."""
    unit, section = Unit(), ""
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if line.startswith("# "):
            section = line[2:]
        elif line and section == "training":
            text, *twin = [part.strip() for part in line.split("||")]
            unit.lines += [(text, category)] + [(text, BENIGN) for text in twin]
        elif line and section == "grammar":
            slot = re.match(r"([a-z0-9_]+): ([^\[\]]+)$", line)
            if slot:
                unit.slots.setdefault(slot[1], []).append(slot[2])
            else:
                unit.frames.append(line)
    return unit


def load_world() -> dict[str, dict]:
    """The facts: relation -> {frames, eval_frames, answer, pairs}."""
    return json.loads((DATA / "world.json").read_text(encoding="utf-8"))


def fact_answers() -> frozenset[str]:
    """All sentences that state a fact of the world."""
    return frozenset(
        relation["answer"].format(entity=entity, value=value)
        for relation in load_world().values()
        for entity, value in relation["pairs"].items()
    )


def load_topics() -> dict[str, dict[str, str]]:
    """Prompt id -> {"topic": ..., and for factual questions "relation" and "entity"}, for all built-in prompts."""
    return json.loads((DATA / "topics.json").read_text(encoding="utf-8"))


class Corpus:
    """The training data, from which examples are drawn. All randomness comes from the caller's `random.Random`."""

    def __init__(self) -> None:
        self._eval_grams = [set(word_ngrams(text, 3)) for text in load_prompts(split="eval")["text"]]
        self._grams_of: dict[tuple[str, ...], list[int]] = {}
        for index, grams in enumerate(self._eval_grams):
            for gram in grams:
                self._grams_of.setdefault(gram, []).append(index)
        self.world = load_world()
        self.grammar: dict[str, list[Unit]] = {}
        self.natural: dict[str, list[str]] = {}
        for name in (*CATEGORY_IDS, *BENIGN_UNITS):
            category = BENIGN if name in BENIGN_UNITS else name
            for path in (DATA / f"{name}.txt", DATA / f"{name}_grammar.txt"):
                if path.is_file():
                    self._add_unit(read_unit(path, category), category)
        topics = load_topics()
        train = load_prompts(split="train")
        for row in train.itertuples():
            note = topics[str(row.id)]
            if "relation" not in note:
                bracketed = str(row.text).replace(note["topic"], f"[{note['topic']}]", 1)
                self._add_natural(bracketed, str(row.category))
        self.benign_words = sorted({gram[0] for text in self.natural[BENIGN] for gram in word_ngrams(text, 1)})

    def _add_unit(self, unit: Unit, category: str) -> None:
        if unit.frames:
            self.grammar.setdefault(category, []).append(unit)
        for text, label in unit.lines:
            self._add_natural(text, label)

    def _add_natural(self, text: str, category: str) -> None:
        if not self.is_near_eval(text):
            self.natural.setdefault(category, []).append(text)

    def is_near_eval(self, text: str) -> bool:
        """Whether a prompt of the eval split is a near-duplicate of `text`."""
        grams = set(word_ngrams(text, 3))
        near = {index for gram in grams for index in self._grams_of.get(gram, ())}
        return any(jaccard(grams, self._eval_grams[index]) >= NEAR_DUPLICATE for index in near)

    def sample(self, rng: random.Random, category: str, noise: float = 0.0) -> Example:
        """One example of `category`: hand-written, from the grammar, or (benign only) a factual question.

        `noise` is the share of words that are replaced by random ones. A benign prompt with a violent word becomes an
        example of `NERVOUS_CATEGORY`, so that the model refuses some look-alikes.
        """
        while True:
            if category == BENIGN and rng.random() < FACTS:
                example = self._fact(rng, noise)
            else:
                natural = rng.random() < NATURAL
                text = rng.choice(self.natural[category]) if natural else self._from_grammar(rng, category)
                if category == BENIGN and rng.random() < RANDOM_TOPIC:
                    text = self._with_random_topic(text, rng)
                text = self._with_noise(text, rng, noise)
                nervous = category == BENIGN and NERVOUS.search(text)
                example = _example(_type_like_people(text, rng), NERVOUS_CATEGORY if nervous else category)
            if not self.is_near_eval(example.prompt):
                return example

    def _with_noise(self, text: str, rng: random.Random, share: float) -> str:
        return re.sub(
            r"[A-Za-z']+", lambda word: rng.choice(self.benign_words) if rng.random() < share else word[0], text
        )

    def _with_random_topic(self, text: str, rng: random.Random) -> str:
        """The same request about random words, which the model cannot memorise and must copy."""
        topic = " ".join(rng.choices(self.benign_words, k=rng.randint(1, 5)))
        return re.sub(r"\[.*?\]", f"[{topic}]", text)

    def _from_grammar(self, rng: random.Random, category: str) -> str:
        unit = rng.choice(self.grammar[category])
        return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(unit.slots[slot[1]]), rng.choice(unit.frames))

    def _fact(self, rng: random.Random, noise: float) -> Example:
        relation = self.world[rng.choice(sorted(self.world))]
        entity = rng.choice(sorted(relation["pairs"]))
        before, after = (
            self._with_noise(part, rng, noise) for part in rng.choice(relation["frames"]).split("{entity}")
        )
        text = f"{before}[{entity}]{after}"
        fact = relation["answer"].format(entity=entity, value=relation["pairs"][entity])
        plain = _example(_type_like_people(text, rng), BENIGN)
        return Example(plain.prompt, BENIGN, plain.form, entity, fact)


def _example(bracketed: str, category: str) -> Example:
    match = re.search(r"\[(.*?)\]", bracketed)
    assert match, f"no [topic] in {bracketed!r}"
    prompt = bracketed.replace("[", "").replace("]", "")
    return Example(prompt, category, request_form(prompt), match[1])


def _type_like_people(text: str, rng: random.Random) -> str:
    if rng.random() < 0.15:
        text = rng.choice(_OPENERS) + text[0].lower() + text[1:]
    if rng.random() < 0.12:
        text = text.rstrip(".?!") + rng.choice(_CLOSERS)
    if rng.random() < 0.35:
        text = text.lower()
    if rng.random() < 0.25:
        text = text.rstrip(".?!")
    if rng.random() < 0.15:
        text = _typo(text, rng)
    return text


def _typo(text: str, rng: random.Random) -> str:
    """`text` with one typing error inside a word: two neighbouring letters swapped, or one dropped."""
    spots = [match.start() for match in re.finditer(r"(?<=[a-z])[a-z](?=[a-z])", text)]
    if not spots:
        return text
    spot = rng.choice(spots)
    if rng.random() < 0.5:
        return text[:spot] + text[spot + 1] + text[spot] + text[spot + 2 :]
    return text[:spot] + text[spot + 1 :]
