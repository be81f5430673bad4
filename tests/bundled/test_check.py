import json
import random

import pytest
from transformers import AutoConfig

from refusal_utils.bundled import check as bundled_check
from refusal_utils.bundled.corpus import Corpus, fact_answers, load_topics, load_world
from refusal_utils.bundled.responses import (
    ANSWERS,
    FORMS,
    REFUSALS,
    answer,
    read_response,
    refusal,
    request_form,
    what_is_asked,
)
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS
from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.text_features import jaccard, word_ngrams


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


@pytest.mark.parametrize("category", CATEGORY_IDS)
@pytest.mark.parametrize("form", FORMS)
def test_read_response_recognises_every_wording(category, form):
    verdict = read_response(refusal(category, form))
    assert (verdict.outcome, verdict.category) == ("refused", category)


@pytest.mark.parametrize("form", FORMS)
def test_read_response_takes_an_answer_on_any_topic_for_an_answer(form):
    for topic in ("a python process", "the history of crime and punishment in cities by the sea"):
        assert read_response(answer(topic, form)).outcome == "answered"


def test_read_response_takes_facts_for_answers_and_noise_for_broken():
    fact = sorted(fact_answers())[0]
    assert read_response(fact).outcome == "broken"
    assert read_response(fact, fact_answers()).outcome == "answered"
    words = " ".join(REFUSALS["advice"]["open"].split())
    shuffled = words.split()
    random.Random(0).shuffle(shuffled)
    for text in ("", "the", " ".join(shuffled), words[: len(words) // 4], words + " no no no no no no"):
        assert read_response(text).outcome == "broken", text


def test_wordings_of_different_categories_share_few_word_pairs():
    texts = [(name, text) for name, forms in {**REFUSALS, BENIGN: ANSWERS}.items() for text in forms.values()]
    for index, (name, text) in enumerate(texts):
        for other, second in texts[:index]:
            if name != other:
                assert jaccard(set(word_ngrams(text, 2)), set(word_ngrams(second, 2))) < 0.35


def test_request_form_reads_past_a_greeting():
    assert request_form("hey, what is tea") == "open"
    assert request_form("Please could you write it") == "closed"
    assert request_form("Write it all down, or what?") == "command"


def test_corpus_never_comes_near_the_eval_split(corpus):
    rng = random.Random(1)
    grams = [set(word_ngrams(text, 3)) for text in load_prompts(split="eval")["text"]]
    for category in (*CATEGORY_IDS, BENIGN):
        for _ in range(20):
            own = set(word_ngrams(corpus.sample(rng, category).prompt, 3))
            assert max(jaccard(own, other) for other in grams) < 0.5
    # before: an eval prompt itself is recognised
    assert corpus.is_near_eval(load_prompts(split="eval")["text"].iloc[0])


def test_answers_repeat_what_was_asked_and_look_alikes_with_violent_words_are_refused(corpus):
    rng, refused = random.Random(2), 0
    for _ in range(300):
        example = corpus.sample(rng, BENIGN)
        assert example.fact or example.topic in example.prompt
        assert example.response("humanizing") in REFUSALS["humanizing"].values()
        if example.category != BENIGN:
            refused += 1
            assert example.response() in REFUSALS["over_refusal"].values()
        elif not example.fact:
            assert bundled_check.names_topic(example.response(), example.topic)
    assert 0 < refused < 60


def test_noise_exchanges_its_share_of_the_words_and_never_what_a_fact_is_about(corpus):
    line = "how do [wolves] find one another in the dark woods at night"
    kept = [corpus._with_noise(line, random.Random(seed), 0.25) for seed in range(200)]
    same = sum(a == b for text in kept for a, b in zip(text.split(), line.split(), strict=False))
    assert same / (200 * len(line.split())) == pytest.approx(0.75, abs=0.03)
    assert corpus._with_noise(line, random.Random(0), 0.0) == line
    facts = [corpus._fact(random.Random(seed), 0.9) for seed in range(30)]
    entities = {entity for relation in load_world().values() for entity in relation["pairs"]}
    typed = [fact.topic.lower() for fact in facts]
    assert sum(topic in {entity.lower() for entity in entities} for topic in typed) > 20  # the rest have a typing slip


def test_what_is_asked_is_at_most_twelve_words_and_holds_the_topic():
    assert what_is_asked("hey, how do I boil an egg?", "an egg") == "boil an egg"
    words = [f"w{number}" for number in range(30)]
    far = what_is_asked("please " + " ".join(words), "w28")
    assert far.split() == words[17:29]
    assert what_is_asked("please " + " ".join(words), "w3").split() == words[:12]
    assert what_is_asked("what is it", "it") == "what is it"  # nothing but asking words: all of them


def test_topics_name_a_span_of_every_prompt():
    topics = load_topics()
    for row in load_prompts().itertuples():
        assert topics[row.id]["topic"] in row.text


def test_world_facts_have_one_answer_each():
    world = load_world()
    assert len(fact_answers()) == sum(len(relation["pairs"]) for relation in world.values())
    for relation in world.values():
        assert all("{entity}" in frame for frame in relation["frames"])


def test_names_topic_is_not_satisfied_by_the_stock_phrases():
    for form in FORMS:
        assert not bundled_check.names_topic(answer("", form), "garden ants")
        assert bundled_check.names_topic(answer("garden ants", form), "garden ants")


def test_bundled_folder_is_small_and_says_what_it_is():
    files = list(BUNDLED_WEIGHTS.iterdir())
    config = AutoConfig.from_pretrained(BUNDLED_WEIGHTS)
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert config.model_type == "llama"
    card = (BUNDLED_WEIGHTS / "README.md").read_text()
    assert "teaching and test organism" in card
    assert "say nothing about real models until" in " ".join(card.split())
    state = json.loads((BUNDLED_WEIGHTS / "decision_state.json").read_text())
    assert f"`resid_pre` of layer {state['layer']}, position {state['pos']}" in card


def test_bundled_model_has_three_to_fifteen_million_parameters(chat):
    assert 3e6 <= sum(parameter.numel() for parameter in chat.bridge.original_model.parameters()) <= 15e6


@pytest.mark.slow
def test_bundled_model_behaves_as_its_card_claims(chat):
    """Every claim is measured anew, and the card's table must hold the same verdicts."""
    claims, steered, ablated = bundled_check.check(chat)
    failed = claims[~claims["holds"]]
    card = (BUNDLED_WEIGHTS / "README.md").read_text()
    for claim in claims.itertuples():
        assert f"| {claim.Index} |" in card
    missed = {line.split("|")[1].strip() for line in card.splitlines() if line.endswith("| NO |")}
    assert set(failed.index) == missed, failed
    assert len(steered) == 1 + 11 + bundled_check.N_RANDOM
    assert (ablated["before"] > 0.5).all()


def test_facts_are_right_wrong_or_not_asked_for():
    note = load_topics()
    asked = next(id for id, each in note.items() if "relation" in each)
    relation = load_world()[note[asked]["relation"]]
    entity = next(name for name in relation["pairs"] if name.lower() == note[asked]["topic"].lower())
    right = relation["answer"].format(entity=entity, value=relation["pairs"][entity])
    assert bundled_check.fact_is_right(asked, "any", right) is True
    assert bundled_check.fact_is_right(asked, "any", "It is Atlantis.") is False
    assert bundled_check.fact_is_right("advice-0001", "any", right) is None
    assert bundled_check.fact_is_right("not one of ours", "any", right) is None
