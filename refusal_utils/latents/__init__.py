"""Sparse-autoencoder latents: reading published SAEs, and which latents tell refusals from answers."""

from .files import KINDS, load_sae
from .firing import Firing, latent_firing
from .overlap import Overlap, OverlapCurve, latent_overlap, overlap_by_size
from .published import RELEASES, fetch_sae, named_sae
from .quality import Quality, explained_variance, sae_quality
from .rebuilding import Rebuilding, latent_alignment, rebuild_directions
from .sae import SparseAutoencoder
from .token_states import TokenStates, own_chats, token_states
from .training import train_sae

__all__ = [
    "KINDS",
    "RELEASES",
    "Firing",
    "Overlap",
    "OverlapCurve",
    "Quality",
    "Rebuilding",
    "SparseAutoencoder",
    "TokenStates",
    "explained_variance",
    "fetch_sae",
    "latent_alignment",
    "latent_firing",
    "latent_overlap",
    "load_sae",
    "named_sae",
    "overlap_by_size",
    "own_chats",
    "rebuild_directions",
    "sae_quality",
    "token_states",
    "train_sae",
]
