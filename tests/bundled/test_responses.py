import random
from typing import get_args

import pytest

from refusal_utils.bundled.corpus import fact_answers
from refusal_utils.bundled.responses import (
    ANSWERS,
    REFUSALS,
    Form,
    answer,
    read_response,
    refusal,
    request_form,
    what_is_asked,
)
from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS
from refusal_utils.prompts.text_features import jaccard, word_ngrams


@pytest.mark.parametrize("category", CATEGORY_IDS)
@pytest.mark.parametrize("form", get_args(Form))
def test_read_response_recognises_every_wording(category, form):
    verdict = read_response(refusal(category, form))
    assert (verdict.outcome, verdict.category) == ("refused", category)


@pytest.mark.parametrize("form", get_args(Form))
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


def test_what_is_asked_is_at_most_twelve_words_and_holds_the_topic():
    assert what_is_asked("hey, how do I boil an egg?", "an egg") == "boil an egg"
    words = [f"w{number}" for number in range(30)]
    far = what_is_asked("please " + " ".join(words), "w28")
    assert far.split() == words[17:29]
    assert what_is_asked("please " + " ".join(words), "w3").split() == words[:12]
    assert what_is_asked("what is it", "it") == "what is it"  # nothing but asking words: all of them
