"""What steering costs: the change it makes to the first token on prompts that it should leave alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.chat_model import ChatModel
from ..plotting.look import category_scatter
from ..steering.conditions import Condition
from ..steering.first_tokens import kl_spent
from .sweep import Sweep

UNITS = ("coefficient", "gaps", "nats")  # units in which strengths can be compared


@dataclass(frozen=True, eq=False)
class SteeringCosts:
    """Every condition's strength in several units, and the refusal rate it produces.

    `values` has columns direction, coefficient, over norm (in mean norms of the states), nats, refused, gaps and kind.
    """

    values: pd.DataFrame = field(repr=False)

    def table(self, levels: Sequence[float]) -> pd.DataFrame:
        """The median nats and refusal rate of each kind of direction at the positive strengths in `levels`, in gaps."""
        kept = self.steered[self.steered["gaps"].isin(levels)]
        return kept.groupby(["kind", "gaps"])[["nats", "refused"]].median().unstack("gaps")

    @property
    def steered(self) -> pd.DataFrame:
        """The rows at positive strengths."""
        return self.values[self.values["coefficient"] > 0]

    def agreement(self, kind: str) -> pd.Series:
        """Rank correlation over the directions of a kind between strength in each of `UNITS` and the refusal rate."""
        own = self.steered[self.steered["kind"] == kind]
        return own[list(UNITS)].rank().corrwith(own["refused"].rank())

    def figure(self, *, title: str, x: str, y: str = "overall refusal rate") -> go.Figure:
        """Nats against the refusal rate, one point per direction and positive strength."""
        points = self.steered.rename(columns={"direction": "category", "nats": x, "refused": y})
        return category_scatter(points, x, y, title=title).update_xaxes(type="log")


def steering_costs(
    chat: ChatModel,
    swept: Sweep,
    conditions: Sequence[Condition],
    states: Float[Tensor, "prompt d_model"],
    kinds: Mapping[str, str],
) -> SteeringCosts:
    """What each of the `conditions` of a sweep costs on the benign prompts that the unsteered model answers (BC).

    If the controlled set has none of these, its other benign prompts are used.

    `states` are residual-stream states at the steered layer; `kinds` gives the kind of every direction.
    """
    in_bucket = swept.rows["bucket"] == "BC"
    answered = swept.rows[in_bucket if in_bucket.any() else swept.rows["bucket"] == "BR"]
    nats = kl_spent(chat, list(dict.fromkeys(answered["text"])), conditions)
    norm = float(torch.linalg.vector_norm(states.float(), dim=-1).mean())
    refused = swept.refused(("direction", "coefficient"))
    points = [(each.direction, each.coefficient) for each in conditions]
    values = pd.DataFrame(points, columns=["direction", "coefficient"])
    values["over norm"] = values["coefficient"] / norm
    values["nats"] = nats.numpy()
    values["refused"] = [refused[point] for point in points]
    values["gaps"] = [each.gaps for each in conditions]
    return SteeringCosts(values.assign(kind=values["direction"].map(kinds)))
