"""Latent cards: what each latent fires on, writes, reads and does, as a page to browse offline and as CSV."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require_columns
from ..model.chat_model import ChatModel
from ..plotting.look import heatmap
from ..prompts.categories import BENIGN
from ..steering.given_responses import GivenResponse
from .effects import LatentEffects
from .firing import Firing
from .page import cards_page
from .sae import SparseAutoencoder
from .token_states import token_states

N_TOP, N_TOKENS = 3, 8  # prompts and output tokens on a card
HIDDEN = "(text hidden)"


@dataclass(frozen=True, eq=False)
class LatentCards:
    """A card per latent.

    `rows`: label, category, auc, effect with its interval, output tokens, and the ids of its top prompts. `rates`: the
    share of each side's prompts on which it fires. `marked`: its top prompts with marked tokens, as safe HTML.
    """

    rows: pd.DataFrame = field(repr=False)
    rates: pd.DataFrame = field(repr=False)
    marked: dict[int, list[str]] = field(repr=False)

    def table(self) -> pd.DataFrame:
        """The cards as rows, with the firing rates."""
        return self.rows.join(self.rates.add_prefix("rate "))

    def labelled(self, label: Callable[[pd.Series], str]) -> "LatentCards":
        """The same with labels: `label` gets a row of `table`, whose name is the latent's number."""
        table = self.table()
        return replace(self, rows=self.rows.assign(label=[str(label(row)) for _, row in table.iterrows()]))

    def figure(self) -> go.Figure:
        """The share of each side's prompts on which each latent fires."""
        table = self.rates.rename(index=lambda latent: f"latent {latent}").rename_axis(index="", columns="")
        title = "How often the leading latents fire, by category"
        return heatmap(table, title=title, value="firing rate", limits=(0, 1))

    def write(self, path: str | Path, title: str) -> Path:
        """The path of the page: one HTML file that works offline; the table lies next to it as CSV."""
        page = Path(path).with_suffix(".html")
        self.table().round(4).to_csv(page.with_suffix(".csv"))
        page.write_text(cards_page(self.table().round(3), self.marked, title), encoding="utf-8")
        return page


def latent_cards(
    chat: ChatModel,
    sae: SparseAutoencoder,
    effects: LatentEffects,
    firing: Firing,
    prompts: pd.DataFrame,
    *,
    show_harmful: bool = False,
) -> LatentCards:
    """The cards of the latents of `effects`; their top prompts are looked for in `prompts` (id, category, text).

    The text of other than benign prompts is left out unless `show_harmful`: their ids and the number of the strongest
    token are given instead. Raises `ValueError` as `token_states` does.
    """
    require_columns("latent_cards", prompts, "id", "category", "text")
    latents = list(effects.table().index)
    activations = _Activations(chat, sae, prompts, latents)
    written = nearest_tokens(chat, sae.w_dec[latents])
    rows = effects.table().assign(label="", tokens=[" ".join(map(repr, each)) for each in written])
    top = {latent: activations.top(column) for column, latent in enumerate(latents)}
    rows["top prompts"] = [" ".join(prompts["id"].iloc[top[latent]].astype(str)) for latent in latents]
    rates = pd.DataFrame({name: firing.rates(name)[latents].tolist() for name in firing.fires}, index=latents)
    marked = {
        latent: [activations.marked(chat, row, column, show_harmful) for row in top[latent]]
        for column, latent in enumerate(latents)
    }
    order = ["label", "category", "auc", "effect", "low", "high", "tokens", "top prompts"]
    return LatentCards(rows[order], rates.rename_axis("latent"), marked)


def nearest_tokens(chat: ChatModel, rows: Float[Tensor, "latent d_model"], n: int = N_TOKENS) -> list[list[str]]:
    """The output tokens whose logits each row of the decoder raises most, as if nothing came after it.

    The gain of the last normalisation is applied if the model has one under its usual name.
    """
    model: Any = chat.bridge.original_model
    unembed = model.get_output_embeddings().weight.detach().float().cpu()
    gain = getattr(getattr(getattr(model, "model", None), "norm", None), "weight", None)
    scaled = rows.float().cpu() * (1.0 if gain is None else gain.detach().float().cpu())
    best = (scaled @ unembed.T).topk(n, dim=-1).indices
    return [[str(chat.tokenizer.decode([token])) for token in own] for own in best.tolist()]


class _Activations:
    """The activations of some latents at every token of some prompts, and the prompts where they are largest."""

    def __init__(self, chat: ChatModel, sae: SparseAutoencoder, prompts: pd.DataFrame, latents: Sequence[int]) -> None:
        self.prompts, self.ids = prompts, chat.encode(list(prompts["text"]))
        states = token_states(chat, [GivenResponse(ids, 0) for ids in self.ids], [sae.layer])
        batches = states.values[sae.layer].split(4096)
        self.values = torch.cat([sae.encode(batch)[:, list(latents)] for batch in batches])
        self.starts = [0, *torch.tensor([len(ids) for ids in self.ids]).cumsum(0).tolist()]

    @cached_property
    def highest(self) -> Float[Tensor, "prompt latent"]:
        """The largest activation of each latent in each prompt."""
        spans = zip(self.starts, self.starts[1:], strict=False)
        return torch.stack([self.values[start:end].amax(0) for start, end in spans])

    def top(self, column: int) -> list[int]:
        """The rows of the prompts with the largest activations, of those where the latent fires."""
        best = self.highest[:, column].topk(min(N_TOP, len(self.ids))).indices
        return [row for row in best.tolist() if self.highest[row, column] > 0]

    def marked(self, chat: ChatModel, row: int, column: int, show_harmful: bool) -> str:
        """A prompt as HTML, its tokens shaded by the latent's activation; without its text unless it may be shown."""
        values = self.values[self.starts[row] : self.starts[row + 1], column]
        prompt = self.prompts.iloc[row]
        name = f"<bdi>{html.escape(str(prompt['id']))}</bdi>: "
        if prompt["category"] != BENIGN and not show_harmful:
            return f"{name}{HIDDEN}, strongest at token {int(values.argmax())} of {len(values)}"
        shades = (values / values.max()).tolist()
        pieces = [html.escape(str(chat.tokenizer.decode([token]))) for token in self.ids[row]]
        spans = zip(pieces, shades, strict=True)
        marked = "".join(
            f'<mark style="background:rgba(213,94,0,{shade:.2f})">{text}</mark>' if shade > 0.05 else text
            for text, shade in spans
        )
        return f"{name}<bdi>{marked}</bdi>"
