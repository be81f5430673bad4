from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.directions.estimation import normalize
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS, load_chat_model
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.contexts import intervene
from refusal_utils.steering.generation import generate
from refusal_utils.steering.interventions import (
    Ablation,
    Addition,
    HeadReplacement,
    PartialAblation,
    SequentialAblation,
)
from refusal_utils.steering.row_edits import RowEdits, written_hooks
from tests.contexts import ablate_direction, add_steering

from .plain_edits import PlainEdit, logits_of

N_NEW = 12


@pytest.fixture(scope="module")
def exact():
    """The bundled model in float64, and the same by Hugging Face alone: rounding does not hide what an edit does."""
    own = load_chat_model("bundled", device="cpu")
    own.bridge.original_model.to(torch.float64)
    return own, AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32).eval().to(torch.float64)


def plane(d_model):
    """Two directions that are not orthogonal, the projector on their span by least squares, and a reference."""
    draws = torch.randn(3, d_model, generator=torch.Generator().manual_seed(11))
    pair = torch.stack([normalize(draws[0]), normalize(draws[0] + 0.5 * draws[1])])
    return pair, torch.linalg.pinv(pair.double()) @ pair.double(), 3 * draws[2]


KINDS = ["addition", "norm kept", "ablation", "ablation at layers", "affine", "affine at layers"]
KINDS += ["in turn", "affine in turn at layers", "in part", "affine in part at layers"]


def both_ways(kind, d_model, **options):
    """An intervention and its plain code: the layers it edits, the edit there, and the edit of what is written."""
    pair, projector, reference = plane(d_model)
    if kind in ("addition", "norm kept"):
        vector = 9 * pair[0]

        def add(hidden):
            moved = hidden + vector.double()
            return moved if kind == "addition" else moved * (hidden.norm(dim=-1) / moved.norm(dim=-1))[..., None]

        return Addition(vector, (2, 5), keep_norm=kind == "norm kept", **options), [2, 5], add, None

    def remove(hidden):
        return hidden - hidden @ projector

    def put_back(hidden):
        return remove(hidden) + ("affine" in kind) * (reference.double() @ projector)

    layers, make = (2, 5) if "at layers" in kind else None, Ablation
    if "in turn" in kind:
        make, (first, second) = SequentialAblation, (torch.eye(d_model).double() - each.outer(each) for each in pair)
        projector = torch.eye(d_model).double() - first.double() @ second.double()
    if "in part" in kind:
        make, projector = partial(PartialAblation, share=0.4), 0.4 * projector
    given = make(pair, layers, reference if "affine" in kind else None, **options)
    return given, list(layers or (0,)), put_back, None if layers else remove


@pytest.mark.parametrize("tokens", ["all", "prompt", "generation"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_under_every_edit_are_those_of_plain_hugging_face_within_1e_5(
    exact, prompts, plain_ids, kind, tokens, every
):
    """At every token of a prompt and of what follows it. Ablations remove a plane of two directions."""
    own, plain = exact
    prompt, more = plain_ids(prompts[2]), plain_ids(prompts[0])[:, 3:9]
    ids = torch.cat([prompt, more], dim=1)
    indices, n_prompt = torch.arange(ids.shape[1]), prompt.shape[1]
    kinds = {"all": indices >= 0, "prompt": indices < n_prompt, "generation": indices >= n_prompt}
    chosen = (kinds[tokens] & (indices % every == 0))[:, None]
    given, layers, edit, write = both_ways(kind, own.d_model, tokens=tokens, every=every)
    with torch.inference_mode():
        before = own.bridge(ids)
        with intervene(own, given):
            ours = own.bridge(ids)
    assert float((ours - before).abs().max()) > 1e-2  # before control

    def at_chosen(change):
        return change and (lambda hidden: torch.where(chosen, change(hidden), hidden))

    with PlainEdit(plain, layers, at_chosen(edit), at_chosen(write)), torch.no_grad():
        torch.testing.assert_close(ours, plain(ids).logits, atol=1e-5, rtol=0)


def along(chat, prompts, direction, hook="resid_post"):
    """The projections of `hook` on `direction` [layer, token], real tokens only."""
    batch = chat.pad(chat.encode(prompts))
    names = [chat.hook_name(hook, layer) for layer in range(chat.n_layers)]
    _, cache = chat.bridge.run_with_cache(batch.input_ids, attention_mask=batch.attention_mask, names_filter=names)
    return torch.stack([(cache[name] @ direction)[batch.attention_mask.bool()] for name in names])


@pytest.mark.parametrize("hook", ["resid_pre", "attn_out", "mlp_out", "resid_post"])
def test_ablation_leaves_nothing_along_the_direction_at_any_hook_of_the_stream(chat, prompts, direction, hook):
    assert float(along(chat, prompts[:4], direction, hook).abs().amax(-1).min()) > 1e-3  # before
    with ablate_direction(chat, direction):
        assert float(along(chat, prompts[:4], direction, hook).abs().max()) < 1e-4


def test_ablating_a_plane_leaves_nothing_along_either_of_its_directions(chat, prompts):
    pair, _, _ = plane(chat.d_model)
    assert float(pair[0] @ pair[1]) > 0.5  # not orthogonal
    for direction in pair:
        assert float(along(chat, prompts[:4], direction).abs().amax(-1).min()) > 1e-2  # before
    with ablate_direction(chat, pair):
        for direction in pair:
            assert float(along(chat, prompts[:4], direction).abs().max()) < 1e-4


def test_directions_removed_in_turn_leave_part_of_the_first_and_nothing_of_the_last(chat, prompts):
    pair, _, _ = plane(chat.d_model)
    for order in (pair, pair.flip(0)):
        with intervene(chat, SequentialAblation(order)):
            first, last = (along(chat, prompts[:4], direction).abs().max() for direction in order)
        assert float(last) < 1e-4
        assert float(first) > 1e-2


def test_orthogonal_directions_removed_in_turn_are_a_subspace_removed(chat, prompts, direction, other):
    pair = torch.stack([direction, normalize(other - (other @ direction) * direction)])
    with intervene(chat, SequentialAblation(pair)):
        in_turn = logits_of(chat, prompts[:4])
    with intervene(chat, Ablation(pair)):
        torch.testing.assert_close(in_turn, logits_of(chat, prompts[:4]), atol=2e-5, rtol=0)


def test_an_ablation_in_part_leaves_its_share_along_the_direction_where_nothing_else_differs(chat, prompts, direction):
    """At the first layer, whose input is not yet changed by other edits; a share of 1 leaves nothing at any."""
    before = along(chat, prompts[:4], direction, "resid_pre")[0]
    assert float(before.abs().max()) > 1e-2
    with intervene(chat, PartialAblation(direction[None], share=0.25)):
        torch.testing.assert_close(along(chat, prompts[:4], direction, "resid_pre")[0], 0.75 * before)
    with intervene(chat, PartialAblation(direction[None])):
        assert float(along(chat, prompts[:4], direction).abs().max()) < 1e-4
    with pytest.raises(ValueError, match="^intervene: the share must be from 0 to 1; got 1.5"):
        intervene(chat, PartialAblation(direction[None], share=1.5)).__enter__()


def test_affine_ablation_leaves_the_component_of_the_reference_everywhere(chat, prompts, direction):
    reference = 3 * torch.randn(chat.d_model, generator=torch.Generator().manual_seed(9))
    with ablate_direction(chat, direction, reference=reference):
        left = along(chat, prompts[:4], direction)
    torch.testing.assert_close(left, torch.full_like(left, float(reference @ direction)), atol=2e-5, rtol=0)
    with ablate_direction(chat, direction, reference=reference, layers=(3,)):
        assert float(along(chat, prompts[:4], direction)[2].std()) > 1e-2  # only at layer 3, not before it


def test_norm_preserving_addition_preserves_the_norm(chat, prompts, direction):
    batch, name = chat.pad(chat.encode(prompts[:4])), chat.hook_name("resid_pre", 4)

    def norms():
        seen = []
        hook = (name, lambda value, hook: seen.append(value.norm(dim=-1)))
        with torch.inference_mode(), chat.bridge.hooks(fwd_hooks=[hook]):
            chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)
        return seen[0]

    before = norms()
    with add_steering(chat, 9 * direction, 4):
        assert float((norms() - before).abs().max()) > 0.1  # before control
    with add_steering(chat, 9 * direction, 4, keep_norm=True):
        torch.testing.assert_close(norms(), before, atol=2e-5, rtol=0)


def test_batch_mates_do_not_change_a_row(chat, prompts, direction, other):
    options = [
        (),
        (Addition(6 * direction, (4,)),),
        (Ablation(direction[None]),),
        (Ablation(torch.stack([direction, other])), Addition(5 * other, (3, 4), "prompt")),
        (Addition(9 * other, (4,), every=2, keep_norm=True),),
        (SequentialAblation(torch.stack([direction, other])), Ablation(other[None], (3,))),
    ]
    batch = chat.pad(chat.encode([prompts[0]] * len(options)))
    with torch.inference_mode(), RowEdits(chat, options).open():
        together = chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[:, -1]
    assert float(torch.pdist(together).min()) > 1e-2  # the conditions differ
    for row, interventions in zip(together, options, strict=True):
        with intervene(chat, *interventions):
            torch.testing.assert_close(row, logits_of(chat, prompts[:1])[0], atol=2e-5, rtol=0)


def test_rows_that_are_kept_keep_their_interventions(chat, prompts, direction):
    edits = RowEdits(chat, [(), (Addition(6 * direction, (4,)),), (Ablation(direction[None]),)])
    batch = chat.pad(chat.encode([prompts[0]] * 2))
    edits.keep(torch.tensor([2, 1]))
    with torch.inference_mode(), edits.open():
        kept = chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[:, -1]
    with ablate_direction(chat, direction):
        torch.testing.assert_close(kept[0], logits_of(chat, prompts[:1])[0], atol=2e-5, rtol=0)
    with add_steering(chat, 6 * direction, 4):
        torch.testing.assert_close(kept[1], logits_of(chat, prompts[:1])[0], atol=2e-5, rtol=0)


def test_gradients_reach_the_steering_vector(chat, prompts, direction):
    """The slope along a step of the vector is the one that finite differences give."""
    batch, vector = chat.pad(chat.encode(prompts[:1])), (2 * direction).requires_grad_()

    def top_logit(vector):
        with intervene(chat, Addition(vector, (4,))):
            return chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[0, -1].double().max()

    (slope,) = torch.autograd.grad(top_logit(vector), vector)
    with torch.no_grad():
        rise = (top_logit(vector + 0.05 * direction) - top_logit(vector - 0.05 * direction)) / 0.1
    assert abs(float(rise)) > 1e-3
    assert float(slope @ direction) == pytest.approx(float(rise), rel=0.02)


def test_written_hooks_names_every_place_where_the_stream_is_written(chat):
    assert len(written_hooks(chat)) == len(set(written_hooks(chat))) == 1 + 2 * chat.n_layers


def head_values(chat, prompts, layer, positions):
    """z [prompt, pos, head_index, d_head] of one layer at the last tokens."""
    batch, seen = chat.pad(chat.encode(prompts)), []
    hooks = [(chat.hook_name("z", layer), lambda value, hook: seen.append(value[:, list(positions)].clone()))]
    with torch.inference_mode(), chat.bridge.hooks(fwd_hooks=hooks):
        chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)
    return seen[0]


def test_replacing_heads_equals_the_same_edit_in_plain_hugging_face(chat, prompts, plain, plain_ids):
    positions, heads = (-3, -1), ((2, 1), (2, 4), (5, 0))
    values = torch.randn(3, 2, chat.d_model // 6, generator=torch.Generator().manual_seed(4))
    with intervene(chat, HeadReplacement(heads, positions, values)):
        ours = logits_of(chat, prompts[:4])
    assert float((ours - logits_of(chat, prompts[:4])).abs().max()) > 1e-2  # before control

    def edit(layer):
        def hook(module, args):
            z = args[0].unflatten(-1, (6, -1)).clone()
            for number, (at, head_index) in enumerate(heads):
                if at == layer:
                    z[:, list(positions), head_index] = values[number]
            return (z.flatten(-2),)

        return hook

    handles = [plain.model.layers[n].self_attn.o_proj.register_forward_pre_hook(edit(n)) for n in (2, 5)]
    with torch.no_grad():
        for prompt, row in zip(prompts[:4], ours, strict=True):
            torch.testing.assert_close(row, plain(plain_ids(prompt)).logits[0, -1], atol=2e-5, rtol=0)
    for handle in handles:
        handle.remove()


def test_heads_and_the_stream_are_edited_together_in_either_order(chat, prompts, direction):
    heads = HeadReplacement(((2, 1), (5, 0)), (-1,), torch.ones(2, 1, chat.d_model // 6))
    added = Addition(6 * direction, (4,))
    with intervene(chat, heads), intervene(chat, added):
        nested = logits_of(chat, prompts[:2])
    for edits in ((heads, added), (added, heads)):
        with intervene(chat, *edits):
            torch.testing.assert_close(logits_of(chat, prompts[:2]), nested, atol=2e-5, rtol=0)
    with intervene(chat, heads):
        assert float((logits_of(chat, prompts[:2]) - nested).abs().max()) > 1e-2  # before control


def test_patching_a_head_with_its_own_value_changes_nothing_and_with_anothers_does(chat, prompts):
    values = head_values(chat, prompts[:2], 3, (-2, -1))
    before = logits_of(chat, prompts[:1])
    for source, same in ((0, True), (1, False)):
        with intervene(chat, HeadReplacement(((3, 2),), (-2, -1), values[source, :, 2][None])):
            after = logits_of(chat, prompts[:1])
        assert torch.allclose(after, before, atol=1e-4) == same


def test_heads_are_replaced_on_the_prompt_only_and_in_their_own_row(chat, prompts):
    values = 3 * torch.randn(2, 1, chat.d_model // 6, generator=torch.Generator().manual_seed(4))
    changed = Condition("changed", (HeadReplacement(((4, 1), (5, 3)), (-1,), values),))
    rows = generate(chat, prompts[:4], [UNSTEERED, changed], max_new_tokens=N_NEW).set_index("condition")
    assert rows.loc["changed", "response"].tolist() != rows.loc["unsteered", "response"].tolist()
    alone = generate(chat, prompts[:4], max_new_tokens=N_NEW)["response"].tolist()
    assert rows.loc["unsteered", "response"].tolist() == alone
    paired = generate(chat, prompts[:2], [UNSTEERED, changed], max_new_tokens=N_NEW, paired=True)
    expected = [rows.loc["unsteered", "response"].iloc[0], rows.loc["changed", "response"].iloc[1]]
    assert paired["response"].tolist() == expected
