"""Names from outside in figures, and marks that turn text around: what is changed, and what stays."""

import json

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import pytest

from refusal_utils.paper.tables import published_cosines
from refusal_utils.plotting.look import heatmap
from refusal_utils.plotting.texts import show_as_text, visible

NAME = "<a href='x'>\u202e</a>"
SHOWN = "&lt;a href='x'>\\u202e&lt;/a>"


@pytest.mark.parametrize("mark", ["\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069"])
def test_visible_writes_every_bidirectional_mark_and_nothing_else(mark):
    assert visible(f"a{mark}\u05d0 b") == f"a\\u{ord(mark):04x}\u05d0 b"


def test_names_become_text_wherever_a_figure_has_them():
    frame = pd.DataFrame({"at": [0.5, 1.5], "name": [NAME, "b"], NAME: [1, 2]})
    figure = px.scatter(frame, "at", NAME, color="name", hover_name="name", title=f"{NAME}<br>second line")
    figure.add_annotation(text=NAME, x=1, y=1)
    figure.update_layout(updatemenus=[{"buttons": [{"label": NAME, "args": [{"name": [NAME]}]}]}])
    assert show_as_text(figure) is figure
    text = json.loads(figure.to_json())
    assert NAME not in str(text).encode().decode("unicode_escape")
    assert figure.layout.title.text == f"{SHOWN}<br>second line"
    assert figure.data[0].name == figure.data[0].hovertext[0] == SHOWN
    assert figure.data[0].hovertemplate.startswith("<b>%{hovertext}</b><br>")
    assert figure.data[0].hovertemplate.endswith("<extra></extra>")
    assert figure.layout.annotations[0].text == figure.layout.updatemenus[0].buttons[0].label == SHOWN
    np.testing.assert_allclose(figure.data[0].x, [0.5])
    before = figure.to_json()
    assert show_as_text(figure).to_json() == before


def test_a_figure_of_plain_names_stays_as_it_is():
    figure = heatmap(published_cosines(), title="Table 1, a < b", value="cosine, layer 20")
    before = figure.to_json()
    assert show_as_text(figure).to_json() == before.replace("a \\u003c b", "a &lt; b")
    untouched = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    before = untouched.to_json()
    assert show_as_text(untouched).to_json() == before


def test_hover_texts_have_no_sign_of_a_quantity_without_a_name():
    frame = pd.DataFrame({"x": ["a"], "y": [1], "kind": ["own"]})
    figure = px.bar(frame, x="x", y="y", labels={"x": ""}, title="=")
    assert show_as_text(figure).data[0].hovertemplate == "%{x}<br>y=%{y}<extra></extra>"
    assert figure.layout.title.text == "="
    coloured = px.bar(frame, x="x", y="y", color="kind", labels={"kind": ""})
    assert show_as_text(coloured).data[0].hovertemplate == "own<br>x=%{x}<br>y=%{y}<extra></extra>"
