from .checks import check as check
from .directions.comparison import cosine_matrix as cosine_matrix
from .directions.direction_set import DirectionSet as DirectionSet
from .directions.estimation import mean_direction as mean_direction
from .geometry.gram import contrasts as contrasts
from .geometry.pairs import pair_table as pair_table
from .geometry.uncertainty import cosine_intervals as cosine_intervals
from .judging.judgement import Judgement as Judgement
from .judging.phrase_judge import judge_response as judge_response
from .model.capture import capture_activations as capture_activations
from .model.chat_model import ChatModel as ChatModel
from .model.chat_model import load_chat_model as load_chat_model
from .paper.tables import published_cosines as published_cosines
from .paper.tables import published_table as published_table
from .plotting.saving import save_figure as save_figure
from .prompts.categories import CATEGORY_IDS as CATEGORY_IDS
from .prompts.draws import draw_prompts as draw_prompts
from .prompts.loading import load_prompts as load_prompts
from .steering.conditions import Condition as Condition
from .steering.conditions import steering_condition as steering_condition
from .steering.generation import generate as generate
from .steering.interventions import Ablation as Ablation
from .steering.interventions import Addition as Addition
from .steering.responses import respond as respond
from .study import open_study as open_study
from .workflow.settings import are_default as are_default

__version__: str
