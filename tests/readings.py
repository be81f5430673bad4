"""The numbers that a notebook states in print, and the numbers that its executed copy shows as text."""

import re
from itertools import chain

SEE = r"\*\*What you should see[^*]*\*\*"
NUMBER = r"(?<![\w.])[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?"


def readings(cells: list[dict]) -> list[tuple[str, list[dict]]]:
    """(paragraph that tells what to see, cells of its section), for every such paragraph."""
    sections: list[list[dict]] = [[]]
    for cell in chain.from_iterable(map(parts, cells)):
        if cell["cell_type"] == "markdown" and source(cell).startswith("## "):
            sections.append([])
        sections[-1].append(cell)
    pairs = [(source(cell), section) for section in sections for cell in section if cell["cell_type"] == "markdown"]
    return [(re.split(SEE, text)[1], section) for text, section in pairs if re.search(SEE, text)]


def parts(cell: dict) -> list[dict]:
    """A Markdown cell in pieces, cut before each heading of a section; other cells whole."""
    if cell["cell_type"] != "markdown":
        return [cell]
    pieces = re.split(r"^(?=## )", source(cell), flags=re.M)
    return [{**cell, "source": piece} for piece in pieces if piece.strip()]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def bold_numbers(text: str) -> list[str]:
    """The numbers in bold print.

    >>> bold_numbers("it is **0.238** wide (chance 0.5), **7** of 11, **-0.06 to 24 %**")
    ['0.238', '7', '-0.06', '24 %']
    """
    bold = re.findall(r"\*\*([^*]+)\*\*", text)
    return [number for each in bold for number in re.findall(NUMBER + r"(?: ?%)?", each)]


def printed_numbers(section: list[dict]) -> list[float]:
    """The numbers that the code cells of a section show as text, leaving out what belongs to figures."""
    outputs = [output for cell in section if cell["cell_type"] == "code" for output in cell["outputs"]]
    texts = ["".join(output.get("text", "")) for output in outputs]
    shown = [output["data"] for output in outputs if "data" in output]
    shown = [data for data in shown if "application/vnd.plotly.v1+json" not in data]
    texts += ["".join(data[kind]) for data in shown for kind in ("text/plain", "text/markdown") if kind in data]
    texts += [re.sub(r"<[^>]+>", " ", "".join(data.get("text/html", ""))) for data in shown]
    return [value(number) for text in texts for number in re.findall(NUMBER, text)]


def is_printed(stated: str, printed: list[float]) -> bool:
    """Whether one of the printed numbers rounds to the stated one.

    Decimals and percentages may differ by one unit in the last place, since near ties fall otherwise on another
    processor.

    >>> is_printed("0.24", [0.2449]), is_printed("24 %", [0.243]), is_printed("7", [6.9])
    (True, True, False)
    """
    number = value(stated.rstrip(" %"))
    decimals = len(stated.rstrip(" %").partition(".")[2])
    if "%" not in stated and not decimals:
        return number in printed
    candidates = [*printed, *(100 * each for each in printed)] if "%" in stated else printed
    return any(abs(round(each, decimals) - number) < 1.01 * 10**-decimals for each in candidates)


def value(number: str) -> float:
    return float(number.replace("−", "-").replace(",", ""))
