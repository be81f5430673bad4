"""The marks of reasoning in chat templates and responses: tags, bracketed tokens and channels. Judges strip what they enclose."""

import re

# A tag of any vendor, by its brackets and what its name contains: <think>, <thought>, <seed:think>, <|START_THINKING|>,
# <|begin_of_thought|>, <|inner_prefix|> (Apertus), ◁think▷ (Kimi), [THINK] (Magistral; lower case is a stage direction).
_NAME = r"(?:[\w:]*think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|inner_monologue|analysis)"
_TAGS = (
    (rf"<(?i:{_NAME})>", rf"</(?i:{_NAME})>"),
    (r"\[(?:THINK|THINKING|REASONING|THOUGHT)\]", r"\[/(?:THINK|THINKING|REASONING|THOUGHT)\]"),
    (r"<\|(?i:(?:start|begin)_(?:of_)?(?:think|thinking|thought|reasoning))\|>", r"<\|(?i:end_(?:of_)?(?:think|thinking|thought|reasoning))\|>"),
    (r"<\|(?i:think|thinking|thought)\|>", r"<\|/(?i:think|thinking|thought)\|>"),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    (r"◁think▷", r"◁/think▷"),
    (r"<unused94>", r"<unused95>"),  # MedGemma
    (r"<\|channel>thought\b", r"<channel\|>"),  # Gemma 4
    (r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)\b", r"<\|channel\|>final(?: ?<\|constrain\|>\w*)?<\|message\|>"),  # harmony
    (r"\A\s*(?:analysis|commentary)(?=[A-Z\"'])", r"assistantfinal"),  # harmony whose special tokens were not decoded
    (r"\A\s*Here is my thought process:", r"Here is my response:"),  # Granite 3.2
)  # fmt: skip
_CODE = r"(?<!`)"  # a tag in backticks is what the text is about
_PAIRS = [
    re.compile(rf"{_CODE}{opening}(?:(?!{opening}).)*?{_CODE}{closing}", re.DOTALL)
    for opening, closing in _TAGS
    if "final" not in closing  # a harmony response may have several channels before the final one
]
_OPENED = re.compile("|".join(rf"{_CODE}{opening}" for opening, _ in _TAGS))
_CLOSED = re.compile("|".join(rf"{_CODE}{closing}" for _, closing in _TAGS))
# What wraps the answer after the reasoning.
_WRAPPERS = re.compile(
    r"<\|(?:START|END)_RESPONSE\|>|<\|(?:begin|end)_of_solution\|>"
    r"|\A\s*<(?i:answer|response|output|final)>|</(?i:answer|response|output|final)>\s*\Z"
)


def without_reasoning(text: str) -> str:
    """`text` without its reasoning and the tags around the answer; nothing if the reasoning never ends.

    Everything before a closing tag without an opening one is reasoning that the generation prompt opened.

    >>> without_reasoning("[THINK]Hm.[/THINK] Yes."), without_reasoning("Hm.</think> Yes."), without_reasoning("<think>Hm.")
    ('Yes.', 'Yes.', '')
    """
    if not (_OPENED.search(text) or _CLOSED.search(text) or _WRAPPERS.search(text)):
        return text.strip()
    for pair in _PAIRS:  # nested ones from the inside
        while pair.search(text):
            text = pair.sub("", text)
    text = _CLOSED.split(text)[-1]
    opened = _OPENED.search(text)
    return _WRAPPERS.sub("", text[: opened.start()] if opened else text).strip()


def opens_reasoning(text: str) -> str | None:
    """The first tag in `text` that opens reasoning; None without one.

    >>> opens_reasoning("<|START_THINKING|>So"), opens_reasoning("So")
    ('<|START_THINKING|>', None)
    """
    found = _OPENED.search(text)
    return found[0] if found else None
