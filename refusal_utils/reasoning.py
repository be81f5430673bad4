"""Marks of reasoning in templates and responses: tags, bracketed tokens, channels. Judges strip what they enclose."""

import re
from itertools import takewhile
from typing import NamedTuple

# A tag of any vendor, by its brackets and by a word in its name: <think>, <seed:think>, <inner_thoughts>,
# <|START_THINKING|>, <|thinking_end|>, <|begin_of_thought|>, <|cot_start|>, ◁think▷ (Kimi), [THINK] (Magistral; lower
# case is a stage direction).
_NAME = r"(?:[\w.:▁-]*(?:think(?:ing)?|thoughts?)|(?:[\w.:▁-]*[_.:▁-])?(?:reasoning|cot|scratchpad|monologue))(?:[_.:▁-][\w.:▁-]*)?"
_NOT_QUOTED = (
    r"(?<!(?<!``)`)(?!(?<=\")[^\"\n]*\"|(?<=')[^'\n]*')"  # a tag in quotes or backticks is what the text is about
)
_TAG = rf"(?:[<◁][/|｜]{{0,2}}(?i:{_NAME}|inner_(?:prefix|suffix))(?:\s[^<>|]*)?[|｜]?[>▷]|\[/?(?:[A-Z]+_)*(?:THINK|THINKING|REASONING|THOUGHTS?|COT)\])"
# Ordinary XML has these names too: they mark reasoning only as the first thing in a response, with words inside and
# after.
_WORDS = r"(?i:reason|reflection|analysis|internal|rationale|deliberation|planning|contemplation)"
_WORD = rf"<(?P<word>{_WORDS})>(?!\s*<)"
_WORD_FIRST = re.compile(
    rf"\s*{_WORD}(?:.*?</(?i:(?P=word))>(?=\s*\S)|(?!.*</(?i:(?P=word))>).*)"
    rf"|(?:(?!</?{_WORDS}>|```).)+(?<![`\"'])</{_WORDS}>(?=\s*\S)",  # opened by the generation prompt
    re.DOTALL,
)
_MARKS = (
    (r"<unused94>", r"<unused95>"),  # MedGemma
    (r"\[unused16\]", r"\[unused17\]"),  # openPangu
    (r"<\|channel>thought\b", r"<channel\|>"),  # Gemma 4
    (r"<\|think\|>(?=(?:(?!<\|/think).)*<\|content\|>)", r"<\|content\|>"),  # Solar Open
    (r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)\b", r"<\|channel\|>final(?: ?<\|constrain\|>\w*)?<\|message\|>"),  # harmony
    (r"\A\s*(?:analysis|commentary)(?=[A-Z\"'])", r"assistantfinal"),  # harmony whose special tokens were not decoded
    (r"\A\s*Here is my thought process:", r"Here is my response:"),  # Granite 3.2
)  # fmt: skip
_OPENED = re.compile("|".join(f"(?<!(?<!``)`)({opening})" for opening, _ in _MARKS), re.DOTALL)
_CLOSED = re.compile("|".join(f"(?<!(?<!``)`)({closing})" for _, closing in _MARKS))
_TAGGED = re.compile(_NOT_QUOTED + _TAG)
_OPENED_FIRST = re.compile("|".join(opening.removeprefix(r"\A") for opening, _ in _MARKS if opening.startswith(r"\A")))
_WORD_TAG = re.compile(rf"</?{_WORDS}>")
_IN_TEMPLATE = re.compile(rf"{_OPENED.pattern}|{_TAG}|{_WORD}", re.DOTALL)
# Reasoning as user interfaces show it.
_SHOWN = re.compile(
    r"<details type=\"reasoning\".*?(?:</details>|\Z)|\A\s*```(?:thinking|thoughts?|reasoning)\n.*?(?:\n```|\Z)"
    r"|\A\s*Thinking\.\.\.\n.*?(?:\.\.\.done thinking\.|\Z)",
    re.DOTALL,
)
# Code and elements of XML: tags inside them are part of an answer.
_CODE = re.compile(
    r"```.*?(?:```|\Z)|<(?!(?:answer|response|output|final)\b)([a-z][\w-]*)(?:\s[^<>]*)?>.*?</\1>", re.DOTALL
)
_ANY = re.compile(r"[<\[◁]|```t|\A\s*(?:analysis|commentary|Here is my|Thinking)|assistantfinal|Here is my response:")
# What wraps the answer after the reasoning.
_WRAPPERS = re.compile(
    r"<\|(?:START|END)_RESPONSE\|>|<\|(?:begin|end)_of_solution\|>|<\|(?:answer|response)_(?:start|end)\|>"
    r"|\A\s*<(?i:answer|response|output|final)>|</(?i:answer|response|output|final)>\s*\Z"
)


class _Mark(NamedTuple):
    """A mark in a text: where it is, what it belongs to, and whether it closes."""

    start: int
    end: int
    name: str
    closes: bool


def without_reasoning(text: str) -> str:
    """`text` without its reasoning and the tags around the answer; nothing if the reasoning never ends.

    Everything before a closing tag without an opening one is reasoning that the generation prompt opened. Tags in code,
    and inside elements of XML, are part of the answer.

    >>> without_reasoning("[THINK]Hm.[/THINK] Yes."), without_reasoning("Hm.</think> Yes."), without_reasoning("<cot>H")
    ('Yes.', 'Yes.', '')
    """
    if not _ANY.search(text):
        return text.strip()
    text = _SHOWN.sub("", text)
    marks = _marks(text)
    if marks and marks[0].closes:  # before code is looked for: reasoning may hold half of it
        text = text[marks[0].end :]
        marks = _marks(text)
    at, kept, last_word = 0, "", max((found.start() for found in _WORD_TAG.finditer(text)), default=-1)
    while True:
        first = _WORD_FIRST.match(text, at) if at <= last_word and not kept.strip() else None
        start, end, opened = (at, first.end(), True) if first else _next_part(text, marks, at)
        if end == 0:
            return _WRAPPERS.sub("", kept + text[at:]).strip()
        kept, at = kept + text[at:start] if opened else "", end
        is_split = any(mark.start < at < mark.end for mark in marks)
        marks = _marks(text, at) if is_split or _OPENED_FIRST.match(text, at) else [m for m in marks if m.start >= at]


def opens_reasoning(text: str) -> str | None:
    """The first tag in `text` that opens reasoning; None without one.

    >>> opens_reasoning("<|START_THINKING|>So"), opens_reasoning("So")
    ('<|START_THINKING|>', None)
    """
    return next((found[0] for found in _IN_TEMPLATE.finditer(text) if not _closes(found[0])), None)


def ends_in_reasoning(text: str) -> bool:
    """Whether `text` ends inside reasoning, as some generation prompts do.

    >>> ends_in_reasoning("<think>Hm."), ends_in_reasoning("<think></think>So")
    (True, False)
    """
    opened = [found.end() for found in _IN_TEMPLATE.finditer(text) if not _closes(found[0])]
    return bool(opened) and without_reasoning(f"{text[opened[-1] :]}Yes") == f"{text[opened[-1] :]}Yes".strip()


def _next_part(text: str, marks: list[_Mark], at: int) -> tuple[int, int, bool]:
    """(start, end, whether a mark opens it) of the first reasoning from `at` on; (0, 0, False) without any."""
    for index, mark in enumerate(marks):
        code = takewhile(lambda span: span[0] < mark.start, (found.span() for found in _CODE.finditer(text, at)))  # noqa: B023
        if any(mark.end <= end for _, end in code):
            continue
        return (mark.start, _end(marks[index:], len(text)), True) if not mark.closes else (at, mark.end, False)
    return 0, 0, False


def _end(marks: list[_Mark], length: int) -> int:
    """Where the reasoning ends that the first of `marks` opens: at its closing mark, else at the last, else never."""
    depth = 0
    for mark in (each for each in marks if each.name == marks[0].name):
        depth += -1 if mark.closes else 1
        if depth == 0:
            return mark.end
    own = [mark.end for mark in marks if mark.closes and mark.name == marks[0].name]
    closing = own or [mark.end for mark in marks if mark.closes]
    return closing[-1] if closing else length


def _marks(text: str, at: int = 0) -> list[_Mark]:
    """All marks of reasoning in what follows position `at`, in order."""
    rest = text[at:]
    found = [(each.span(), _key(each[0]), _closes(each[0])) for each in _TAGGED.finditer(rest)]
    for pattern, closes in ((_OPENED, False), (_CLOSED, True)):
        found += [(each.span(), f"mark {each.lastindex}", closes) for each in pattern.finditer(rest)]
    return sorted(_Mark(at + start, at + end, name, closes) for (start, end), name, closes in found)


def _closes(tag: str) -> bool:
    return tag[1:3].strip("|｜").startswith("/") or not {"end", "suffix", "close"}.isdisjoint(_parts(tag))


def _key(tag: str) -> str:
    """What the opening and the closing tag of a pair have in common."""
    ends = {"", "start", "begin", "open", "prefix", "of", "end", "close", "suffix"}
    return " ".join(part for part in _parts(tag) if part not in ends)


def _parts(tag: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", tag.lower().split()[0])
