from .look import LINE_LOOK, LOOK, POINT_LOOK, category_lines, category_scatter, heatmap, label
from .saving import save_figure

__all__ = [
    "LINE_LOOK",
    "LOOK",
    "POINT_LOOK",
    "category_lines",
    "category_scatter",
    "heatmap",
    "label",
    "save_figure",
]
