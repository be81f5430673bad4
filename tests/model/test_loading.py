"""Models that are already loaded, spread by a device map, quantized, seeing, or no longer wanted."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

from refusal_utils.directions.estimation import mean_difference, normalize
from refusal_utils.heads.shares import component_shares, logit_shares
from refusal_utils.model import loading as model_loading
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS, load_chat_model
from refusal_utils.model.loading import check_placement, load_weights
from refusal_utils.steering.generation import generate
from tests.contexts import add_steering
from tests.families import FAMILIES, family_config, family_tokenizer, randomize, save_family


def generate_texts(chat, prompts, max_new_tokens=50):
    return list(generate(chat, prompts, max_new_tokens=max_new_tokens)["response"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_family("gemma2", tmp_path_factory.mktemp("gemma2"))


def load_plain(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def test_hf_model_is_used_as_it_is(folder, prompts):
    model = load_plain(folder, torch.bfloat16)
    before = {(value.data_ptr(), value.dtype) for value in model.parameters()}
    chat = load_chat_model(folder, hf_model=model)
    assert chat.bridge.original_model is model
    assert before <= {(value.data_ptr(), value.dtype) for value in model.parameters()}
    assert (chat.device, chat.dtype) == (torch.device("cpu"), torch.bfloat16)
    again = load_chat_model(folder, device="cpu", dtype=torch.bfloat16)
    assert chat.fingerprint == again.fingerprint
    assert generate_texts(chat, prompts[:4], 6) == generate_texts(again, prompts[:4], 6)


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_a_device_map_gives_the_same_model(folder, prompts, device_map):
    spread = load_chat_model(folder, device_map=device_map, dtype=torch.float32)
    plain = load_chat_model(folder, device="cpu")
    assert spread.device == plain.device
    assert spread.fingerprint == plain.fingerprint
    assert generate_texts(spread, prompts[:4], 6) == generate_texts(plain, prompts[:4], 6)


@pytest.mark.parametrize(
    ("n_gpus", "memory", "device", "expected"),
    [
        (2, 100_000, None, "auto"),  # weights of 0.9 MB do not fit into the first
        (2, 10**9, None, {"": "cuda"}),
        (1, 100_000, None, {"": "cuda"}),
        (2, 100_000, "cuda:1", {"": "cuda:1"}),
        (0, 0, None, {"": "cpu"}),
    ],
)
def test_a_model_is_spread_over_all_gpus_only_where_the_first_is_too_small(
    folder, monkeypatch, n_gpus, memory, device, expected
):
    asked = {}

    def load(source, **options):
        asked.update(options)
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=memory))
    monkeypatch.setattr(model_loading.AutoModelForCausalLM, "from_pretrained", load)
    load_weights("gemma2", folder, device, None, None)
    assert asked["device_map"] == expected
    assert asked["dtype"] == (torch.bfloat16 if n_gpus else torch.float32)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory"), MemoryError()]
)
def test_a_model_that_does_not_fit_into_memory_is_one_sentence(folder, monkeypatch, error):
    def load(source, **options):
        raise error

    monkeypatch.setattr(model_loading.AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(ValueError, match=r"the model must fit into memory; got .*gemma2.*in 8 or 4 bits as hf_model\."):
        load_chat_model(folder, device="cpu")
    error = RuntimeError("another fault")
    with pytest.raises(ValueError, match="the folder must hold a whole model; got .*another fault"):
        load_chat_model(folder, device="cpu")


@pytest.mark.parametrize(
    ("device_map", "outside"),
    [({"model.layers": 0, "lm_head": "disk"}, "disk"), ({"model.embed_tokens": 0, "lm_head": "cpu"}, "cpu")],
)
def test_layers_that_are_offloaded_are_refused(device_map, outside):
    model = torch.nn.Linear(1, 1)
    check_placement(model)  # before: nothing is said about a model without a device map
    model.hf_device_map = {"": "cpu"}
    check_placement(model)
    model.hf_device_map = device_map
    with pytest.raises(
        ValueError, match=f"every layer must fit on the devices that compute; got some offloaded to {outside}"
    ):
        check_placement(model)


def test_options_that_exclude_each_other_are_one_sentence(folder):
    model = load_plain(folder)
    with pytest.raises(ValueError, match="^load_chat_model: hf_model is used as it is; got also device and dtype"):
        load_chat_model(folder, hf_model=model, device="cpu", dtype=torch.float32)
    with pytest.raises(ValueError, match="hf_model needs the name of its tokenizer; got none"):
        load_chat_model(hf_model=model)
    with pytest.raises(ValueError, match="device and device_map exclude each other; got both"):
        load_chat_model(folder, device="cpu", device_map="auto")


class Int8Linear(torch.nn.Linear):
    """Weights in 8 bits with one scale per row, as a quantized model holds them."""

    @classmethod
    def of(cls, linear):
        new = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        new.weight = torch.nn.Parameter((linear.weight.detach() / scale).round().to(torch.int8), requires_grad=False)
        new.scale = scale
        return new

    def forward(self, value):
        return value @ (self.weight.to(value.dtype) * self.scale).T


def test_a_quantized_model_is_measured_and_steered_and_its_head_shares_are_refused(folder, prompts):
    plain, model = load_plain(folder), load_plain(folder)
    for one in (plain, model):
        for block in one.model.layers:
            block.self_attn.o_proj = Int8Linear.of(block.self_attn.o_proj)
            block.mlp.down_proj = Int8Linear.of(block.mlp.down_proj)
    chat = load_chat_model(folder, hf_model=model)
    assert chat.dtype == torch.float32
    assert model.model.layers[0].mlp.down_proj.weight.dtype == torch.int8
    found = capture_activations(chat, prompts[:3]).values[:, :, 0]
    for row, prompt in enumerate(prompts[:3]):
        with torch.no_grad():
            states = plain(torch.tensor(chat.encode([prompt])), output_hidden_states=True).hidden_states
        torch.testing.assert_close(
            found[row], torch.stack([state[0, -2] for state in states[:-1]]), atol=1e-4, rtol=1e-4
        )
    direction = normalize(torch.ones(chat.d_model))
    before = generate_texts(chat, prompts[:3], 6)
    with add_steering(chat, 9 * direction):
        assert generate_texts(chat, prompts[:3], 6) != before
    with pytest.raises(ValueError, match="component_shares: weights must not be quantized; got int8 in .*, layer 0"):
        component_shares(chat, prompts[:2], direction[None], layer=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept_in_the_capture_and_averaged_in_full(folder, prompts, dtype):
    chat = load_chat_model(folder, device="cpu", dtype=dtype)
    found = capture_activations(chat, prompts[:16], layers=[2], positions=[-2])
    assert (chat.dtype, found.values.dtype) == (dtype, dtype)
    states = found.at(2, -2)
    assert states.dtype == torch.float32
    exact = (states[:8].double().mean(0) - states[8:].double().mean(0)).float()
    in_half = (found.values[:8, 0, 0].sum(0) / 8 - found.values[8:, 0, 0].sum(0) / 8).float()
    assert torch.equal(mean_difference(states[:8], states[8:]), exact)
    assert not torch.equal(in_half, exact)  # before control: a mean in half precision is another one


def test_a_model_that_also_sees_is_measured_as_the_language_model_inside(tmp_path, prompts):
    family = FAMILIES["gemma3_text"]
    tokenizer = family_tokenizer(family)
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    text = family_config(family, tokenizer).to_dict()
    config = Gemma3Config(text_config=text, vision_config=vision, image_token_id=tokenizer.eos_token_id)
    torch.manual_seed(0)
    seeing = Gemma3ForConditionalGeneration(config).eval()
    randomize(seeing.model.language_model)
    seeing.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    chat = load_chat_model(tmp_path, device="cpu")
    assert (chat.n_layers, chat.d_model) == (3, 48)
    found = capture_activations(chat, prompts[:3]).values[:, :, 0]
    for row, prompt in enumerate(prompts[:3]):
        with torch.no_grad():
            out = seeing(torch.tensor(chat.encode([prompt])), output_hidden_states=True)
        states = torch.stack([state[0, -2] for state in out.hidden_states[:-1]])
        torch.testing.assert_close(found[row], states, atol=1e-4, rtol=1e-4)
    assert len(generate_texts(chat, prompts[:2], 4)) == 2


def save_other(folder, model_type, architecture, **options):
    """A model of an architecture outside the matrix, with Qwen's turn format."""
    family = replace(FAMILIES["qwen2"], model_type=model_type, architecture=architecture, options=options)
    tokenizer = family_tokenizer(family)
    model = AutoModelForCausalLM.from_config(family_config(family, tokenizer))
    randomize(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_architecture_that_the_bridge_does_not_know_is_one_sentence(tmp_path):
    save_other(tmp_path, "persimmon", "PersimmonForCausalLM", partial_rotary_factor=0.5)
    with pytest.raises(
        ValueError, match="^load_chat_model: TransformerLens must support the architecture; got PersimmonForCausalLM"
    ):
        load_chat_model(tmp_path, device="cpu")


def test_logit_shares_refuse_a_final_norm_that_is_no_rms_norm(tmp_path, prompts):
    save_other(tmp_path, "stablelm", "StableLmForCausalLM", partial_rotary_factor=0.5)
    chat = load_chat_model(tmp_path, device="cpu")
    component_shares(chat, prompts[:2], torch.eye(chat.d_model)[:2], layer=2)  # before: along directions it is exact
    with pytest.raises(ValueError, match="logit_shares: the final norm must be an RMS norm; got LayerNorm"):
        logit_shares(chat, prompts[:2], torch.tensor([30]))


def test_unload_frees_the_weights_and_any_later_use_is_one_sentence(prompts):
    chat = load_chat_model("bundled", device="cpu")
    weights = weakref.ref(chat.bridge.original_model.get_input_embeddings().weight)
    generate_texts(chat, prompts[:2], 3)
    capture_activations(chat, prompts[:2])
    assert weights() is not None
    chat.unload()
    assert weights() is None
    words = r"ChatModel: the model must be loaded; got bundled after unload\(\)\. Call load_chat_model again\."
    for use in (
        lambda: capture_activations(chat, prompts[:2]),
        lambda: generate_texts(chat, prompts[:2]),
        lambda: add_steering(chat, torch.ones(chat.d_model)).__enter__(),
        lambda: chat.bridge(torch.tensor([[1]])),
        lambda: chat.device,
    ):
        with pytest.raises(ValueError, match=words):
            use()
    chat.unload()  # once more does no harm


def test_unload_leaves_a_callers_own_model(prompts):
    model = load_plain(BUNDLED_WEIGHTS)
    chat = load_chat_model(BUNDLED_WEIGHTS, hf_model=model)
    chat.unload()
    assert model(torch.tensor([[1, 5]])).logits.isfinite().all()
