"""What notebooks do outside the model, from the records of a run: `python -m tests.bench analyses SIZE [FOLDER]`.

Run the bundled model alone first, at the size `quick` or `standard`, with `--fresh --jobs 1`; FOLDER has its figures.
"""

from pathlib import Path

import pandas as pd

from refusal_utils.model.names import BUNDLED, model_folder
from refusal_utils.notebooks import find_notebooks
from refusal_utils.workflow.planning.calibration import calibrate
from refusal_utils.workflow.planning.estimate import ANALYSES
from refusal_utils.workflow.records import read_record


def analysis_table(folder: Path, size: str, start: float, load: float) -> pd.DataFrame:
    """The committed table with the column `size` from the records in `folder`; others stay as they are."""
    table = pd.read_csv(ANALYSES, dtype={"notebook": str}).set_index("notebook").astype(float)
    for path in find_notebooks():
        record, number = read_record(folder / "notebooks" / path.name), path.name[:2]
        if record is not None and record.minutes:
            opening = start + load * (number not in ("01", "08"))
            spent = sum(record.work.get("seconds", {}).values())
            table.loc[number, size] = round(max(0.0, 60 * record.minutes - spent - opening), 1)
    return table.assign(start=round(start, 2))


def main(size: str = "standard", folder: str = "") -> None:
    """Write the table."""
    rates, _ = calibrate(BUNDLED, {})
    table = analysis_table(Path(folder) if folder else model_folder(BUNDLED), size, rates.start, rates.load)
    table.to_csv(ANALYSES)
    print(table.to_string())
