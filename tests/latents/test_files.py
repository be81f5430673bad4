"""Files of sparse autoencoders: every kind gives its publisher's latents, and a wrong file is one sentence."""

import json

import pytest
import torch

from refusal_utils.latents import KINDS, load_sae

from .sae_files import (
    D_MODEL,
    LAYER,
    WRITERS,
    K,
    N,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    qwen_scope,
    sae_lens,
    weights,
)


@pytest.fixture
def states():
    return 2 * torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(1))


def by_hand(states, own, threshold, subtracts=False):
    """The latents one prompt and one latent at a time, in plain Python."""
    rows = []
    for x in states.double():
        shifted = x - own["b_dec"].double() if subtracts else x
        before = [float(shifted @ own["w_enc"][:, j].double() + own["b_enc"][j].double()) for j in range(N)]
        rows.append([a if a > 0 and a > float(t) else 0.0 for a, t in zip(before, threshold, strict=True)])
    return torch.tensor(rows)


def test_every_kind_has_a_reader_and_a_fixture():
    assert set(KINDS) == set(WRITERS)


@pytest.mark.parametrize("kind", ["gemma_scope", "gemma_scope_2", "sae_lens"])
def test_thresholds_of_single_latents(kind, tmp_path, states):
    own = weights()
    sae = load_sae(WRITERS[kind](tmp_path, own), kind)
    torch.testing.assert_close(
        sae.encode(states).double(), by_hand(states, own, own["threshold"]).double(), atol=1e-5, rtol=1e-5
    )
    assert (sae.layer, sae.resid_pre_layer) == (LAYER, LAYER + 1)


def test_dictionary_learning_has_one_threshold_and_subtracts_the_bias(tmp_path, states):
    own = weights()
    sae = load_sae(dictionary_learning(tmp_path, own), "dictionary_learning")
    expected = by_hand(states, own, torch.full((N,), 0.5), subtracts=True)
    torch.testing.assert_close(sae.encode(states).double(), expected.double(), atol=1e-5, rtol=1e-5)
    assert (sae.layer, sae.model) == (LAYER, "llama")


def test_qwen_scope_keeps_the_k_largest(tmp_path, states):
    own = weights()
    sae = load_sae(qwen_scope(tmp_path, own), "qwen_scope")
    before = by_hand(states, own, torch.full((N,), -1e9))
    assert torch.equal(sae.fires(states), sae.encode(states) > 0)
    for found, every in zip(sae.encode(states), before, strict=True):
        best = every.argsort(descending=True)[:K]
        assert set(found.nonzero()[:, 0].tolist()) == set(best[every[best] > 0].tolist())


def test_llama_scope_scales_its_input_and_its_output_back(tmp_path, states):
    own, norm = weights(), 5.0
    sae = load_sae(llama_scope(tmp_path, own, norm=norm), "llama_scope")
    scale = D_MODEL**0.5 / norm
    expected = by_hand(scale * states, own, torch.full((N,), 0.5 * scale))
    torch.testing.assert_close(sae.encode(states).double(), expected.double(), atol=1e-5, rtol=1e-5)
    written = (expected.double() @ own["w_dec"].double() + own["b_dec"].double()) / scale
    torch.testing.assert_close(sae.decode(sae.encode(states)).double(), written, atol=1e-4, rtol=1e-4)


def test_a_batch_topk_file_whose_threshold_was_never_set_does_not_run_as_relu(tmp_path, states):
    place = dictionary_learning(tmp_path, weights(), threshold=-1.0)
    with pytest.raises(ValueError, match="^load_sae: this file keeps the k largest"):
        load_sae(place, "dictionary_learning")
    assert (load_sae(place, "dictionary_learning", k=K).encode(states) > 0).sum(1).max() <= K


def test_the_kind_is_declared_because_a_square_matrix_looks_the_same_turned(tmp_path):
    own = weights(n=D_MODEL)
    place = dictionary_learning(tmp_path, own)
    assert torch.equal(load_sae(place, "dictionary_learning").w_enc, own["w_enc"])
    with pytest.raises(ValueError, match="^load_sae: kind must be one of"):
        load_sae(place, "guess")


def test_the_layer_of_a_file_that_does_not_say_it_must_be_given(tmp_path):
    place = gemma_scope(tmp_path, weights())
    moved = place.parent.parent.rename(tmp_path / "sae")
    inside = moved / "width_16k" / "average_l0_91"
    with pytest.raises(ValueError, match="^load_sae: a gemma_scope file does not say its layer"):
        load_sae(inside, "gemma_scope")
    assert load_sae(inside, "gemma_scope", layer=20).layer == 20
    with pytest.raises(ValueError, match="^load_sae: the layer of the file"):
        load_sae(gemma_scope_2(tmp_path, weights()), "gemma_scope_2", layer=3)


@pytest.mark.parametrize("kind", list(WRITERS))
@pytest.mark.parametrize("damage", ["cut short", "empty", "noise"])
def test_a_damaged_file_is_one_sentence(kind, damage, tmp_path):
    place = WRITERS[kind](tmp_path, weights())
    path = place if place.is_file() else max(place.rglob("*.*"), key=lambda each: each.stat().st_size)
    whole = path.read_bytes()
    path.write_bytes({"cut short": whole[: len(whole) // 2], "empty": b"", "noise": bytes(range(256)) * 8}[damage])
    with pytest.raises(ValueError, match="^load_sae: the file must be whole") as caught:
        load_sae(place, kind)
    assert str(path) in str(caught.value)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (__import__("pathlib").Path("boom").touch, ())


@pytest.mark.parametrize("kind", ["dictionary_learning", "qwen_scope"])
def test_nothing_is_unpickled(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = WRITERS[kind](tmp_path, weights())
    torch.save({"encoder.weight": Bomb()}, place if place.is_file() else place / "ae.pt")
    with pytest.raises(ValueError, match="^load_sae: the file must be whole"):
        load_sae(place, kind)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("write", "changes"),
    [
        (gemma_scope_2, {"hf_hook_point_out": "model.layers.15.mlp"}),
        (gemma_scope_2, {"hf_hook_point_in": "model.layers.15.mlp", "hf_hook_point_out": "model.layers.15.mlp"}),
        (dictionary_learning, {"dict_class": "GatedAutoEncoder"}),
        (sae_lens, {"metadata": {"hook_name": "blocks.3.attn.hook_z"}}),
        (sae_lens, {"architecture": "gated"}),
        (sae_lens, {"normalize_activations": "layer_norm"}),
    ],
)
def test_transcoders_other_classes_and_other_hooks_are_refused(write, changes, tmp_path):
    with pytest.raises(ValueError, match="^load_sae: "):
        load_sae(write(tmp_path, weights(), **changes), write.__name__)


def test_a_file_without_its_names_and_a_missing_one_are_named(tmp_path):
    place = dictionary_learning(tmp_path, weights())
    torch.save({"encoder.weight": torch.zeros(N, D_MODEL)}, place / "ae.pt")
    with pytest.raises(ValueError, match=r"^load_sae: the file must have the names .* 'decoder.weight'"):
        load_sae(place, "dictionary_learning")
    (place / "ae.pt").unlink()
    with pytest.raises(ValueError, match="^load_sae: the folder must hold ae.pt"):
        load_sae(place, "dictionary_learning")
    with pytest.raises(ValueError, match="^load_sae: the file or folder must exist"):
        load_sae(tmp_path / "nowhere", "sae_lens")


@pytest.mark.parametrize("architecture", ["jumprelu", "topk", "standard"])
def test_encoding_and_decoding_equal_those_of_sae_lens_bit_for_bit(architecture, tmp_path, states):
    sae_lens_package = pytest.importorskip("sae_lens", exc_type=ImportError)
    own = weights()
    kept = own if architecture == "jumprelu" else {name: each for name, each in own.items() if name != "threshold"}
    extra = {"k": K} if architecture == "topk" else {}
    extra |= {"apply_b_dec_to_input": architecture != "jumprelu", "dtype": "float32", "device": "cpu"}
    place = sae_lens(tmp_path, kept, architecture=architecture, **extra)
    theirs, ours = sae_lens_package.SAE.load_from_disk(place, device="cpu"), load_sae(place, "sae_lens")
    latents = theirs.encode(states)
    latents = latents.to_dense() if latents.is_sparse else latents
    assert json.loads((place / "cfg.json").read_text())["architecture"] == theirs.cfg.architecture()
    assert torch.equal(ours.encode(states), latents)
    assert torch.equal(ours.decode(latents), theirs.decode(latents))
