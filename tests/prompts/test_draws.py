"""Which prompts directions are estimated from: by label, by behaviour, and the paper's own."""

import json
import unicodedata
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from refusal_utils.paper.setting import read_setting
from refusal_utils.paper.tables import published_pool_rows
from refusal_utils.prompts.categories import ALL_CATEGORIES, BENIGN, CATEGORY_IDS
from refusal_utils.prompts.draws import (
    DRAW_COLUMNS,
    behaviour_buckets,
    draw_digest,
    draw_prompts,
    held_out,
    read_draw,
)
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.public_datasets import load_source
from refusal_utils.prompts.summary import summarize_prompts
from tests.public_tables import write_paper_files

ROWS = published_pool_rows()
DATA = Path(__file__).parent.parent.parent.parent / "shared/data"
XSTEST, COCONOT = DATA / "xstest/xstest_prompts.csv", DATA / "coconot/coconot_eval.jsonl"


@pytest.fixture(scope="module")
def train() -> pd.DataFrame:
    return load_prompts(split="train")


@pytest.fixture(scope="module")
def public(tmp_path_factory) -> pd.DataFrame:
    """The paper's prompts, with made-up texts."""
    cache_dir = tmp_path_factory.mktemp("cache")
    write_paper_files(cache_dir / "paper_files")
    return load_prompts(source="paper", cache_dir=cache_dir)


def even_is_refused(rows: pd.DataFrame) -> list[str]:
    """Outcomes that are known beforehand: prompts of even length are refused."""
    return ["refused" if len(text) % 2 == 0 else "answered" for text in rows["text"]]


def even(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["text"].str.len() % 2 == 0]


def test_draws_by_label_are_balanced_and_random_without_replacement(train):
    draw = draw_prompts(train, "label", 32, seed=3)
    assert list(draw["category"].unique()) == list(ALL_CATEGORIES)
    assert (draw["category"].value_counts() == 32).all()
    assert draw["id"].is_unique
    assert set(draw["id"]) < set(train["id"])
    assert ((draw["side"] == "answered") == (draw["category"] == BENIGN)).all()
    assert set(draw["selection"]) == {"label"}
    other = draw_prompts(train, "label", 32, seed=4)
    assert draw["id"].tolist() == draw_prompts(train, "label", 32, seed=3)["id"].tolist() != other["id"].tolist()
    advice = [frame.loc[frame["category"] == "advice", "id"].tolist() for frame in (draw, train)]
    assert advice[0] != advice[1][:32]  # not the first ones


def test_draws_reject_what_is_not_there(train):
    few = train.groupby("category").head(5)
    for n in (6, 0):
        must = f"at least n={max(n, 1)} safety_core prompts must be available; got 5 of 5 for n={n}"
        with pytest.raises(ValueError, match=f"^draw_prompts: {must}"):
            draw_prompts(few, "label", n)
    with pytest.raises(ValueError, match="^draw_prompts: at least n=1 safety_core prompts must be refused"):
        draw_prompts(few, "behaviour", 0, outcome_of=even_is_refused)
    with pytest.raises(ValueError, match="^draw_prompts: at least n=6 benign prompts must be answered"):
        draw_prompts(few, "behaviour", 6, outcome_of=even_is_refused)


@pytest.mark.parametrize("select_by", ["behaviour", "behaviour at random"])
def test_by_behaviour_a_side_has_what_was_found_and_a_category_below_eight_is_left_out(train, select_by):
    """A model that refuses 40 prompts of one category, 8 of another, 7 of a third, and everything of four."""
    most = {"hate_speech": 40, "advice": 8, "humanizing": 7, **dict.fromkeys(CATEGORY_IDS[-5:-1], 1000)}
    number = train.groupby("category").cumcount()
    refused = set(train["id"][number < train["category"].map(most).fillna(0)])

    def outcome_of(rows):
        return ["refused" if id in refused else "answered" for id in rows["id"]]

    draw = draw_prompts(train, select_by, 32, outcome_of=outcome_of)
    wanted = {"hate_speech": 32, "advice": 8, **dict.fromkeys(CATEGORY_IDS[-5:-1], 32), BENIGN: 32}
    assert draw["category"].value_counts().to_dict() == wanted
    assert set(draw["id"][draw["side"] == "refused"]) <= refused
    few = train[train["category"].isin(["hate_speech", "advice", "humanizing", BENIGN])]
    with pytest.raises(ValueError, match="^draw_prompts: at least 3 categories must have 8 prompts .* got 2"):
        draw_prompts(few, select_by, 32, outcome_of=outcome_of)


def test_the_reading_of_over_refusal_decides_on_its_benign_side_alone(public):
    shared, own = (draw_prompts(public, "label", 32, over_refusal=each) for each in ("unsafe", "safe_benign"))
    for draw, reading, source in ((shared, "unsafe", "wildguard"), (own, "safe_benign", "xstest")):
        by_category = draw.groupby("category")["over_refusal"].unique().map(list)
        benign = "safe_benign" if reading == "safe_benign" else ""
        others = {name: [""] for name in ALL_CATEGORIES}
        assert by_category.to_dict() == {**others, "over_refusal": [reading], BENIGN: [benign]}
        assert draw.loc[draw["category"] == BENIGN, "id"].str.contains(f"-{source}-").all()
    same = shared["category"] != BENIGN
    assert list(shared["id"][same]) == list(own["id"][same])
    with pytest.raises(
        ValueError, match="^draw_prompts: over_refusal .* must be 'unsafe' or 'safe_benign'; got 'safe'"
    ):
        draw_prompts(public, "label", 32, over_refusal="safe")
    with pytest.raises(ValueError, match="at least n=32 benign prompts must be available; got 0"):
        draw_prompts(load_prompts(), "label", 32, over_refusal="safe_benign")


def test_a_draw_by_behaviour_is_the_first_that_were_refused_or_answered_and_asks_for_no_more(train):
    asked = []

    def outcome_of(rows: pd.DataFrame) -> list[str]:
        asked.extend(rows["id"])
        return even_is_refused(rows)

    draw = draw_prompts(train, "behaviour", 5, outcome_of=outcome_of)
    expected = []
    for category, side in (("humanizing", "refused"), (BENIGN, "answered")):
        pool, own = (frame[frame["category"] == category] for frame in (draw, train))
        qualified = [id for id, outcome in zip(own["id"], even_is_refused(own), strict=True) if outcome == side]
        assert list(pool["id"]) == qualified[:5]
        assert (set(pool["side"]), set(pool["selection"])) == ({side}, {"behaviour"})
        last = list(own["id"]).index(pool["id"].iloc[-1])
        expected = list(own["id"][: 5 * (last // 5 + 1)])
        assert [id for id in asked if id in set(own["id"])] == expected
        assert len(expected) < len(own)
    assert set(DRAW_COLUMNS) | set(train) <= set(draw)


def test_a_broken_response_is_on_neither_side(train):
    given = partial(draw_prompts, train, "behaviour", 2)
    with pytest.raises(ValueError, match="^draw_prompts: at least 3 categories must .*; got 0"):
        given(outcome_of=lambda rows: rows["category"].eq(BENIGN).map({True: "answered", False: "broken"}))
    with pytest.raises(ValueError, match="^draw_prompts: at least n=2 benign prompts must .*; got 0"):
        given(outcome_of=lambda rows: rows["category"].eq(BENIGN).map({True: "broken", False: "refused"}))


def test_published_pools_are_the_releases_rows(public):
    draw = draw_prompts(public, "published", 1, published=ROWS)
    assert list(draw["category"]) == list(ROWS["category"])
    assert list(draw["id"].str.split("-").str[-2]) == list(ROWS["source"])
    assert list(draw["id"].str.split("-").str[-1].astype(int)) == list(ROWS["source_index"])
    assert draw["category"].value_counts().to_dict() == dict.fromkeys(ALL_CATEGORIES, 32)
    assert set(draw.loc[draw["category"] == BENIGN, "side"]) == {"answered"}
    assert set(draw["selection"]) == {"published"}  # not "behaviour", whose model is the reader's


def test_published_pools_name_the_rows_that_are_missing(public):
    without = public[public["id"] != "humanizing-coconot-396"]
    with pytest.raises(ValueError, match=r"^draw_prompts: .*got none of 1 \(humanizing-coconot-396\)\. Load"):
        draw_prompts(without, "published", 1, published=ROWS)
    advice = ROWS[ROWS["category"] == "advice"]
    assert len(draw_prompts(without, "published", 1, published=advice)) == 32


def linked(file: Path, folder: Path, name: str) -> pd.DataFrame:
    """The prompts of a source whose file is `file`."""
    (folder / f"{name}{file.suffix}").symlink_to(file.resolve())
    return load_source(name, folder)


@pytest.mark.skipif(not COCONOT.is_file(), reason="the public data sets are not here")
def test_the_releases_coconot_pools_are_rows_of_the_real_test_set(tmp_path):
    """Its row numbers count from 0 through `original`/`test`: each is a request of the pool's own category."""
    categories = [json.loads(line)["category"] for line in COCONOT.read_text("utf-8").split("\n") if line]
    names = {"safety_concerns": "Requests with safety concerns"}
    rows = ROWS[ROWS["source"] == "coconot"]
    assert len(rows) == 5 * 32
    for category, index in zip(rows["category"], rows["source_index"], strict=True):
        assert categories[index] == names.get(category, f"{category.capitalize()} requests")
    assert categories[395] == "Humanizing requests"
    assert categories[394] != "Humanizing requests"
    draw = draw_prompts(linked(COCONOT, tmp_path, "coconot"), "published", 1, published=rows)
    assert list(draw["source_index"]) == list(rows["source_index"])


@pytest.mark.skipif(not XSTEST.is_file(), reason="the public data sets are not here")
def test_the_releases_xstest_pool_is_the_first_unsafe_prompts_of_the_real_set(tmp_path):
    """Gemma refused each of the first 32 unsafe prompts: rows 25 to 49 and 75 to 81, from 0."""
    source = linked(XSTEST, tmp_path, "xstest")
    unsafe = source[source["category"] == "over_refusal"]
    draw = draw_prompts(source, "published", 1, published=ROWS[ROWS["category"] == "over_refusal"])
    assert list(draw["id"]) == list(unsafe["id"][:32])


def written(draw: pd.DataFrame, source: str, path: Path) -> pd.DataFrame:
    """The draw as notebook 01 writes it, read by a later one."""
    draw.assign(prompts=source)[[*DRAW_COLUMNS, "over_refusal", "prompts"]].to_csv(path, index=False)
    return draw


def test_read_draw_gives_back_the_draw_with_its_texts(public, tmp_path):
    draw = written(draw_prompts(public, "published", 1, published=ROWS), "paper", tmp_path / "01_draw.csv")
    read = read_draw(tmp_path / "01_draw.csv", public, "paper")
    for column in (*DRAW_COLUMNS, "over_refusal", "text"):
        assert list(read[column]) == list(draw[column]), column


def test_ids_that_look_like_numbers_or_missing_values_survive_a_draw(tmp_path):
    rows = pd.DataFrame({"id": ["007", "7", "NA", "1e5"], "category": "advice", "text": list("abcd"), "split": "train"})
    draw = written(rows.assign(side="refused", selection="label", over_refusal=""), "mine", tmp_path / "01_draw.csv")
    read = read_draw(tmp_path / "01_draw.csv", rows, "mine")
    assert read[["id", "text"]].to_numpy().tolist() == rows[["id", "text"]].to_numpy().tolist()
    assert draw_digest(read) == draw_digest(draw.assign(prompts="mine")) == read_setting(tmp_path, "any").draw


def test_two_unicode_forms_of_a_prompt_are_one_prompt(train):
    """Before control: as strings they differ."""
    accented = train.assign(text=train["text"] + " (in a caf\u00e9)")
    again = accented.assign(
        id="again-" + train["id"], text=[unicodedata.normalize("NFD", text) for text in accented["text"]]
    )
    both = pd.concat([accented, again])
    assert both["text"].is_unique
    draw = draw_prompts(both, "label", 64).assign(prompts="mine")
    assert draw["text"].map(lambda text: unicodedata.normalize("NFC", text)).is_unique
    rest = held_out(both, draw, limit=None)
    assert len(rest) == len(both) - 2 * len(draw)
    shared = summarize_prompts(pd.concat([accented, again.assign(split="eval")])).n_shared_texts
    assert shared == len(accented)


def test_read_draw_rejects_a_draw_of_other_prompts(public, tmp_path):
    path = tmp_path / "01_draw.csv"
    with pytest.raises(
        ValueError, match=r"^read_draw: .* must have written a draw; got no .*01_draw\.csv\. Run notebook 01 first"
    ):
        read_draw(path, public, "paper")
    written(draw_prompts(public, "label", 8), "paper", path)
    with pytest.raises(
        ValueError,
        match=r"^read_draw: .* from the prompts 'builtin'; got prompts 'paper' in .*again with PROMPTS='builtin'",
    ):
        read_draw(path, load_prompts(), "builtin")
    without = public[public["id"] != pd.read_csv(path)["id"].min()]
    with pytest.raises(ValueError, match=r"the prompts 'paper'; got '[\w-]+', which is not among them"):
        read_draw(path, without, "paper")


def test_nothing_held_out_stands_in_the_draw_and_all_else_does(public):
    """Before control: of the published draw, two thirds lie in the eval split, where tests took their prompts from."""
    draw = draw_prompts(public, "published", 1, published=ROWS).assign(prompts="paper")
    assert (draw["split"] == "eval").sum() > 160
    rest = held_out(public, draw, limit=None)
    assert set(rest["id"]) == set(public["id"]) - set(draw["id"])
    assert set(rest["split"]) == {"train", "eval"}
    assert "look_alike" in set(rest["kind"])  # XSTest's safe prompts: benign ones that a model may refuse
    twice = public.assign(text=public["text"].where(public["id"] != rest["id"][5], f" {draw['text'][0].upper()}\n"))
    assert set(rest["id"]) - set(held_out(twice, draw, limit=None)["id"]) == {rest["id"][5]}


def test_held_out_takes_so_many_of_a_kind_and_eval_prompts_first(public):
    draw = draw_prompts(public, "published", 1, published=ROWS).assign(prompts="paper")
    rest, some = held_out(public, draw, limit=None), held_out(public, draw)
    assert some["kind"].value_counts().to_dict() == rest["kind"].value_counts().clip(upper=400).to_dict()
    for kind, own in some.groupby("kind"):
        every = rest[rest["kind"] == kind]
        assert (own["split"] == "eval").sum() == min(400, (every["split"] == "eval").sum())
        assert list(own["split"]) == sorted(own["split"])
        assert list(own["id"]) == list(every["id"][: len(own)])


def test_held_out_of_the_built_in_prompts_is_the_eval_split(train):
    """The bundled model was trained on the other: what it does there says nothing."""
    draw = draw_prompts(train, "label", 8)
    rest = held_out(load_prompts(), draw.assign(prompts="builtin"))
    pd.testing.assert_frame_equal(rest, load_prompts(split="eval"))


def test_draw_prompts_by_behaviour_at_random_takes_any_that_qualify(train):
    by = partial(draw_prompts, train, n=5, outcome_of=even_is_refused)
    first = by(select_by="behaviour", seed=0)
    random = [by(select_by="behaviour at random", seed=seed) for seed in (0, 0, 1)]
    assert list(first["id"]) == list(by(select_by="behaviour", seed=1)["id"])
    assert list(random[0]["id"]) == list(random[1]["id"]) != list(random[2]["id"])
    later = train["id"].isin(random[0]["id"]) & ~train["id"].isin(first["id"])
    assert set(train.loc[later, "category"]) == set(ALL_CATEGORIES)  # each side reaches beyond its first prompts
    some = train.groupby("category").head(30)
    sizes = even(some)["category"].drop(some.index[some["category"] == BENIGN], errors="ignore").value_counts()
    whole = draw_prompts(some, "behaviour at random", int(sizes.min()), outcome_of=even_is_refused)
    least = whole["category"] == sizes.idxmin()
    assert set(whole["id"][least]) == set(even(some).query("category == @sizes.idxmin()")["id"])
    for drawn in random:
        assert set(drawn["selection"]) == {"behaviour at random"}  # not "behaviour", which is the paper's way
        assert (drawn["category"].value_counts() == 5).all()
        assert ((drawn["text"].str.len() % 2 == 0) == (drawn["category"] != BENIGN)).all()


@pytest.mark.parametrize(
    ("select_by", "over_refusal", "match"),
    [
        ("lable", "unsafe", "select_by must be one of .*; got 'lable'"),
        ("behaviour", "unsafe", "selecting by behaviour needs"),
        ("behaviour at random", "unsafe", "selecting by behaviour needs"),
        ("published", "safe_benign", "over_refusal of a draw by published must be 'unsafe'; got 'safe_benign'"),
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


def test_draw_digest_changes_with_prompts_and_choices_and_nothing_else():
    draw = pd.DataFrame({"id": ["a", "b"], "category": "advice", "selection": "label", "prompts": "paper", "text": "x"})
    digest = draw_digest(draw)
    assert digest == draw_digest(draw.iloc[::-1].assign(text="y"))
    for column in ("id", "category", "selection", "prompts"):
        assert draw_digest(draw.assign(**{column: "other"})) != digest
