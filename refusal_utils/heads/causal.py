"""Does a head do what its share says? Replace heads, and see what becomes of projection, refusal logit and response."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel
from ..steering.conditions import UNSTEERED, Condition
from ..steering.interventions import HeadReplacement
from ..steering.row_edits import RowEdits

COVERED = 0.8  # share of refusals whose first token is among the opening tokens


def head_outputs(
    chat: ChatModel,
    prompts: Sequence[str],
    layers: Sequence[int],
    positions: Sequence[int],
    cache_dir: str | Path | None = None,
) -> Float[Tensor, "prompt layer pos head_index d_head"]:
    """z of every head of `layers` at the prompt's last tokens, in the model's dtype. Raises as `capture_activations`."""
    model: Any = chat.bridge.original_model
    n_heads = model.config.get_text_config().num_attention_heads
    found = capture_activations(chat, prompts, layers=layers, positions=positions, hook="z", cache_dir=cache_dir)
    return found.values.unflatten(-1, (n_heads, -1))


def replacement(
    heads: Sequence[tuple[int, int]],
    outputs: Float[Tensor, "layer pos head_index d_head"],
    layers: Sequence[int],
    positions: Sequence[int],
) -> HeadReplacement:
    """The replacement of `heads` (layer, head_index) by their part of `outputs`, a mean or one prompt's own z."""
    values = torch.stack([outputs[list(layers).index(layer), :, head] for layer, head in heads])
    return HeadReplacement(tuple((int(layer), int(head)) for layer, head in heads), tuple(positions), values.float())


def head_conditions(
    name: str,
    heads: Sequence[Sequence[tuple[int, int]]],
    outputs: Float[Tensor, "*prompt layer pos head_index d_head"],
    layers: Sequence[int],
    positions: Sequence[int],
) -> list[Condition]:
    """One condition per prompt, called `name` and its number: its own `heads` replaced by their part of `outputs`.

    `outputs` are the same for all prompts (a mean), or one per prompt. Raises `ValueError` for another number of them.
    """
    each = outputs if outputs.ndim == 5 else outputs.expand(len(heads), *outputs.shape)
    if len(each) != len(heads):
        raise ValueError(
            f"head_conditions: there must be one output, or one per prompt; got {len(each)} for {len(heads)}. Match them."
        )
    made = [replacement(own, z, layers, positions) for own, z in zip(heads, each, strict=True)]
    return [Condition(f"{name} {row}", (edit,)) for row, edit in enumerate(made)]


def single_head_falls(
    chat: ChatModel,
    prompts: Sequence[str],
    along: Float[Tensor, "prompt d_model"],
    heads: Sequence[tuple[int, int]],
    outputs: Float[Tensor, "layer pos head_index d_head"],
    layers: Sequence[int],
    positions: Sequence[int],
) -> Float[Tensor, "component prompt"]:
    """How far each prompt's projection on its own direction falls when one of `heads` alone is replaced by `outputs`.

    In units of the residual stream, at the decision state; one row per head. Raises `ValueError` as `forward_under`.
    """
    before = (forward_under(chat, prompts, [UNSTEERED] * len(prompts))[0] * along).sum(1)
    falls = []
    for head in heads:
        edit = Condition(f"{head}", (replacement([head], outputs, layers, positions),))
        falls.append(before - (forward_under(chat, prompts, [edit] * len(prompts))[0] * along).sum(1))
    return torch.stack(falls)


def attention_pattern(
    chat: ChatModel, prompt: str, layer: int
) -> tuple[list[str], Float[Tensor, "head_index pos token"]]:
    """(the tokens of `prompt` in its chat, what every head of `layer` attends to): from each pos to each token, summing to 1.

    As float32 on the CPU, unsteered.
    """
    ids = torch.tensor(chat.encode([prompt]), device=chat.device)
    seen: list[Tensor] = []
    hook = (chat.hook_name("pattern", layer), lambda value, hook: seen.append(value[0].float().cpu()))
    with torch.inference_mode(), chat.bridge.hooks(fwd_hooks=[hook]):
        chat.bridge(ids)
    return [str(chat.tokenizer.decode([token])) for token in ids[0].tolist()], seen[0]


def same_layer_heads(
    heads: Sequence[tuple[int, int]], n_heads: int, n_draws: int, seed: int = 0
) -> list[list[tuple[int, int]]]:
    """`n_draws` sets of random heads, each with as many of every layer as `heads` has, none of them in `heads`.

    A layer with more heads in `heads` than are left gives what it has. The controls of an ablation. Raises `ValueError`
    for less than one draw.
    """
    if n_draws < 1:
        raise ValueError(
            f"same_layer_heads: at least 1 draw; got {n_draws}. An ablation without controls shows nothing."
        )
    generator = torch.Generator().manual_seed(seed)
    per_layer = Counter(layer for layer, _ in heads)
    draws = []
    for _ in range(n_draws):
        drawn = []
        for layer, count in sorted(per_layer.items()):
            left = [head for head in range(n_heads) if (layer, head) not in set(heads)]
            order = torch.randperm(len(left), generator=generator)[:count]
            drawn += [(layer, left[index]) for index in order.tolist()]
        draws.append(drawn)
    return draws


def forward_under(
    chat: ChatModel,
    prompts: Sequence[str],
    conditions: Sequence[Condition],
    *,
    layer: int | None = None,
    pos: int | None = None,
) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt d_vocab"]]:
    """(`resid_pre` of `layer` at `pos`, logits of the first token) of each prompt under the condition of the same index.

    As float32 on the CPU. Raises `ValueError` unless there is one condition per prompt.
    """
    if len(prompts) != len(conditions):
        raise ValueError(
            f"forward_under: there must be one condition per prompt; got {len(conditions)} for {len(prompts)}. Repeat it."
        )
    layer, pos = chat.decision_layer if layer is None else layer, chat.decision_pos if pos is None else pos
    ids, name = chat.encode(prompts), chat.hook_name("resid_pre", layer)
    batches = plan_batches(ids, token_budget("forward_under", None, chat.device))

    def step(rows: list[int]) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        hook = (name, lambda value, hook: seen.append(value[:, pos].float().cpu()))
        edits = RowEdits(chat, [conditions[row].interventions for row in rows])
        batch = chat.pad([ids[row] for row in rows])
        with edits.open(), chat.bridge.hooks(fwd_hooks=[hook]):
            logits = chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[:, -1]
        return seen[0], logits.float().cpu()

    states, logits = in_order(run_batches("forward_under", batches, step))
    return states, logits


def opening_tokens(chat: ChatModel, refused: Iterable[str], answered: Iterable[str]) -> Int[Tensor, " token"]:
    """The tokens that open this model's own refusals rather than its answers, commonest first.

    Those with a larger share of the refusals than of the answers, until they open 80 % of the refusals. Raises
    `ValueError` where refusals and answers begin alike.
    """
    shares = []
    for texts in (list(refused), list(answered)):
        first = Counter(chat.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in texts if text)
        shares.append({token: count / max(1, sum(first.values())) for token, count in first.items()})
    chosen, covered = [], 0.0
    for token, share in sorted(shares[0].items(), key=lambda item: -item[1]):
        if covered < COVERED and share > shares[1].get(token, 0.0):
            chosen.append(token)
            covered += share
    if not chosen:
        raise ValueError(
            f"opening_tokens: refusals must begin unlike answers; got the same in {len(shares[0])} openings. "
            "Use judged responses instead."
        )
    return torch.tensor(chosen)


def opens_with(chat: ChatModel, texts: Iterable[str], tokens: Int[Tensor, " token"]) -> Bool[Tensor, " row"]:
    """Whether each response begins with one of `tokens`, as of `opening_tokens`; an empty one does not."""
    known = set(tokens.tolist())
    first = (chat.tokenizer(text, add_special_tokens=False)["input_ids"][:1] for text in texts)
    return torch.tensor([not known.isdisjoint(own) for own in first], dtype=torch.bool)


def refusal_logit(logits: Float[Tensor, "prompt d_vocab"], tokens: Int[Tensor, " token"]) -> Float[Tensor, " prompt"]:
    """The log odds that the response opens with one of `tokens`. Source: the refusal score of Arditi et al. 2406.11717."""
    others = torch.ones(logits.shape[-1], dtype=torch.bool)
    others[tokens] = False
    return logits[:, tokens].logsumexp(-1) - logits[:, others].logsumexp(-1)
