"""COSMIC: cosines of mean states after an intervention, against plain Hugging Face hooks, and its median rule."""

import pandas as pd
import pytest
import torch

from refusal_utils.methods import METHODS
from refusal_utils.methods.candidates import find_candidates
from refusal_utils.methods.cosmic import candidate_scores, cosmic, evaluation_layers, too_deep_at_the_end

from ..steering.plain_edits import PlainEdit
from .test_arditi_selection import last_logits


@pytest.fixture(scope="module")
def found(tiny, train):
    return find_candidates(
        "f", tiny[0], train, n_train=16, n_validation=5, needs_tokens=False, filter_prompts=False, positions=[-2, -1]
    )


def mean_states(chat, plain, texts, layers):
    """Mean block outputs at the last token, [layer, d_model], read with hooks on the blocks."""
    kept = {layer: [] for layer in layers}
    handles = [
        plain.model.layers[layer].register_forward_hook(
            lambda m, a, out, own=own: own.append((out[0] if isinstance(out, tuple) else out)[0, -1])
        )
        for layer, own in kept.items()
    ]
    last_logits(chat, plain, texts)
    for handle in handles:
        handle.remove()
    return torch.stack([torch.stack(own).double().mean(0) for own in kept.values()])


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("targets", ["concatenated", "averaged"])
def test_scores_are_those_of_one_candidate_at_a_time_with_plain_hooks(tiny, found, affine, targets):
    (chat, plain), layers, layer, pos = tiny, (1, 2), 1, -2
    strength = 2.0 if affine else 1.0
    scores = candidate_scores(chat, found, layers, affine=affine, targets=targets, strength=strength)
    join = (lambda means: means.mean(0)) if targets == "averaged" else torch.flatten
    to_refused, to_answered = (
        join(mean_states(chat, plain, own, layers)) for own in (found.refused_val, found.answered_val)
    )
    r, mean = found.at(layer, pos)
    unit = r / r.norm()

    def without(x):
        return x - (x @ unit)[..., None] * unit

    def suppressed(x):
        return without(x) + (mean @ unit) * unit

    before = last_logits(chat, plain, found.answered_val).double().softmax(-1)
    edit = (lambda x: suppressed(x) + strength * r) if affine else (lambda x: x + r)
    with PlainEdit(plain, [layer], edit):
        refuse = torch.cosine_similarity(join(mean_states(chat, plain, found.answered_val, layers)), to_refused, dim=0)
    less = PlainEdit(plain, [layer], suppressed) if affine else PlainEdit(plain, range(chat.n_layers), without, without)
    with less:
        comply = torch.cosine_similarity(join(mean_states(chat, plain, found.refused_val, layers)), to_answered, dim=0)
        after = last_logits(chat, plain, found.answered_val).double().softmax(-1)
    kl = (before * (torch.log(before + 1e-6) - torch.log(after + 1e-6))).sum(-1).mean()
    row = scores.set_index(["layer", "pos"]).loc[(layer, pos)]
    assert row["comply"] == pytest.approx(float(comply), abs=1e-5)
    assert row["refuse"] == pytest.approx(float(refuse), abs=1e-5)
    assert row["total"] == pytest.approx(float(comply + refuse), abs=1e-5)
    assert row["kl"] == pytest.approx(float(kl), rel=1e-3, abs=1e-7)


def test_evaluation_layers_differ_most_and_are_at_least_one(tiny, found):
    chat, plain = tiny
    every = range(chat.n_layers)
    sides = [mean_states(chat, plain, own, every) for own in (found.refused_train, found.answered_train)]
    similarity = torch.cosine_similarity(*sides, dim=-1)
    assert evaluation_layers(chat, found) == (int(similarity.argmin()),)
    late = chat.n_layers // 2
    assert evaluation_layers(chat, found, late_only=True) == (late + int(similarity[late:].argmin()),)


def test_the_last_position_must_not_lie_deeper_than_both_medians():
    best = {-3: 2, -2: 4}  # the layers with the best scores; their median is 3
    rows = [(layer, pos, float(best.get(pos) == layer)) for layer in range(6) for pos in (-3, -2, -1)]
    scores = pd.DataFrame(rows, columns=["layer", "pos", "comply"]).assign(refuse=lambda each: each["comply"])
    killed = scores[too_deep_at_the_end(scores)]
    assert list(zip(killed["layer"], killed["pos"], strict=True)) == [(4, -1), (5, -1)]
    later = scores.assign(refuse=(scores["layer"] == 5).astype(float))  # deeper than one median only
    assert not too_deep_at_the_end(later).any()
    assert not too_deep_at_the_end(scores[scores["pos"] == -1]).any()  # a template of one token


def test_the_selection_is_kept_and_other_targets_are_an_error(chat, train, tmp_path):
    how = {"n_train": 28, "n_validation": 6, "positions": [-2, -1], "cache_dir": tmp_path}
    found = cosmic(chat, train, **how)
    assert found.notes["layers"] == [6]
    assert 0 < found.best[0] < 6
    assert found.table().iloc[0]["total"] > 1
    pd.testing.assert_frame_equal(cosmic(chat, train, **how).table(), found.table(), check_dtype=False)
    assert len(list(tmp_path.glob("selection_*"))) == 1
    with pytest.raises(ValueError, match="^cosmic: targets must be 'concatenated' or 'averaged'; got 'summed'"):
        cosmic(chat, train, targets="summed")
    assert METHODS["cosmic"].options["affine"] is False
