"""Published sparse autoencoders on the Hugging Face hub, by repository and folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from ..checks import invalid, require_known
from .files import KINDS, load_sae
from .sae import SparseAutoencoder

FUNCTION = "fetch_sae"


@dataclass(frozen=True)
class Release:
    """A repository of autoencoders: the kind of its files, and what a folder holds (none: the path is the file)."""

    kind: str
    files: tuple[str, ...] = ()
    example: str = ""


GEMMA_SCOPE = Release("gemma_scope", ("params.npz",), "layer_20/width_16k/average_l0_91")
GEMMA_SCOPE_2 = Release(
    "gemma_scope_2", ("config.json", "params.safetensors"), "resid_post/layer_12_width_16k_l0_medium"
)
BATCH_TOPK = Release("dictionary_learning", ("config.json", "ae.pt"), "resid_post_layer_15/trainer_1")
LLAMA_SCOPE = Release("llama_scope", ("hyperparams.json", "checkpoints/final.safetensors"), "Llama3_1-8B-Base-L15R-8x")
QWEN_SCOPE = Release("qwen_scope", (), "layer14.sae.pt")

RELEASES: dict[str, Release] = {
    **{f"google/gemma-scope-{size}-res": GEMMA_SCOPE for size in ("2b-pt", "9b-pt", "9b-it", "27b-pt")},
    **{
        f"google/gemma-scope-2-{size}-{tuned}": GEMMA_SCOPE_2
        for size in ("270m", "1b", "4b", "12b", "27b")
        for tuned in ("pt", "it")
    },
    **{
        f"andyrdt/saes-{model}": BATCH_TOPK for model in ("llama-3.1-8b-instruct", "qwen2.5-7b-instruct", "gpt-oss-20b")
    },
    **{f"fnlp/Llama3_1-8B-Base-LXR-{size}x": LLAMA_SCOPE for size in (8, 32)},
    **{
        f"Qwen/SAE-Res-{model}-L0_{k}": QWEN_SCOPE
        for model in ("Qwen3-1.7B-Base-W32K", "Qwen3-8B-Base-W64K", "Qwen3.5-2B-Base-W32K", "Qwen3.5-9B-Base-W64K")
        for k in (50, 100)
    },
}


def fetch_sae(release: str, folder: str, *, revision: str | None = None, **options: Any) -> SparseAutoencoder:
    """The published autoencoder in a folder of `release`, one of `RELEASES`; downloaded once, then from the cache.

    `folder`: as in the repository, for example "layer_20/width_16k/average_l0_91" of google/gemma-scope-9b-it-res; for
    Qwen-Scope the file. `options` are those of `load_sae`. All of them read the output of a block, so "layer 20" is
    `resid_pre` of layer 21.

    Raises `ValueError` for an unknown release (the nearest is named), a folder it does not have, and without network or
    permission if there is no local copy.
    """
    require_known(FUNCTION, "release", release, RELEASES, "Download other files yourself and use load_sae.")
    known = RELEASES[release]
    try:
        paths = [hf_hub_download(release, f"{folder}/{name}", revision=revision) for name in known.files]
        path = Path(paths[0]) if paths else Path(hf_hub_download(release, folder, revision=revision))
    except (EntryNotFoundError, HfHubHTTPError, OSError) as error:
        got = f"{folder} of {release} ({type(error).__name__})"
        todo = f"Check the folder (such as {known.example}) and the network, or accept the licence on the hub."
        raise invalid(FUNCTION, "the files must be on the hub or in its cache", got, todo) from error
    return load_sae(path.parent if known.files else path, known.kind, **options)


def named_sae(name: str, **options: Any) -> SparseAutoencoder:
    """The autoencoder called `name`: `kind:path`, a local SAELens folder, or a published `release/folder`.

    For example `google/gemma-scope-9b-it-res/layer_20/width_16k/average_l0_91`, or `qwen_scope:saes/layer14.sae.pt`.
    `options` are those of `load_sae`. Raises `ValueError` as `load_sae` and `fetch_sae` do.
    """
    kind, _, path = name.partition(":")
    if kind in KINDS:
        return load_sae(path, kind, **options)
    if Path(name).expanduser().exists():
        return load_sae(name, "sae_lens", **options)
    owner, repository, folder = (*name.split("/", 2), "", "")[:3]
    return fetch_sae(f"{owner}/{repository}", folder, **options)
