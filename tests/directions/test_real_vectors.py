"""Published difference-in-means stacks of two real models, where they are present."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from refusal_utils.directions import DirectionSet, cosine_matrix, normalize
from refusal_utils.directions.estimation import mean_direction

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "directions"
# place of the chosen direction (pos counted from the end, layer), its norm as published, layers, width
MODELS = {"gemma-2b-it": (-2, 10, 10.064, 18, 2048), "qwen-1_8b-chat": (-2, 15, 26.287, 24, 2048)}
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the published directions are not here")


@pytest.fixture(params=MODELS)
def stored(request):
    path = FOLDER / f"{request.param}.safetensors"
    return path, load_file(path), MODELS[request.param]


def test_the_chosen_direction_is_the_block_input_of_its_layer_and_its_norm_is_the_gap(stored, tmp_path):
    path, tensors, (pos, layer, norm, n_layers, width) = stored
    stack = tensors["mean_diffs"]
    assert stack.shape[1:] == (n_layers, width)
    assert torch.equal(tensors["direction"].double(), stack[pos, layer].double())
    alone = tmp_path / "direction.pt"
    torch.save(tensors["direction"], alone)
    found = DirectionSet.import_vectors(alone, layer=layer, hook="resid_pre", operation="project", norm_is_gap=True)
    assert found.gap("direction") == pytest.approx(norm, abs=0.001)
    torch.testing.assert_close(found["direction"], normalize(stack[pos, layer].float()), atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="^import_vectors: 'mean_diffs' must be a vector"):
        DirectionSet.import_vectors(path, layer=layer, hook="resid_pre", operation="project")


def test_layer_0_has_no_direction_because_block_inputs_there_are_embeddings(stored):
    """Embeddings of template tokens are the same for all prompts: at block outputs they would differ."""
    _, tensors, _ = stored
    stack = tensors["mean_diffs"].double()
    assert stack[:, 0].abs().max() < 1e-9 < stack[:, 1].norm(dim=-1).min()
    mean = torch.ones(1, stack.shape[-1])
    with pytest.raises(ValueError, match="^mean_direction: the two means must differ"):
        mean_direction(mean + stack[-1, 0].float(), mean)


def test_directions_of_neighbouring_layers_agree_and_those_far_apart_do_not(stored):
    _, tensors, (pos, layer, *_) = stored
    cosines = cosine_matrix(tensors["mean_diffs"][pos, 1:].float())
    assert cosines[layer - 1, layer] > 0.7
    assert cosines[layer - 1, layer] > cosines[layer - 1, 0] + 0.3
