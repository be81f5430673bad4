"""The variant with control tokens: what it is trained on, and what ships."""

import json
import re
import string

import torch

from refusal_utils.bundled.batches import BatchMaker
from refusal_utils.bundled.corpus import Corpus
from refusal_utils.bundled.recipe import BENIGN_IDX, CLASSES, CONTROL, WITH_CONTROL_TOKENS, Recipe
from refusal_utils.bundled.variant import CARD, with_control_tokens
from refusal_utils.model.chat_model import BUNDLED_TOKENS_WEIGHTS
from refusal_utils.steering.generation import generate


def test_every_response_begins_with_the_token_of_its_class_and_is_otherwise_the_same():
    corpus = Corpus()
    tokenizer, model = with_control_tokens(WITH_CONTROL_TOKENS)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == 4108
    plain, marked = (BatchMaker(corpus, tokenizer, recipe) for recipe in (Recipe(), WITH_CONTROL_TOKENS))
    control = {tokenizer.convert_tokens_to_ids(token): name for name, token in CONTROL.items()}
    for before, after in zip(map(list, rows(plain)), map(list, rows(marked)), strict=True):
        assert before == after[1:]
        assert after[0] in control
    batch = marked.draw()
    kept = [row for row, shift in enumerate(batch.shift) if shift.kind in ("none", "offset")]
    first = batch.labels.gather(1, (batch.labels != -100).int().argmax(1)[:, None])[:, 0]
    assert [control[int(first[row])] for row in kept] == [CLASSES[int(batch.class_idx[row])] for row in kept]
    assert int(batch.class_idx.max()) == BENIGN_IDX


def rows(maker):
    """The replies of one batch."""
    batch = maker.draw()
    return [row[row != -100].tolist() for row in batch.labels]


def test_the_folder_is_small_and_its_card_is_the_generators_prose_around_measured_numbers():
    assert sum(path.stat().st_size for path in BUNDLED_TOKENS_WEIGHTS.iterdir()) <= 12e6
    pattern = "".join(
        re.escape(text) + (".+?" if name is not None else "") for text, name, *_ in string.Formatter().parse(CARD)
    )
    assert re.fullmatch(pattern, (BUNDLED_TOKENS_WEIGHTS / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    training = json.loads((BUNDLED_TOKENS_WEIGHTS / "training.json").read_text())
    assert training["recipe"]["control_tokens"]


def test_the_variant_begins_with_a_control_token_that_its_text_leaves_out(tokens_chat, prompts):
    frame = generate(tokens_chat, prompts[:8], max_new_tokens=6, tokens=True)
    control = {tokens_chat.tokenizer.convert_tokens_to_ids(token) for token in CONTROL.values()}
    assert {ids[0] for ids in frame["tokens"]} <= control
    assert not frame["response"].str.contains("<|", regex=False).any()
    assert torch.isfinite(torch.tensor(frame["n_tokens"].to_numpy())).all()
