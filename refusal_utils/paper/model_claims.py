"""The paper's claims on several models: a row per model, and every number with its range in one figure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..plotting.models import claim_panels
from .claims import CLAIMS, Claims
from .measures import COUNTED

# What a panel is called: the measures' own names are sentences.
PANELS = {
    "pairs of directions are distinct": "1. distinct pairs (share)",
    "correlation of the cosines with the two clusters": "2. like two clusters (r)",
    "correlation with the published map": "2. like the published map (r)",
    "pairs of trade-off curves are equivalent": "3. equivalent curves (share)",
    "directions raise refusals": "3. directions that raise<br>refusals (share)",
    "random directions raise refusals": "3. random directions that<br>raise refusals (share)",
    "share of refusals whose text names the direction": "4. text names the<br>direction (share)",
    "what text tells minus what yes or no tells": "4. how minus whether",
}


@dataclass(frozen=True, eq=False)
class ModelClaims:
    """The measures of the four claims on every model: `rows` are those of `Claims.rows`, with a column model first."""

    rows: pd.DataFrame = field(repr=False)

    @classmethod
    def of(cls, claims: Mapping[str, Claims]) -> "ModelClaims":
        """The claims of models, by the names that they have in tables and figures."""
        parts = [each.rows().drop(columns="model").assign(model=name) for name, each in claims.items()]
        return cls(pd.concat(parts, ignore_index=True))

    def table(self) -> pd.DataFrame:
        """A row per model; per claim its verdict and its headline measure: number, range and n (`55 of 55 (55-55)`)."""
        cells = {
            (model, claim): f"{own['claim verdict'].iloc[0]}: {describe_measure(own.iloc[0])}"
            for (model, claim), own in self.rows.groupby(["model", "claim"], sort=False)
        }
        table = pd.Series(cells).unstack()
        order = list(dict.fromkeys(self.rows["model"]))
        return table.loc[order].rename(columns={claim: f"{claim}. {text}" for claim, text in CLAIMS.items()})

    def figure(self) -> go.Figure:
        """A panel per measure; counts are drawn as shares of n."""
        rows = self.rows.dropna(subset=["number"])
        scale = rows["n"].where(rows["unit"].isin(COUNTED), 1.0)
        bars = rows["bar"].str.extract(r"(-?[\d.]+)$")[0].astype(float)
        shares = {name: rows[name] / scale for name in ("number", "low", "high")}
        drawn = rows[["model", "verdict"]].assign(panel=rows["measure"].map(PANELS), bar=bars / scale, **shares)
        return claim_panels(drawn, title="The paper's four claims, model by model: number, range and bar")


def describe_measure(row: Any) -> str:
    """A measure's number, range and n in words: counts as counts of n, the rest with two decimals."""
    if pd.isna(row["number"]):
        return "no number"
    if row["unit"] in COUNTED:
        return f"{row['number']:.0f} of {row['n']:.0f} {row['unit']} ({row['low']:.0f} to {row['high']:.0f})"
    return f"{row['number']:.2f} ({row['low']:.2f} to {row['high']:.2f}), n = {row['n']:.0f} {row['unit']}"
