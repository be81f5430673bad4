import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.directions.estimation import normalize
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS, load_chat_model
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.contexts import ablate_direction, add_steering, intervene
from refusal_utils.steering.generation import generate, generate_texts
from refusal_utils.steering.interventions import Ablation, Addition, HeadReplacement
from refusal_utils.steering.row_edits import RowEdits, written_hooks

N_NEW = 12


@pytest.fixture(scope="module")
def direction(chat):
    return normalize(torch.randn(chat.d_model, generator=torch.Generator().manual_seed(5)))


def logits_of(chat, prompts):
    batch = chat.pad(chat.encode(prompts))
    with torch.inference_mode():
        return chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[:, -1]


class PlainEdit:
    """The same edits on a plain Hugging Face model, with torch hooks only: before `layers`, and of what blocks write."""

    def __init__(self, plain, layers, edit, write=None):
        self.handles = [
            plain.model.layers[layer].register_forward_pre_hook(self.before(edit), with_kwargs=True) for layer in layers
        ]
        for block in plain.model.layers if write else ():
            self.handles.append(block.self_attn.register_forward_hook(lambda m, a, out: (write(out[0]), *out[1:])))
            self.handles.append(block.mlp.register_forward_hook(lambda m, a, out: write(out)))

    @staticmethod
    def before(edit):
        def hook(module, args, kwargs):
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        return hook

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def plain_greedy(plain, ids, n_new=N_NEW):
    """Greedy tokens of one prompt, the whole sequence computed anew for every token: no cache, no padding."""
    sequence = ids
    for _ in range(n_new):
        with torch.no_grad():
            token = plain(sequence).logits[:, -1].argmax(-1, keepdim=True)
        sequence = torch.cat([sequence, token], dim=1)
        if token.item() == plain.generation_config.eos_token_id:
            break
    return sequence[0, ids.shape[1] :].tolist()


def test_add_steering_equals_the_same_edit_in_plain_hugging_face(chat, prompts, plain, plain_ids, direction):
    unsteered = logits_of(chat, prompts[:6])
    with add_steering(chat, 4 * direction, layer=3):
        steered = logits_of(chat, prompts[:6])
    assert float((steered - unsteered).abs().max()) > 1e-2  # before control: the edit does something
    with PlainEdit(plain, [3], lambda hidden: hidden + 4 * direction), torch.no_grad():
        for prompt, row in zip(prompts[:6], steered, strict=True):
            torch.testing.assert_close(row, plain(plain_ids(prompt)).logits[0, -1], atol=2e-5, rtol=0)


def test_steered_generation_equals_plain_hugging_face_token_for_token(chat, prompts, plain, plain_ids, direction):
    with add_steering(chat, 6 * direction, layer=4):
        ours = generate_texts(chat, prompts[:6], max_new_tokens=20)
    with PlainEdit(plain, [4], lambda hidden: hidden + 6 * direction):
        for prompt, response in zip(prompts[:6], ours, strict=True):
            ids = plain_ids(prompt)
            out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
            assert chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == response


@pytest.mark.parametrize("tokens", ["all", "prompt", "generation"])
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("keep_norm", [False, True])
def test_chosen_tokens_are_those_of_a_plain_run_without_cache(
    chat, prompts, plain, plain_ids, direction, tokens, every, keep_norm
):
    vector = 9 * direction
    condition = Condition("c", (Addition(vector, (2, 5), tokens, every, keep_norm),))
    ours = generate(chat, prompts[:5], [UNSTEERED, condition], max_new_tokens=N_NEW).set_index("condition").loc["c"]
    n_prompt = 0

    def edit(hidden):
        places = torch.arange(hidden.shape[1])
        chosen = (places % every == 0) & {"all": places >= 0, "prompt": places < n_prompt}.get(
            tokens, places >= n_prompt
        )
        moved = hidden + vector
        if keep_norm:
            moved = moved / moved.norm(dim=-1, keepdim=True) * hidden.norm(dim=-1, keepdim=True)
        return torch.where(chosen[:, None], moved, hidden)

    with PlainEdit(plain, [2, 5], edit):
        for prompt, response in zip(prompts[:5], ours["response"], strict=True):
            ids = plain_ids(prompt)
            n_prompt = ids.shape[1]
            assert chat.tokenizer.decode(plain_greedy(plain, ids), skip_special_tokens=True).strip() == response


@pytest.mark.parametrize("tokens", ["prompt", "generation"])
def test_chosen_tokens_are_the_same_with_and_without_kv_cache(chat, prompts, direction, tokens):
    """The whole of prompt and response in one padded pass: the last logits are those of the cached step."""
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


def test_rows_of_a_batch_keep_their_own_interventions(chat, prompts, direction):
    other = normalize(torch.randn(chat.d_model, generator=torch.Generator().manual_seed(8)))
    options = [
        (),
        (Addition(6 * direction, (4,)),),
        (Ablation(direction[None]),),
        (Ablation(torch.stack([direction, other])), Addition(5 * other, (3, 4), "prompt")),
        (Addition(9 * other, (4,), every=2, keep_norm=True),),
    ]
    batch = chat.pad(chat.encode([prompts[0]] * len(options)))
    with torch.inference_mode(), RowEdits(chat, options).open():
        together = chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[:, -1]
    assert float(torch.pdist(together).min()) > 1e-2  # the five conditions differ
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


def test_ablate_direction_equals_the_same_edit_in_plain_hugging_face(chat, prompts, plain, plain_ids, direction):
    with ablate_direction(chat, direction):
        ours = logits_of(chat, prompts[:6])

    def remove(hidden):
        return hidden - (hidden @ direction)[..., None] * direction

    with PlainEdit(plain, [0], remove, remove), torch.no_grad():
        for prompt, row in zip(prompts[:6], ours, strict=True):
            torch.testing.assert_close(row, plain(plain_ids(prompt)).logits[0, -1], atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def exact():
    """The bundled model in float64 and the same by Hugging Face alone: rounding does not hide what an edit does."""
    own = load_chat_model("bundled", device="cpu")
    own.bridge.original_model.to(torch.float64)
    return own, AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32).eval().to(torch.float64)


def plane(d_model):
    """Two directions that are not orthogonal, the projector on their span by least squares, and a reference."""
    draws = torch.randn(3, d_model, generator=torch.Generator().manual_seed(11))
    pair = torch.stack([normalize(draws[0]), normalize(draws[0] + 0.5 * draws[1])])
    return pair, torch.linalg.pinv(pair.double()) @ pair.double(), 3 * draws[2]


KINDS = ["addition", "norm kept", "ablation", "ablation at layers", "affine", "affine at layers"]


def both_ways(kind, d_model, **options):
    """An intervention, and what plain code does instead: the layers before which, the edit there, that of what is written."""
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

    layers = (2, 5) if "at layers" in kind else None
    given = Ablation(pair, layers, reference if "affine" in kind else None, **options)
    return given, list(layers or (0,)), put_back, None if layers else remove


@pytest.mark.parametrize("tokens", ["all", "prompt", "generation"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_every_edit_are_those_of_plain_hugging_face_within_1e_5(
    exact, prompts, plain_ids, kind, tokens, every
):
    """At every token of a prompt and what follows it, for a plane of two directions where something is ablated."""
    own, plain = exact
    prompt, more = plain_ids(prompts[2]), plain_ids(prompts[0])[:, 3:9]
    ids = torch.cat([prompt, more], dim=1)
    places, n_prompt = torch.arange(ids.shape[1]), prompt.shape[1]
    kinds = {"all": places >= 0, "prompt": places < n_prompt, "generation": places >= n_prompt}
    chosen = (kinds[tokens] & (places % every == 0))[:, None]
    given, layers, edit, write = both_ways(kind, own.d_model, tokens=tokens, every=every)
    with torch.inference_mode():
        before = own.bridge(ids)
        with intervene(own, given):
            ours = own.bridge(ids)
    assert float((ours - before).abs().max()) > 1e-2  # before control
    with (
        PlainEdit(
            plain,
            layers,
            lambda h: torch.where(chosen, edit(h), h),
            write and (lambda h: torch.where(chosen, write(h), h)),
        ),
        torch.no_grad(),
    ):
        torch.testing.assert_close(ours, plain(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"tokens": "prompt"}, {"tokens": "generation"}, {"every": 2}])
@pytest.mark.parametrize("kind", ["ablation", "affine"])
def test_ablated_tokens_are_those_of_a_plain_run_without_cache(chat, prompts, plain, plain_ids, kind, options):
    given, layers, edit, write = both_ways(kind, chat.d_model, **options)
    ours = generate(chat, prompts[:3], [Condition("c", (given,))], max_new_tokens=N_NEW)["response"]
    n_prompt = 0

    def at_chosen(edit):
        def hook(hidden):
            places = torch.arange(hidden.shape[1])
            part = {"prompt": places < n_prompt, "generation": places >= n_prompt}
            chosen = part.get(options.get("tokens"), places % options.get("every", 1) == 0)
            return torch.where(chosen[:, None], edit(hidden.double()).float(), hidden)

        return hook

    with PlainEdit(plain, layers, at_chosen(edit), at_chosen(write)):
        for prompt, response in zip(prompts[:3], ours, strict=True):
            ids = plain_ids(prompt)
            n_prompt = ids.shape[1]
            assert chat.tokenizer.decode(plain_greedy(plain, ids), skip_special_tokens=True).strip() == response


def along(chat, prompts, direction):
    """The projections of `resid_post` on `direction` [layer, token], real tokens only."""
    batch = chat.pad(chat.encode(prompts))
    names = [chat.hook_name("resid_post", layer) for layer in range(chat.n_layers)]
    _, cache = chat.bridge.run_with_cache(batch.input_ids, attention_mask=batch.attention_mask, names_filter=names)
    return torch.stack([(cache[name] @ direction)[batch.attention_mask.bool()] for name in names])


def test_ablate_direction_leaves_nothing_at_resid_post_of_any_layer(chat, prompts, direction):
    assert float(along(chat, prompts[:6], direction).abs().amax(-1).min()) > 1e-2  # before
    with ablate_direction(chat, direction):
        assert float(along(chat, prompts[:6], direction).abs().max()) < 1e-4


def test_ablating_a_plane_leaves_nothing_along_either_of_its_directions(chat, prompts):
    pair, _, _ = plane(chat.d_model)
    assert float(pair[0] @ pair[1]) > 0.5  # not orthogonal
    for direction in pair:
        assert float(along(chat, prompts[:6], direction).abs().amax(-1).min()) > 1e-2  # before
    with ablate_direction(chat, pair):
        for direction in pair:
            assert float(along(chat, prompts[:6], direction).abs().max()) < 1e-4


def test_affine_ablation_leaves_the_component_of_the_reference_everywhere(chat, prompts, direction):
    reference = 3 * torch.randn(chat.d_model, generator=torch.Generator().manual_seed(9))
    with ablate_direction(chat, direction, reference=reference):
        left = along(chat, prompts[:6], direction)
    torch.testing.assert_close(left, torch.full_like(left, float(reference @ direction)), atol=2e-5, rtol=0)
    with ablate_direction(chat, direction, reference=reference, layers=(3,)):
        assert float(along(chat, prompts[:6], direction)[2].std()) > 1e-2  # only at layer 3, not before it


def test_ablate_direction_takes_several_directions_as_one_span(chat, prompts, direction):
    second = normalize(direction + 0.2 * torch.randn(chat.d_model, generator=torch.Generator().manual_seed(6)))
    with ablate_direction(chat, torch.stack([direction, second])):
        one_way = logits_of(chat, prompts[:3])
    with ablate_direction(chat, torch.stack([second, normalize(direction - second)])):
        other_way = logits_of(chat, prompts[:3])
    torch.testing.assert_close(one_way, other_way, atol=1e-3, rtol=1e-3)


def test_norm_preserving_addition_preserves_the_norm(chat, prompts, direction):
    batch, name = chat.pad(chat.encode(prompts[:4])), chat.hook_name("resid_pre", 4)

    def norms():
        seen = []
        with (
            torch.inference_mode(),
            chat.bridge.hooks(fwd_hooks=[(name, lambda value, hook: seen.append(value.norm(dim=-1)))]),
        ):
            chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)
        return seen[0]

    before = norms()
    with add_steering(chat, 9 * direction, 4):
        assert float((norms() - before).abs().max()) > 0.1  # before control
    with add_steering(chat, 9 * direction, 4, keep_norm=True):
        torch.testing.assert_close(norms(), before, atol=2e-5, rtol=0)


def test_alpha_zero_is_the_identity(chat, prompts, direction):
    before = logits_of(chat, prompts[:3])
    with add_steering(chat, 0 * direction):
        assert torch.equal(logits_of(chat, prompts[:3]), before)


@pytest.mark.parametrize("options", [{}, {"tokens": "prompt"}, {"every": 2}])
@pytest.mark.parametrize("intervention", [add_steering, ablate_direction])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_leaving_an_intervention_restores_the_model_bitwise(chat, prompts, direction, intervention, options, error):
    before = logits_of(chat, prompts[:3])
    n_hooks = len(chat.bridge.original_model._forward_pre_hooks)
    try:
        with intervention(chat, direction, **options):
            assert not torch.equal(logits_of(chat, prompts[:3]), before)
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert torch.equal(logits_of(chat, prompts[:3]), before)
    assert len(chat.bridge.original_model._forward_pre_hooks) == n_hooks
    assert not any(point.fwd_hooks for point in chat.bridge.hook_dict.values())


def test_written_hooks_names_every_place_where_the_stream_is_written(chat):
    assert len(written_hooks(chat)) == 1 + 2 * chat.n_layers


def test_the_digest_tells_what_a_condition_does_whatever_its_name(direction):
    first = Condition("a", (Addition(direction, (4,)),))
    assert first.digest == Condition("b", (Addition(direction.clone(), (4,)),)).digest
    others = [
        UNSTEERED,
        Condition("a", (Addition(2 * direction, (4,)),)),
        Condition("a", (Addition(direction, (5,)),)),
        Condition("a", (Addition(direction, (4,), "prompt"),)),
        Condition("a", (Addition(direction, (4,), every=2),)),
        Condition("a", (Addition(direction, (4,), keep_norm=True),)),
        Condition("a", (Ablation(direction[None]),)),
    ]
    assert len({first.digest} | {other.digest for other in others}) == 1 + len(others)
    assert Condition("a", (Addition(0 * direction, (4,)),)).digest == UNSTEERED.digest


def test_interventions_reject_what_does_not_fit_the_model(chat, direction):
    with pytest.raises(ValueError, match=f"intervene: the width must be that of bundled, {chat.d_model}; got 7"):
        add_steering(chat, torch.ones(7)).__enter__()
    with pytest.raises(ValueError, match="intervene: a direction must have norm 1; got norm 3"):
        ablate_direction(chat, 3 * direction).__enter__()
    with pytest.raises(ValueError, match="the layer must be one of"):
        add_steering(chat, direction, layer=99).__enter__()
    with pytest.raises(ValueError, match="intervene: a vector must be finite; got NaN or inf"):
        add_steering(chat, direction * float("nan")).__enter__()
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        add_steering(chat, direction, every=0).__enter__()


def test_interventions_that_act_nowhere_or_along_nothing_are_refused(chat, direction):
    with pytest.raises(ValueError, match=r"intervene: layers must name at least one; got \(\) in an Addition"):
        intervene(chat, Addition(direction, ())).__enter__()
    with pytest.raises(ValueError, match=r"intervene: layers must name at least one; got \(\) in an Ablation.*None"):
        intervene(chat, Ablation(direction[None], ())).__enter__()
    with pytest.raises(ValueError, match="intervene: an Ablation needs at least one direction; got none"):
        intervene(chat, Ablation(direction[None][:0])).__enter__()
    with pytest.raises(ValueError, match="intervene: an Ablation needs at least one direction; got none"):
        generate(chat, ["a"], [Condition("c", (Ablation(direction[None][:0]),))])


def test_paired_prompts_and_conditions_must_be_as_many(chat, prompts):
    with pytest.raises(ValueError, match="generate: paired needs one condition per prompt; got 3 prompts and 1 condi"):
        generate(chat, prompts[:3], [UNSTEERED], paired=True)


def test_prompt_and_generation_cannot_be_told_apart_without_the_template(chat, direction):
    with (
        add_steering(chat, direction, tokens="prompt"),
        pytest.raises(ValueError, match="the chat template's last tokens"),
    ):
        chat.bridge(torch.tensor([[20, 21, 22, 23, 24, 25]]))


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
        ours = logits_of(chat, prompts[:5])
    assert float((ours - logits_of(chat, prompts[:5])).abs().max()) > 1e-2  # before control

    def edit(layer):
        def hook(module, args):
            z = args[0].unflatten(-1, (6, -1)).clone()
            for number, (at, head) in enumerate(heads):
                if at == layer:
                    z[:, list(positions), head] = values[number]
            return (z.flatten(-2),)

        return hook

    handles = [plain.model.layers[n].self_attn.o_proj.register_forward_pre_hook(edit(n)) for n in (2, 5)]
    with torch.no_grad():
        for prompt, row in zip(prompts[:5], ours, strict=True):
            torch.testing.assert_close(row, plain(plain_ids(prompt)).logits[0, -1], atol=2e-5, rtol=0)
    for handle in handles:
        handle.remove()


def test_patching_a_head_with_its_own_value_changes_nothing_and_with_anothers_does(chat, prompts):
    values = head_values(chat, prompts[:2], 3, (-2, -1))
    before = logits_of(chat, prompts[:1])
    for source, same in ((0, True), (1, False)):
        with intervene(chat, HeadReplacement(((3, 2),), (-2, -1), values[source, :, 2][None])):
            after = logits_of(chat, prompts[:1])
        assert torch.allclose(after, before, atol=1e-4) == same


def test_heads_are_replaced_on_the_prompt_only_and_in_their_own_row(chat, prompts):
    """Generated text equals that of the prompt pass with replaced heads, continued without them."""
    values = 3 * torch.randn(2, 1, chat.d_model // 6, generator=torch.Generator().manual_seed(4))
    changed = Condition("changed", (HeadReplacement(((4, 1), (5, 3)), (-1,), values),))
    rows = generate(chat, prompts[:4], [UNSTEERED, changed], max_new_tokens=N_NEW).set_index("condition")
    assert rows.loc["changed", "response"].tolist() != rows.loc["unsteered", "response"].tolist()
    assert rows.loc["unsteered", "response"].tolist() == generate_texts(chat, prompts[:4], N_NEW)
    paired = generate(chat, prompts[:2], [UNSTEERED, changed], max_new_tokens=N_NEW, paired=True)
    expected = [rows.loc["unsteered", "response"].iloc[0], rows.loc["changed", "response"].iloc[1]]
    assert paired["response"].tolist() == expected


def test_head_replacements_that_do_not_fit_are_one_sentence(chat):
    values = torch.zeros(1, 1, chat.d_model // 6)
    with pytest.raises(ValueError, match=r"a head must be one of 8 layers x 6 heads; got \(3, 6\)"):
        intervene(chat, HeadReplacement(((3, 6),), (-1,), values)).__enter__()
    with pytest.raises(ValueError, match="values must be given for 1 heads at 2 positions"):
        intervene(chat, HeadReplacement(((3, 1),), (-2, -1), values)).__enter__()
    with pytest.raises(ValueError, match="intervene: positions must lie in the template"):
        intervene(chat, HeadReplacement(((3, 1),), (-30,), values)).__enter__()
