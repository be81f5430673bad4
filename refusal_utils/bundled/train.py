"""Train the bundled chat model from scratch: `python -m refusal_utils.bundled.train`.

With `--control-tokens` that model is trained on with a control token before every response (`with_control_tokens`).

A small Llama learns to answer benign prompts on topic and to refuse eleven kinds of prompt in eleven styles. Two kinds
of training noise give it what large chat models have, a decision state at the template tokens:

* **bottleneck**: in half of the sequences the response can attend to only one template token, so everything it needs
  to know (whether to refuse, and how) must be written into each of the four;
* **shifts**: in half of the sequences the residual stream of one middle layer is moved at every position. A random
  offset leaves the response unchanged. Adding, subtracting or ablating the difference of two class means of the batch
  changes the response to that of the other class.

Directions therefore carry refusal in this model *because it was trained that way*; see the model card.
"""

import argparse
import json
import random
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..checks import invalid
from ..model.chat_model import BUNDLED_TOKENS_WEIGHTS, BUNDLED_WEIGHTS, load_chat_model
from .batches import Batch, BatchMaker, Shift, shift_layer
from .card import write_card
from .check import check
from .corpus import Corpus
from .decision import record_decision_state
from .recipe import (
    ASSISTANT,
    BOS,
    CHAT_TEMPLATE,
    CLASSES,
    END,
    EOS,
    IGNORE,
    MESSAGE,
    PAD,
    SPECIAL,
    START,
    SUFFIX,
    SYSTEM,
    USER,
    WITH_CONTROL_TOKENS,
    Recipe,
)
from .responses import ANSWERS, REFUSALS
from .variant import with_control_tokens, write_variant_card

CHECKPOINT_EVERY = 250  # steps


def build_tokenizer(corpus: Corpus, recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the corpus, with the chat template."""
    rng = random.Random(recipe.seed)
    texts = [example.prompt for name in CLASSES for example in (corpus.sample(rng, name) for _ in range(3000))]
    texts += [text for forms in (*REFUSALS.values(), ANSWERS) for text in forms.values()] * 30
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=recipe.vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[START, MESSAGE, END, USER, ASSISTANT, SYSTEM],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Any:
    """The untrained model."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.d_model,
        intermediate_size=recipe.d_mlp,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


class Run:
    """Everything that changes during training, written to a file regularly so that a killed run can resume.

    Raises `ValueError` if the file belongs to another recipe.
    """

    def __init__(self, path: Path, recipe: Recipe, **parts: Any) -> None:
        self.path, self.recipe, self.parts, self.step, self.minutes = path, recipe, parts, 0, 0.0
        if path.exists():
            with torch.serialization.safe_globals([Shift]):  # a row of the batches to come
                stored = torch.load(path, weights_only=True)
            if stored["recipe"] != asdict(recipe):
                must = "the checkpoint must belong to this recipe"
                raise invalid("train", must, f"another recipe in {path}", "Delete it to start again.")
            self.step, self.minutes = stored["step"], stored["minutes"]
            for name, part in parts.items():
                part.load_state_dict(stored[name])

    def write(self, step: int, minutes: float) -> None:
        """Replace the file with the state after `step` steps."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        states = {name: part.state_dict() for name, part in self.parts.items()}
        partial = self.path.with_suffix(".partial")
        torch.save({**states, "recipe": asdict(self.recipe), "step": step, "minutes": minutes}, partial)
        partial.replace(self.path)


def train(recipe: Recipe, device: str, checkpoint: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, float]:
    """The trained model, its tokenizer and the minutes it took. Prints the losses during training."""
    corpus = Corpus()
    tokenizer, model = with_control_tokens(recipe) if recipe.control_tokens else _untrained(corpus, recipe)
    model = model.to(device).train()
    if device == "cpu":
        model.set_attn_implementation("eager")  # 1.5 times as fast for short sequences
    maker = BatchMaker(corpus, tokenizer, recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
    )
    run = Run(checkpoint, recipe, model=model, maker=maker, optimizer=optimizer, schedule=schedule)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    size = f"{n_parameters / 1e6:.2f} M parameters, vocabulary {len(tokenizer)}"
    print(f"{size}, step {run.step} of {recipe.steps} on {device}", flush=True)
    began, minutes, running = time.time(), run.minutes, None
    for step in range(run.step, recipe.steps):
        loss, prompt_loss = _losses(model, _to(maker.draw(), device), maker, recipe)
        optimizer.zero_grad(set_to_none=True)
        (loss + recipe.prompt_loss * prompt_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        minutes = run.minutes + (time.time() - began) / 60
        if step % 50 == 0 or step == recipe.steps - 1:
            left = minutes / (step + 1) * (recipe.steps - step - 1)
            print(
                f"step {step:5d}  response loss {running:.3f}  prompt loss {prompt_loss.item():.3f}  "
                f"{minutes:.1f} min, {left:.1f} to go",
                flush=True,
            )
        if (step + 1) % CHECKPOINT_EVERY == 0:
            run.write(step + 1, minutes)
    return model.eval(), tokenizer, minutes


def _untrained(corpus: Corpus, recipe: Recipe) -> tuple[PreTrainedTokenizerFast, Any]:
    tokenizer = build_tokenizer(corpus, recipe)
    return tokenizer, build_model(tokenizer, recipe)


def _losses(model: LlamaForCausalLM, batch: Batch, maker: BatchMaker, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """(loss on the responses, loss on the prompts) with one middle layer shifted."""
    layer, offset = maker.rng.choice(recipe.shift_layers), maker.rng.randrange(len(SUFFIX))
    device = batch.input_ids.device.type
    with torch.autocast(device, dtype=torch.bfloat16), shift_layer(model, layer, batch, offset, maker.generator):
        mask = batch.mask.to(torch.bfloat16)
        hidden = model.model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        return _loss(model, hidden, batch.labels), _loss(model, hidden, batch.prompt_labels)


def _loss(model: LlamaForCausalLM, hidden: Tensor, labels: Tensor) -> Tensor:
    kept = labels[:, 1:] != IGNORE  # skipping the logits of other positions saves a third of the time
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][kept]).float(), labels[:, 1:][kept])


def _to(batch: Batch, device: str) -> Batch:
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            setattr(batch, name, value.to(device))
    return batch


def save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a standard Hugging Face folder: bfloat16 safetensors, tokenizer, chat template, generation config."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.to("cpu", torch.bfloat16)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train and save, choose the decision state, measure, and write the model card; `--measure` skips the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--control-tokens", action="store_true", help="the variant with a token before every response")
    parser.add_argument("--measure", action="store_true", help="keep the weights and measure them again")
    options = parser.parse_args()
    recipe = WITH_CONTROL_TOKENS if options.control_tokens else Recipe()
    recipe = replace(recipe, seed=options.seed, steps=options.steps or recipe.steps)
    out = options.out or (BUNDLED_TOKENS_WEIGHTS if options.control_tokens else BUNDLED_WEIGHTS)
    if not options.measure:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        checkpoint = out / "checkpoint.pt"
        model, tokenizer, minutes = train(recipe, device, checkpoint)
        save(model, tokenizer, out)
        where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU cores"
        record = {"minutes": round(minutes, 1), "device": where, "recipe": asdict(recipe)}
        (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
        checkpoint.unlink(missing_ok=True)
    if options.control_tokens:
        write_variant_card(out)
    else:
        write_card(out, record_decision_state(out), check(load_chat_model(out)))


if __name__ == "__main__":
    main()
