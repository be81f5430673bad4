"""The command from prompts to card."""

import pandas as pd
import pytest

from refusal_utils.latents.command import train_and_measure
from refusal_utils.prompts.loading import load_prompts


def test_chats_become_autoencoders_with_a_card_of_held_out_measures(chat, tmp_path):
    pytest.importorskip("sae_lens", exc_type=ImportError)
    prompts = load_prompts().groupby(["split", "kind"]).head(2)
    options = {"n_latents": 64, "l0": 16, "n_samples": 4096, "max_new_tokens": 4}
    table = train_and_measure(chat, prompts, None, tmp_path, **options).table()
    assert table.index.tolist() == [chat.decision_layer - 1]
    assert table["L0"].tolist() == pytest.approx([16], abs=1)
    assert 0 < table["explained over all tokens"].iloc[0] < 1
    written = pd.read_csv(tmp_path / "quality.csv", index_col=0)
    pd.testing.assert_frame_equal(written, table.round(4), check_dtype=False)
    card = (tmp_path / "README.md").read_text()
    assert "n_samples 4096" in card
    assert f"{len(prompts[prompts['split'] == 'train'])} prompts" in card
