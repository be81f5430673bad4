"""Sampled tokens follow the model's distribution, and do not depend on the batch."""

import pandas as pd
import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering import confidence as module
from refusal_utils.steering.confidence import SAMPLED, refusal_confidence
from refusal_utils.steering.generation import generate
from refusal_utils.steering.sampling import Sampling, TokenChoice, draw_tokens


@pytest.mark.parametrize("given", [{}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 6, "top_p": 0.8, "temperature": 0.5}])
def test_drawn_tokens_have_the_frequencies_of_hugging_faces_warped_distribution(given):
    sampling = Sampling(**given)
    logits = 2 * torch.randn(1, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    uniforms = (torch.arange(20_000) + 0.5) / 20_000
    tokens = draw_tokens((logits / sampling.temperature).expand(len(uniforms), -1), uniforms.double(), sampling)
    warpers = [TemperatureLogitsWarper(sampling.temperature)] if sampling.temperature != 1 else []
    warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    wanted = LogitsProcessorList(warpers)(torch.zeros(1, 1, dtype=torch.long), logits).softmax(-1)[0]
    torch.testing.assert_close(tokens.bincount(minlength=12) / len(uniforms), wanted.float(), atol=2e-4, rtol=0)
    assert ((wanted > 0).sum() < 12) == bool(sampling.top_k or sampling.top_p < 1)  # control: something was cut


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_without_sampling_the_first_of_the_most_likely_tokens_is_chosen(dtype):
    logits = torch.randint(-4, 5, (40, 1000), generator=torch.Generator().manual_seed(0)).to(dtype)  # many are equal
    wanted = [row.index(max(row)) for row in logits.tolist()]
    assert TokenChoice(None, [str(row) for row in range(40)], 8).choose(logits).tolist() == wanted


def test_samples_do_not_depend_on_the_batch_and_are_read_from_disk(chat, prompts, tmp_path, monkeypatch):
    sampling = Sampling(n=3, temperature=1.5)
    how = {"max_new_tokens": 12, "sampling": sampling}
    together = generate(chat, prompts[:4], cache_dir=tmp_path, **how)
    alone = [generate(chat, [prompt], batch_tokens=1, **how) for prompt in prompts[:4]]
    assert together["response"].tolist() == pd.concat(alone)["response"].tolist()
    assert together.groupby("prompt")["response"].nunique().max() == 3
    assert together["sample"].tolist() == [0, 1, 2] * 4
    other = generate(chat, prompts[:4], max_new_tokens=12, sampling=Sampling(n=3, temperature=1.5, seed=1))
    assert other["response"].tolist() != together["response"].tolist()
    monkeypatch.setattr("refusal_utils.steering.generation.decode", None)
    pd.testing.assert_frame_equal(generate(chat, prompts[:4], cache_dir=tmp_path, **how), together)


def test_a_temperature_near_zero_is_greedy_and_probability_is_that_of_the_plain_model(chat, prompts, plain, plain_ids):
    rows = generate(chat, prompts[:3], max_new_tokens=10, sampling=Sampling(n=1, temperature=1e-4))
    assert rows["response"].tolist() == generate(chat, prompts[:3], max_new_tokens=10)["response"].tolist()
    for prompt, found in zip(prompts[:3], rows["probability"], strict=True):
        ids = plain_ids(prompt)
        out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
        new = out[0, ids.shape[1] :]
        with torch.no_grad():
            log_probs = plain(out).logits[0, ids.shape[1] - 1 : -1].double().log_softmax(-1)
        wanted = log_probs.gather(1, new[:, None]).mean().exp()
        assert found == pytest.approx(float(wanted), rel=1e-3)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"temperature": 0.0}, {"top_p": 1.2}, {"top_k": 0}])
def test_a_value_out_of_range_is_one_sentence(wrong):
    with pytest.raises(ValueError, match="^Sampling: n and top_k must be at least 1"):
        Sampling(**wrong)


def test_confidence_is_the_mean_weighted_by_probability(chat, monkeypatch):
    """Two prompts with three samples each, and one whose text is all broken."""
    rows = pd.DataFrame(
        {"outcome": ["refused", "answered", "broken", "refused", "refused", "refused", *["broken"] * 3]}
    )
    rows["probability"] = [0.5, 0.25, 0.9, 0.1, 0.2, 0.3, 0.5, 0.5, 0.5]
    monkeypatch.setattr(module, "respond", lambda *given, **options: rows)
    prompts = pd.DataFrame({"id": list("abc"), "text": list("abc")}, index=[7, 3, 5])
    found = refusal_confidence(chat, prompts, sampling=Sampling(n=3))
    assert found.to_dict() == {7: pytest.approx((0.5 - 0.25) / 0.75), 3: 1.0, 5: 0.0}
    flat = refusal_confidence(chat, prompts, sampling=Sampling(n=3), tau=1e9)
    assert flat[7] == pytest.approx(0.0, abs=1e-6)


def test_confidence_is_sampled_as_in_its_source(chat, monkeypatch):
    asked = {}
    rows = pd.DataFrame({"outcome": ["refused"] * 5, "probability": [0.5] * 5})
    monkeypatch.setattr(module, "respond", lambda *given, **options: asked.update(options) or rows)
    assert refusal_confidence(chat, pd.DataFrame({"id": ["a"], "text": ["a"]})).tolist() == [1.0]
    assert asked["sampling"] == SAMPLED == Sampling(n=5, temperature=0.6, top_p=0.95, top_k=20, seed=0)
    assert asked["max_new_tokens"] == 50


def test_confidence_of_the_bundled_model_is_high_on_what_it_refuses_and_low_on_what_it_answers(chat):
    asked = pd.concat([load_prompts(category, "eval").head(4) for category in ("crime_assistance", "benign")])
    found = refusal_confidence(chat, asked, sampling=Sampling(n=2, temperature=0.6), max_new_tokens=20)
    assert found.index.equals(asked.index)
    assert found.iloc[:4].mean() > 0.5 > 0 > found.iloc[4:].mean()
