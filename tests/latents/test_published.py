"""Published sparse autoencoders: the right files of the right kind are asked for, and a miss is one sentence."""

import re

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from refusal_utils.latents import KINDS, published
from refusal_utils.latents.published import RELEASES, fetch_sae, named_sae

from .sae_files import LAYER, WRITERS, weights

PAIRS = [
    ("google/gemma-scope-9b-it-res", f"layer_{LAYER}/width_16k/average_l0_91"),
    ("google/gemma-scope-2-270m-it", f"resid_post/layer_{LAYER}_width_16k_l0_medium"),
    ("andyrdt/saes-llama-3.1-8b-instruct", f"resid_post_layer_{LAYER}/trainer_1"),
    ("fnlp/Llama3_1-8B-Base-LXR-8x", f"Llama3_1-8B-Base-L{LAYER}R-8x"),
    ("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50", f"layer{LAYER}.sae.pt"),
]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that has the five files above, laid out as the cache does."""
    for release, folder in PAIRS:
        kind, root = RELEASES[release].kind, tmp_path / release.replace("/", "--")
        root.mkdir()
        if kind in ("gemma_scope", "qwen_scope"):
            made = WRITERS[kind](root, weights(n=64))
            if kind == "qwen_scope":
                made.rename(root / made.name)
        else:
            (root / folder).mkdir(parents=True)
            WRITERS[kind](root / folder, weights(n=64))

    def download(release, name, revision=None):
        path = tmp_path / release.replace("/", "--") / name
        if not path.is_file():
            raise EntryNotFoundError(name)
        return str(path)

    monkeypatch.setattr(published, "hf_hub_download", download)
    return tmp_path


@pytest.mark.parametrize(("release", "folder"), PAIRS)
def test_a_release_is_read_as_its_kind(hub, release, folder):
    sae = fetch_sae(release, folder)
    assert (sae.layer, sae.hook, sae.n_latents) == (LAYER, "resid_post", 64)
    if RELEASES[release].kind != "llama_scope":
        assert torch.equal(sae.w_enc, weights(n=64)["w_enc"])


def test_the_k_of_qwen_scope_is_that_of_its_repository(hub):
    assert fetch_sae(*PAIRS[-1]).k == 50


def test_every_release_is_of_a_known_kind_with_an_example():
    assert {each.kind for each in RELEASES.values()} <= set(KINDS)
    assert all(each.example for each in RELEASES.values())


def test_a_misspelt_release_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=re.escape("Did you mean 'google/gemma-scope-9b-it-res'?")):
        fetch_sae("google/gemma-scope-9b-it-rse", "layer_20/width_16k/average_l0_91")


def test_a_folder_that_does_not_exist_and_a_missing_network_are_one_sentence(hub, monkeypatch):
    with pytest.raises(ValueError, match=r"^fetch_sae: the files must be on the hub .*\(EntryNotFoundError"):
        fetch_sae("google/gemma-scope-9b-it-res", "layer_21/width_16k/average_l0_91")

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(published, "hf_hub_download", offline)
    with pytest.raises(ValueError, match=r"^fetch_sae: the files must be on the hub .*\(LocalEntryNotFoundError"):
        fetch_sae(*PAIRS[0])


def test_one_name_reads_a_release_a_declared_kind_and_a_folder_of_saelens(hub, tmp_path):
    release, folder = PAIRS[0]
    assert torch.equal(named_sae(f"{release}/{folder}").w_enc, fetch_sae(release, folder).w_enc)
    for kind, name in (("sae_lens", ""), ("gemma_scope", "gemma_scope:")):
        (tmp_path / kind).mkdir()
        place = WRITERS[kind](tmp_path / kind, weights())
        assert torch.equal(named_sae(f"{name}{place}").w_enc, weights()["w_enc"])
    with pytest.raises(ValueError, match="release must be one of"):
        named_sae("goggle/gemma-scope-9b-it-res/layer_20")
