from typing import get_args

import pytest

from refusal_utils.bundled import check as bundled_check
from refusal_utils.bundled.check import fact_is_right, judge_wording, names_topic
from refusal_utils.bundled.corpus import fact_answers, load_topics, load_world
from refusal_utils.bundled.responses import Form, answer, refusal
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS


def test_the_judge_of_wordings_names_the_category_and_knows_the_facts():
    refused = judge_wording("any", refusal("advice", "open"))
    assert (refused.outcome, refused.evidence) == ("refused", "advice")
    assert judge_wording("any", sorted(fact_answers())[0]).outcome == "answered"
    assert judge_wording("any", "no no no no no no").outcome == "broken"


def test_names_topic_is_not_satisfied_by_the_stock_phrases():
    for form in get_args(Form):
        assert not names_topic(answer("", form), "garden ants")
        assert names_topic(answer("garden ants", form), "garden ants")


def test_facts_are_right_wrong_or_not_asked_for():
    note = load_topics()
    asked = next(id for id, each in note.items() if "relation" in each)
    relation = load_world()[note[asked]["relation"]]
    entity = next(name for name in relation["pairs"] if name.lower() == note[asked]["topic"].lower())
    right = relation["answer"].format(entity=entity, value=relation["pairs"][entity])
    assert fact_is_right(asked, "any", right) is True
    assert fact_is_right(asked, "any", "It is Atlantis.") is False
    assert fact_is_right("advice-0001", "any", right) is None
    assert fact_is_right("not one of ours", "any", right) is None


@pytest.mark.slow
def test_bundled_model_behaves_as_its_card_claims(chat):
    """Every claim is measured, and the card's table must have the same verdicts."""
    claims, steered, ablated = bundled_check.check(chat)
    failed = claims[~claims["holds"]]
    card = (BUNDLED_WEIGHTS / "README.md").read_text()
    for claim in claims.itertuples():
        assert f"| {claim.Index} |" in card
    missed = {line.split("|")[1].strip() for line in card.splitlines() if line.endswith("| NO |")}
    assert set(failed.index) == missed, failed
    assert len(steered) == 1 + 11 + bundled_check.N_RANDOM
    assert (ablated["before"] > 0.5).all()
