"""Which prompts directions are estimated from: by label, by behaviour, and the paper's own."""

import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from refusal_utils.paper.tables import published_pool_rows
from refusal_utils.prompts.categories import ALL_CATEGORIES, BENIGN
from refusal_utils.prompts.draws import (
    DRAW_COLUMNS,
    behaviour_buckets,
    behaviour_pool,
    draw_digest,
    draw_prompts,
    held_out,
    is_xstest_like,
    label_pool,
    published_pools,
    read_draw,
)
from refusal_utils.prompts.files import write_prompt_folder
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.public_datasets import load_public_prompts, load_source
from tests.public_tables import Hub

ROWS = published_pool_rows()
DATA = Path(__file__).parent.parent.parent.parent / "shared/data"
XSTEST, COCONOT = DATA / "xstest/xstest_prompts.csv", DATA / "coconot/coconot_eval.jsonl"


@pytest.fixture(scope="module")
def train() -> pd.DataFrame:
    return load_prompts(split="train")


@pytest.fixture
def public(monkeypatch) -> pd.DataFrame:
    Hub(monkeypatch)
    return load_public_prompts("safe_benign")


def even_is_refused(rows: pd.DataFrame) -> list[str]:
    """Outcomes that are known beforehand: prompts of even length are refused."""
    return ["refused" if len(text) % 2 == 0 else "answered" for text in rows["text"]]


def even(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["text"].str.len() % 2 == 0]


def test_label_pools_are_balanced_random_draws_without_replacement(train):
    draw = pd.concat([label_pool(train, name, 32, seed=3) for name in ALL_CATEGORIES])
    assert (draw["category"].value_counts() == 32).all()
    assert draw["category"].nunique() == 12
    assert draw["id"].is_unique
    assert set(draw["id"]) < set(train["id"])
    assert ((draw["side"] == "answered") == (draw["category"] == BENIGN)).all()
    assert set(draw["selection"]) == {"label"}
    advice = train[train["category"] == "advice"]
    own = [list(label_pool(train, "advice", 32, seed=seed)["id"]) for seed in (3, 3, 4)]
    assert own[0] == own[1] != own[2]
    assert own[0] != list(advice["id"])[:32]  # not the first ones


@pytest.mark.parametrize("function", ["label_pool", "behaviour_pool"])
def test_pools_reject_what_is_not_there(train, function):
    make = label_pool if function == "label_pool" else partial(behaviour_pool, outcome_of=even_is_refused)
    few = train[train["category"] == "advice"].head(5)
    for n in (6, 0):
        with pytest.raises(
            ValueError, match=f"^{function}: .* advice prompts must be available; got 5 of 5 rows for n={n}"
        ):
            make(few, "advice", n)
    with pytest.raises(ValueError, match=f"^{function}: the category must be .*; got 'advise'"):
        make(few, "advise", 2)


def test_the_reading_of_over_refusal_decides_on_its_benign_side_alone(public):
    shared = label_pool(public, BENIGN, 400)
    own = label_pool(public, BENIGN, 200, over_refusal="safe_benign")
    assert (set(shared["source"]), set(shared["over_refusal"])) == ({"wildguard"}, {""})
    assert (set(own["source"]), set(own["over_refusal"])) == ({"xstest"}, {"safe_benign"})
    for reading in ("unsafe", "safe_benign"):
        pool = label_pool(public, "over_refusal", over_refusal=reading)
        assert set(pool["over_refusal"]) == {reading}
        assert list(pool["id"]) == list(label_pool(public, "over_refusal")["id"])
        assert set(label_pool(public, "advice", over_refusal=reading)["over_refusal"]) == {""}
    with pytest.raises(ValueError, match="^label_pool: over_refusal must be 'unsafe' or 'safe_benign'; got 'safe'"):
        label_pool(public, "advice", over_refusal="safe")
    with pytest.raises(ValueError, match="at least n=32 benign prompts must be available; got 0"):
        label_pool(load_prompts("benign"), BENIGN, over_refusal="safe_benign")


@pytest.mark.parametrize(("category", "side"), [("humanizing", "refused"), (BENIGN, "answered")])
def test_behaviour_pool_is_the_first_that_were_refused_or_answered_and_asks_for_no_more(train, category, side):
    asked = []

    def outcome_of(rows: pd.DataFrame) -> list[str]:
        asked.extend(rows["id"])
        return even_is_refused(rows)

    pool = behaviour_pool(train, category, 5, outcome_of=outcome_of)
    own = train[train["category"] == category]
    qualified = [id for id, outcome in zip(own["id"], even_is_refused(own), strict=True) if outcome == side]
    assert list(pool["id"]) == qualified[:5]
    assert (set(pool["side"]), set(pool["selection"])) == ({side}, {"behaviour"})
    assert set(DRAW_COLUMNS) | set(train) <= set(pool)
    last = list(own["id"]).index(pool["id"].iloc[-1])
    assert asked == list(own["id"][: 5 * (last // 5 + 1)])
    assert len(asked) < len(own)


def test_a_broken_response_is_on_neither_side(train):
    for category in ("advice", BENIGN):
        with pytest.raises(ValueError, match=r"^behaviour_pool: at least n=2 .* must be (refused|answered); got 0 of"):
            behaviour_pool(train, category, 2, outcome_of=lambda rows: ["broken"] * len(rows))


def test_behaviour_pool_with_a_seed_draws_from_all_that_qualify(train):
    some = train[train["category"] == "incomplete"].head(30)
    n = len(even(some))
    assert 4 < n < 30
    draw_some = partial(behaviour_pool, some, "incomplete", outcome_of=even_is_refused)
    whole = draw_some(n, seed=0)
    assert set(whole["id"]) == set(even(some)["id"])
    assert set(whole["selection"]) == {"behaviour at random"}
    draws = [list(draw_some(4, seed=seed)["id"]) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    with pytest.raises(
        ValueError, match=rf"^behaviour_pool: at least n={n + 1} incomplete prompts must be refused; got {n} of 30"
    ):
        draw_some(n + 1, seed=0)


def test_published_pools_are_the_releases_rows(public, tmp_path):
    draw = published_pools(public, ROWS)
    for column in ("category", "source", "source_index"):
        assert list(draw[column]) == list(ROWS[column])
    assert draw["category"].value_counts().to_dict() == dict.fromkeys(ALL_CATEGORIES, 32)
    assert set(draw.loc[draw["category"] == BENIGN, "side"]) == {"answered"}
    assert set(draw["selection"]) == {"published"}  # not what behaviour_pool says, whose model is the reader's
    folder = write_prompt_folder(public, tmp_path / "paper")
    assert list(published_pools(load_prompts(source=folder), ROWS)["id"]) == list(draw["id"])


def test_published_pools_name_the_rows_that_are_missing(public):
    without = public[public["id"] != "humanizing-coconot-396"]
    with pytest.raises(ValueError, match=r"^published_pools: .*got none of 1 \(humanizing-coconot-396\)\. Load"):
        published_pools(without, ROWS)
    assert len(published_pools(without, ROWS[ROWS["category"] == "advice"])) == 32


@pytest.mark.skipif(not COCONOT.is_file(), reason="the public data sets are not here")
def test_the_releases_coconot_pools_are_rows_of_the_real_test_set():
    """Its row numbers count from 0 through `original`/`test`: every one falls on a request of the pool's own category."""
    categories = [json.loads(line)["category"] for line in COCONOT.read_text("utf-8").split("\n") if line]
    names = {"safety_concerns": "Requests with safety concerns"}
    rows = ROWS[ROWS["source"] == "coconot"]
    assert len(rows) == 5 * 32
    for category, index in zip(rows["category"], rows["source_index"], strict=True):
        assert categories[index] == names.get(category, f"{category.capitalize()} requests")
    assert categories[395] == "Humanizing requests"
    assert categories[394] != "Humanizing requests"
    draw = published_pools(load_source("coconot", COCONOT), rows)
    assert list(draw["source_index"]) == list(rows["source_index"])


@pytest.mark.skipif(not XSTEST.is_file(), reason="the public data sets are not here")
def test_the_releases_xstest_pool_is_the_first_unsafe_prompts_of_the_real_set():
    """Gemma refused each of the first 32 unsafe prompts: rows 25 to 49 and 75 to 81, from 0."""
    source = load_source("xstest", XSTEST)
    unsafe = source[source["category"] == "over_refusal"]
    draw = published_pools(source, ROWS[ROWS["category"] == "over_refusal"])
    assert list(draw["id"]) == list(unsafe["id"][:32])


def written(draw: pd.DataFrame, source: str, path: Path) -> pd.DataFrame:
    """The draw as notebook 01 writes it, read by a later one."""
    draw.assign(prompts=source)[[*DRAW_COLUMNS, "over_refusal", "prompts"]].to_csv(path, index=False)
    return draw


def test_read_draw_gives_back_the_draw_with_its_texts(public, tmp_path):
    draw = written(published_pools(public, ROWS), "paper", tmp_path / "01_draw.csv")
    read = read_draw(tmp_path / "01_draw.csv", public, "paper")
    for column in (*DRAW_COLUMNS, "over_refusal", "text"):
        assert list(read[column]) == list(draw[column]), column


def test_read_draw_rejects_a_draw_of_other_prompts(public, tmp_path):
    path = tmp_path / "01_draw.csv"
    with pytest.raises(
        ValueError, match=r"^read_draw: .* must have written a draw; got no .*01_draw\.csv\. Run notebook 01 first"
    ):
        read_draw(path, public, "paper")
    written(label_pool(public, "advice", 8), "paper", path)
    with pytest.raises(
        ValueError, match=r"^read_draw: .* from the prompts 'builtin'; got paper in .*again with PROMPTS='builtin'"
    ):
        read_draw(path, load_prompts(), "builtin")
    without = public[public["id"] != pd.read_csv(path)["id"].min()]
    with pytest.raises(ValueError, match=r"the prompts 'paper'; got 'advice-sorrybench-\d+', which is not among them"):
        read_draw(path, without, "paper")
    pd.read_csv(path).drop(columns="prompts").to_csv(path, index=False)
    with pytest.raises(ValueError, match="the prompts 'paper'; got no name in"):
        read_draw(path, public, "paper")


def test_nothing_held_out_stands_in_the_draw_and_all_else_does(public):
    """Before control: of the published draw, two thirds lie in the eval split, where tests took their prompts from."""
    draw = published_pools(public, ROWS).assign(prompts="paper")
    assert (draw["split"] == "eval").sum() > 160
    rest = held_out(public, draw, limit=None)
    assert set(rest["id"]) == set(public["id"]) - set(draw["id"])
    assert set(rest["split"]) == {"train", "eval"}
    assert "look_alike" in set(rest["kind"])  # XSTest's safe prompts: benign ones that a model may refuse
    twice = public.assign(text=public["text"].where(public["id"] != rest["id"][5], f" {draw['text'][0].upper()}\n"))
    assert set(rest["id"]) - set(held_out(twice, draw, limit=None)["id"]) == {rest["id"][5]}


def test_held_out_takes_so_many_of_a_kind_and_eval_prompts_first(public):
    draw = published_pools(public, ROWS).assign(prompts="paper")
    rest, some = held_out(public, draw, limit=None), held_out(public, draw)
    assert some["kind"].value_counts().to_dict() == rest["kind"].value_counts().clip(upper=400).to_dict()
    for kind, own in some.groupby("kind"):
        every = rest[rest["kind"] == kind]
        assert (own["split"] == "eval").sum() == min(400, (every["split"] == "eval").sum())
        assert list(own["split"]) == sorted(own["split"])
        assert list(own["id"]) == list(every["id"][: len(own)])


def test_held_out_of_the_built_in_prompts_is_the_eval_split(train):
    """The bundled model was trained on the other: what it does there says nothing."""
    draw = pd.concat([label_pool(train, name, 8) for name in ALL_CATEGORIES])
    rest = held_out(load_prompts(), draw.assign(prompts="builtin"))
    pd.testing.assert_frame_equal(rest, load_prompts(split="eval"))


def test_draw_prompts_puts_the_twelve_pools_together(train):
    pd.testing.assert_frame_equal(
        draw_prompts(train, "label", 20, seed=3),
        pd.concat([label_pool(train, name, 20, 3) for name in ALL_CATEGORIES], ignore_index=True),
    )
    few = train.groupby("category").head(6)
    drawn = draw_prompts(few, "behaviour", 1, outcome_of=even_is_refused)
    assert drawn["category"].tolist() == list(ALL_CATEGORIES)
    assert set(drawn["selection"]) == {"behaviour"}
    assert [len(even(own)) for _, own in drawn.groupby(drawn["category"] == BENIGN)] == [11, 0]


def test_draw_prompts_by_behaviour_at_random_takes_any_that_qualify(train):
    by = partial(draw_prompts, train, n=5, outcome_of=even_is_refused)
    first = by(select_by="behaviour", seed=0)
    random = [by(select_by="behaviour at random", seed=seed) for seed in (0, 0, 1)]
    assert list(first["id"]) == list(by(select_by="behaviour", seed=1)["id"])
    assert list(random[0]["id"]) == list(random[1]["id"]) != list(random[2]["id"])
    later = train["id"].isin(random[0]["id"]) & ~train["id"].isin(first["id"])
    assert set(train.loc[later, "category"]) == set(ALL_CATEGORIES)  # each side reaches beyond its first prompts
    for drawn in random:
        assert set(drawn["selection"]) == {"behaviour at random"}  # not "behaviour", which is the paper's way
        assert (drawn["category"].value_counts() == 5).all()
        assert ((drawn["text"].str.len() % 2 == 0) == (drawn["category"] != BENIGN)).all()


def test_draw_prompts_takes_the_published_rows(public):
    pd.testing.assert_frame_equal(draw_prompts(public, "published", 5, published=ROWS), published_pools(public, ROWS))


@pytest.mark.parametrize(
    ("select_by", "over_refusal", "match"),
    [
        ("lable", "unsafe", "select_by must be one of .*; got 'lable'"),
        ("behaviour", "unsafe", "selecting by behaviour needs"),
        ("behaviour at random", "unsafe", "selecting by behaviour needs"),
        ("published", "safe_benign", "over_refusal of the published draw must be 'unsafe'; got 'safe_benign'"),
        ("published", "unsafe", "the published draw needs"),
    ],
)
def test_draw_prompts_rejects_a_wrong_or_incomplete_selection(train, select_by, over_refusal, match):
    with pytest.raises(ValueError, match=f"^draw_prompts: {match}"):
        draw_prompts(train, select_by, 4, over_refusal=over_refusal)


def test_behaviour_buckets_cross_what_the_prompt_is_with_what_the_model_did():
    judged = pd.DataFrame(
        [("advice", "refused"), ("advice", "answered"), (BENIGN, "refused"), (BENIGN, "answered"), (BENIGN, "broken")],
        columns=["category", "outcome"],
    )
    assert behaviour_buckets(judged)[:4].tolist() == ["HR", "HC", "BR", "BC"]
    assert behaviour_buckets(judged).isna().tolist() == [False] * 4 + [True]
    assert behaviour_buckets(judged[-1:]).isna().all()


def test_xstest_like_prompts_are_over_refusals_and_their_look_alikes():
    own = load_prompts()
    found = own[is_xstest_like(own)]
    assert set(found["category"]) == {"over_refusal", BENIGN}
    assert (found.loc[found["category"] == BENIGN, "kind"] == "look_alike").all()
    assert len(own[own["category"] == "over_refusal"]) == (found["category"] == "over_refusal").sum() > 0
    ids = ["look_alike-xstest-3", "look_alike-advice-1", "twin-over_refusal-0001", "ordinary-xstest-2"]
    public = pd.DataFrame({"id": ids, "category": BENIGN})
    assert is_xstest_like(public).tolist() == [True, False, False, False]


def test_draw_digest_changes_with_prompts_and_choices_and_nothing_else():
    draw = pd.DataFrame({"id": ["a", "b"], "category": "advice", "selection": "label", "prompts": "paper", "text": "x"})
    digest = draw_digest(draw)
    assert digest == draw_digest(draw.iloc[::-1].assign(text="y"))
    for column in ("id", "category", "selection", "prompts"):
        assert draw_digest(draw.assign(**{column: "other"})) != digest
