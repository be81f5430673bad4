"""The same theorems on every chat family: what is captured, edited and attributed is what plain Hugging Face computes.

That every single head's share equals plain Hugging Face's, on the same models: `heads/test_shares`.
"""

from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import NamedTuple
from weakref import finalize

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import chat_template_utils

from refusal_utils.directions.estimation import normalize
from refusal_utils.heads.shares import component_shares
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import ChatModel, load_chat_model
from refusal_utils.model.length_parts import PART_TOKENS
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.generation import generate
from refusal_utils.steering.interventions import Ablation, Addition

from .families import FAMILIES, Family, save_family

N_NEW, N_PROMPTS = 10, 4
LAYER = 1
QUESTION = "How do I boil an egg?"


class Loaded(NamedTuple):
    """A family's model by both routes."""

    family: Family
    chat: ChatModel
    plain: torch.nn.Module
    tokenizer: object

    def ids(self, prompt: str) -> torch.Tensor:
        """One prompt as a chat, by Hugging Face alone."""
        messages = [{"role": "user", "content": prompt}]
        options = {"add_generation_prompt": True, "enable_thinking": False, "date_string": "26 Jul 2024"}
        encoded = self.tokenizer.apply_chat_template(messages, **options)
        return torch.tensor([encoded["input_ids"]])

    def generate(self, prompt: str) -> torch.Tensor:
        """The new tokens of Hugging Face's own greedy generation with its KV cache."""
        ids = self.ids(prompt)
        out = self.plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=N_NEW, do_sample=False)
        return out[0, ids.shape[1] :]


@pytest.fixture(scope="session")
def loaded(random_folder, random_chat) -> Loaded:
    plain = AutoModelForCausalLM.from_pretrained(random_folder, dtype=torch.float32).eval()
    return Loaded(FAMILIES[random_folder.name], random_chat, plain, AutoTokenizer.from_pretrained(random_folder))


def draw(n, d_model):
    return normalize(torch.randn(n, d_model, generator=torch.Generator().manual_seed(3)))


def plain_states(loaded, prompt):
    """Hugging Face's hidden states of one prompt before every layer [layer, pos, d_model]."""
    with torch.no_grad():
        states = loaded.plain(loaded.ids(prompt), output_hidden_states=True).hidden_states
    return torch.cat(states[:-1])


@contextmanager
def plain_edit(plain, before=(), edit=None, writes=False):
    """`edit` on what enters the layers `before` and, with `writes`, on everything that a layer adds to the stream."""

    def enter(module, args, kwargs):
        return ((edit(args[0]), *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": edit(**kwargs)})

    def leave(module, args, out):
        return (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    blocks = plain.model.layers
    handles = [blocks[layer].register_forward_pre_hook(enter, with_kwargs=True) for layer in before]
    for block in blocks if writes else ():
        normed = hasattr(block, "post_feedforward_layernorm")
        last = ("post_attention_layernorm", "post_feedforward_layernorm") if normed else ("self_attn", "mlp")
        handles += [getattr(block, name).register_forward_hook(leave) for name in last]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_encoding_equals_the_tokenizers_own_and_begins_with_one_bos_where_the_family_has_one(loaded, prompts):
    encoded = loaded.chat.encode(prompts)
    assert encoded == [loaded.ids(prompt)[0].tolist() for prompt in prompts]
    assert loaded.chat.tokenizer.bos_token == loaded.tokenizer.bos_token == loaded.family.bos
    if "bos_token" in loaded.family.template:
        bos = loaded.tokenizer.convert_tokens_to_ids(loaded.family.bos)
        assert {tuple(ids[:2]).count(bos) for ids in encoded} == {1}
        twice = loaded.tokenizer(loaded.tokenizer.decode(encoded[0]))["input_ids"]  # before control: text, then a BOS
        assert twice.count(bos) >= 1


def test_every_template_position_is_the_same_token_for_all_prompts(loaded, prompts):
    encoded = loaded.chat.encode(prompts)
    n_fixed = len(loaded.chat.suffix)
    for pos in range(-n_fixed, 0):
        assert {ids[pos] for ids in encoded} == {loaded.chat.suffix[pos]}
    assert len({ids[-n_fixed - 1] for ids in encoded}) > 1  # before control: one token further they differ
    assert n_fixed >= loaded.family.n_suffix_at_least
    assert loaded.chat.decision_pos == max(-2, -n_fixed)


def test_thinking_is_off_and_recorded_where_the_family_thinks(loaded):
    text = loaded.tokenizer.decode(loaded.chat.encode([QUESTION])[0])
    thinks = "enable_thinking" in loaded.family.template
    assert (loaded.chat.thinking == "thinking switched off", "</think>" in text) == (thinks, thinks)
    on = loaded.tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], tokenize=False)
    assert "</think>" not in on  # before control: left alone the template leaves room to think
    assert ("thinking switched off" in loaded.chat.describe()) == thinks


def test_prompts_of_two_days_are_the_same(loaded, prompts, monkeypatch):
    def on(day):
        clock = SimpleNamespace(now=lambda: datetime(2026, 3, day))
        monkeypatch.setattr(chat_template_utils, "datetime", clock)
        alone = loaded.tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], tokenize=False)
        return loaded.chat.encode(prompts[:3]), alone

    (first, alone), (second, alone_later) = on(1), on(2)
    assert first == second
    # Before control: left alone, a template with a date clause writes another date each day.
    assert (alone != alone_later) == ("strftime_now" in loaded.family.template)


def test_the_system_prompt_is_read_or_refused_as_the_family_does(loaded, random_folder):
    if loaded.family.takes_system:
        chat = load_chat_model(random_folder, device="cpu", system_prompt="Be brief and truthful.")
        text = chat.tokenizer.decode(chat.encode([QUESTION])[0])
        assert text.count("Be brief and truthful.") == text.count(QUESTION) == 1
        assert chat.suffix == loaded.chat.suffix
    else:
        with pytest.raises(ValueError, match=r"must accept a system role; got .*Leave system_prompt out\."):
            load_chat_model(random_folder, device="cpu", system_prompt="Be brief and truthful.")


def test_captured_activations_equal_the_hidden_states_of_plain_hugging_face(loaded, prompts):
    positions = range(-len(loaded.chat.suffix), 0)
    assert capture_activations(loaded.chat, prompts[:1]).positions == (loaded.chat.decision_pos,)
    found = capture_activations(loaded.chat, prompts[:6], positions=positions)
    for row, prompt in enumerate(prompts[:6]):
        expected = plain_states(loaded, prompt)[:, list(positions)]
        torch.testing.assert_close(found.values[row], expected, atol=1e-4, rtol=1e-4)


def test_generation_under_interventions_equals_plain_hugging_face_token_for_token(loaded, prompts, monkeypatch):
    """Batched, padded, in parts, with the KV cache and shared rows, against one prompt at a time with torch hooks."""
    monkeypatch.setitem(PART_TOKENS, "cpu", 0)
    assert len({loaded.ids(prompt).shape for prompt in prompts[:N_PROMPTS]}) > 1  # before control: there are parts
    direction = draw(1, loaded.chat.d_model)[0]

    def plain_steering(vector):
        return {"before": [LAYER], "edit": lambda hidden_states, **rest: hidden_states + vector}

    conditions = {
        UNSTEERED: {},
        **{
            Condition(f"{alpha}", (Addition(alpha * direction, (LAYER,)),)): plain_steering(alpha * direction)
            for alpha in (0.5, 4.0)
        },
        Condition("ablated", (Ablation(direction[None]),)): {
            "before": [0],
            "edit": lambda hidden_states, **rest: hidden_states - (hidden_states @ direction)[..., None] * direction,
            "writes": True,
        },
    }
    rows = generate(loaded.chat, prompts[:N_PROMPTS], list(conditions), max_new_tokens=N_NEW).set_index("condition")
    stops = {*loaded.tokenizer.convert_tokens_to_ids(list(loaded.family.stops))}
    for condition, edits in conditions.items():
        with plain_edit(loaded.plain, **edits):
            for prompt, row in zip(prompts[:N_PROMPTS], rows.loc[condition.name].itertuples(), strict=True):
                tokens = loaded.generate(prompt)
                assert row.response == loaded.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                assert (row.n_tokens, row.stopped) == (len(tokens), int(tokens[-1]) in stops)
    texts = [tuple(rows.loc[condition.name, "response"]) for condition in conditions]
    assert len(set(texts)) >= 3  # before control: the edits do something
    assert len(set(texts[0])) >= 3


def test_head_shares_sum_to_the_projection_of_plain_hugging_faces_stream(loaded, prompts):
    directions = draw(11, loaded.chat.d_model)
    found = component_shares(loaded.chat, prompts[:4], directions, layer=2, pos=-1)
    for row, prompt in enumerate(prompts[:4]):
        expected = plain_states(loaded, prompt)[2, -1] @ directions.T
        whole = torch.stack([*found.parts().values()]).sum(0)
        torch.testing.assert_close(whole[row], expected, atol=1e-3, rtol=1e-3)


class PeakBytes(TorchDispatchMode):
    """The largest number of bytes that tensors made while open held at one time."""

    def __init__(self):
        super().__init__()
        self.live, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self.see(value.untyped_storage())
        return out

    def see(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.live:
            self.live.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            finalize(storage, self.forget, key, size)

    def forget(self, key, size):
        self.live.discard(key)
        self.now -= size


def captured(chat, prompts):
    """Captures; the bytes of the result, which does grow."""
    return capture_activations(chat, prompts, positions=[-1], batch_tokens=160).values.nbytes


def generated(chat, prompts):
    """Generates three tokens under two conditions; the result holds no tensors."""
    steered = Condition("steered", (Addition(draw(1, chat.d_model)[0], (LAYER,)),))
    generate(chat, prompts, [UNSTEERED, steered], max_new_tokens=3, batch_tokens=160)
    return 0


def peak_of(work, chat, prompts, keep_everything=False):
    """Peak bytes of `work`, less its result; `keep_everything`: with a hook that keeps all positions of a layer."""
    kept = []
    hooks = [(chat.hook_name("resid_pre", 1), lambda value, hook: kept.append(value.clone()))]
    with PeakBytes() as memory, chat.bridge.hooks(fwd_hooks=hooks if keep_everything else []):
        size = work(chat, prompts)
    return memory.peak - size


def test_memory_of_a_capture_does_not_grow_with_the_number_of_prompts(loaded, prompts):
    few = prompts[:1] * 16  # of one length, so that all batches are alike
    bound = 1.1 * peak_of(captured, loaded.chat, few)
    assert peak_of(captured, loaded.chat, 4 * few) <= bound
    assert peak_of(captured, loaded.chat, 4 * few, keep_everything=True) > bound  # before control


def test_memory_of_generation_does_not_grow_with_the_number_of_prompts(tmp_path):
    chat = load_chat_model(save_family("gemma2", tmp_path), device="cpu")
    asked = [f"{QUESTION} ({number})" for number in range(10, 60)]  # different ones: the same are generated once
    lengths = [len(ids) for ids in chat.encode(asked)]
    many = [prompt for prompt, length in zip(asked, lengths, strict=True) if length == lengths[0]]
    assert len(many) >= 24
    bound = 1.5 * peak_of(generated, chat, many[:4])  # of several batches the largest may be a little larger
    assert peak_of(generated, chat, many[:24]) <= bound
    assert peak_of(generated, chat, many[:24], keep_everything=True) > bound  # before control


def test_the_windows_and_caps_of_gemma_2_are_in_force(tmp_path, prompts):
    chat = load_chat_model(save_family("gemma2", tmp_path), device="cpu")
    batch = chat.pad(chat.encode(prompts[:1]))
    with torch.no_grad():
        ours = chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)

    def gap(**options):
        plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, **options).eval()
        with torch.no_grad():
            return float((plain(**batch._asdict()).logits - ours).abs().max())

    assert gap() < 1e-4
    for option, unlimited in (
        ("sliding_window", 4096),
        ("attn_logit_softcapping", None),
        ("final_logit_softcapping", None),
    ):
        assert gap(**{option: unlimited}) > 1e-2


def test_stop_tokens_are_all_that_the_generation_config_names_and_those_of_tokenizer_and_template(loaded):
    named = {*loaded.tokenizer.convert_tokens_to_ids(list(loaded.family.stops))}
    found = loaded.chat.stop_tokens
    assert named <= found
    assert found - named <= {loaded.tokenizer.eos_token_id, loaded.chat.markup.end_of_turn}


def test_any_of_several_stop_tokens_ends_a_response(loaded, prompts, monkeypatch):
    """Two tokens that two prompts' responses hold are made the stop tokens: both responses end there."""
    first, second = (loaded.generate(prompt) for prompt in prompts[:2])
    stops = [int(first[3]), int(second[5])]
    for model in (loaded.plain, loaded.chat.bridge.original_model):
        monkeypatch.setattr(model.generation_config, "eos_token_id", stops)
    rows = generate(loaded.chat, prompts[:N_PROMPTS], max_new_tokens=N_NEW)
    assert rows["stopped"][:2].all()
    assert rows["n_tokens"].tolist() == [len(loaded.generate(prompt)) for prompt in prompts[:N_PROMPTS]]
