"""Sparse-autoencoder latents: reading published SAEs, and which latents tell refusals from answers."""

from .files import KINDS, load_sae
from .firing import Firing, latent_firing
from .overlap import Overlap, latent_overlap
from .published import RELEASES, fetch_sae
from .sae import SparseAutoencoder

__all__ = [
    "KINDS",
    "RELEASES",
    "Firing",
    "Overlap",
    "SparseAutoencoder",
    "fetch_sae",
    "latent_firing",
    "latent_overlap",
    "load_sae",
]
