from dataclasses import replace

import pandas as pd
import pytest
import torch

from refusal_utils.directions.estimation import normalize
from refusal_utils.model.store import RowLog
from refusal_utils.steering import decoding, first_token_logits
from refusal_utils.steering import generation as module
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.generation import generate
from refusal_utils.steering.interventions import Ablation, Addition


@pytest.fixture(scope="module")
def conditions(chat) -> list[Condition]:
    draws = torch.randn(3, chat.d_model, generator=torch.Generator().manual_seed(5))
    first, second, third = (normalize(draw) for draw in draws)
    return [
        UNSTEERED,
        Condition("strong", (Addition(9 * first, (4,)),)),
        Condition("prompt", (Addition(9 * second, (3, 4), "prompt"),)),
        Condition("ablated", (Ablation(torch.stack([first, third])),)),
    ]


def plain_text(chat, plain, ids, n_new):
    out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new, do_sample=False)
    return chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_generate_equals_plain_hugging_face_one_prompt_at_a_time(chat, prompts, plain, plain_ids):
    ours = generate(chat, prompts[:8], max_new_tokens=30, batch_tokens=400)
    assert ours["response"].tolist() == [plain_text(chat, plain, plain_ids(prompt), 30) for prompt in prompts[:8]]
    assert ours["response"].nunique() > 1


def test_conditions_in_one_batch_equal_conditions_one_by_one(chat, prompts, conditions):
    together = generate(chat, prompts[:6], conditions, max_new_tokens=20)
    apart = [generate(chat, prompts[:6], [condition], max_new_tokens=20) for condition in conditions]
    pd.testing.assert_frame_equal(together, pd.concat(apart, ignore_index=True))
    assert together["condition"].tolist() == [each.name for each in conditions for _ in range(6)]
    assert together.pivot(index="prompt", columns="condition", values="response").nunique(axis=1).max() > 1


def test_alpha_zero_equals_the_unsteered_run_token_for_token(chat, prompts, conditions, monkeypatch):
    """The zero vector goes through the hooks here; normally its digest makes it the unsteered run."""
    zero = Condition("zero", (Addition(torch.zeros(chat.d_model), (4,)),))
    assert zero.digest == UNSTEERED.digest
    monkeypatch.setattr(Condition, "digest", property(lambda self: self.name))
    rows = generate(chat, prompts[:12], [UNSTEERED, conditions[1], zero], max_new_tokens=12).set_index("condition")
    assert rows.loc["zero", "response"].tolist() == rows.loc["unsteered", "response"].tolist()
    assert rows.loc["strong", "response"].tolist() != rows.loc["unsteered", "response"].tolist()


def test_generate_of_nothing_is_nothing(chat):
    assert generate(chat, []).empty


class Killed(KeyboardInterrupt):
    pass


def killed_after(n, monkeypatch):
    original, seen = RowLog.write, []

    def write(self, key, *value):
        if len(seen) == n:
            raise Killed
        seen.append(key)
        original(self, key, *value)

    monkeypatch.setattr(RowLog, "write", write)


def test_a_killed_run_resumes_where_it_stopped(chat, prompts, conditions, tmp_path, monkeypatch):
    whole = generate(chat, prompts[:6], conditions, max_new_tokens=20)
    with monkeypatch.context() as patch:
        killed_after(11, patch)
        with pytest.raises(Killed):
            generate(chat, prompts[:6], conditions, max_new_tokens=20, cache_dir=tmp_path)
    assert not any(point.fwd_hooks for point in chat.bridge.hook_dict.values())  # the model is left as it was found
    (path,) = tmp_path.iterdir()
    assert path.read_text().count("\n") == 11
    with path.open("ab") as file:
        file.write(b'\n00000000 ["half a li')  # as if killed while writing
    decoded, original = [], module.decode

    def counted(chat, rows, *rest):
        decoded.extend(rows)
        original(chat, rows, *rest)

    monkeypatch.setattr(module, "decode", counted)
    resumed = generate(chat, prompts[:6], conditions, max_new_tokens=20, cache_dir=tmp_path)
    pd.testing.assert_frame_equal(resumed, whole)
    assert len(decoded) == 24 - 11
    again = generate(chat, prompts[:6], conditions, max_new_tokens=20, cache_dir=tmp_path)
    pd.testing.assert_frame_equal(again, whole)
    assert len(decoded) == 24 - 11


def test_a_shorter_run_is_read_from_a_longer_one(chat, prompts, tmp_path, monkeypatch):
    expected = generate(chat, prompts[:6], max_new_tokens=5)
    generate(chat, prompts[:6], max_new_tokens=20, cache_dir=tmp_path)
    monkeypatch.setattr(module, "decode", None)
    pd.testing.assert_frame_equal(generate(chat, prompts[:6], max_new_tokens=5, cache_dir=tmp_path), expected)
    assert not expected["stopped"].any()


def test_a_longer_run_than_the_stored_one_generates_its_rows_anew(chat, prompts, tmp_path):
    expected = generate(chat, prompts[:6], max_new_tokens=20)
    short = generate(chat, prompts[:6], max_new_tokens=5, cache_dir=tmp_path)
    pd.testing.assert_frame_equal(generate(chat, prompts[:6], max_new_tokens=20, cache_dir=tmp_path), expected)
    assert (expected["n_tokens"] > short["n_tokens"]).any()


def test_a_response_may_fill_the_context_to_its_last_token_but_one(chat, prompts):
    """The last new token is not read."""
    n = len(chat.encode(prompts[:1])[0])
    expected = generate(chat, prompts[:1], max_new_tokens=4)
    full, short = (replace(chat, n_context=n_context) for n_context in (n + 3, n + 2))
    pd.testing.assert_frame_equal(generate(full, prompts[:1], max_new_tokens=4), expected)
    with pytest.raises(
        ValueError, match=f"^generate: prompt and 4 new tokens must fit the context of {n + 2}; got {n}"
    ):
        generate(short, prompts[:1], max_new_tokens=4)
    with pytest.raises(ValueError, match=f"got {n + 1} tokens in prompt 0"):  # a forced token counts
        generate(full, prompts[:1], max_new_tokens=4, first_tokens=[5])


def test_a_damaged_row_is_generated_again_and_the_others_are_kept(chat, prompts, tmp_path, monkeypatch, capsys):
    expected = generate(chat, prompts[:4], max_new_tokens=5, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b", [") + 3] ^= 1  # another token
    path.write_bytes(damaged)
    decoded, original = [], module.decode

    def counted(begin, rows, *rest):
        decoded.extend(rows)
        original(begin, rows, *rest)

    monkeypatch.setattr(module, "decode", counted)
    for _ in range(2):  # the second time, the new row is found
        found = generate(chat, prompts[:4], max_new_tokens=5, cache_dir=tmp_path)
        pd.testing.assert_frame_equal(found, expected)
        assert len(decoded) == 1
    assert f"1 line of {path} fails its checksum" in capsys.readouterr().err


def test_lack_of_memory_halves_the_batch_and_keeps_finished_rows(chat, prompts, conditions, monkeypatch, capsys):
    expected = generate(chat, prompts[:4], conditions[:2], max_new_tokens=12)
    original = decoding.forward

    def small(chat, input_ids, attention_mask, **options):
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(chat, input_ids, attention_mask, **options)

    monkeypatch.setattr(decoding, "forward", small)
    pd.testing.assert_frame_equal(generate(chat, prompts[:4], conditions[:2], max_new_tokens=12), expected)
    assert "generate: out of memory at 4 prompts, continuing with 2" in capsys.readouterr().err


def test_first_token_logits_are_those_of_plain_hugging_face(chat, prompts, plain, plain_ids, conditions):
    ours = first_token_logits(chat, prompts[:6], batch_tokens=60)
    with torch.no_grad():
        expected = torch.stack([plain(plain_ids(prompt)).logits[0, -1] for prompt in prompts[:6]])
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert float((first_token_logits(chat, prompts[:6], conditions[1]) - expected).abs().max()) > 1e-2


def test_first_token_logits_can_be_differentiated_where_asked(chat, prompts):
    vector = torch.ones(chat.d_model).requires_grad_()
    condition = Condition("steered", (Addition(vector, (4,)),))
    assert not first_token_logits(chat, prompts[:2], condition).requires_grad
    logits = first_token_logits(chat, prompts[:2], condition, gradients=True)
    torch.testing.assert_close(logits.detach(), first_token_logits(chat, prompts[:2], condition))
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), vector)
    assert float(slope.norm()) > 0


def test_bad_requests_are_refused(chat, prompts, conditions, tmp_path):
    with pytest.raises(ValueError, match="generate: there must be at least one condition"):
        generate(chat, prompts[:2], [])
    with pytest.raises(ValueError, match="^generate: conditions must differ in name, direction or coefficient"):
        generate(chat, prompts[:2], [UNSTEERED, UNSTEERED])
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1; got 0"):
        generate(chat, prompts[:2], max_new_tokens=0)
    with pytest.raises(ValueError, match="the width must be that of bundled"):
        generate(chat, prompts[:2], [Condition("wide", (Addition(torch.ones(7), (1,)),))])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="^generate: the cache must be writable"):
        generate(chat, prompts[:2], max_new_tokens=2, cache_dir=tmp_path / "file" / "below")


def test_rows_made_under_other_open_hooks_are_never_stored(chat, prompts, tmp_path):
    with (
        chat.bridge.hooks(fwd_hooks=[(chat.hook_name("resid_pre", 2), lambda value, hook: 2 * value)]),
        pytest.raises(ValueError, match="no other hook may be open"),
    ):
        generate(chat, prompts[:2], max_new_tokens=2, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_forced_first_token_is_followed_as_plain_hugging_face_follows_it(chat, prompts, plain, plain_ids):
    forced = [chat.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" I", " Sure", " Yes")]
    ours = generate(chat, prompts[:3], max_new_tokens=12, first_tokens=forced, tokens=True)
    for row, prompt, token in zip(ours.itertuples(), prompts, forced, strict=False):
        ids = torch.cat([plain_ids(prompt), torch.tensor([[token]])], dim=1)
        out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert row.tokens[0] == token
        assert row.response == chat.tokenizer.decode(out[0, ids.shape[1] - 1 :], skip_special_tokens=True).strip()
    free = generate(chat, prompts[:3], max_new_tokens=13, tokens=True)
    own = [ids[0] for ids in free["tokens"]]
    again = generate(chat, prompts[:3], max_new_tokens=12, first_tokens=own)
    assert again["response"].tolist() == free["response"].tolist() != ours["response"].tolist()
    with pytest.raises(ValueError, match="^generate: first_tokens needs one id per prompt; got 1 for 3 prompts"):
        generate(chat, prompts[:3], first_tokens=forced[:1])
