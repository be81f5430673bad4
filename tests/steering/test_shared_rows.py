import pytest
import torch

from refusal_utils.directions.estimation import normalize
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.generation import generate
from refusal_utils.steering.interventions import Addition
from refusal_utils.steering.shared_rows import SharedRows

LAYER, N_NEW = 5, 16


@pytest.fixture(scope="module")
def sweep(chat) -> list[Condition]:
    """Strengths of one direction (much of what they say is the same) and another direction."""
    first, second = normalize(torch.randn(2, chat.d_model, generator=torch.Generator().manual_seed(3)))
    strengths = [Condition(f"{alpha}", (Addition(alpha * first, (LAYER,)),)) for alpha in (0.1, 0.2, 12.0, -14.0)]
    return [*strengths, Condition("other", (Addition(9 * second, (LAYER, LAYER + 1), "generation"),))]


def rows_of_blocks(chat, layers, work):
    """How many rows the block of each of `layers` computes in each forward pass of `work`."""
    seen = {layer: [] for layer in layers}
    handles = [
        chat.bridge.blocks[layer].register_forward_hook(lambda block, args, out, own=own: own.append(len(args[0])))
        for layer, own in seen.items()
    ]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    return list(seen.values())


def said(chat, rows):
    """(prompt, tokens of the response with its stop) of every row."""
    stop = [chat.tokenizer.eos_token_id]
    ids = [chat.tokenizer(text, add_special_tokens=False)["input_ids"] for text in rows["response"]]
    return [
        (prompt, (tokens + stop * stopped)[:n])
        for prompt, tokens, n, stopped in zip(rows["prompt"], ids, rows["n_tokens"], rows["stopped"], strict=True)
    ]


def test_below_the_edit_each_different_text_is_computed_once_and_above_it_every_row(chat, prompts, sweep):
    """Counted from the responses alone: how many different texts, and how many rows, there are before each token."""
    rows = generate(chat, prompts[:6], sweep, max_new_tokens=N_NEW)
    texts = said(chat, rows)
    live = [[text for text in texts if len(text[1]) > n] for n in range(N_NEW)]
    different = [len({(prompt, tuple(tokens[:n])) for prompt, tokens in alive}) for n, alive in enumerate(live)]
    n_steps = max(len(tokens) for _, tokens in texts)

    def work():
        generate(chat, prompts[:6], sweep, max_new_tokens=N_NEW)

    below, at, above = rows_of_blocks(chat, (LAYER - 1, LAYER, LAYER + 1), work)
    assert below == different[:n_steps]
    assert at == above == [len(alive) for alive in live[:n_steps]]
    assert different[0] == 6
    assert 6 < different[10] < len(live[10])  # before: texts have parted, and not all of them


def test_rows_that_share_layers_respond_as_each_does_alone(chat, prompts, sweep):
    together = generate(chat, prompts[:4], [*sweep, UNSTEERED], max_new_tokens=N_NEW)
    for condition in (sweep[1], sweep[3], sweep[4]):
        for prompt in range(4):
            alone = generate(chat, [prompts[prompt]], [condition], max_new_tokens=N_NEW)
            row = together[(together["prompt"] == prompt) & (together["condition"] == condition.name)]
            assert row["response"].item() == alone["response"].item()
    assert together.groupby("prompt")["response"].nunique().max() > 2


def test_hooks_from_outside_see_every_row(chat, prompts, sweep):
    seen = []
    hook = (chat.hook_name("resid_pre", 2), lambda value, hook: seen.append(len(value)))
    with chat.bridge.hooks(fwd_hooks=[hook]):
        generate(chat, prompts[:3], sweep, max_new_tokens=4)
    assert seen[0] == 3 * len(sweep)


def test_spread_gives_every_row_its_groups_line_and_leaves_the_rest(chat, prompts):
    first, second = chat.encode(prompts[:2])
    shared = SharedRows(chat, [second, first, second], 3)
    assert shared.ids.shape[0] == 2
    mask, number, steps = torch.rand(2, 1, 4, 4), torch.rand(5, 2), torch.arange(2)
    spread, (kept, same), text = shared.spread([mask, (number, steps), "text"])
    torch.testing.assert_close(spread, torch.stack([mask[0], mask[1], mask[0]]))
    assert kept is number
    assert same is steps  # one axis only: not of the batch
    assert text == "text"
