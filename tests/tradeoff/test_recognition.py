"""Recognition: what probes on steered states and two baselines tell, on made-up scores and the bundled model."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import mean_direction
from refusal_utils.model.capture import capture_activations
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.stats import bootstrap_counts
from refusal_utils.steering.conditions import UNSTEERED, ablation_condition, steering_condition
from refusal_utils.steering.steered_states import steered_states
from refusal_utils.tradeoff.recognition import LENGTH, WORDS, Recognition, recognition


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    sides = [load_prompts(name, "eval").head(24).assign(harmful=name != "benign") for name in ("advice", "benign")]
    return pd.concat(sides, ignore_index=True)


def test_steered_states_equal_a_capture_without_steering_and_lack_an_ablated_direction(chat, prompts):
    texts, last = list(prompts["text"][:6]), chat.n_layers - 1
    captured = capture_activations(chat, texts, layers=[last], positions=[-2], hook="resid_post").at(last, -2)
    unsteered = steered_states(chat, texts, UNSTEERED, pos=-2)
    torch.testing.assert_close(unsteered, captured, atol=1e-4, rtol=1e-4)
    direction = torch.nn.functional.normalize(captured[0] - captured[1], dim=0)
    directions = DirectionSet(("a",), direction[None], torch.ones(1), Provenance(3))
    ablated = steered_states(chat, texts, ablation_condition(directions, "a"), pos=-2)
    assert float((unsteered @ direction).abs().max()) > 0.1
    assert float((ablated @ direction).abs().max()) < 1e-3
    added = steered_states(chat, texts, steering_condition(directions, "a", coefficient=5.0, layer=last), pos=-2)
    assert not torch.allclose(added, unsteered, atol=0.1)


def test_aucs_their_intervals_and_their_changes_are_those_of_scikit_learn():
    """Also with ties, of which there are many once scores are rounded."""
    draw = torch.Generator().manual_seed(0)
    harmful = torch.arange(60) < 30
    scores = torch.randn(60, 2, generator=draw) + torch.tensor([1.5, 0.3]) * harmful[:, None]
    scores = scores.mul(2).round()
    table = Recognition(("unsteered", "other"), scores, harmful).table(400)
    for at, name in enumerate(table.index):
        assert table.loc[name, "AUC"] == pytest.approx(roc_auc_score(harmful, scores[:, at]))
        drawn = bootstrap_counts(harmful.long(), 400, 0)
        aucs = [roc_auc_score(harmful, scores[:, at], sample_weight=each) for each in drawn]
        assert table.loc[name, "AUC low"] == pytest.approx(float(np.quantile(aucs, 0.025)))
        assert table.loc[name, "AUC low"] < table.loc[name, "AUC"] < table.loc[name, "AUC high"]
    assert table.loc["other", "change"] == pytest.approx(table["AUC"].iloc[1] - table["AUC"].iloc[0])
    assert table.loc["other", "change high"] < 0
    assert table.loc["unsteered", ["change", "change low", "change high"]].tolist() == [0, 0, 0]


def test_a_model_whose_direction_is_ablated_is_probed_again_and_rulers_see_only_the_text(chat, prompts):
    texts = list(prompts["text"])
    states = capture_activations(chat, texts, layers=[6], positions=[-2]).at(6, -2)
    harmful = torch.tensor(prompts["harmful"].to_numpy())
    direction = mean_direction(states[harmful], states[~harmful])
    directions = DirectionSet(("a",), direction[None], torch.ones(1), Provenance(6))
    found = recognition(chat, prompts, {"ablated": ablation_condition(directions, "a")}, pos=-2)
    assert found.names == ("unsteered", "ablated", LENGTH, WORDS)
    table = found.table(50)
    assert table.loc["unsteered", "AUC"] > 0.9
    same = prompts.assign(text=prompts["text"].str.split().map(len).map(lambda n: "word " * n))
    blind = recognition(chat, same, {}).table(50)
    assert blind.loc[WORDS, "AUC"] == pytest.approx(0.5)  # nothing but the length is left
    assert blind.loc[LENGTH, "AUC"] == pytest.approx(table.loc[LENGTH, "AUC"])
    assert found.figure(title="Recognition").layout.xaxis.title.text.startswith("AUC of a probe")
    named = found.figure(title="Recognition", names={"unsteered": "no intervention"})
    assert list(named.data[0].y[:1]) == ["no intervention"]
    with pytest.raises(
        ValueError, match="^recognition: there must be at least 5 harmful and 5 benign prompts; got 24 and 3"
    ):
        recognition(chat, prompts.head(27), {})


def test_the_length_of_a_prompt_is_its_number_of_words(chat):
    """Harmful prompts have three or four words, benign ones one or two."""
    rows = [(" ".join(["word"] * (n + 2 * harmful)), harmful) for harmful in (True, False) for n in (1, 2) * 6]
    found = recognition(chat, pd.DataFrame(rows, columns=["text", "harmful"]), {})
    assert found.table(10).loc[LENGTH, "AUC"] == 1
