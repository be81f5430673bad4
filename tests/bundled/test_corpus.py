import random

import pytest

from refusal_utils.bundled.check import names_topic
from refusal_utils.bundled.corpus import Corpus, fact_answers, load_topics, load_world
from refusal_utils.bundled.responses import REFUSALS
from refusal_utils.prompts.categories import ALL_CATEGORIES, BENIGN
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.text_features import jaccard, word_ngrams


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


def test_corpus_never_comes_near_the_eval_split(corpus):
    rng = random.Random(1)
    grams = [set(word_ngrams(text, 3)) for text in load_prompts(split="eval")["text"]]
    for category in ALL_CATEGORIES:
        for _ in range(10):
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
            assert names_topic(example.response(), example.topic)
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


def test_topics_name_a_span_of_every_prompt():
    topics = load_topics()
    for row in load_prompts().itertuples():
        assert topics[row.id]["topic"] in row.text


def test_world_facts_have_one_answer_each():
    world = load_world()
    assert len(fact_answers()) == sum(len(relation["pairs"]) for relation in world.values())
    for relation in world.values():
        assert all("{entity}" in frame for frame in relation["frames"])
