from itertools import product

import pytest
import torch

from refusal_utils.steering.conditions import Condition
from refusal_utils.steering.contexts import intervene
from refusal_utils.steering.generation import generate
from refusal_utils.steering.interventions import Ablation, Addition
from tests.contexts import add_steering

from .plain_edits import PlainEdit, plain_greedy

N_NEW = 10
OPTIONS = [{"tokens": tokens, "every": every} for tokens, every in product(("all", "prompt", "generation"), (1, 2, 3))]


def name_of(kind, options):
    return f"{kind} {options['tokens']} {options['every']}"


@pytest.fixture(scope="module")
def generated(chat, prompts, direction):
    """Responses under every choice of tokens, all in one batch."""
    conditions = [Condition(name_of("add", each), (Addition(14 * direction, (2, 5), **each),)) for each in OPTIONS]
    conditions += [Condition(name_of("ablate", each), (Ablation(direction[None], **each),)) for each in OPTIONS]
    rows = generate(chat, prompts[1:4], conditions, max_new_tokens=N_NEW)
    assert rows.groupby("prompt")["response"].nunique().max() > 5  # the choice of tokens matters
    return rows.set_index("condition")["response"]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: name_of("", each))
@pytest.mark.parametrize("kind", ["add", "ablate"])
def test_chosen_tokens_are_those_of_a_plain_run_without_cache(
    chat, prompts, plain, plain_ids, direction, generated, kind, options
):
    n_prompt = 0

    def at_chosen(edit):
        def hook(hidden):
            indices = torch.arange(hidden.shape[1])
            part = {"all": indices >= 0, "prompt": indices < n_prompt, "generation": indices >= n_prompt}
            chosen = part[options["tokens"]] & (indices % options["every"] == 0)
            return torch.where(chosen[:, None], edit(hidden), hidden)

        return hook

    def remove(hidden):
        return hidden - (hidden @ direction)[..., None] * direction

    edit = at_chosen(remove if kind == "ablate" else lambda hidden: hidden + 14 * direction)
    layers, write = ([2, 5], None) if kind == "add" else ([0], edit)
    with PlainEdit(plain, layers, edit, write):
        for prompt, response in zip(prompts[1:4], generated[name_of(kind, options)], strict=True):
            ids = plain_ids(prompt)
            n_prompt = ids.shape[1]
            assert chat.tokenizer.decode(plain_greedy(plain, ids, N_NEW), skip_special_tokens=True).strip() == response


@pytest.mark.parametrize("tokens", ["prompt", "generation"])
def test_chosen_tokens_are_the_same_with_and_without_kv_cache(chat, prompts, direction, tokens):
    """Prompt and response in one padded pass: the last logits are those of the cached step."""
    condition = Condition("c", (Addition(9 * direction, (2,), tokens),))
    rows = generate(chat, prompts[:4], [condition], max_new_tokens=N_NEW)
    ids = [
        [*prompt, *chat.tokenizer(response, add_special_tokens=False)["input_ids"]]
        for prompt, response in zip(chat.encode(prompts[:4]), rows["response"], strict=True)
    ]
    batch = chat.pad([row[:-1] for row in ids])
    with torch.inference_mode(), intervene(chat, *condition.interventions):
        after = chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[:, -1].argmax(-1)
    assert after.tolist() == [row[-1] for row in ids]


def test_prompt_and_generation_cannot_be_told_apart_without_the_template(chat, direction):
    with (
        add_steering(chat, direction, tokens="prompt"),
        pytest.raises(ValueError, match="^intervene: prompt and generated tokens can only be told apart"),
    ):
        chat.bridge(torch.tensor([[20, 21, 22, 23, 24, 25]]))
