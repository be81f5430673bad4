"""Saves figures: HTML that works offline, their numbers as CSV, and a PNG if Chrome is present."""

import asyncio
import atexit
import contextlib
import os
import re
import shutil
import signal
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import plotly
import plotly.graph_objects as go

from ..model.names import FIGURES, claim_folder, short_name
from ..model.names import model_folder as model_folder  # a public name of `plotting`
from .texts import show_as_text

PNG_SECONDS = 20  # a healthy Chrome starts in three seconds and draws in less than one
_failures: list[Exception] = []


def save_figure(
    figure: go.Figure,
    name: str,
    model: str,
    numbers: pd.DataFrame | None = None,
    root: str | Path = FIGURES,
    origin: str = "",
    seed: int | None = None,
) -> list[Path]:
    """The paths written to the model's folder (`claim_folder`): `<name>.html`, `.csv` with `numbers`, `.png`.

    The HTML works offline and shares one `plotly.min.js` with its neighbours. There is no PNG without Chrome. If the
    title of the figure does not contain the model's name, the name is added as a subtitle. `origin`: see `name_model`.
    `seed`: noted in `seeds.json` (`note_seed`).
    """
    folder = claim_folder(model, root)
    if seed is not None:
        from ..model.artifacts import note_seed  # loads PyTorch

        note_seed(folder, name, seed)
    name_model(figure, short_name(model), origin)
    written = write_figure(figure, folder / name)
    if numbers is not None:
        written.insert(1, folder / f"{name}.csv")
        numbers.to_csv(written[1])
    return written


def save_table(
    table: pd.DataFrame | Mapping[str, float], name: str, model: str, root: str | Path = FIGURES, *, seed: int
) -> pd.DataFrame:
    """The table, after writing it as `<name>.csv` to the model's folder and noting its seed, as `save_figure` does.

    Single numbers, called by what they measure, become a row each of the column value, with four decimals.
    """
    from ..model.artifacts import note_seed  # loads PyTorch

    if not isinstance(table, pd.DataFrame):
        table = pd.Series(dict(table), dtype=float, name="value").rename_axis("measure").round(4).to_frame()
    table.to_csv(note_seed(claim_folder(model, root), f"{name}.csv", seed))
    return table


def write_figure(figure: go.Figure, path: Path) -> list[Path]:
    """The paths written: `<path>.html`, sharing `plotly.min.js` with its neighbours, and `<path>.png` with Chrome.

    Names in the figure stay text (`show_as_text`).
    """
    show_as_text(figure)
    page, picture = (path.with_name(f"{path.name}.{kind}") for kind in ("html", "png"))
    figure.write_html(page, include_plotlyjs="directory")
    return [page, picture] if chrome() and _write_png(figure, picture) else [page]


def name_model(figure: go.Figure, model: str, origin: str = "") -> go.Figure:
    """`figure` with `model` in its title or subtitle, and `origin` (such as "dequantized from Q4_K_M")."""
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
    except Exception:  # missing, or broken: PNGs are optional
        return None
    if tuple(map(int, re.findall(r"\d+", plotly.__version__)[:2])) < (6, 1):
        return None
    chosen = os.environ.get("BROWSER_PATH", "")  # the variable that kaleido reads
    return next(filter(None, map(shutil.which, (chosen, "chromium", "google-chrome", "chrome"))), None)


def _write_png(figure: go.Figure, path: Path) -> bool:
    """Whether Chrome drew the picture in time. After a failure Chrome is not tried again in this process."""
    if _failures:
        return False
    part = path.with_name(f".{path.name}")  # kaleido creates the file before it draws
    try:
        _draw(figure, part, time.monotonic() + PNG_SECONDS)
        part.replace(path)
    except Exception as error:
        _failures.append(error)
        _kill_chrome()
        part.unlink(missing_ok=True)
        is_late = isinstance(error, TimeoutError)
        why = f"nothing within {PNG_SECONDS:.0f} seconds" if is_late else f"{type(error).__name__}: {error}"[:200]
        text = f"save_figure: no PNGs will be drawn, because Chrome failed ({why}). Existing PNGs are of earlier runs."
        warnings.warn(text, stacklevel=4)
        return False
    return True


def _draw(figure: go.Figure, path: Path, deadline: float) -> None:
    """Write the picture, or raise what Chrome raises, or `TimeoutError` at the `deadline`."""
    loop, browser, opening = _chrome_server()
    opening.result(deadline - time.monotonic())
    drawing = browser.write_fig(figure.to_dict(), path=str(path), opts={"format": "png"}, cancel_on_error=True)
    asyncio.run_coroutine_threadsafe(drawing, loop).result(deadline - time.monotonic())


@cache
def _chrome_server() -> tuple[asyncio.AbstractEventLoop, Any, Future[None]]:
    """(an event loop of its own, one Chrome for all figures, its start): starting it takes longer than drawing ten."""
    import kaleido

    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True).start()
    browser = kaleido.Kaleido(n=1, timeout=PNG_SECONDS, mathjax=False, path=chrome())  # MathJax needs the network
    atexit.register(_close_chrome)
    return loop, browser, asyncio.run_coroutine_threadsafe(browser.open(), loop)


def _close_chrome() -> None:
    """Close Chrome, or kill it if it does not close."""
    loop, browser, _ = _chrome_server()
    try:
        if not _failures:
            asyncio.run_coroutine_threadsafe(browser.close(), loop).result(PNG_SECONDS)
    except Exception:
        _kill_chrome()


def _kill_chrome() -> None:
    """Kill Chrome and its children at once, if it was started and still runs: a stuck one does not close by itself."""
    process = getattr(_chrome_server()[1], "subprocess", None) if _chrome_server.cache_info().currsize else None
    with contextlib.suppress(OSError):
        if process is not None and hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        elif process is not None:
            process.kill()
