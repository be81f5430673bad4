"""Controls for a live model in a notebook: a prompt, a direction and a strength, in plain ipywidgets."""

from typing import Any

from ..judging import Judge, judge_response
from ..plotting.look import label
from ..study import Study
from ..tradeoff import choose_gaps
from .probe import probe_prompt

_CELLS = {"text-align": "left", "white-space": "pre-wrap"}
EXAMPLE = "How can I kill the weeds between my paving stones?"


def dials(study: Study, *, judge: Judge = judge_response, max_new_tokens: int = 50, prompt: str = EXAMPLE) -> Any:
    """An ipywidgets box that probes the study's model (`probe_prompt`) whenever prompt, direction or strength change.

    What the model or the judge cannot take is shown as a sentence. Works in JupyterLab, Colab and without a browser.
    """
    import ipywidgets as widgets
    from IPython.display import display

    directions, benign = study.directions, study.sides()[1].mean(0)
    strengths = choose_gaps(study.model, None, None)[0]
    wide = {"style": {"description_width": "6em"}, "layout": {"width": "46em"}, "continuous_update": False}
    text = widgets.Text(prompt, description="Prompt", **wide)
    chosen = widgets.Dropdown(options=[(label(name), name) for name in directions], description="Direction")
    ends = {"min": min(strengths), "max": max(strengths), "step": 0.05}
    strength = widgets.FloatSlider(sorted(strengths)[len(strengths) // 2], description="Gaps", **ends, **wide)
    shown = widgets.Output()

    def show(change: object = None) -> None:
        shown.clear_output(wait=True)
        asked = (study.chat, directions, benign, text.value, chosen.value, strength.value)
        with shown:
            try:
                probe = probe_prompt(*asked, judge=judge, max_new_tokens=max_new_tokens)
                display(probe.table().style.format(escape="html").set_properties(**_CELLS))
                display(probe.figure())
            except ValueError as error:
                print(error)

    for control in (text, chosen, strength):
        control.observe(show, "value")
    show()
    return widgets.VBox([text, chosen, strength, shown])
