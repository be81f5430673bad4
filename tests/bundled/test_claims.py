import pandas as pd
import pytest

from refusal_utils.bundled.claims import Claim, behaviour_claims, bucket_sizes, claim_table, intervention_claims
from refusal_utils.prompts.categories import ALL_CATEGORIES, BENIGN, CATEGORY_IDS


@pytest.fixture
def results() -> pd.DataFrame:
    """Per category three refusals, two of them in its own style, and one answer on topic."""
    rows = [
        (name, "look_alike", outcome, name if number else "other", outcome == "answered", number == 0)
        for name in ALL_CATEGORIES
        for number, outcome in enumerate(("refused", "refused", "refused", "answered"))
    ]
    return pd.DataFrame(rows, columns=["category", "kind", "outcome", "style", "on_topic", "right"])


def test_a_claim_holds_within_its_bounds():
    table = claim_table([Claim("a", 0.2, 0.5, 0.5), Claim("b", 0.2, 0.5, 0.51)])
    assert table["holds"].to_dict() == {"a": True, "b": False}


def test_buckets_count_each_side_by_outcome(results):
    broken = results.assign(outcome=results["outcome"].where(results.index != 0, "broken"))
    n = len(CATEGORY_IDS)
    assert bucket_sizes(results).to_dict() == {"HR": 3 * n, "HC": n, "BR": 3, "BC": 1}
    assert bucket_sizes(broken).to_dict() == {"HR": 3 * n - 1, "HC": n, "BR": 3, "BC": 1}
    assert bucket_sizes(results[results["category"] != BENIGN]).to_dict() == {"HR": 3 * n, "HC": n, "BR": 0, "BC": 0}


def test_behaviour_claims_are_shares_of_the_responses(results):
    measured = claim_table(behaviour_claims(results, n_bucket=5))["measured"]
    assert measured["advice: refused"] == 0.75
    assert measured["advice: own style among its refusals"] == pytest.approx(2 / 3)
    assert measured["benign: answered on topic"] == 0.25
    assert measured["facts: right"] == 0.25
    assert measured["look-alikes: refused"] == 0.75
    assert measured.filter(like="bucket").tolist() == [5, 5, 3, 1]


def test_intervention_claims_count_what_steering_and_ablation_do():
    index = ["none", *CATEGORY_IDS, "random 0"]
    steered = pd.DataFrame({"RR": 0.95, "ORR": 0.95, "broken": 0.0}, index=index)
    steered.loc["none", ["RR", "ORR"]] = 0.5
    steered.loc["random 0", ["RR", "ORR"]] = [0.55, 0.42]
    steered.loc["advice", "broken"] = 0.2
    ablated = pd.DataFrame({"before": 0.8, "after": 0.4}, index=list(CATEGORY_IDS))
    ablated.loc["advice", "after"] = 0.5
    assert [each.measured for each in intervention_claims(steered, ablated)] == pytest.approx([10, 0.08, 10])
