"""All numbers of the direction geometry at one place (layer and position), so that they can be asked of every place.

Each function takes the states of one place, as `refused` by category and one `answered` set, and returns a table with
names; `summarise` and `oracle_summary` draw from such tables the single numbers that a depth profile shows.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from .. import directions
from ..prompts.categories import BENIGN, CATEGORY_IDS
from . import clusters, nulls, subspaces
from . import contrasts as geometry

States = Mapping[str, Float[Tensor, "_ d_model"]]


def unit_directions(
    refused: States, answered: Float[Tensor, "answered_prompt d_model"]
) -> Float[Tensor, "category d_model"]:
    """The mean direction of every category, in the order of `refused`; errors are those of `mean_direction`."""
    return torch.stack([directions.mean_direction(own, answered) for own in refused.values()])


def sides(
    states: Float[Tensor, "prompt d_model"], labels: Iterable[str]
) -> tuple[dict[str, Float[Tensor, "_ d_model"]], Float[Tensor, "answered_prompt d_model"]]:
    """The states of the refused prompts by category, in the order of the eleven, and those of the benign ones.

    `labels` gives the category of every prompt, or `"benign"`. Raises `ValueError` for another number of labels.
    """
    given = list(labels)
    if len(given) != len(states):
        raise ValueError(
            f"sides: every prompt must have a label; got {len(given)} labels for {len(states)} prompts. "
            "Take both from the same draw."
        )
    own = {id: states[torch.tensor([label == id for label in given])] for id in (*CATEGORY_IDS, BENIGN)}
    return {id: own[id] for id in CATEGORY_IDS}, own[BENIGN]


def paired_sides(
    refused: Float[Tensor, "prompt d_model"], benign: Float[Tensor, "prompt d_model"], labels: Iterable[str]
) -> dict[str, tuple[Float[Tensor, "_ d_model"], Float[Tensor, "_ d_model"]]]:
    """By category, the states of its refused twins and, in the same order, of their benign ones; errors as `sides`."""
    given = list(labels)
    own, twins = (sides(states, given)[0] for states in (refused, benign))
    return {id: (own[id], twins[id]) for id in own}


def cosine_frame(vectors: Float[Tensor, "category d_model"], names: list[str]) -> pd.DataFrame:
    """Plain cosines between `vectors`, with `names` on both sides."""
    return pd.DataFrame(directions.cosine_matrix(vectors).numpy(), index=names, columns=names)


def stability_table(
    refused: States,
    answered: Float[Tensor, "answered_prompt d_model"],
    n_prompts: int = 32,
    n_draws: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """By category, how far the direction depends on which prompts were drawn.

    `gap`: length of the difference in means, in units of the residual stream; `reliability`: see `CosineIntervals`;
    `split half mean`, `split half std`: cosines between the directions of `n_prompts` a side and as many others, over
    `n_draws` draws (Joad et al. 2602.02132, Table 8); `bucket min`, `bucket mean`, `bucket max`: of `n_prompts` a side
    with the direction of all. Raises `ValueError` where a side has fewer than 2 `n_prompts`.
    """
    sample = geometry.contrasts(refused, answered)
    halves, buckets = _redrawn(sample, n_prompts, n_draws, seed)
    columns = {
        "gap": torch.stack([directions.mean_difference(own, answered).norm() for own in refused.values()]),
        "reliability": geometry.reliability(sample),
        "split half mean": halves.mean(0),
        "split half std": halves.std(0),
        "bucket min": buckets.amin(0),
        "bucket mean": buckets.mean(0),
        "bucket max": buckets.amax(0),
    }
    index = pd.Index(list(refused), name="category")
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=index)


def stability_of_draw(
    refused: States,
    answered: Float[Tensor, "answered_prompt d_model"],
    wide_refused: States,
    wide_answered: Float[Tensor, "wide_answered_prompt d_model"],
    n_most: int = 32,
    n_draws: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """`stability_table` of a draw, with split halves of `n_most` a side where the draw alone has too few for that.

    Halves that are larger than the draw allows are taken from the wide sides: the draw's prompts and others of their
    kinds. Column `n` says how many a side they have, by category; `bucket n` the mini-buckets, which like gap and
    reliability are of the draw alone. Raises `ValueError` for fewer than 4 prompts on a side.
    """
    n_bucket = min(n_most, *(len(own) // 2 for own in (*refused.values(), answered)))
    table = stability_table(refused, answered, n_bucket, n_draws, seed)
    table["n"] = [max(n_bucket, min(n_most, len(wide_refused[id]) // 2, len(wide_answered) // 2)) for id in refused]
    halves = ["split half mean", "split half std"]
    for n in set(table["n"]) - {n_bucket}:
        own = {id: wide_refused[id] for id in table.index[table["n"] == n]}
        table.loc[list(own), halves] = stability_table(own, wide_answered, n, n_draws, seed)[halves]
    return table.assign(**{"bucket n": n_bucket})


def pair_table(
    refused: States,
    answered: Float[Tensor, "answered_prompt d_model"],
    n_draws: int = 1000,
    n_null: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """By pair of categories (index `first`, `second`), its cosine in every reading.

    `raw`, `corrected`, `low`, `high`: see `cosine_intervals`, over `n_draws` draws; `centred`: without what all share;
    `whitened`: in the metric of the spread within sides; `p distinct`, `p related`: against the two nulls of `nulls`,
    over `n_null` and ten times `n_null` draws, adjusted for the number of pairs.
    """
    sample = geometry.contrasts(refused, answered)
    found = geometry.cosine_intervals(sample, n_draws, seed=seed)
    units = unit_directions(refused, answered)
    residuals = torch.cat([side - side.mean(0) for side in (*refused.values(), answered)])
    maps = {
        **{name: getattr(found, name) for name in ("raw", "corrected", "low", "high")},
        "centred": directions.centred_cosines(units),
        "whitened": directions.whitened_cosines(units, residuals),
        "p distinct": nulls.adjust_p(nulls.distinctness_p(sample, n_null, seed)),
        "p related": nulls.adjust_p(nulls.relatedness_p(sample, 10 * n_null, seed)),
    }
    index = pd.MultiIndex.from_tuples(combinations(refused, 2), names=["first", "second"])
    return pd.DataFrame({name: directions.off_diagonal(values).numpy() for name, values in maps.items()}, index=index)


def confound_table(
    refused: States,
    answered: Float[Tensor, "answered_prompt d_model"],
    features: Mapping[str, Float[Tensor, " answered_prompt"]],
    twins: Mapping[str, tuple[Float[Tensor, "_ d_model"], Float[Tensor, "_ d_model"]]],
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """What of each direction is format or topic, and the map of cosines without it.

    `features`: a number per answered prompt; `twins`: by category, the states of refused prompts and of the benign ones
    that share their topic and format. A category's *topic* is the direction from the answered prompts to its benign
    twins. The first table has, by category, the cosine with each feature's direction, with its own `topic`, with itself
    after all features' (`without features`) or all topics' directions (`without topics`) are projected out, and with
    the direction from benign to refused twins (`twins`). The second result holds the three maps of cosines.
    """
    names, units = list(refused), unit_directions(refused, answered)
    axes = torch.stack([directions.feature_direction(answered, values) for values in features.values()])
    topics = torch.stack([directions.mean_direction(twins[name][1], answered) for name in names])
    read = {
        "without features": directions.normalize(directions.ablate(units, axes)),
        "without topics": directions.normalize(directions.ablate(units, topics)),
        "twins": torch.stack([directions.mean_direction(*twins[name]) for name in names]),
    }
    table = pd.DataFrame((units @ axes.T).numpy(), index=pd.Index(names, name="category"), columns=list(features))
    table["topic"] = (units * topics).sum(1).numpy()
    for name, vectors in read.items():
        table[name] = (units * vectors).sum(1).numpy()
    return table, {name: cosine_frame(vectors, names) for name, vectors in read.items()}


def space_summary(
    refused: States, answered: Float[Tensor, "answered_prompt d_model"], cluster_of: Mapping[str, str]
) -> dict[str, float]:
    """The span of the directions: its rank, the axis that all share, and how clearly they fall into clusters.

    `cluster angle`: smallest angle, in degrees, between the spans of the two clusters that `cluster_of` names;
    `silhouette n, method`: for 2 to 6 clusters under both linkages; `same two clusters`: 1 where average linkage finds
    the two that `cluster_of` names.
    """
    units, names = unit_directions(refused, answered), list(refused)
    frame = cosine_frame(units, names)
    kinds = [cluster_of[name] for name in names]
    first = torch.tensor([kind == kinds[0] for kind in kinds])
    found = clusters.cut_tree(frame, 2)
    scores = clusters.silhouettes(frame, range(2, min(7, len(names))))
    return {
        "effective rank": subspaces.effective_rank(units),
        "participation ratio": subspaces.participation_ratio(units),
        "common axis": subspaces.common_axis(units)[1],
        "cluster angle": float(subspaces.principal_angles(units[first], units[~first])[0]),
        "same two clusters": float(len(set(zip(found, kinds, strict=True))) == 2),
        **{f"silhouette {n}, {method}": float(scores.loc[n, method]) for method in scores for n in scores.index},
    }


def oracle_table(buckets: States, n_prompts: int, n_draws: int = 100, seed: int = 0) -> pd.DataFrame:
    """By contrast of two buckets (HR-BC ...), `split half` and `bucket mean`, `bucket min` as in `stability_table`.

    Source: Joad et al. 2602.02132, Appendix D. Raises `ValueError` where a bucket has fewer than 2 `n_prompts`.
    """
    sample = geometry.behaviour_contrasts(buckets)
    halves, drawn = _redrawn(sample, n_prompts, n_draws, seed)
    columns = {"split half": halves.mean(0), "bucket mean": drawn.mean(0), "bucket min": drawn.amin(0)}
    index = pd.Index(sample.categories, name="contrast")
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=index)


def bucket_table(buckets: States, n_prompts: int, n_draws: int = 100, seed: int = 0) -> pd.DataFrame:
    """Directions of `n_prompts` a side against those of all prompts, themselves included: mean and std of the cosine.

    By contrast (of few prompts) and reference (of all). Source: Joad et al. 2602.02132, Table 10. Raises `ValueError`
    where a bucket is too small.
    """
    sample = geometry.behaviour_contrasts(buckets)
    drawn = geometry.subset_cosines(sample, n_prompts, n_draws, seed)
    index = pd.MultiIndex.from_product([sample.categories] * 2, names=["contrast", "reference"])
    return pd.DataFrame({"mean": drawn.mean(0).flatten().numpy(), "std": drawn.std(0).flatten().numpy()}, index)


def gold_table(
    buckets: States, gold: States, n_prompts: int, n_draws: int = 100, seed: int = 0, name: str = "XSTest"
) -> pd.DataFrame:
    """Directions of `n_prompts` a side of `buckets` against those of other prompts, `gold`: mean and std of the cosine.

    By contrast and reference ("XSTest HR-BC", ...). No prompt may be in both. A reference is left out where one of its
    gold buckets has fewer than two prompts. Source: Joad et al. 2602.02132, Table 10. Raises `ValueError` where a bucket
    is too small.
    """
    sample = geometry.behaviour_contrasts(buckets)
    counts = geometry.subset_counts(sample, n_prompts, n_draws, seed)
    states = torch.cat([values.double() for values in buckets.values()])
    rows = {}
    for first, second in combinations(buckets, 2):
        if min(len(gold[first]), len(gold[second])) < 2:
            continue
        reference = directions.mean_difference(gold[first], gold[second]).double()
        for contrast, refused, answered in zip(sample.categories, sample.refused, sample.answered, strict=True):
            drawn = (counts[:, refused] @ states[refused] - counts[:, answered] @ states[answered]) / n_prompts
            cosine = torch.nn.functional.cosine_similarity(drawn, reference[None])
            rows[contrast, f"{name} {first}-{second}"] = float(cosine.mean()), float(cosine.std())
    index = pd.MultiIndex.from_arrays([[key[at] for key in rows] for at in (0, 1)], names=["contrast", "reference"])
    return pd.DataFrame(rows.values(), index, columns=["mean", "std"])


def _redrawn(
    sample: geometry.Contrasts, n_prompts: int, n_draws: int, seed: int
) -> tuple[Float[Tensor, "draw category"], Float[Tensor, "draw category"]]:
    """Cosines of each direction of `n_prompts` a side with the one of as many others, and with the one of all."""
    of_others, of_all = (
        geometry.subset_cosines(sample, n_prompts, n_draws, seed, against=other).diagonal(dim1=1, dim2=2)
        for other in ("disjoint", "all")
    )
    return of_others, of_all


def oracle_cosine(
    buckets: States, first: str = "HR-BC", second: str = "BR-BC", n_draws: int = 1000, seed: int = 0
) -> dict[str, float]:
    """The corrected cosine between two contrasts of the model's own behaviour, with its 95 % interval."""
    sample = geometry.behaviour_contrasts(buckets)
    found = geometry.cosine_intervals(sample, n_draws, seed=seed)
    place = sample.categories.index(first), sample.categories.index(second)
    label = f"{first} / {second}"
    return {
        label if name == "corrected" else f"{label}, {name}": float(getattr(found, name)[place])
        for name in ("corrected", "low", "high")
    }


def summarise(
    stability: pd.DataFrame, pairs: pd.DataFrame, confounds: pd.DataFrame, maps: Mapping[str, pd.DataFrame]
) -> dict[str, float]:
    """One number for each question that the four tables of one place answer: the row of a depth profile."""
    alike = {name: directions.off_diagonal(torch.tensor(frame.to_numpy())).numpy() for name, frame in maps.items()} | {
        "centred": pairs["centred"],
        "whitened": pairs["whitened"],
    }
    features = confounds.drop(columns=["topic", *maps])
    return {
        "mean cosine": float(pairs["corrected"].mean()),
        "lowest cosine": float(pairs["corrected"].min()),
        "highest cosine": float(pairs["corrected"].max()),
        "interval width": float((pairs["high"] - pairs["low"]).median()),
        "distinct pairs": float((pairs["p distinct"] < 0.05).sum()),
        "related pairs": float((pairs["p related"] < 0.05).sum()),
        "lowest reliability": float(stability["reliability"].min()),
        "lowest split half": float(stability["split half mean"].min()),
        "lowest bucket": float(stability["bucket min"].min()),
        "strongest feature": float(features.abs().max().max()),
        "strongest topic": float(confounds["topic"].abs().max()),
        "cosine with twins": float(confounds["twins"].mean()),
        **{
            f"{name} map, like plain": float(pairs["raw"].corr(pd.Series(values, index=pairs.index)))
            for name, values in alike.items()
        },
    }
