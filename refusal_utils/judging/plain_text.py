"""Responses as plain text, so that one pattern matches all spellings: no markup, one kind of apostrophe and blank."""

import html
import re
import unicodedata

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼʻʹʽˈ′´՚ꞌ‵＇", "'") | dict.fromkeys("‐‑﹣－", "-"))
_TAG = re.compile(r"</?(?:a|b|i|u|s|p|em|strong|br|hr|span|div|font|ul|ol|li|h[1-6]|blockquote|mark|small|sup|sub)(?:\s[^<>\n]*)?/?>", re.I)  # fmt: skip
_EMPHASIS = re.compile(
    r"[*~]+(?=[^\W\d_])|(?<=[^\W\d_.!?,:;)'\"])[*~]+|(?<=[.!?,:;)'\"])[*~]+(?=\s|$)|(?<!\w)_{1,3}(?=\w)|(?<=[\w.!?,])_{1,3}(?!\w)"
)
_LINK = re.compile(r"!?\[([^\]\n]+)\]\([^()\s]+\)")
_OPENING_MARK = re.compile(r"\A(?:\s*(?:[-+*•·◦‣–—]|#{1,6}|>+|\(?\d{1,2}[.)])\s+|\s*>)+")
_HEADING = re.compile(r"^[ ]*(?:#{1,6} +|> ?)", re.MULTILINE)
_FENCE = re.compile(r"\A\s*(`{3,}|~{3,})\w*\n(?P<inside>(?:(?!\1).)*)(?:\1\s*)?\Z", re.DOTALL)
_QUOTES = ('""', "“”", "„“", "„”", "«»", "»«", "‹›", "''", "``", "「」", "『』", "《》", "()", "[]")
# Negations written without their apostrophe, or with a blank in it.
_BARE_NOT = re.compile(
    r"\b(ca|(?<!was )wo|do|does|did|is|are|was|were|could|would|should|must|have|has|had)n[ ]?(?:'[ ]|[ ]')?t\b", re.I
)
_BARE_I = re.compile(
    r"\b(?:i|I) ?(?:'[ ]|[ ]')?(m|ve|ll|d)(?= (?:\w+ ){0,2}?(?:sorry|afraid|unable|not|an?|just|only|unfortunately|have|never|rather)\b)"
)
_LETTERS = r"[^\W\d_]"


def plain_text(text: str) -> str:
    """`text` without markup and spelled one way; its words and lines stay.

    Removed are Markdown emphasis, headings, links and fences, HTML tags and entities, the list mark at the beginning,
    quotation marks around the whole text, and invisible characters. Full-width and mathematical letters become plain
    ones, all apostrophes straight, and runs of blanks one blank.

    >>> plain_text("> “I&nbsp;**can´t**  help.”")
    "I can't help."
    """
    text = html.unescape(html.unescape(text)).translate(_APOSTROPHES)
    text = re.sub(rf"(?<={_LETTERS})`(?={_LETTERS})", "'", text)
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
    text = "".join(each for each in text if unicodedata.category(each) not in ("Cf", "Cc", "Co") or each in "\n\t")
    text = re.sub(r"[\ufe00-\ufe0f\u034f\u115f\u1160\u2800]", "", text)
    text = _TAG.sub("", _LINK.sub(r"\1", text))
    fenced = _FENCE.search(text)
    text = fenced["inside"] if fenced else text
    text = _unquoted(text)
    text = _EMPHASIS.sub("", _HEADING.sub("", _OPENING_MARK.sub("", text)))
    text = re.sub(r"(?<=[a-z,]) ?\n ?(?=[a-z])", " ", re.sub(r"[^\S\n]+", " ", text))
    return _spelled(_unquoted(text)).strip()


def _unquoted(text: str) -> str:
    """`text` without quotation marks around all of it."""
    text = text.strip()
    for opening, closing in map(tuple, _QUOTES):
        if len(text) < 3 or text[0] != opening or text[-1] != closing:
            continue
        inside = text[1:-1]
        if not {opening, closing} & set(re.sub(rf"(?<={_LETTERS})'(?={_LETTERS})", "", inside)):
            return _unquoted(inside)
    return text


def _spelled(text: str) -> str:
    """`text` with the apostrophes of English negations and of "I'm"."""
    text = _BARE_NOT.sub(lambda found: f"{found[1]}n't", text)
    return _BARE_I.sub(lambda found: f"I'{found[1]}", text)
