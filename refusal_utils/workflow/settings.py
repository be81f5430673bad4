"""The notebooks' parameters: name, type, default and meaning of each, in one typed class."""

import ast
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ..checks import did_you_mean, invalid, require
from ..judging.judge_files import known_judges
from ..model.names import full_name
from ..prompts.categories import CATEGORY_IDS
from ..prompts.tables import ONE_FILE
from .sizes import SizeName, describe_sizes, size_values

_OPTION_OF = {"MODEL": "--model", "FIGURES_DIR": "--out", "SIZE": "--size"}
_NO_NUMBERS = ("MODEL", "PROMPTS", "FIGURES_DIR", "CACHE_DIR", "SHOW_PROMPTS", "N_EXAMPLES")
_Gaps = list[float] | Literal["few"] | None


class Settings(BaseSettings):
    """Validated parameters of the notebooks; a field that is not given comes from `REFUSAL_<NAME>` or its default."""

    model_config = SettingsConfigDict(
        env_prefix="REFUSAL_", extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    MODEL: str = Field("bundled", description="'bundled', 'smollm2', a hub id, a local folder, or a GGUF file.")
    SIZE: SizeName = Field("standard", description="How much is measured; sets other parameters, see the table below.")
    SYSTEM_PROMPT: str | None = Field(None, description="System prompt put before every prompt.")
    PROMPTS: str = Field("builtin", description="'builtin', 'paper', a folder of prompt files, or one file.")
    DTYPE: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="Precision of the model; None chooses float32 on CPU and 16 bits on a GPU."
    )
    LAYER: int | Literal["causal", "select"] | None = Field(
        None,
        description="Layer of the decision state; None: a known one, else 'causal' (effect); 'select': first tokens.",
    )
    POS: int | None = Field(None, description="Token position of the decision state; None is like LAYER = None.")
    SEED: int = Field(0, ge=0, lt=2**32, description="Seed of every random draw.")
    FIGURES_DIR: str = Field("../figures", description="Folder with one folder of figures and tables per model.")
    CACHE_DIR: str = Field("../.cache", description="Folder for cached activations and responses.")
    SHOW_PROMPTS: bool = Field(False, description="Whether to print the text of harmful prompts.")

    SELECT_BY: Literal["label", "behaviour", "behaviour at random", "published"] = Field(
        "label", description="How notebook 01 chooses the prompts that directions are estimated from."
    )
    OVER_REFUSAL: Literal["unsafe", "safe_benign"] = Field(
        "unsafe", description="Which XSTest prompts form the over-refusal category."
    )
    N_PROMPTS: int = Field(96, ge=1, description="Prompts per category in the draw.")
    N_POOL: int | None = Field(None, ge=1, description="Held-out prompts of a kind for the unsteered model; None: all.")
    N_HELD_OUT: int = Field(64, ge=1, description="Held-out prompts per category in the projections.")
    N_BOOTSTRAP: int = Field(1000, ge=1, description="Bootstrap draws.")
    TOP_K: int = Field(5, ge=1, description="Heads kept per category in the attribution.")
    N_TWINS: int = Field(16, ge=1, description="Twin pairs per category in the causal check of heads.")
    N_RANDOM: int = Field(3, ge=1, description="Random sets of heads used as controls.")
    N_SINGLE: int = Field(40, ge=1, description="Heads that are replaced one at a time.")
    EXAMPLE: str = Field("unsupported", description="Category of the worked example in the head attribution.")
    EDITED: str | None = Field(None, description="Checkpoint that is audited; None edits a copy in memory.")
    JUDGE: str = Field("phrases", description="Judge of responses: 'phrases', 'wildguard', 'self', or your own.")
    TOKENS_MODEL: str | None = Field(None, description="Model with control tokens; None: the bundled one, or MODEL.")
    N_PAIRS: int = Field(8, ge=1, description="Held-out twin pairs per category on which first tokens are forced.")
    N_BUCKET: int = Field(50, ge=1, description="Prompts per bucket of the controlled set.")
    N_COMPARED: int = Field(20, ge=1, description="Prompts per bucket, half as many per category, to compare methods.")
    N_VALIDATION: int = Field(16, ge=4, description="Prompts a side on which searches for a place try candidates.")
    N_UPDATES: int = Field(74, ge=1, description="Updates of a trained direction or cone.")
    CONE_K: int = Field(2, ge=1, description="Dimension up to which cones are trained.")
    BUDGETS: list[PositiveFloat] = Field([0.05, 0.1, 0.2], description="Costs in nats at which methods are compared.")
    SAE: str | None = Field(None, description="Autoencoder: ./folder, kind:path, release/folder; None: the model's.")
    N_TRAINED: int | None = Field(None, ge=1, description="Prompts of a category an SAE is trained on; None: all.")
    N_LATENTS: int = Field(64, ge=1, description="Latents in each category's list.")
    LANGUAGES: str = Field("builtin", description="Prompts in several languages: 'builtin', a folder, or one file.")
    SUFFIXES: str = Field("builtin", description="Suffixes to append to prompts: 'builtin' or one file.")
    N_SUFFIXED: int = Field(3, ge=1, description="Held-out prompts per category that suffixes are appended to.")
    GAPS: _Gaps = Field(None, description="Steering strengths in gaps; None: the model's own, 'few': fewer of them.")
    ALPHAS: list[float] | None = Field(None, description="Raw steering strengths, in place of GAPS.")
    CONTROL_GAPS: _Gaps = Field(None, description="Strengths of the control directions, in the manner of GAPS.")
    N_CONTROLS: int = Field(5, ge=1, description="Control directions of each of two kinds in the steering.")
    MAX_ORR: float = Field(1.0, ge=0, le=1, description="Highest over-refusal rate at which directions are matched.")
    TARGET: float = Field(0.9, gt=0, le=1, description="Refusal rate at which directions are matched.")
    MARGIN: float = Field(0.1, gt=0, lt=1, description="Equivalence margin between two curves.")
    MAX_NEW_TOKENS: int = Field(50, ge=1, description="Length of a response in tokens.")
    N_DRAWS: int = Field(500, ge=1, description="Bootstrap draws of the style tests.")
    N_EXAMPLES: int = Field(3, ge=0, description="Example responses shown per direction.")

    @property
    def given(self) -> dict[str, Any]:
        """The values given by argument or environment variable, without the defaults and without SIZE."""
        given = self.model_fields_set - {"SIZE"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in given}

    @property
    def sized(self) -> dict[str, Any]:
        """The values given, and those that SIZE sets for the other parameters."""
        return size_values(self.SIZE) | self.given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then environment variables, which are read as `--set` reads values."""
        return init_settings, _Environment(settings_cls)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: Any) -> Any:
        """Refuse what pydantic would convert: an empty text and True as a number; and sort a set."""
        if isinstance(value, str) and not value.strip():
            raise ValueError("must not be empty")
        if isinstance(value, bool) and info.field_name != "SHOW_PROMPTS":
            raise ValueError("must not be True or False")
        if isinstance(value, (list, tuple, set, frozenset)):
            if not value or not all(type(each) in (int, float) for each in value):
                raise ValueError("must be numbers, at least one")
            return sorted(value) if isinstance(value, (set, frozenset)) else list(value)
        return value

    @field_validator("MODEL", "EDITED", "TOKENS_MODEL", "SAE")
    @classmethod
    def _full_model(cls, name: str | None) -> str | None:
        """Make a path absolute, because notebooks run in another folder; a Hugging Face id stays as it is."""
        return None if name is None else full_name(name)

    @field_validator("LAYER", "POS")
    @classmethod
    def _in_range(cls, value: Any, info: Any) -> Any:
        if isinstance(value, int) and (value < 0) != (info.field_name == "POS"):
            raise ValueError("must be 0 or more" if info.field_name == "LAYER" else "must be negative: -1 is the last")
        return value

    @field_validator("EXAMPLE", "JUDGE")
    @classmethod
    def _known_name(cls, name: str, info: Any) -> str:
        return _known(name, CATEGORY_IDS if info.field_name == "EXAMPLE" else known_judges())

    @field_validator("PROMPTS", "LANGUAGES", "SUFFIXES")
    @classmethod
    def _absolute_source(cls, source: str, info: Any) -> str:
        named = ["builtin", "paper"] if info.field_name == "PROMPTS" else ["builtin"]
        if source in named:
            return source
        path = Path(source).expanduser().resolve()
        if not path.is_dir() and not (path.is_file() and path.suffix.lower() in ONE_FILE):
            files, beside = " or ".join(ONE_FILE), path.parent
            near = [each.name for each in beside.iterdir()] if beside.is_dir() else []
            must = f"must be {', '.join(map(repr, named))}, a folder of files or a {files} file"
            raise ValueError(must, did_you_mean(Path(source).name, [*named, *near]))
        return path.as_posix()


def are_default(values: Mapping[str, Any]) -> bool:
    """Whether the parameters among `values` (a notebook's `globals()`) that change numbers all have their defaults.

    The model and the prompts are not looked at; see `Study.is_reference`.
    """
    fields = {name: field.default for name, field in Settings.model_fields.items() if name not in _NO_NUMBERS}
    return all(values.get(name, default) == default for name, default in fields.items())


def read_settings(assignments: Iterable[str] = (), **options: Any) -> Settings:
    """Settings from strings `NAME=VALUE` and from `options`; an option that is None counts as not given.

    A value is read as a Python literal if it is one, otherwise as text. Raises `ValueError` for a string of another
    form, an unknown name, a value of the wrong type, and a name that has its own option.

    >>> read_settings(["N_PROMPTS=32", "EXAMPLE=advice"], MODEL="google/gemma-2-9b-it").given
    {'MODEL': 'google/gemma-2-9b-it', 'N_PROMPTS': 32, 'EXAMPLE': 'advice'}
    """
    pairs = [*map(_assignment, assignments)]
    twice = [name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at])]
    require(not twice, "read_settings", "a setting must be given once", f"{twice[:1]} twice", "Keep one of the two.")
    values = dict(pairs)
    values |= {name: value for name, value in options.items() if value is not None}
    fields = Settings.model_fields
    variables = [name.removeprefix("REFUSAL_") for name in map(str.upper, os.environ) if name.startswith("REFUSAL_")]
    for name in (*values, *(each for each in variables if not each.startswith("UTILS_"))):
        if name not in fields:
            must, todo = f"the parameter must be one of {', '.join(fields)}", did_you_mean(name, fields)
            raise invalid("read_settings", must, name, todo or "Check the spelling.")
    try:
        return Settings(**values)
    except ValidationError as error:
        raise _as_sentence(error) from None


def _as_sentence(error: ValidationError) -> ValueError:
    """The first field's errors as one sentence, with a near miss of the values that the field knows."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    own = [each for each in error.errors() if each["loc"][0] == name]
    causes = [each.get("ctx", {}).get("error") for each in own]
    texts = [str(cause.args[0]) if cause else each["msg"].lower() for cause, each in zip(causes, own, strict=True)]
    known = re.findall(r"'([\w ]+)'", " ".join(texts))
    todo = next(
        (cause.args[1] for cause in causes if cause and len(cause.args) > 1), did_you_mean(first["input"], known)
    )
    must = f"{name}: {' or '.join(dict.fromkeys(texts))}"
    return invalid("read_settings", must, repr(first["input"]), todo or "Correct the value.")


def _known(name: str, known: Iterable[str]) -> str:
    if name not in known:
        raise ValueError(f"must be one of {', '.join(known)}", did_you_mean(name, known))
    return name


def describe_settings() -> str:
    """A line per parameter (name, type, default and meaning), and the table of sizes."""
    lines = "\n".join(
        f"{name:<15} {_type_name(field.annotation):<50} {field.default!r:<12} {field.description}"
        for name, field in Settings.model_fields.items()
    )
    return f"{lines}\n\n{describe_sizes()}"


def _type_name(annotation: Any) -> str:
    plain = annotation.__name__ if isinstance(annotation, type) and annotation is not list else str(annotation)
    return plain.replace("typing.", "").replace("NoneType", "None")


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    is_assignment = bool(equals) and name.isidentifier()
    require(is_assignment, "read_settings", "a setting must read NAME=VALUE", repr(text), "Write, for example, SEED=1.")
    if name in _OPTION_OF:
        raise invalid("read_settings", f"{name} must be set by its own option", repr(text), f"Use {_OPTION_OF[name]}.")
    return name, _literal(value)


def _literal(text: str) -> Any:
    """The Python literal that `text` is, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


class _Environment(EnvSettingsSource):
    def prepare_field_value(self, field_name: str, field: Any, value: Any, value_is_complex: bool) -> Any:
        return value if value is None else _literal(value)
