from .ablation import ablate as ablate
from .comparison import cosine_matrix as cosine_matrix
from .direction_set import DirectionSet as DirectionSet
from .direction_set import Provenance as Provenance
from .estimation import mean_difference as mean_difference
from .estimation import mean_direction as mean_direction
from .estimation import normalize as normalize
from .estimation import random_directions as random_directions
