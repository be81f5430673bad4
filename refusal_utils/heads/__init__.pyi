from .attention import attention_pattern as attention_pattern
from .attribution import HeadAttribution as HeadAttribution
from .effects import replace_top_heads as replace_top_heads
from .refusal_opening import RefusalOpening as RefusalOpening
from .replacement import HeadTrial as HeadTrial
from .shares import component_shares as component_shares
from .shares import tolerance as tolerance
from .single_heads import ablate_single_heads as ablate_single_heads
