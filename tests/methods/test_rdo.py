"""Directions by gradients: the losses and their gradient by independent routes, a planted direction, and bad input."""

import dataclasses
import inspect
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.methods import METHODS, rdo, targets, training
from refusal_utils.methods.cones import orthonormal_rows, sampled_mixtures
from refusal_utils.methods.descent import Schedule, checked_schedule
from refusal_utils.methods.losses import Losses
from refusal_utils.methods.rdo import random_rows, train_direction
from refusal_utils.methods.targets import Targets, make_targets
from refusal_utils.methods.training import Training, batch_of, best_of, prepare
from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.steering import UNSTEERED
from refusal_utils.steering.given_responses import GivenResponse

from ..families import save_family
from ..steering.plain_edits import PlainEdit

SMALL = {"place": (3, -3), "tokens": (311,), "n_train": 14, "n_validation": 8, "filter_prompts": False}


@pytest.fixture(scope="module")
def prepared(chat, train, cache) -> Training:
    return prepare("rdo", chat, train, cache_dir=cache, **SMALL)


def unit(training):
    return training.difference / training.difference.norm()


def total(losses, basis, chosen, mixtures, shares):
    values, _ = losses.gradient(basis, chosen, mixtures, shares)
    return float(values.double() @ torch.tensor(losses.weights, dtype=torch.float64))


def test_losses_are_those_of_one_response_at_a_time_in_plain_hugging_face(chat, plain, prepared):
    v, losses = unit(prepared), prepared.losses

    def without(x):
        return x - (x @ v)[..., None] * v

    answer, refusal, kept = (kind[0] for kind in losses.kinds)

    def log_probs(given):
        with torch.no_grad():
            logits = plain(torch.tensor([given.ids])).logits[0, -given.n_response - 1 : -1]
        return logits.double().log_softmax(-1)

    def entropy(given):
        own = torch.tensor(given.ids[-given.n_response :])
        return float(-log_probs(given).gather(1, own[:, None]).mean())

    before = log_probs(kept)
    with PlainEdit(plain, range(chat.n_layers), without, without):
        answering, after = entropy(answer), log_probs(kept)
    with PlainEdit(plain, [3], lambda x: x + losses.strength * v):
        refusing = entropy(refusal)
    paper = torch.nn.functional.kl_div(after, before, log_target=True, reduction="sum") / kept.n_response
    one = torch.ones(1, 1, 1), torch.ones(1)
    found, _ = losses.gradient(v[None], [[0]] * 3, *one)
    assert found.tolist() == pytest.approx([answering, refusing, float(paper)], rel=2e-3, abs=1e-5)


def test_the_released_kl_is_summed_over_the_last_30_positions_the_other_way_round(chat, plain, prepared):
    """As the authors call it: kl_div(log p of the unsteered model, p of the ablated one), "batchmean", one row."""
    v, own = unit(prepared), dataclasses.replace(prepared.losses, kl="released")

    def without(x):
        return x - (x @ v)[..., None] * v

    def log_probs(ids):
        with torch.no_grad():
            return plain(torch.tensor([ids])).logits[:, -30:].double().log_softmax(-1)

    lengths = [kept.n_response for kept in prepared.losses.targets.retained]
    for row in (lengths.index(max(lengths)), lengths.index(min(lengths))):
        ids = prepared.losses.targets.retained[row].ids
        before = log_probs(ids)
        with PlainEdit(plain, range(chat.n_layers), without, without):
            after = log_probs(ids)
        wanted = torch.nn.functional.kl_div(before, after.exp(), reduction="batchmean")
        (_, _, found), _ = own.gradient(v[None], [[], [], [row]], torch.ones(1, 1, 1), torch.ones(1))
        (_, _, paper), _ = prepared.losses.gradient(v[None], [[], [], [row]], torch.ones(1, 1, 1), torch.ones(1))
        assert float(found) == pytest.approx(float(wanted), rel=2e-3)
        assert float(found) > 5 * float(paper) > 0  # so a weight of 1 means something else


def test_the_gradient_is_that_of_finite_differences(prepared):
    """Two rows and two mixtures of them, over several prompts of each kind."""
    losses, draw = prepared.losses, torch.Generator().manual_seed(3)
    basis = torch.stack([unit(prepared), random_rows(1, len(prepared.difference), 1)[0]])
    mixtures = torch.rand(2, 2, 2, generator=draw) + 0.2
    how = [[0, 1], [1, 2], [2, 0]], mixtures, torch.tensor([0.75, 0.25])
    _, gradient = losses.gradient(basis, *how)
    along = torch.nn.functional.normalize(gradient + 0.3 * torch.randn(basis.shape, generator=draw), dim=(0, 1))
    up, down = (total(losses, basis + step * along, *how) for step in (0.01, -0.01))
    slope = float((gradient * along).sum())
    assert abs(slope) > 1e-3
    assert slope == pytest.approx((up - down) / 0.02, rel=0.05)


def test_batches_do_not_change_the_gradient_and_shares_weigh_the_directions(prepared):
    basis = torch.stack([unit(prepared), random_rows(1, len(prepared.difference), 1)[0]])
    each = torch.eye(2).expand(2, 2, 2)
    chosen = [[0, 1], [0, 1], [0, 1]]
    whole, slope = prepared.losses.gradient(basis, chosen, each, torch.tensor([0.5, 0.5]))
    split = dataclasses.replace(prepared.losses, batch_tokens=1)
    apart, same = split.gradient(basis, chosen, each, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(apart, whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(same, slope, atol=1e-5, rtol=1e-3)
    first, _ = prepared.losses.gradient(basis, chosen, each, torch.tensor([1.0, 0.0]))
    second, _ = prepared.losses.gradient(basis, chosen, each, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(first + second, 2 * whole, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(first, second, rtol=0.05)  # control: the directions differ


@dataclasses.dataclass(frozen=True, eq=False)
class ToyLosses(Losses):
    """Refusal is a logit along `planted`: states of refused prompts lie 3 along it, others 3 the other way."""

    planted: torch.Tensor = None

    def of_rows(self, kind, given, directions):
        noise = torch.stack([torch.randn(16, generator=torch.Generator().manual_seed(len(g.ids))) for g in given])
        noise = noise - (noise @ self.planted)[:, None] * self.planted
        states = noise + (3.0 if kind == 0 else -3.0) * self.planted
        if kind == 1:
            return torch.nn.functional.softplus(-(states + 6 * directions) @ self.planted)
        left = states - (states * directions).sum(-1, keepdim=True) * directions
        if kind == 0:
            return torch.nn.functional.softplus(left @ self.planted)
        return (left - states).square().sum(-1) / 100


def test_a_planted_direction_is_recovered(chat, prepared):
    planted = random_rows(1, 16, 5)[0]
    rows = [GivenResponse([1] * n, 1) for n in range(2, 34)]
    losses = ToyLosses("rdo", chat, Targets(rows, rows, rows), 3, 6.0, planted=planted)
    toy = Training(losses, prepared.candidates, planted, 3, -1, "toy")
    found = []

    class Toy(Training):
        def scores(self, directions):
            return pd.DataFrame({"bypass": -(directions @ planted).numpy(), "induce": 1.0, "kl": 0.0})

    for rate in (0.0, 0.1):
        own = Toy(**{each.name: getattr(toy, each.name) for each in dataclasses.fields(toy)})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rdo, "random_rows", lambda n, d_model, seed: random_rows(n, 16, seed))
            found.append(train_direction(own, Schedule(n_updates=60, rate=rate), 8).direction @ planted)
    assert abs(found[0]) < 0.6  # before control: nothing moved
    assert found[1] > 0.97


def test_training_raises_the_effects_of_a_random_direction_and_is_stored(chat, train, prepared, cache, monkeypatch):
    how = {"n_updates": 5, "n_prompts": 4, "rate": 0.04, "cache_dir": cache}
    found = rdo.rdo(chat, train, **how, **SMALL)
    before = prepared.scores(random_rows(1, chat.d_model, 0)).loc[0]
    after = found.rows.loc[found.chosen]
    assert found.direction.norm() == pytest.approx(1.0, abs=1e-5)
    assert after["bypass"] < before["bypass"] - 0.5
    assert after["induce"] > before["induce"] + 0.5
    assert found.rows["cosine"].iloc[-1] > found.rows["cosine"].iloc[0] > 0
    assert {trace.name for trace in found.figure().data} == set(rdo.LOSSES)
    monkeypatch.setattr(Losses, "gradient", None)
    again = rdo.rdo(chat, train, **how, **SMALL)
    assert torch.equal(again.direction, found.direction)
    pd.testing.assert_frame_equal(again.table(), found.table())


@pytest.mark.parametrize(("name", "n"), [("rdo", 1), ("cones", 1), ("independent", 2)])
def test_a_study_gets_a_set_with_the_options_in_its_provenance(chat, train, cache, name, n, tmp_path):
    study = SimpleNamespace(chat=chat, draw=train, cache_dir=cache, provenance=Provenance)
    loose = {"k": n, "max_bypass": 99.0, "min_induce": -99.0, "max_kl": 99.0} if name == "cones" else {}
    found = METHODS[name].fit(study, n_updates=1, n_prompts=2, **SMALL, **loose)
    assert (len(found), found.provenance.estimator) == (n, name)
    assert (found.provenance.layer, found.provenance.pos) == (3, -3)
    assert METHODS[name].trains
    assert set(METHODS[name].options) <= set(found.provenance.settings)
    loaded = DirectionSet.load(found.save(tmp_path / "set.safetensors"))
    assert loaded.provenance.settings["kl"] == "paper"
    torch.testing.assert_close(loaded.vectors, found.vectors)


def test_the_choice_drops_what_costs_much_or_does_not_induce():
    rows = pd.DataFrame(
        {"bypass": [-3.0, -2.0, -1.0, 0.0], "induce": [1.0, -1.0, 1.0, 1.0], "kl": [0.2, 0.0, 0.05, 0.0]}
    )
    assert best_of(rows) == 2
    assert best_of(rows.iloc[:2].assign(kl=[0.11, 0.3])) == 0  # none passes: the nearest
    assert best_of(rows, max_kl=0.5) == 0


def test_prompts_are_used_in_a_random_order_and_all_of_them_before_any_again():
    batches = [batch_of(10, 4, update, seed=1) for update in range(5)]
    flat = [place for batch in batches for place in batch]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert batches != [batch_of(10, 4, update, seed=2) for update in range(5)]


def test_targets_end_before_the_full_stop_and_hold_the_models_own_ids(chat, prepared):
    assert all(
        "." not in chat.tokenizer.decode(each.ids[-each.n_response :]) for each in prepared.losses.targets.refusals
    )
    assert {each.n_response <= 30 for each in prepared.losses.targets.answers} == {True}
    assert max(each.n_response for each in prepared.losses.targets.retained) <= 29


def test_bad_input_is_one_sentence_and_writes_nothing(chat, train, tmp_path, monkeypatch):
    cases = [
        ({"place": (8, -1)}, "^rdo: place must be a layer from 0 to 7 and a position from -4 to -1; got"),
        ({"kl": "mean"}, "^rdo: kl must be one of paper, released; got 'mean'"),
        ({"n_updates": 0}, "^rdo: n_updates must be at least 1; got 0"),
        ({"n_prompts": 0}, "^rdo: n_prompts must be at least 1; got 0"),
        ({"patience": 0}, "^rdo: patience must be at least 1; got 0"),
        ({"rate": float("nan")}, "^rdo: rate must be a positive number; got nan"),
        (
            {"place": (0, -4)},
            "^rdo: the means of refused and answered prompts must differ .*; got layer 0, position -4",
        ),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            rdo.rdo(chat, train, **{**SMALL, **options})
    with pytest.raises(ValueError, match="^rdo: 4 prompts must be left on every side"):
        rdo.rdo(chat, train[train["category"] == "benign"], **SMALL)
    with pytest.raises(ValueError, match=r"^rdo: an option must be one of kl, .*; got lambda"):
        METHODS["rdo"].fit(None, **{"lambda": 2})
    monkeypatch.setattr(targets, "judge_response", lambda prompt, response: type("No", (), {"outcome": "refused"}))
    with pytest.raises(
        ValueError, match="^rdo: ablating the difference in means must make the model answer, which does"
    ):
        make_targets("rdo", chat, ["Hi"], ["Hi"], suppress=UNSTEERED, induce=UNSTEERED)
    nothing = type("Selection", (), {"survivors": [], "rows": [1, 2], "best": (3, -1)})()
    nothing.filters = lambda: pd.DataFrame({"killed": {"KL > 0.1": 2}})
    monkeypatch.setattr(training, "arditi_selection", lambda *_, **__: nothing)
    with pytest.raises(ValueError, match="^rdo: a difference in means must pass.*; got none of 2: KL > 0.1 killed 2"):
        rdo.rdo(chat, train, cache_dir=tmp_path / "new", **{**SMALL, "place": None})
    assert not [*tmp_path.rglob("rdo_*")]


@pytest.mark.parametrize("place", [(6,), (6, -2, 0), ("6", -2), (6.0, -2), "6"])
def test_a_place_is_two_whole_numbers(chat, place):
    with pytest.raises(ValueError, match="^rdo: place must be a layer from 0 to 7 and a position from -4 to -1; got"):
        inspect.unwrap(training._require_place)("rdo", chat, place)  # tests check types of signatures


@pytest.mark.parametrize("wrong", [{"n_updates": "3"}, {"n_prompts": 1.5}, {"patience": True}])
def test_numbers_of_a_schedule_are_whole(wrong):
    how = {"n_updates": 3, "n_prompts": 4, "rate": 0.1, "patience": None} | wrong
    with pytest.raises(ValueError, match=f"^rdo: {next(iter(wrong))} must be a whole number.*; got"):
        inspect.unwrap(checked_schedule)("rdo", **how)
    with pytest.raises(ValueError, match="^rdo: rate must be a positive number; got '0.1'"):
        inspect.unwrap(checked_schedule)("rdo", 3, 4, "0.1")


def test_the_gradient_in_bfloat16_points_the_same_way(chat, prepared):
    half = load_chat_model(device="cpu", dtype="bfloat16")
    own = dataclasses.replace(prepared.losses, chat=half)
    basis = orthonormal_rows(torch.stack([unit(prepared), random_rows(1, chat.d_model, 1)[0]]))
    how = basis, [[0, 1, 2, 3]] * 3, sampled_mixtures(8, 2, 0).unflatten(0, (4, 2)), torch.tensor([0.5, 0.5])
    (losses, gradient), (found, slope) = prepared.losses.gradient(*how), own.gradient(*how)
    assert slope.dtype == torch.float32
    torch.testing.assert_close(found, losses, rtol=0.1, atol=0.02)
    assert float(torch.cosine_similarity(slope.flatten(), gradient.flatten(), dim=0)) > 0.98


def test_gradients_need_more_than_float16_on_the_cpu_and_no_quantized_weights(train, tmp_path):
    half = load_chat_model(save_family("qwen2", tmp_path / "qwen2"), device="cpu", dtype="float16")
    with pytest.raises(ValueError, match="^rdo: training needs gradients in float32.*; got float16 on the CPU"):
        rdo.rdo(half, train, **SMALL)
    half.bridge.original_model.config.quantization_config = {"bits": 4}
    with pytest.raises(ValueError, match="^rdo: training needs .*; got a quantized model"):
        rdo.rdo(half, train, **SMALL)
