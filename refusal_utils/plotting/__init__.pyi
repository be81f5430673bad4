from .look import LINE_LOOK, LOOK, POINT_LOOK, category_lines, category_scatter, heatmap, heatmap_menu, label
from .points import embedding_scatter, projection_scatter
from .saving import model_folder, save_figure

__all__ = [
    "LINE_LOOK",
    "LOOK",
    "POINT_LOOK",
    "category_lines",
    "category_scatter",
    "embedding_scatter",
    "heatmap",
    "heatmap_menu",
    "label",
    "model_folder",
    "projection_scatter",
    "save_figure",
]
