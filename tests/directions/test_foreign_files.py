"""Files in the formats of other libraries, written as those write them, become direction sets."""

import sys
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file

from refusal_utils.directions import DirectionSet, normalize

PLACE = {"layer": 3, "hook": "resid_post", "operation": "add"}


@dataclass
class SteeringVector:
    """The two fields of the class of this name in the library steering-vectors."""

    layer_activations: dict[int, torch.Tensor]
    layer_type: str = "decoder_block"


@pytest.fixture
def by_layer() -> dict[int, torch.Tensor]:
    vectors = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    return dict(zip(range(2, 6), vectors, strict=True))


def write_gguf(path, vectors):
    """As repeng's `ControlVector.export_gguf` does."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", len(vectors))
    for layer, vector in vectors.items():
        writer.add_tensor(f"direction.{layer}", vector.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", ["repeng", "object", "state", "file"])
def test_one_vector_per_layer_gives_the_vector_of_the_asked_layer(kind, by_layer, tmp_path):
    source = SteeringVector(by_layer)
    if kind == "repeng":
        source = tmp_path / "polite.gguf"
        write_gguf(source, by_layer)
    elif kind in ("state", "file"):
        source = vars(source)
        if kind == "file":
            torch.save(source, tmp_path / "polite.pt")
            source = tmp_path / "polite.pt"
    found = DirectionSet.import_vectors(source, **PLACE)
    assert found.names == ("polite" if kind in ("repeng", "file") else "imported",)
    torch.testing.assert_close(found.vectors[0], normalize(by_layer[3]))
    assert found.gaps.isnan().all()
    stated = found.provenance
    assert (stated.layer, stated.hook, stated.operation) == (3, "resid_post", "add")
    with pytest.raises(ValueError, match=r"^import_vectors: layer 9 must be stored; got \[2, 3, 4, 5\]"):
        DirectionSet.import_vectors(source, **{**PLACE, "layer": 9})
    for hook in ("resid_pre", "attn_out"):
        with pytest.raises(ValueError, match=f"^import_vectors: a vector of .* belongs to resid_post; got {hook}"):
            DirectionSet.import_vectors(source, **{**PLACE, "hook": hook})


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_plain_tensors_keep_their_names_and_their_norm_as_the_gap(suffix, by_layer, tmp_path, chat):
    stored = {"b": 3 * torch.eye(chat.d_model)[1], "a": torch.eye(chat.d_model)[0]}
    path = tmp_path / f"mine.{suffix}"
    save_file(stored, path) if suffix == "safetensors" else torch.save(stored, path)
    place = {"layer": 3, "hook": "resid_pre", "operation": "project"}
    found = DirectionSet.import_vectors(path, **place, norm_is_gap=True, chat=chat)
    assert sorted(found) == ["a", "b"]
    assert (found.gap("b"), found.gap("a")) == (3, 1)
    saved = found.save(tmp_path / "again.safetensors")
    assert torch.equal(DirectionSet.load(saved, chat, **place)["b"], torch.eye(chat.d_model)[1])
    alone = DirectionSet.import_vectors(torch.ones(5), **place)
    torch.testing.assert_close(alone["imported"], torch.full((5,), 5**-0.5))
    for vector in (by_layer[3], torch.ones(chat.d_model + 1)):
        with pytest.raises(ValueError, match=f"must have width {chat.d_model}; got {len(vector)}"):
            DirectionSet.import_vectors(vector, **place, chat=chat)


def test_what_is_not_a_vector_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^import_vectors: 'all' must be a vector \[d_model\]; got shape \(2, 4\)"):
        DirectionSet.import_vectors({"all": torch.ones(2, 4)}, **PLACE)
    with pytest.raises(ValueError, match=r"^import_vectors: 'imported' must be a vector \[d_model\]; got list"):
        DirectionSet.import_vectors([1.0], **PLACE)
    for name in ("missing.pt", "vectors.npy"):
        with pytest.raises(ValueError, match="^import_vectors: the file must exist and end in .gguf"):
            DirectionSet.import_vectors(tmp_path / name, **PLACE)


def test_a_gguf_file_without_the_package_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "polite.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match="^import_vectors: the package gguf is needed .* Run `pip install gguf`"):
        DirectionSet.import_vectors(tmp_path / "polite.gguf", **PLACE)
