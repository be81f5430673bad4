import json
import re
import string

from transformers import AutoConfig

from refusal_utils.bundled.card import CARD
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS


def test_the_committed_card_is_the_generators_prose_around_measured_numbers():
    pattern = "".join(
        re.escape(text) + (".+?" if name is not None else "") for text, name, *_ in string.Formatter().parse(CARD)
    )
    assert re.fullmatch(pattern, (BUNDLED_WEIGHTS / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_bundled_folder_is_small_and_says_what_it_is():
    files = list(BUNDLED_WEIGHTS.iterdir())
    config = AutoConfig.from_pretrained(BUNDLED_WEIGHTS)
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert config.model_type == "llama"
    card = (BUNDLED_WEIGHTS / "README.md").read_text()
    assert "teaching and test organism" in card
    assert "say nothing about real models until" in " ".join(card.split())
    state = json.loads((BUNDLED_WEIGHTS / "decision_state.json").read_text())
    assert f"`resid_pre` of layer {state['layer']}, position {state['pos']}" in card


def test_bundled_model_has_three_to_fifteen_million_parameters(chat):
    assert 3e6 <= sum(parameter.numel() for parameter in chat.bridge.original_model.parameters()) <= 15e6
