import dataclasses

import pytest
import torch

from refusal_utils.bundled.batches import BatchMaker
from refusal_utils.bundled.corpus import Corpus
from refusal_utils.bundled.recipe import Recipe
from refusal_utils.bundled.train import Run, build_model, build_tokenizer


def test_a_killed_training_goes_on_from_its_file_and_only_for_the_same_recipe(tmp_path):
    """The state of weights, batches, optimizer and schedule; read without unpickling."""
    corpus, recipe = Corpus(), Recipe(steps=4, d_model=32, d_mlp=64, n_layers=1, n_heads=2)
    tokenizer = build_tokenizer(corpus, recipe)

    def parts():
        model = build_model(tokenizer, recipe)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=4)
        return {
            "model": model,
            "maker": BatchMaker(corpus, tokenizer, recipe),
            "optimizer": optimizer,
            "schedule": schedule,
        }

    first, path = parts(), tmp_path / "deep" / "state.pt"
    first["maker"].draw()
    first["model"](torch.tensor([[1, 2, 3]])).logits.sum().backward()
    first["optimizer"].step()
    first["schedule"].step()
    Run(path, recipe, **first).write(1, 0.5)
    second = parts()
    run = Run(path, recipe, **second)
    assert (run.step, run.minutes) == (1, 0.5)
    torch.testing.assert_close(second["model"].state_dict(), first["model"].state_dict(), atol=0, rtol=0)
    assert second["schedule"].get_last_lr() == first["schedule"].get_last_lr()
    assert torch.equal(second["maker"].draw().input_ids, first["maker"].draw().input_ids)
    with pytest.raises(ValueError, match="^train: the checkpoint must belong to this recipe; got another recipe"):
        Run(path, dataclasses.replace(recipe, steps=5), **second)
