"""Training batches: what each token may attend to (bottleneck), which states move (shifts), and the labels."""

import random
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ..prompts.categories import BENIGN, CATEGORY_IDS
from .corpus import Corpus, Example
from .recipe import BENIGN_IDX, BOS, CLASSES, CONTROL, IGNORE, MESSAGE, N_LENGTHS, START, SUFFIX, USER, Recipe
from .responses import ANSWERS, TOPIC


@dataclass
class Batch:
    """One training batch, padded on the right. `suffix_pos` is the index of the first of the four template tokens."""

    input_ids: Int[Tensor, "batch pos"]
    labels: Int[Tensor, "batch pos"]
    prompt_labels: Int[Tensor, "batch pos"]
    mask: Float[Tensor, "batch 1 pos pos"]
    suffix_pos: Int[Tensor, " batch"]
    class_idx: Int[Tensor, " batch"]
    shift: "list[Shift]"


@dataclass(frozen=True)
class Shift:
    """How a row's residual stream is moved: the kind of shift, the class whose direction is used, and the strength."""

    kind: str
    class_idx: int = BENIGN_IDX
    scale: float = 0.0


class BatchMaker:
    """Batches from examples: draws classes, shifts and bottlenecks, and derives the labels."""

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
        self.corpus, self.tokenizer, self.recipe = corpus, tokenizer, recipe
        self.rng = random.Random(recipe.seed + 1)
        self.generator = torch.Generator().manual_seed(recipe.seed + 2)
        self.queue: list[list[dict]] = []
        self.suffix = [tokenizer.convert_tokens_to_ids(token) for token in SUFFIX]
        tokens = CONTROL if recipe.control_tokens else {}
        self.control = {name: [tokenizer.convert_tokens_to_ids(token)] for name, token in tokens.items()}
        self.prefix = [tokenizer.convert_tokens_to_ids(token) for token in (BOS, START, USER, MESSAGE)]

    def state_dict(self) -> dict:
        """The state that determines all later batches."""
        return {"queue": self.queue, "rng": self.rng.getstate(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a `state_dict`."""
        self.queue = state["queue"]
        self.rng.setstate(state["rng"])
        self.generator.set_state(state["generator"])

    def draw(self) -> Batch:
        """The next batch: as many rows of each category as in the recipe, the rest benign, all of similar length."""
        if not self.queue:
            refused = self.recipe.refused_rows
            self.queue = [[] for _ in range(N_LENGTHS)]
            for name, count in {BENIGN: self.recipe.batch - sum(refused.values()), **refused}.items():
                rows = [
                    self._row(self.corpus.sample(self.rng, name, self.recipe.word_noise))
                    for _ in range(count * N_LENGTHS)
                ]
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
        masked = example.fact is None and self.rng.random() < self.recipe.bottleneck * (
            0.5 if target == BENIGN_IDX else 1
        )
        prompt = self._ids(example.prompt)[: self.recipe.max_tokens - 80]
        control = self.control.get(CLASSES[target], [])
        reply = [*control, *self._ids(response)[:64], self.tokenizer.eos_token_id]
        # A response that cannot see the prompt cannot know the topic, so only the words before the topic count.
        known = len(reply)
        if masked and target == BENIGN_IDX:
            known = len(control) + len(self._ids(ANSWERS[example.form].split(TOPIC)[0]))
        return {
            "prompt": self.prefix + prompt,
            "reply": reply,
            "known": known,
            "masked": masked,
            "own": own,
            "shift": shift,
        }

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _draw_shift(self, own: int) -> Shift:
        recipe, draw = self.recipe, self.rng.random()
        other = self.rng.randrange(len(CATEGORY_IDS))
        if draw < (edge := recipe.share_add):
            return Shift("add", other, self.rng.uniform(0.5, 1.4))
        if draw < (edge := edge + recipe.share_offset):
            return Shift("offset", other, self.rng.uniform(0.3, 1.7))
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
            prompt_labels[index, len(self.prefix) : start] = torch.tensor(row["prompt"][len(self.prefix) :])
            if row["masked"]:
                # The last template token predicts the first reply token, so it must be restricted too: otherwise it
                # would read the prompt itself.
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
    """`hidden` after the shift of each row, at all positions.

    Shifts follow the differences of class means at template token `offset`.
    """
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
    """Shift the input of block `layer` while the context is open."""
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
