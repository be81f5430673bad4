"""Train the learned judge on a folder of labelled responses: `python -m refusal_utils.judging.training FOLDER [FILE]`.

Every response longer than a few words is used twice: whole, and cut off after 20 to 60 words as short generations are.
Prints the agreement on prompts, and on whole data sets, that a model was not trained on.
"""

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut

from .features import BITS, features
from .label_sets import LABEL_SETS, read_label_set
from .labels import agreement
from .learned_judge import FILE, scale
from .measuring import kappa_interval
from .phrase_judge import decision, found_by_phrases
from .response_text import own_turn, repetition

STRENGTHS = (10.0, 30.0)  # inverse regularisation; cross-validation chooses, within the rows of a fit alone
# Sets without human labels count less, and so do cut responses.
SET_WEIGHTS = {"PolyRefuse": 0.6, "Arditi et al.": 0.4}
CUT, MOST = 0.5, 6.0  # the weight of a cut response, and the largest of an answer in a language with few answers
COLUMNS = ["text", "response", "lang", "probability"]


def labelled_rows(folder: str | Path) -> pd.DataFrame:
    """The counted responses of all label sets, with those cut off after 20 to 60 words, and the columns cut and weight.

    A cut response is left out if the phrases judge it differently from the label of the whole (English only).
    """
    sets = [read_label_set(labels, folder) for labels in LABEL_SETS]
    whole = pd.concat(sets, ignore_index=True).dropna(subset="refused").assign(cut=False)
    short = whole.assign(response=whole["response"].map(_cut), cut=True).dropna(subset="response")
    english = short[short["lang"] == "en"]
    agree = [
        (found_by_phrases(*each)[1] != "no") == refused
        for *each, refused in zip(english["text"], english["response"], english["refused"], strict=True)
    ]
    rows = pd.concat([whole, english[agree], short[short["lang"] != "en"]], ignore_index=True)
    rows = rows.assign(refused=rows["refused"].astype(bool))
    weight = rows["set"].map(SET_WEIGHTS).fillna(1.0) * np.where(rows["cut"], CUT, 1) * _balance(rows)
    return rows.assign(weight=weight)


def _balance(rows: pd.DataFrame) -> pd.Series:
    """What an answer counts, so that answers and refusals of a language other than English count the same."""
    share = rows.groupby(["lang", "cut"])["refused"].transform("mean")
    odds = (share / (1 - share)).clip(upper=MOST)
    return odds.where((rows["lang"] != "en") & ~rows["refused"], 1.0)


def _cut(response: str) -> str | None:
    words, n = response.split(" "), 20 + zlib.crc32(response.encode()) % 41
    return " ".join(words[:n]) if len(words) > n + 5 else None


def matrix(rows: pd.DataFrame) -> csr_matrix:
    """The features of responses (columns text, response), one row each."""
    values, numbers, ends = [], [], [0]
    for prompt, response in zip(rows["text"], rows["response"], strict=True):
        plain, verdict, span = found_by_phrases(prompt, response)
        groups = features(prompt, plain, span, verdict)
        numbers += [group.numbers for group in groups]
        values += [np.full(len(group.numbers), scale(group, at), np.float32) for at, group in enumerate(groups)]
        ends.append(ends[-1] + sum(len(group.numbers) for group in groups))
    return csr_matrix((np.concatenate(values), np.concatenate(numbers), ends), shape=(len(rows), 2**BITS))


def fit(x: csr_matrix, rows: pd.DataFrame) -> LogisticRegression:
    """The logistic regression of the labels on the features, regularised by threefold cross-validation over prompts.

    The same rows always give the same model.
    """
    model = LogisticRegression(solver="liblinear", dual=True, tol=1e-2, max_iter=100, random_state=0)
    search = GridSearchCV(model, {"C": STRENGTHS}, scoring=make_scorer(cohen_kappa_score), cv=GroupKFold(3))
    search.fit(x, rows["refused"], groups=rows["group"], sample_weight=rows["weight"])
    return search.best_estimator_


def held_out(x: csr_matrix, rows: pd.DataFrame, by: str) -> pd.Series:
    """The probability of every response by a model that saw no response of its `by` (group: prompt, or set)."""
    splitter = GroupKFold(5) if by == "group" else LeaveOneGroupOut()
    found = pd.Series(np.nan, rows.index)
    for seen, others in splitter.split(x, groups=rows[by]):
        found.iloc[others] = fit(x[seen], rows.iloc[seen]).predict_proba(x[others])[:, 1]
    return found


def load_weights() -> dict[str, np.ndarray]:
    """The shipped weights and bias."""
    return load_file(FILE)


def _judged(prompt: str, response: str, language: str, probability: float) -> bool:
    """What `judge_response` decides with this probability; broken text is not refused."""
    text, verdict, _ = found_by_phrases(prompt, response)
    return repetition(own_turn(response)) is None and decision(prompt, text, language, verdict, probability)


def _agreement(rows: pd.DataFrame) -> pd.Series:
    judged, truth = (torch.tensor(rows[name].tolist()) for name in ("judged", "refused"))
    low, high = kappa_interval(judged, truth, list(rows["group"]))
    return pd.concat([agreement(rows["judged"], rows["refused"]), pd.Series({"low": low, "high": high})])


def main(folder: str, file: str | Path = FILE) -> None:
    """Train, print held-out agreement, and write the weights to `file`, by default those that `judge_response` uses."""
    rows = labelled_rows(folder)
    files = [path for labels in LABEL_SETS for path in labels.files]
    missing = [path for path in files if not (Path(folder) / path).is_file()]
    print(f"{len(files) - len(missing)} of {len(files)} files; missing: {', '.join(missing) or 'none'}")
    x = matrix(rows)
    for by in ("group", "set"):
        whole = rows.assign(probability=held_out(x, rows, by))[~rows["cut"]]
        whole = whole.assign(judged=[_judged(*each) for each in whole[COLUMNS].itertuples(index=False)])
        print(f"held out by {'prompt' if by == 'group' else 'data set'}")
        for keys in (["set"], ["set", "lang"]):
            print(pd.DataFrame({at: _agreement(own) for at, own in whole.groupby(keys)}).T.round(3))
    model = fit(x, rows)
    weights = {"weights": model.coef_[0].astype(np.float16), "bias": model.intercept_.astype(np.float32)}
    save_file(weights, file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m refusal_utils.judging.training")
    parser.add_argument("folder", help="the folder that holds the folders of label sets")
    parser.add_argument("file", nargs="?", default=FILE, help="where to write the weights; the judge's own by default")
    try:
        main(**vars(parser.parse_args()))
    except (ValueError, OSError) as error:
        sys.exit(str(error))
