"""The comparison with the paper as a page and a table: `python -m refusal_utils report`."""

import html
from pathlib import Path

import pandas as pd

from ..model.chat_model import BUNDLED
from ..plotting.saving import model_folder
from .comparison import VERDICTS, compare
from .setting import Setting, read_setting
from .tables import CITATION

NAME = "comparison"
_COLOURS = {"agrees": "#009E73", "differs": "#D55E00", "not comparable": "#666666", "missing": "#999999"}
_STYLE = """
body {font: 15px/1.5 Helvetica, Arial, sans-serif; color: #222; max-width: 1400px; margin: 2em auto; padding: 0 1em}
table {border-collapse: collapse; margin: 1em 0} th {text-align: left; background: #f2f2f2; position: sticky; top: 0}
td, th {padding: 3px 10px; border-bottom: 1px solid #e5e5e5; font-variant-numeric: tabular-nums; white-space: nowrap; vertical-align: top}
td:last-child {white-space: normal}
"""


def write_report(model: str = BUNDLED, root: str | Path | None = None) -> tuple[Path, Path, pd.DataFrame]:
    """The paths of `comparison.csv` and `comparison.html` in the model's folder, and how often each verdict was given.

    Raises `ValueError` where no notebook has run on the model, and as `compare`.
    """
    folder = model_folder(model, root)
    if not folder.is_dir():
        raise ValueError(
            f"write_report: the notebooks must have run on the model; got no folder {folder}. "
            f"Run python -m refusal_utils run --model {model} first."
        )
    frame = compare(folder, model)
    table, page = folder / f"{NAME}.csv", folder / f"{NAME}.html"
    frame.round(4).to_csv(table, index=False)
    page.write_text(comparison_page(frame, read_setting(folder, model)), encoding="utf-8")
    return table, page, verdict_counts(frame)


def verdict_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """How often each verdict was given, by table."""
    counts = pd.crosstab(frame["table"].astype(int), frame["verdict"])
    return counts.reindex(columns=list(VERDICTS), fill_value=0).rename_axis(index="table", columns=None)


def comparison_page(frame: pd.DataFrame, setting: Setting) -> str:
    """A page that opens offline: what the numbers are of, the verdicts counted, and a table of numbers for each table."""
    name = html.escape(setting.model.rstrip("/").split("/")[-1])
    parts = [f"<h1>{name} beside the paper</h1>", f"<p>{html.escape(describe(setting))}</p>", f"<p>{_READING}</p>"]
    parts.append(verdict_counts(frame).to_html(border=0))
    for number, own in frame.groupby(frame["table"].astype(int)):
        parts += [f"<h2>Table {number}</h2>", _rows(own)]
    head = f'<meta charset="utf-8"><title>{name} beside {CITATION}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def describe(setting: Setting) -> str:
    """What the numbers of a setting are of, in words."""
    layer, pos = (", ".join(map(str, values)) or "unknown" for values in (setting.layers, setting.positions))
    where = f"resid_pre of layer {layer}, position {pos}; prompts: {setting.prompts}. {_chosen(setting)}"
    if setting.model == BUNDLED:
        return (
            f"The bundled model, {where} It was trained from scratch to refuse in eleven styles, for teaching and for tests. "
            "Its numbers stand beside the published ones to show the method; they say nothing about Gemma or Llama."
        )
    return f"{setting.model}, {where}"


def _chosen(setting: Setting) -> str:
    """How prompts were chosen and the model was run, as far as it was noted."""
    notes, prompts = setting.notes, setting.n_prompts or "An unknown number of"
    selection, reading = (" and ".join(said) or "unknown" for said in (setting.selections, setting.over_refusal))
    words = [f"{prompts} prompts a side, selected by: {selection}", f"over-refusal read as: {reading}"]
    if "dtype" in notes:
        system = notes["system_prompt"]
        words += [f"place: {notes['decision_source']}", f"in {notes['dtype']}", notes["thinking"]]
        words += [f"system prompt: {'none' if system is None else repr(system)}"]
    return "; ".join(words) + "."


_READING = html.escape(
    f"Published numbers: {CITATION}, Gemma-2-9b-it at layer 20 and (Table 11, half of Table 2) Llama-3.1-8B-Instruct at "
    "layers 15 to 16, position -2, 32 prompts a side that the model refused or answered. A verdict is given only where model, "
    "layer, position, prompts and their selection, the reading of over-refusal and (cosines) the number of prompts are the same: "
    "agrees where the 95 % interval of the difference holds 0, else differs. Table 1: plain cosines; our interval is that of "
    "the corrected cosine, moved to the plain one. The paper judges responses by WildGuard; where ours were judged otherwise the "
    "note says so, and a difference may be the judge's. "
    "Rates: theirs with Wilson's interval for the paper's 100 or 200 prompts."
)


def _rows(frame: pd.DataFrame) -> str:
    shown = pd.DataFrame(
        {
            "quantity": frame["quantity"].map(html.escape),
            "of": frame["about"].map(html.escape),
            "condition": frame["condition"].map(html.escape),
            **{
                name: [_interval(*values) for values in frame[columns].itertuples(index=False)]
                for name, columns in (
                    ("ours", ["ours", "low", "high"]),
                    ("theirs", ["theirs", "theirs low", "theirs high"]),
                    ("difference", ["difference", "difference low", "difference high"]),
                )
            },
            "verdict": [f'<b style="color:{_COLOURS[verdict]}">{verdict}</b>' for verdict in frame["verdict"]],
            "note": frame["note"].map(html.escape),
        }
    )
    empty = [name for name in ("condition", "note") if (shown[name] == "").all()]
    return shown.drop(columns=empty).to_html(index=False, border=0, escape=False)


def _interval(value: float, low: float, high: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3f}" if low == high else f"{value:.3f} ({low:.3f} to {high:.3f})"
