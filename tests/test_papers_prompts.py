"""The notebooks on prompts in the form of the paper's public data sets."""

import pandas as pd
import pytest

from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.public_sources import SOURCES
from refusal_utils.workflow.settings import Settings

from .notebook_runs import run_without_pictures
from .public_tables import write_paper_files


@pytest.mark.slow
def test_the_papers_prompts_go_through_the_notebooks(tmp_path):
    """Tables of the public sets' form and size, as files, with built-in prompts among their texts; no hub."""
    own = load_prompts().sample(frac=1, random_state=0)
    texts = {str(kind): iter(rows["text"]) for kind, rows in own.groupby("kind")}

    def text(name: str, row: dict) -> str:
        source = SOURCES[name]
        category = source.categories.get(str(row[source.label]), "")
        kept = source.keep is None or str(row[source.keep[0]]) == source.keep[1]
        kind = source.benign_kind if category == BENIGN else category
        before = str(row[source.text])
        return next(texts[kind], before) if kept and kind in texts else before

    write_paper_files(tmp_path / "cache" / "paper_files", text)
    small = {"N_BOOTSTRAP": 40, "N_BUCKET": 12, "GAPS": [1.0], "CONTROL_GAPS": [1.0], "MAX_NEW_TOKENS": 8}
    small |= {"N_POOL": 60, "N_CONTROLS": 1}
    places = {"FIGURES_DIR": str(tmp_path), "CACHE_DIR": str(tmp_path / "cache")}
    run_without_pictures(Settings(PROMPTS="paper", **places, **small), ["01", "03", "04", "07"])
    draw = pd.read_csv(tmp_path / "bundled" / "01_draw.csv")
    assert draw["category"].value_counts().to_dict() == dict.fromkeys((*CATEGORY_IDS, BENIGN), 32)
    assert draw["id"].str.contains("-xstest-|-wildguard-|-sorrybench-|-coconot").all()
    oracles = pd.read_csv(tmp_path / "bundled" / "04_oracle_buckets.csv")
    assert {"BR-BC", "XSTest HR-BC"} <= set(oracles["reference"])  # Table 10's gold, on the paper's own data
    halves = pd.read_csv(tmp_path / "bundled" / "03_stability_table.csv").set_index("category")["n"]
    small = ["hate_speech", "advice"]  # SORRY-Bench has 50 of each, of the others there are 64 for 32 against 32
    assert halves[small].to_list() == [25, 25]
    assert set(halves.drop(small)) == {32}
    assert (tmp_path / "cache" / "07_sweep_bundled.jsonl.gz").is_file()
