"""How directions relate to each other, and how certain that is.

Contrasts and their uncertainty, null hypotheses, confounds, clusters and ranks, projections, and a profile of all of
these over layers and positions. Everything works on captured activations; each analysis returns a frozen dataclass.
"""

from .clusters import Clusters
from .confounds import measure_confounds
from .contrasts import behaviour_contrasts, contrasts, twin_contrasts
from .labelled import Labelled, paired_sides
from .nulls import distinctness_p, mantel_p, relatedness_p
from .oracles import gold_cosines, measure_oracles
from .pair_table import compare_with_map, pair_table
from .profiles import CLUSTERS, Evidence, depth_profile
from .stability import measure_stability
from .subspaces import space_summary
from .uncertainty import cosine_intervals

__all__ = [
    "CLUSTERS",
    "Clusters",
    "Evidence",
    "Labelled",
    "behaviour_contrasts",
    "compare_with_map",
    "contrasts",
    "cosine_intervals",
    "depth_profile",
    "distinctness_p",
    "gold_cosines",
    "mantel_p",
    "measure_confounds",
    "measure_oracles",
    "measure_stability",
    "pair_table",
    "paired_sides",
    "relatedness_p",
    "space_summary",
    "twin_contrasts",
]
