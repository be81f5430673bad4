"""Training with SAELens: planted atoms are rebuilt, files are SAELens' own, and rare states are not ignored."""

import json

import pytest
import torch

from refusal_utils.latents import explained_variance, load_sae, own_chats, train_sae
from refusal_utils.latents.training import BATCH, CONFIG, SHARE, WEIGHTS, _Batches, _trained
from refusal_utils.model.batching import count_rows

D_MODEL, ATOMS = 16, 24


def planted(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Sums of two of 24 unit atoms with random amounts."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(
        torch.randn(ATOMS, D_MODEL, generator=torch.Generator().manual_seed(7)), dim=1
    )
    chosen = torch.rand(n, ATOMS, generator=generator).topk(2, dim=1).indices
    amounts = torch.zeros(n, ATOMS).scatter(1, chosen, 1 + torch.rand(n, 2, generator=generator))
    return scale * amounts @ atoms


@pytest.mark.parametrize("architecture", ["topk", "jumprelu"])
def test_sums_of_planted_atoms_are_rebuilt_on_held_out_states(architecture, tmp_path):
    pytest.importorskip("sae_lens", exc_type=ImportError)
    trained = _trained(planted(4000, 0), planted(1000, 1), architecture, 48, 4, 60_000, seed=0)
    trained.save_inference_model(str(tmp_path))
    config = tmp_path / "cfg.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "metadata": {"hook_name": "blocks.0.hook_resid_post"}})
    )
    sae, held_out = load_sae(tmp_path, "sae_lens"), planted(500, 2)
    assert explained_variance(sae, held_out) > 0.8
    assert (
        explained_variance(sae, torch.randn(500, D_MODEL, generator=torch.Generator().manual_seed(3))) < 0.8
    )  # control


def test_a_batch_has_its_share_of_decision_states_each_group_weighs_alike_and_every_state_comes_in_each_round():
    decision, others = planted(BATCH, 0, scale=0.01), planted(3 * BATCH, 1)
    batches = _Batches(others, decision, seed=0)
    n = int(SHARE * BATCH)
    drawn = [next(batches) for _ in range(3 * BATCH // (BATCH - n))]
    rounds = torch.cat([each[n:] for each in drawn])
    assert len(rounds) == 3 * BATCH
    assert torch.equal(rounds.sum(1).sort().values, others.sum(1).sort().values)
    losses = []
    mean = torch.cat([decision.mean(0).expand(n, -1), others.mean(0).expand(BATCH - n, -1)])
    for part in (slice(n), slice(n, None)):
        found = [batches.loss(mean, each).sum(1)[part] for each in drawn]
        losses.append(torch.cat(found).mean())
    assert losses[0] / losses[1] == pytest.approx(1, rel=0.1)  # without weights: 1e-4


def test_what_is_trained_is_a_folder_of_saelens_in_half_precision_that_knows_its_place(chat, tmp_path):
    package = pytest.importorskip("sae_lens", exc_type=ImportError)
    given = own_chats(chat, ["How do I boil an egg?", "why", "what is the capital of France"], max_new_tokens=4)
    (sae,) = train_sae(chat, given, [5], tmp_path, n_latents=32, l0=4, n_samples=2 * BATCH).values()
    assert (sae.layer, sae.resid_pre_layer, sae.n_latents, sae.k, sae.model) == (5, 6, 32, 4, "bundled")
    theirs = package.SAE.load_from_disk(tmp_path / "layer_5", device="cpu", dtype="float32")
    states = torch.randn(9, chat.d_model)
    torch.testing.assert_close(theirs.encode(states), sae.encode(states), rtol=1e-4, atol=1e-4)
    assert (tmp_path / "layer_5" / "sae_weights.safetensors").stat().st_size < 2.2 * 2 * 32 * chat.d_model * 1.2


def test_the_loss_is_where_the_autoencoder_is():
    """`meta` stands in for a GPU: two devices in one product are an error."""
    batches = _Batches(planted(4000, 0), planted(1000, 1), seed=0)
    states = next(batches)
    assert states.device.type == "cpu"
    assert batches.loss(states.to("meta"), states.to("meta")).device.type == "meta"


def test_finished_layers_are_not_trained_again_and_damaged_ones_are(chat, tmp_path, monkeypatch):
    pytest.importorskip("sae_lens", exc_type=ImportError)
    given = own_chats(chat, ["How do I boil an egg?", "why", "what is the capital of France"], max_new_tokens=4)
    how = {"n_latents": 32, "l0": 4, "n_samples": 2 * BATCH, "cache_dir": tmp_path / "cache"}
    train_sae(chat, given, [2, 5], tmp_path, **how)
    paths = [tmp_path / f"layer_{layer}" / name for layer in (2, 5) for name in (CONFIG, WEIGHTS)]
    before, trained = [path.read_bytes() for path in paths], []
    (tmp_path / ".layer_5.part").mkdir()  # of a killed run

    def counting(states, *args, **options):
        trained.append(states)
        return _trained(states, *args, **options)

    monkeypatch.setattr("refusal_utils.latents.training._trained", counting)
    with count_rows() as count:
        train_sae(chat, given, [2, 5], tmp_path, **how)
    assert (trained, count.rows) == ([], 0)
    paths[3].write_bytes(before[3][:-1] + bytes([before[3][-1] ^ 1]))
    with count_rows() as count:
        train_sae(chat, given, [2, 5], tmp_path, **how)
    assert (len(trained), count.rows) == (1, 0)  # from stored states
    assert [path.read_bytes() for path in paths] == before
    assert not list(tmp_path.glob("*.part"))
    paths[0].write_text(before[0].decode().replace('"k": 4', '"k": 5'))
    train_sae(chat, given, [2, 5], tmp_path, **how)
    assert len(trained) == 2
    train_sae(chat, given, [2], tmp_path, **how | {"seed": 1})
    assert len(trained) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "gated"}, "architecture must be one of topk, jumprelu"),
        ({"n_latents": 0}, "n_latents must be at least 1; got 0"),
        ({"n_latents": 4, "l0": 5}, "l0 must be at most n_latents, 4; got 5"),
    ],
)
def test_wrong_options_are_one_sentence(options, message, chat, tmp_path):
    with pytest.raises(ValueError, match=f"train_sae: {message}"):
        train_sae(chat, [], [5], tmp_path, **options)
