"""Sparse-autoencoder latents: reading published SAEs, and which latents tell refusals from answers."""

from .files import KINDS, load_sae
from .firing import Firing, latent_firing
from .overlap import Overlap, latent_overlap
from .published import RELEASES, fetch_sae
from .rebuilding import Rebuilding, latent_alignment, rebuild_directions
from .sae import SparseAutoencoder

__all__ = [
    "KINDS",
    "RELEASES",
    "Firing",
    "Overlap",
    "Rebuilding",
    "SparseAutoencoder",
    "fetch_sae",
    "latent_alignment",
    "latent_firing",
    "latent_overlap",
    "load_sae",
    "rebuild_directions",
]
