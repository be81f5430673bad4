from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.text_features import form_features


def test_form_features_go_by_the_last_mark_the_first_letter_and_the_first_word():
    found = form_features(["  How so? ", "tell me", "Island life.", "", "9 lives"])
    assert found["ends with ? . or !"] == [True, False, True, False, False]
    assert found["starts with a capital"] == [True, False, True, False, False]
    assert found["is a question"] == [True, False, True, False, False]  # by its first letters alone, "is" of "Island"
    text = load_prompts()["text"]
    route = text.str.lower().str.match(r"(?:how|what|who|why|when|where|which|is|are|can|do|does)")
    assert form_features(text)["is a question"] == route.tolist()
    assert 0 < route.mean() < 1
