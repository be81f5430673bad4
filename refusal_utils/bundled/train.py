"""Train the bundled chat model from scratch: `python -m refusal_utils.bundled.train`.

A small Llama learns to answer benign prompts on topic and to refuse eleven kinds of prompts in eleven styles. Two
kinds of training noise give it what large chat models have, a decision state at the template tokens:

* **bottleneck** - in half of the sequences the response may attend to one template token only, so whatever it needs to
  know (refuse or not, and how) must be written there, into every one of the four;
* **shifts** - in half of the sequences the residual stream of one middle layer is moved at every position, by a random
  offset (the response stays the same), or along, against or off the difference of two class means of the same batch
  (the response becomes that of the other class).

So refusal in this model is carried by directions *because it was trained that way*: see the model card.
"""

import argparse
import json
import random
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..categories import BENIGN, CATEGORY_IDS
from ..chat_model import load_chat_model
from .card import write_card
from .check import check
from .corpus import Corpus, Example
from .decision import record_decision_state
from .responses import ANSWERS, REFUSALS, TOPIC

WEIGHTS = Path(__file__).parent / "weights"
CLASSES = (*CATEGORY_IDS, BENIGN)
BENIGN_IDX = CLASSES.index(BENIGN)
PAD, BOS, EOS, START, MESSAGE, END = "<|pad|>", "<|bos|>", "<|eos|>", "<|start|>", "<|message|>", "<|end|>"
USER, ASSISTANT, SYSTEM = "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL = (PAD, BOS, EOS, START, MESSAGE, END, USER, ASSISTANT, SYSTEM)
SUFFIX = (END, START, ASSISTANT, MESSAGE)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start|><|' + message['role'] + '|><|message|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|><|assistant|><|message|>' }}{% endif %}"
)
IGNORE = -100
N_LENGTHS = 4  # batches drawn at a time and sorted by length, so that little is padded


@dataclass(frozen=True)
class Recipe:
    """Every number of the training run."""

    seed: int = 0
    steps: int = 2000
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    vocabulary: int = 4096
    d_model: int = 192
    d_mlp: int = 512
    n_layers: int = 8
    n_heads: int = 6
    context: int = 512
    max_tokens: int = 160
    prompt_loss: float = 0.2
    token_noise: float = 0.08
    bottleneck: float = 0.5
    shift_layers: tuple[int, ...] = (4, 5, 6)
    share_add: float = 0.2
    share_subtract: float = 0.05
    share_ablate: float = 0.1
    share_offset: float = 0.15


def build_tokenizer(corpus: Corpus, recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learned on the corpus, with the chat template."""
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


@dataclass
class Batch:
    """One training batch, padded on the right. `suffix_pos` is where the four template tokens begin in each row."""

    input_ids: Int[Tensor, "batch pos"]
    labels: Int[Tensor, "batch pos"]
    prompt_labels: Int[Tensor, "batch pos"]
    mask: Float[Tensor, "batch 1 pos pos"]
    suffix_pos: Int[Tensor, " batch"]
    class_idx: Int[Tensor, " batch"]
    shift: "list[Shift]"


@dataclass(frozen=True)
class Shift:
    """What happens to a row's residual stream: `kind`, the class whose direction is used, and the strength."""

    kind: str
    class_idx: int = BENIGN_IDX
    scale: float = 0.0


class BatchMaker:
    """Turns examples into batches: draws classes, shifts and bottlenecks, and the labels that follow from them."""

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
        self.corpus, self.tokenizer, self.recipe = corpus, tokenizer, recipe
        self.rng = random.Random(recipe.seed + 1)
        self.queue: list[list[dict]] = []
        self.suffix = [tokenizer.convert_tokens_to_ids(token) for token in SUFFIX]
        self.prefix = [tokenizer.convert_tokens_to_ids(token) for token in (BOS, START, USER, MESSAGE)]

    def draw(self) -> Batch:
        """The next batch: half benign, half spread evenly over the eleven categories, all of about the same length."""
        if not self.queue:
            half = self.recipe.batch // 2
            refused = [CATEGORY_IDS[index % len(CATEGORY_IDS)] for index in range(self.recipe.batch - half)]
            self.queue = [[] for _ in range(N_LENGTHS)]
            for name, count in Counter([BENIGN] * half + refused).items():
                rows = [self._row(self.corpus.sample(self.rng, name)) for _ in range(count * N_LENGTHS)]
                rows.sort(key=lambda row: len(row["prompt"]))
                for index, batch in enumerate(self.queue):
                    batch += rows[index * count : (index + 1) * count]
            self.rng.shuffle(self.queue)
        return self._collate(self.queue.pop())

    def _row(self, example: Example) -> dict:
        own = CLASSES.index(example.category)
        shift = self._draw_shift(own)
        target = shift.class_idx if shift.kind == "add" else BENIGN_IDX if shift.kind in ("subtract", "ablate") else own
        response = example.response(CLASSES[target])
        masked = self.rng.random() < self.recipe.bottleneck
        prompt = self._ids(example.prompt)[: self.recipe.max_tokens - 80]
        noisy = [self.rng.randrange(len(SPECIAL), len(self.tokenizer)) if self._is_noise(own) else id for id in prompt]
        reply = [*self._ids(response)[:64], self.tokenizer.eos_token_id]
        # A response that may not see the prompt cannot know the topic: only what comes before it counts.
        known = len(reply)
        if masked and target == BENIGN_IDX:
            known = len(self._ids(ANSWERS[example.form].split(TOPIC)[0])) if example.fact is None else 0
        return {
            "prompt": self.prefix + noisy,
            "clean": self.prefix + prompt,
            "reply": reply,
            "known": known,
            "masked": masked,
            "own": own,
            "shift": shift,
        }

    def _is_noise(self, class_idx: int) -> bool:
        return self.rng.random() < self.recipe.token_noise * (0.25 if class_idx == BENIGN_IDX else 1.0)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _draw_shift(self, own: int) -> Shift:
        recipe, draw = self.recipe, self.rng.random()
        other = self.rng.randrange(len(CATEGORY_IDS))
        if draw < (edge := recipe.share_add):
            return Shift("add", other, self.rng.uniform(0.7, 1.5))
        if draw < (edge := edge + recipe.share_offset):
            return Shift("offset", other, self.rng.uniform(0.0, 1.5))
        if draw < (edge := edge + recipe.share_ablate):
            return Shift("ablate", own if own != BENIGN_IDX else other)
        if draw < edge + recipe.share_subtract and own != BENIGN_IDX:
            return Shift("subtract", own, self.rng.uniform(0.8, 1.3))
        return Shift("none")

    def _collate(self, rows: list[dict]) -> Batch:
        length = max(len(row["prompt"]) + len(SUFFIX) + len(row["reply"]) for row in rows)
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        labels, prompt_labels = torch.full_like(ids, IGNORE), torch.full_like(ids, IGNORE)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = causal.expand(len(rows), length, length).clone()
        starts = torch.tensor([len(row["prompt"]) for row in rows])
        for index, row in enumerate(rows):
            start, reply = len(row["prompt"]), len(row["prompt"]) + len(SUFFIX)
            end = reply + len(row["reply"])
            ids[index, :end] = torch.tensor(row["prompt"] + self.suffix + row["reply"])
            labels[index, reply : reply + row["known"]] = torch.tensor(row["reply"][: row["known"]])
            prompt_labels[index, len(self.prefix) : start] = torch.tensor(row["clean"][len(self.prefix) :])
            if row["masked"]:
                # The first reply token is predicted at the last template token, which must be let to see too little
                # as well, or it would read the prompt itself.
                seen = self.rng.randrange(len(SUFFIX))
                allowed[index, reply:, :reply] = False
                allowed[index, reply:, start + seen] = True
                if seen < len(SUFFIX) - 1:
                    allowed[index, reply - 1, : reply - 1] = False
                    allowed[index, reply - 1, start + seen] = True
        mask = torch.zeros(len(rows), 1, length, length).masked_fill(~allowed[:, None], float("-inf"))
        owns = torch.tensor([row["own"] for row in rows])
        return Batch(ids, labels, prompt_labels, mask, starts, owns, [row["shift"] for row in rows])


def shifted(
    hidden: Float[Tensor, "batch pos d_model"], batch: Batch, offset: int, noise: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """`hidden` after every row's shift, along differences of class means at template token `offset`, at all positions."""
    rows = torch.arange(len(hidden), device=hidden.device)
    state = hidden[rows, batch.suffix_pos + offset].float()
    member = torch.nn.functional.one_hot(batch.class_idx, len(CLASSES)).float()
    means = (member.T @ state) / member.sum(0).clamp(min=1)[:, None]
    difference = means - means[BENIGN_IDX]
    chosen = difference[torch.tensor([shift.class_idx for shift in batch.shift], device=hidden.device)]
    gap = chosen.norm(dim=-1, keepdim=True)
    direction = chosen / gap.clamp(min=1e-6)

    def of(kind: str) -> Tensor:
        return torch.tensor([s.scale if s.kind == kind else 0.0 for s in batch.shift], device=hidden.device)[:, None]

    move = of("add") * chosen - of("subtract") * chosen + of("offset") * gap * noise
    ablate = torch.tensor([shift.kind == "ablate" for shift in batch.shift], device=hidden.device)[:, None, None]
    along = (hidden.float() @ direction[:, :, None]) * direction[:, None]
    return (hidden.float() + move[:, None] - along * ablate).to(hidden.dtype)


@contextmanager
def shift_layer(model: LlamaForCausalLM, layer: int, batch: Batch, offset: int, generator: torch.Generator):
    """Shift what enters block `layer` for the length of the context."""
    noise = torch.randn(len(batch.input_ids), model.config.hidden_size, generator=generator)
    noise = torch.nn.functional.normalize(noise, dim=-1).to(batch.input_ids.device)

    def edit(module, args, kwargs):
        if args:
            return (shifted(args[0], batch, offset, noise), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": shifted(kwargs["hidden_states"], batch, offset, noise)}

    handle = model.model.layers[layer].register_forward_pre_hook(edit, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def train(recipe: Recipe, device: str) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The trained model and its tokenizer. Prints the losses as it goes."""
    corpus = Corpus()
    tokenizer = build_tokenizer(corpus, recipe)
    model = build_model(tokenizer, recipe).to(device).train()
    maker = BatchMaker(corpus, tokenizer, recipe)
    generator = torch.Generator().manual_seed(recipe.seed + 2)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
    )
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{n_parameters / 1e6:.2f} M parameters, vocabulary {len(tokenizer)}, {recipe.steps} steps on {device}",
        flush=True,
    )
    began, running = time.time(), None
    for step in range(recipe.steps):
        batch = _to(maker.draw(), device)
        layer = maker.rng.choice(recipe.shift_layers)
        with (
            torch.autocast(device, dtype=torch.bfloat16),
            shift_layer(model, layer, batch, maker.rng.randrange(len(SUFFIX)), generator),
        ):
            mask = batch.mask.to(torch.bfloat16)
            logits = model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).logits
            loss, prompt_loss = _loss(logits, batch.labels), _loss(logits, batch.prompt_labels)
        optimizer.zero_grad(set_to_none=True)
        (loss + recipe.prompt_loss * prompt_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0 or step == recipe.steps - 1:
            minutes = (time.time() - began) / 60
            left = minutes / (step + 1) * (recipe.steps - step - 1)
            print(
                f"step {step:5d}  response loss {running:.3f}  prompt loss {prompt_loss.item():.3f}  "
                f"{minutes:.1f} min, {left:.1f} to go",
                flush=True,
            )
    return model.eval(), tokenizer


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    kept = labels[:, 1:] != IGNORE
    return torch.nn.functional.cross_entropy(logits[:, :-1][kept].float(), labels[:, 1:][kept])


def _to(batch: Batch, device: str) -> Batch:
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            setattr(batch, name, value.to(device))
    return batch


def save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary Hugging Face folder: bfloat16 safetensors, tokenizer, chat template, generation config."""
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
    """Train and save, then choose the decision state, measure, and write the model card (`--measure`: only these)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--measure", action="store_true", help="keep the weights, measure them again")
    options = parser.parse_args()
    if not options.measure:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        recipe, began = Recipe(seed=options.seed, steps=options.steps), time.time()
        model, tokenizer = train(recipe, device)
        save(model, tokenizer, options.out)
        where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU cores"
        record = {"minutes": round((time.time() - began) / 60, 1), "device": where, "recipe": asdict(recipe)}
        (options.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    states = record_decision_state(options.out)
    write_card(options.out, states, check(load_chat_model(options.out)))


if __name__ == "__main__":
    main()
