"""The comparison with the paper as a CSV file and a page: `python -m refusal_utils report`."""

import html
from pathlib import Path

import pandas as pd

from ..model.names import BUNDLED, short_name
from ..plotting.texts import visible
from .claims import CLAIMS, CLAIMS_FILE, Claims, check_claims
from .comparison import Comparison, compare
from .setting import Setting, figures_of
from .tables import CITATION

_COLOURS = {"agrees": "#009E73", "differs": "#D55E00", "not comparable": "#666666", "missing": "#999999"}
_STYLES = [
    {"selector": "", "props": "font: 14px Helvetica, Arial, sans-serif; color: #222; border-collapse: collapse"},
    {"selector": "caption", "props": "text-align: left; max-width: 60em; line-height: 1.5; margin-bottom: 1em"},
    {"selector": "th", "props": "text-align: left; background: #f2f2f2; position: sticky; top: 0"},
    {"selector": "td, th", "props": "padding: 3px 10px; border-bottom: 1px solid #e5e5e5; vertical-align: top"},
]
_READING = (
    f"The published numbers are those of {CITATION}: Gemma-2-9b-it at layer 20, and Llama-3.1-8B-Instruct at layers 15 "
    "to 16 (Table 11, half of Table 2), at position -2, with 32 prompts on each side that the model refused or "
    "answered. A verdict is given only if model, layer, position, prompts and their selection, the reading of "
    "over-refusal and, for cosines, the number of prompts are the same. Then ours agrees if the 95 % interval of the "
    "difference contains 0, and differs otherwise. Table 1 compares plain cosines; our interval is that of the "
    "corrected cosine, shifted to the plain one. The paper judges responses with WildGuard; if our judge is another, "
    "the note names it, and a difference may be due to it. Published rates have Wilson's interval for the paper's 100 "
    "or 200 prompts. Tables of other papers (arXiv numbers) give the layer, as a share of depth, and the position that "
    "a search chose on their prompts."
)


def write_report(model: str = BUNDLED, root: str | Path | None = None) -> tuple[Path, Path, pd.DataFrame]:
    """(path of `comparison.csv`, path of `comparison.html`, counts of verdicts), written to the model's folder.

    The paper's claims about the model are written to `claims.csv` there, and to the page. Raises `ValueError` if no
    notebook has run on the model, and as `compare` does.
    """
    folder = figures_of("write_report", model, root)
    found, claims = compare(folder, model), check_claims(folder, model)
    claims.rows().round(4).to_csv(folder / CLAIMS_FILE, index=False)
    table, page = folder / "comparison.csv", folder / "comparison.html"
    found.rows.round(4).to_csv(table, index=False)
    page.write_text(comparison_page(found, claims), encoding="utf-8")
    return table, page, found.table()


def comparison_page(found: Comparison, claims: Claims | None = None) -> str:
    """A page that opens offline: what was measured, the claims, how to read the numbers, all numbers."""
    name = short_name(found.setting.model)
    texts = [html.escape(visible(text)) for text in (f"{name} and the paper", describe(found.setting), _READING)]
    shown = _claims_table(claims) if claims else ""
    caption = f"<h1>{texts[0]}</h1><p>{texts[1]}</p>{shown}<p>{texts[2]}</p>{found.table().to_html(border=0)}"
    shown = found.rows[["table", "quantity", "about", "condition"]].copy()
    for column, ends in (("ours", ("low", "high")), ("theirs", None), ("difference", None)):
        names = [column, *(ends or (f"{column} low", f"{column} high"))]
        shown[column] = [_interval(*values) for values in found.rows[names].itertuples(index=False)]
    shown = shown.join(found.rows[["verdict", "note"]])
    styler = shown.style.hide().format(escape="html").set_caption(caption).set_table_styles(_STYLES)
    styler = styler.map(lambda verdict: f"font-weight: bold; color: {_COLOURS[verdict]}", subset=["verdict"])
    return styler.to_html(doctype_html=True)


def _claims_table(claims: Claims) -> str:
    """The claims and every measure of them, as HTML."""
    rows = claims.rows().round(3)
    rows.insert(0, "the paper's claim", rows["claim"].map(CLAIMS))
    columns = ["the paper's claim", "measure", "number", "low", "high", "bar", "n", "verdict", "claim verdict"]
    return rows[[*columns, "note", "doubt"]].to_html(border=0, index=False, na_rep="")


def describe(setting: Setting) -> str:
    """What the numbers of a setting were measured on, in words."""
    layer, pos = (", ".join(map(str, values)) or "unknown" for values in (setting.layers, setting.positions))
    place = f"resid_pre of layer {layer}, position {pos}; prompts: {setting.prompts}. {_chosen(setting)}"
    if setting.model == BUNDLED:
        return (
            f"The bundled model, {place} It was trained from scratch to refuse in eleven styles, for teaching and "
            "tests. Its numbers are compared with the published ones to show the method; they say nothing about Gemma "
            "or Llama."
        )
    return f"{setting.model}, {place}"


def _chosen(setting: Setting) -> str:
    """How prompts were chosen and how the model was run, as far as it was recorded."""
    notes, n_prompts = setting.model_notes, setting.n_prompts or "An unknown number of"
    selection, reading = (" and ".join(values) or "unknown" for values in (setting.selections, setting.over_refusal))
    words = [f"{n_prompts} prompts a side, selected by: {selection}", f"over-refusal read as: {reading}"]
    if "dtype" in notes:
        system = notes["system_prompt"]
        words += [f"place: {notes['decision_source']}", f"in {notes['dtype']}", notes["thinking"]]
        words += [f"dequantized from {notes['dequantized_from']}"] if notes.get("dequantized_from") else []
        words += [f"system prompt: {'none' if system is None else repr(system)}"]
    return "; ".join(words) + "."


def _interval(value: float, low: float, high: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3f}" if low == high else f"{value:.3f} ({low:.3f} to {high:.3f})"
