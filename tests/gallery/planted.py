"""A planted folder of figures: a model with tables, a picture, an executed notebook and a sweep, all of them tiny."""

import json
from pathlib import Path

import pandas as pd

from refusal_utils.gallery.recorded import write_record
from refusal_utils.tradeoff import Sweep

# Nothing of this may end a script, open a tag, close an attribute, or turn the text after it around.
HOSTILE = "<script>hacked = 1</script><img src=x onerror='hacked = 1'></script><!--\" & \u202egnp.evil\u2066\u2028"
LONG = "word " * 2000
KINDS = [("safety_core", "HR"), ("safety_core", "HC"), ("humanizing", "HR"), ("humanizing", "HC")]
KINDS += [("benign", "BR"), ("benign", "BC")] * 5
DIRECTIONS = {"safety_core": 1.0, "humanizing": 0.5, "random 0": 0.0}
GAPS = (-1.0, 0.0, 1.0, 2.0)


def planted_sweep(hostile: str = "") -> Sweep:
    """A prompt is refused if its threshold is below strength times gain; text 0 of every prompt holds `hostile`."""
    rows = []
    for direction, gain in DIRECTIONS.items():
        for gaps in GAPS:
            for number, (category, bucket) in enumerate(KINDS):
                threshold = (-0.4 if bucket.endswith("R") else 0.4) + 0.1 * (number % 4)
                outcome = "refused" if gain * gaps > threshold else "answered"
                if (direction, gaps, number) == ("safety_core", 2.0, 3):
                    outcome = "not judged"
                text = "Sorry, that is illegal." if outcome == "refused" else f"Boil it, {direction} at {gaps}."
                rows.append(
                    {
                        "id": f"{category}-{number:04}",
                        "category": category,
                        "text": f"{hostile if number == 4 else ''}Prompt {number}?",
                        "harmful": category != "benign",
                        "bucket": bucket,
                        "direction": direction,
                        "gaps": gaps,
                        "response": text + (hostile if number == 4 else ""),
                        "outcome": outcome,
                    }
                )
    return Sweep(pd.DataFrame(rows), {"draw": "d"})


def plant_model(folder: Path, hostile: str = "", takeaway: str = "Refusals have **11** directions.") -> Path:
    """`folder`, with a draw, a table, a picture, an executed notebook 07 and a record."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "01_draw.csv").write_text("id,category\nadvice-0001,advice\n")
    (folder / "07_rates.csv").write_text("direction,judge,max_new_tokens\nadvice,phrases,50\n")
    (folder / "07_tradeoff.csv").write_text("overall\n0.5\n")
    (folder / "07_tradeoff.png").write_bytes(PIXEL)
    shown = {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": f"- {takeaway}{hostile}"}}
    cells = [
        {"cell_type": "code", "source": "1", "outputs": [{"data": {"text/markdown": "- earlier"}}]},
        {"cell_type": "markdown", "source": "## Takeaways"},
        {"cell_type": "code", "source": "numbers = 1", "outputs": []},
        {"cell_type": "code", "source": "Markdown(numbers)", "outputs": [shown]},
        {"cell_type": "markdown", "source": "Next"},
    ]
    executed = folder / "notebooks" / "07_steering_tradeoffs.ipynb"
    executed.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    write_record(folder, planted_sweep(hostile), folder.name)
    return folder


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000" + "1f15c4890000000d49444154789c6360f8cf"
    "c0000003010100c9fe92ef0000000049454e44ae426082"
)
