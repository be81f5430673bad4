"""Texts of figures as they are: neither markup of plotly nor marks that turn the text around them."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go

_TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # Unicode's bidirectional marks
# A tag, but no line break, no end of a hover text, and no bold print of what is looked up (`<b>%{...}</b>`).
_TAG = re.compile(r"<(?!br>|/?extra>|b>%\{|(?<=\}<)/b>)")

# Plotly express writes `=%{x}`, or `=` and a value, for a quantity without a name.
_UNNAMED = re.compile(r"(?:^|(?<=<br>))=(?=.*<extra>)", re.DOTALL)


def visible(text: str) -> str:
    r"""`text` with its bidirectional marks written as escapes, so that none of them can reorder what stands around it.

    >>> print(visible("a\u202eb"))
    a\u202eb
    """
    return _TURNING.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text)


def show_as_text(figure: go.Figure) -> go.Figure:
    """`figure`, changed in place: all its texts are `visible`; only `<br>` and what plotly express writes stay markup.

    Plotly would otherwise make links and styles of tags in names that came from outside. Hover texts lose the `=` of
    quantities without a name.
    """
    parts = {"data": [trace.to_plotly_json() for trace in figure.data], "layout": figure.layout.to_plotly_json()}
    if any(text != _as_text(text) for text in _texts(parts)):
        figure.update(**_each_as_text(parts))
    return figure


def _as_text(text: str) -> str:
    return _UNNAMED.sub("", _TAG.sub("&lt;", visible(text)))


def _texts(value: Any) -> Iterator[str]:
    """Every text in nested dictionaries, lists and arrays of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype.kind in "OU"):
        for part in value:
            yield from _texts(part)


def _each_as_text(value: Any) -> Any:
    """The same with all texts changed; arrays with texts become lists."""
    if isinstance(value, str):
        return _as_text(value)
    if isinstance(value, dict):
        return {key: _each_as_text(part) for key, part in value.items()}
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype.kind in "OU"):
        return [_each_as_text(part) for part in value]
    return value
