"""The special tokens, chat template and training hyperparameters of the bundled model."""

from dataclasses import dataclass, field

from ..prompts.categories import BENIGN, CATEGORY_IDS
from ..steering.control_tokens import control_token

CLASSES = (*CATEGORY_IDS, BENIGN)
BENIGN_IDX = CLASSES.index(BENIGN)
PAD, BOS, EOS, START, MESSAGE, END = "<|pad|>", "<|bos|>", "<|eos|>", "<|start|>", "<|message|>", "<|end|>"
USER, ASSISTANT, SYSTEM = "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL = (PAD, BOS, EOS, START, MESSAGE, END, USER, ASSISTANT, SYSTEM)
CONTROL = {name: control_token(name) for name in CLASSES}  # first in every response of the variant with control tokens
SUFFIX = (END, START, ASSISTANT, MESSAGE)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start|><|' + message['role'] + '|><|message|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|><|assistant|><|message|>' }}{% endif %}"
)
IGNORE = -100
N_LENGTHS = 4  # batches drawn at a time and sorted by length, to reduce padding
REFUSED_ROWS = {  # more of the categories that the model learns to distinguish late
    "safety_core": 3,
    "hate_speech": 4,
    "crime_assistance": 4,
    "inappropriate": 4,
    "advice": 3,
    "safety_concerns": 4,
    "over_refusal": 3,
    "incomplete": 5,
    "unsupported": 4,
    "indeterminate": 4,
    "humanizing": 2,
}


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of the training run."""

    seed: int = 0
    steps: int = 7000
    batch: int = 80
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    vocabulary: int = 4096
    d_model: int = 192
    d_mlp: int = 512
    n_layers: int = 8
    n_heads: int = 6
    context: int = 512
    max_tokens: int = 160
    refused_rows: dict[str, int] = field(default_factory=lambda: dict(REFUSED_ROWS))  # per batch; the others are benign
    prompt_loss: float = 0.2
    word_noise: float = 0.06
    bottleneck: float = 0.5
    shift_layers: tuple[int, ...] = (4, 5, 6)
    share_add: float = 0.16
    share_subtract: float = 0.05
    share_ablate: float = 0.08
    share_offset: float = 0.32
    control_tokens: bool = False  # train the bundled model on, with the token of its class before every response


WITH_CONTROL_TOKENS = Recipe(steps=100, learning_rate=1e-3, control_tokens=True)
