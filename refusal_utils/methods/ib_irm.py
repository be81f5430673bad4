"""Probes that must hold in every category: ERM, IRM, IB-ERM and IB-IRM, with categories as environments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import softplus

from ..checks import require
from ..plotting.look import heatmap
from .difference_in_means import difference
from .method import POOLED, Sides, StateMethod

# (states of the refused, of the answered prompts) by environment: categories, data sources or languages.
Environments = Mapping[str, tuple[Float[Tensor, "_ d_model"], Float[Tensor, "_ d_model"]]]
OBJECTIVES = {"erm": "ERM", "irm": "IRM", "ib_erm": "IB-ERM", "ib_irm": "IB-IRM"}
OPTIONS = {"n_components": 32, "irm": 0.9, "ib": 0.1, "decay": 1e-4}


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe: a state is called refused if `states @ weights + offset` is positive."""

    weights: Float[Tensor, " d_model"]
    offset: float

    def refused(self, states: Float[Tensor, "prompt d_model"]) -> Bool[Tensor, " prompt"]:
        """Which of these states the probe calls refused."""
        return states.double() @ self.weights + self.offset > 0


@dataclass(frozen=True, eq=False)
class HeldOutAccuracy:
    """Accuracy in every environment (row) of the four probes (columns) fitted on all others; made by `leave_one_out`.

    Accuracy is balanced: the mean of the shares of refused and of answered prompts that are classified correctly. 0.5
    is chance.
    """

    accuracy: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """The accuracies, and their mean and minimum over environments."""
        rows = {"mean": self.accuracy.mean(), "lowest": self.accuracy.min()}
        return pd.concat([self.accuracy, pd.DataFrame(rows).T]).rename_axis(self.accuracy.index.name)

    def figure(self) -> go.Figure:
        """A map of `table`."""
        title = "Probes tested on the category that they were not fitted on"
        return heatmap(self.table(), title=title, value="balanced accuracy", limits=(0, 1))


def deal(refused: Sides, answered: Float[Tensor, "answered_prompt d_model"]) -> Environments:
    """An environment for every category, with its own part of the answered prompts.

    These are sorted by their distance from their mean and dealt out in turn, so that the order of prompts does not
    matter. Raises `ValueError` if there are fewer answered prompts than categories.
    """
    must, got = "every environment needs refused and answered prompts", f"{len(answered)} answered for {len(refused)}"
    require(len(answered) >= len(refused), "deal", must, got, "Draw more benign prompts, or choose fewer categories.")
    distance = (answered.double() - answered.double().mean(0)).norm(dim=1)
    order = distance.argsort()
    return {name: (states, answered[order[i :: len(refused)]]) for i, (name, states) in enumerate(refused.items())}


def fit_probes(
    environments: Environments,
    objectives: tuple[str, ...] = tuple(OBJECTIVES),
    *,
    n_components: int = 32,
    irm: float = 0.9,
    ib: float = 0.1,
    decay: float = 1e-4,
) -> dict[str, Probe]:
    """A probe for every objective, fitted on the `n_components` first principal components of all states.

    Components are divided by one number, their root mean square everywhere: a scale for each would change what is
    invariant. Both sides of an environment count equally; ERM and IB-ERM see one environment that holds all. Raises
    `ValueError` for an unknown objective, for an environment with one label, and if the two means coincide.
    """
    known, unknown = ", ".join(OBJECTIVES), [each for each in objectives if each not in OBJECTIVES]
    require(not unknown, "fit_probes", f"the objective must be one of {known}", ", ".join(unknown), "Use one of these.")
    for name, sides in environments.items():
        must, sizes = "every environment needs refused and answered prompts", [*map(len, sides)]
        got, todo = f"{sizes[0]} and {sizes[1]} in {name}", "Leave it out, or add prompts."
        require(min(sizes) > 0, "fit_probes", must, got, todo)
    refused, answered = (torch.cat([*sides]) for sides in zip(*environments.values(), strict=True))
    difference(refused, answered)  # raises if there is none
    states = torch.cat([side for sides in environments.values() for side in sides]).double()
    mean = states.mean(0)
    axes = torch.linalg.eigh((states - mean).T @ (states - mean))[1][:, -n_components:]
    features = (states - mean) @ axes
    scale = features.square().mean().sqrt()
    counts = torch.tensor([[len(side) for side in sides] for sides in environments.values()])
    labels = torch.tensor([1.0, 0.0]).double().repeat(len(counts)).repeat_interleave(counts.flatten())
    own = torch.arange(len(counts)).repeat_interleave(counts.sum(1))
    members = (own == torch.arange(len(counts))[:, None]).double()
    probes = {}
    for each in objectives:
        has_irm, has_ib = each.endswith("irm"), each.startswith("ib")
        shares = _balanced(members if has_irm else torch.ones_like(members[:1]), labels)
        weights, offset = minimise(features / scale, labels, shares, irm=irm * has_irm, ib=ib * has_ib, decay=decay)
        weights = axes @ weights / scale
        probes[each] = Probe(weights, offset - float(mean @ weights))
    return probes


def _balanced(members: Tensor, labels: Tensor) -> Tensor:
    """The share of every prompt in its environment [environment, prompt], half of it for either label."""
    sides = torch.stack([members * labels, members * (1 - labels)])
    return (sides / sides.sum(2, keepdim=True)).mean(0)


def minimise(
    features: Float[Tensor, "prompt component"],
    labels: Float[Tensor, " prompt"],
    shares: Float[Tensor, "row prompt"],
    *,
    irm: float,
    ib: float,
    decay: float,
    squared: bool = False,
) -> tuple[Float[Tensor, " component"], float]:
    """(weights w, offset b) of the scores z = features @ w + b that minimise the objective

    (1 - irm) mean_e R_e + irm sum_e |g_e|^2 + ib mean_e Var_e(z) + decay/2 |w|^2.

    Environment e gives the prompts `shares[e]`, which sum to 1. R_e is its cross entropy (with `squared`, its squared
    error), and g_e the gradient of R_e with respect to a factor and an offset of z, at 1 and 0. Source: arXiv
    2106.06607, whose code takes 10,000 steps of Adam; here L-BFGS starts at zero and runs until the objective no longer
    falls, so the weight decay alone keeps the weights of separable sides small.
    """

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(point, requires_grad=True)
        z = features @ leaf[:-1] + leaf[-1]
        errors = (z - labels).square() if squared else softplus(z) - labels * z
        slopes = 2 * (z - labels) if squared else z.sigmoid() - labels
        invariance = (shares @ (slopes * z)).square() + (shares @ slopes).square()
        variance = shares @ z.square() - (shares @ z).square()
        value = (1 - irm) * (shares @ errors).mean() + irm * invariance.sum() + ib * variance.mean()
        value = value + decay / 2 * leaf[:-1].square().sum()
        return value.item(), torch.autograd.grad(value, leaf)[0].numpy()

    start = np.zeros(features.shape[1] + 1)
    limits = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-13, "gtol": 1e-8}
    point = torch.as_tensor(minimize(objective, start, jac=True, method="L-BFGS-B", options=limits).x)
    return point[:-1], float(point[-1])


def leave_one_out(environments: Environments, **options: Any) -> HeldOutAccuracy:
    """How well each of the four probes, fitted on all other environments, does in each environment.

    `options` as in `fit_probes`. Raises `ValueError` for fewer than two environments, and as `fit_probes` does.
    """
    n = len(environments)
    require(n > 1, "leave_one_out", "there must be at least two environments", n, "Pass more categories.")
    rows = {}
    for left_out, sides in environments.items():
        others = {name: each for name, each in environments.items() if name != left_out}
        probes = fit_probes(others, **options)
        rows[left_out] = {OBJECTIVES[each]: _accuracy(probe.refused, *sides) for each, probe in probes.items()}
    return HeldOutAccuracy(pd.DataFrame(rows).T.rename_axis("left out"))


def _accuracy(calls: Callable[[Tensor], Tensor], refused: Tensor, answered: Tensor) -> float:
    return float(calls(refused).double().mean() + 1 - calls(answered).double().mean()) / 2


def find(
    refused: Sides, answered: Float[Tensor, "answered_prompt d_model"], objective: str, **options: Any
) -> dict[str, Float[Tensor, " d_model"]]:
    """The weights of one probe for all categories, the environments. Raises `ValueError` as `fit_probes` does.

    A single category (or all pooled) is a single environment, and invariance then asks for nothing but calibration.
    """
    return {POOLED: fit_probes(deal(refused, answered), (objective,), **options)[objective].weights.float()}


METHOD = StateMethod(
    name="ib_irm",
    title="Invariant probe (IB-IRM)",
    source="Ahuja et al., arXiv 2106.06607; Arjovsky et al., arXiv 1907.02893",
    options={"objective": "ib_irm", **OPTIONS},
    at_least=2,
    find=find,
)
