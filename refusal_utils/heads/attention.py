"""What one layer's heads attend to."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.chat_model import ChatModel
from ..model.forward import read_hooks
from ..plotting.texts import visible

# A token is isolated: one with a bidirectional mark must not turn the next ones around.
STYLE = "padding:2px 1px;border-radius:3px;font-family:monospace;white-space:pre-wrap;unicode-bidi:isolate"


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of every head of a layer from each position to each token; from a position it sums to 1."""

    tokens: list[str]
    weights: Float[Tensor, "head_index pos token"] = field(repr=False)

    def most(self, head: int, pos: int) -> tuple[str, float]:
        """(the token that a head attends to most from a position, its attention)."""
        weights = self.weights[head, pos]
        return self.tokens[int(weights.argmax())], float(weights.max())

    def strip(self, head: int, pos: int, title: str) -> str:
        """The tokens as HTML, darker the more a head attends to them; works offline and in untrusted notebooks.

        >>> "&lt;b&gt;" in Attention(["<b>"], torch.ones(1, 1, 1)).strip(0, -1, "head 5.4")
        True
        """
        weights = self.weights[head, pos].tolist()
        most = max(*weights, 1e-9)
        spans = [
            f'<span title="{weight:.3f}" style="{STYLE};background:rgba(213,94,0,{weight / most:.2f})">'
            f"{html.escape(token)}</span>"
            for token, weight in zip(self.tokens, weights, strict=True)
        ]
        return f"<div><b>{html.escape(visible(title))}</b><br>{''.join(spans)}</div>"

    def patterns(self, heads: Sequence[int]) -> str:
        """The whole patterns of some heads as circuitsvis shows them: HTML that works offline in trusted notebooks.

        Tokens are escaped, because circuitsvis takes them for HTML.
        """
        from circuitsvis.attention import attention_patterns

        tokens = [html.escape(visible(token)) for token in self.tokens]
        return str(attention_patterns(tokens, self.weights[list(heads)]).local_src)


def attention_pattern(chat: ChatModel, prompt: str, layer: int) -> Attention:
    """The attention of `layer` on `prompt` in its chat, as float32 on the CPU."""
    (ids,) = chat.encode([prompt])
    name = chat.hook_name("pattern", layer)
    with torch.inference_mode():
        kept = read_hooks(chat, chat.pad([ids]), [name], lambda _, value: value[0].float().cpu())
    return Attention([str(chat.tokenizer.decode([token])) for token in ids], kept[name])
