"""One prompt put to a live model: its tokens along every direction, and its answer with and without steering."""

import html
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions.direction_set import DirectionSet
from ..judging import Judge, judge_response
from ..model.chat_model import ChatModel
from ..model.forward import read_hooks
from ..plotting.look import heatmap
from ..plotting.texts import show_as_text
from ..steering import UNSTEERED
from ..steering.conditions import steering_condition
from ..steering.responses import respond

_WIDEST = 16  # tokens up to which the numbers fit into the cells


@dataclass(frozen=True, eq=False)
class Probe:
    """The tokens of a prompt in its chat, their projections, and the judged responses, unsteered and steered.

    `projections` are of resid_pre, in gaps of each direction: at the decision position 0 is the mean of the benign
    prompts and 1 that of the refused ones. `responses` has the columns of `respond`.
    """

    tokens: tuple[str, ...]
    projections: Float[Tensor, "direction token"] = field(repr=False)
    responses: pd.DataFrame = field(repr=False)
    names: tuple[str, ...]
    layer: int

    def table(self) -> pd.DataFrame:
        """Outcome, the words that decided it, and the response, of the unsteered and of the steered model."""
        rows = self.responses.assign(evidence=self.responses["evidence"].fillna(""))
        return rows.set_index("condition")[["outcome", "evidence", "response"]]

    def figure(self) -> go.Figure:
        """The projections as a map, directions in rows and tokens in columns."""
        plain = [repr(token)[1:-1].replace("\\'", "'") for token in self.tokens]
        columns = [f"{number} {html.escape(token, quote=False)}" for number, token in enumerate(plain)]
        table = pd.DataFrame(self.projections.numpy(), index=list(self.names), columns=columns)
        value = f"gaps above the mean of benign prompts, resid_pre, layer {self.layer}"
        figure = heatmap(table, title="What every token says along every direction", value=value, limits=(-2, 2))
        figure.update_traces({} if len(columns) <= _WIDEST else {"texttemplate": ""})
        return show_as_text(figure.update_layout(height=figure.layout.height + 6 * max(map(len, columns))))


def probe_prompt(
    chat: ChatModel,
    directions: DirectionSet,
    benign: Float[Tensor, " d_model"],
    prompt: str,
    name: str,
    gaps: float,
    *,
    judge: Judge = judge_response,
    max_new_tokens: int = 50,
) -> Probe:
    """The `Probe` of a prompt, steered along the direction `name` by `gaps`.

    `benign` is the mean state of benign prompts where `directions` were read. Raises `ValueError` for an empty or too
    long prompt, or one with chat markup, and for an unknown direction.
    """
    conditions = [UNSTEERED, steering_condition(directions, name, gaps=gaps)]
    asked = pd.DataFrame({"id": ["typed"], "text": [prompt]})
    responses = respond(chat, asked, conditions, judge=judge, max_new_tokens=max_new_tokens)
    tokens, states = token_states(chat, prompt, directions.provenance.layer)
    along = (states - benign) @ directions.vectors.T / directions.gaps
    return Probe(tokens, along.T, responses, tuple(directions), directions.provenance.layer)


def token_states(chat: ChatModel, prompt: str, layer: int) -> tuple[tuple[str, ...], Float[Tensor, "token d_model"]]:
    """(the tokens of a prompt in its chat, their resid_pre at `layer` as float32 on the CPU)."""
    (ids,) = chat.encode([prompt])
    name = chat.hook_name("resid_pre", layer)
    with torch.inference_mode():
        kept = read_hooks(chat, chat.pad([ids]), [name], lambda _, value: value[0].float().cpu())
    return tuple(str(chat.tokenizer.decode([token])) for token in ids), kept[name]
