"""Saves figures: HTML that works offline, their numbers as CSV, and a PNG if Chrome is present."""

import asyncio
import atexit
import contextlib
import re
import shutil
import warnings
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import plotly
import plotly.graph_objects as go

_CHECKOUT = Path(__file__).parents[2]
FIGURES = (_CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path()) / "figures"
PNG_SECONDS = 20  # a healthy Chrome starts in three seconds and draws in less than one
_failures: list[Exception] = []


def save_figure(
    figure: go.Figure,
    name: str,
    model: str,
    numbers: pd.DataFrame | None = None,
    root: str | Path = FIGURES,
    origin: str = "",
) -> list[Path]:
    """The paths written under `<root>/<model>/`: `<name>.html`, `<name>.csv` with `numbers`, and `<name>.png`.

    The HTML works offline and shares one `plotly.min.js` with its neighbours. There is no PNG without Chrome. If the
    title of the figure does not contain the model's name, the name is added as a subtitle. `origin`: see `name_model`.
    """
    folder = model_folder(model, root)
    folder.mkdir(parents=True, exist_ok=True)
    name_model(figure, folder.name, origin)
    written = write_figure(figure, folder / name)
    if numbers is not None:
        written.insert(1, folder / f"{name}.csv")
        numbers.to_csv(written[1])
    return written


def write_figure(figure: go.Figure, path: Path) -> list[Path]:
    """The paths written: `<path>.html`, which shares `plotly.min.js` with its neighbours, and `<path>.png` with Chrome."""
    page, picture = (path.with_name(f"{path.name}.{kind}") for kind in ("html", "png"))
    figure.write_html(page, include_plotlyjs="directory")
    return [page, picture] if chrome() and _write_png(figure, picture) else [page]


def model_folder(model: str, root: str | Path | None = None) -> Path:
    """The folder for the figures of `model`: `root` (`figures/` if None) and the last part of the model's name.

    >>> model_folder("google/gemma-2-9b-it", "figures").as_posix()
    'figures/gemma-2-9b-it'
    >>> model_folder("Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-q4_k_m.gguf", "figures").as_posix()
    'figures/qwen2.5-q4_k_m'
    """
    name = re.split("[/:]", model.rstrip("/"))[-1]
    return Path(root or FIGURES) / re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def name_model(figure: go.Figure, model: str, origin: str = "") -> go.Figure:
    """`figure` with `model` named in its title or subtitle, and `origin` (such as "dequantized from Q4_K_M") there too."""
    title = figure.layout.title
    shown = f"{title.text} {title.subtitle.text}"
    missing = [text for text, known in ((f"{model} model", model in shown), (origin, origin in shown)) if not known]
    if missing:
        title.subtitle.text = ", ".join(filter(None, [*missing, title.subtitle.text]))
        figure.layout.margin.t = max(figure.layout.margin.t or 0, 100)  # plotly express leaves less above facets
    return figure


def chrome() -> str | None:
    """The path of a Chrome that can draw PNGs, or None without Chrome, kaleido or a plotly that supports kaleido 1."""
    try:
        import kaleido  # noqa: F401
    except ImportError:
        return None
    if tuple(map(int, plotly.__version__.split(".")[:2])) < (6, 1):
        return None
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


def _write_png(figure: go.Figure, path: Path) -> bool:
    """Whether Chrome drew the picture in time. After a failure Chrome is not tried again in this process."""
    if _failures:
        return False
    try:
        loop, browser = _chrome_server()
        drawing = browser.write_fig(figure.to_dict(), path=str(path), opts={"format": "png"})
        asyncio.run_coroutine_threadsafe(drawing, loop).result(PNG_SECONDS)
    except Exception as error:
        _failures.append(error)
        warnings.warn(f"save_figure: no PNGs will be drawn, {type(error).__name__}: {error}", stacklevel=3)
        return False
    return True


@cache
def _chrome_server() -> tuple[asyncio.AbstractEventLoop, Any]:
    """A separate event loop and one Chrome for all figures: starting Chrome takes longer than drawing ten."""
    import kaleido

    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True).start()
    browser = kaleido.Kaleido(n=1, timeout=PNG_SECONDS, mathjax=False)  # MathJax would be fetched from the network

    def close() -> None:
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(browser.close(), loop).result(PNG_SECONDS)

    asyncio.run_coroutine_threadsafe(browser.open(), loop).result(PNG_SECONDS)
    atexit.register(close)
    return loop, browser
