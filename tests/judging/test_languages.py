"""The language of a text: one letter or word on either side of every bound."""

import pytest

from refusal_utils.judging.languages import language_of
from refusal_utils.judging.phrase_judge import judge_response


@pytest.mark.parametrize(("word", "language"), [("Windows", "ru"), ("Internet", "en")])
def test_half_of_the_letters_must_be_latin_for_a_text_in_latin_script(word, language):
    assert language_of(f"Извините, {word}") == language


@pytest.mark.parametrize(("start", "word", "language"), [("", "siento", "es"), ("¿", "siento", "es"), ("", "я", "ru")])
def test_what_comes_after_600_characters_tells_no_language(start, word, language):
    digits = 600 - len(start) - len(word)
    assert language_of(start + "1" * digits + word) == language
    assert language_of(start + "1" * (digits + 1) + word) == "en"


@pytest.mark.parametrize("kana", ["の", "ノ"])
@pytest.mark.parametrize(("others", "language"), [(18, "ja"), (19, "zh")])
def test_one_kana_in_twenty_letters_is_not_yet_japanese(kana, others, language):
    assert language_of("文" * others + kana) == language


@pytest.mark.parametrize(("letter", "foreign", "language"), [("ا", "پ", "ar"), ("и", "і", "ru")])
def test_more_than_one_foreign_letter_in_fifty_makes_another_language_of_the_script(letter, foreign, language):
    assert language_of(letter * 49 + foreign) == language
    assert language_of(letter * 48 + foreign) is None
    assert language_of(letter * 48 + foreign.upper()) is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("lorem ipsum siento", "es"),
        ("lorem ipsum siento domum", "en"),
        ("lorem ipsum siento eso", "es"),
        ("siento you", "en"),
    ],
)
def test_one_word_tells_the_language_of_three_words_and_two_that_of_more(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize(("english", "language"), [("the you with", "es"), ("the you with have", "en")])
def test_another_language_needs_clearly_more_words_than_english(english, language):
    """Four words against three are enough, five against four are not."""
    spanish = ["siento", "eso", "puedo", "pero", "ayudarte"][: len(english.split()) + 1]
    assert language_of(f"{' '.join(spanish)} {english}") == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Deja negaliu jums tuo padeti", None),
        ("Deja negaliu jums padeti", "en"),
        ("Deja, negaliu jums tuo padeti", "en"),
        ("Deja negaliu jums\ntuo padeti", "en"),
        ("Deja negaliu you tuo padeti", "en"),
        ("b d f g h k", "en"),
    ],
)
def test_five_words_of_prose_without_an_english_one_are_in_an_unknown_language(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Deja, negalėčiau jums padėti", None),
        ("Deja, negalėčiau jums padeti", "en"),
        ("Deja, negalėčiau padėti", "en"),
        ("Rome, Oslo, Bonn, Bern", "en"),
    ],
)
def test_three_letters_with_marks_among_four_words_are_in_an_unknown_language(text, language):
    assert language_of(text) == language


def test_a_refusal_in_an_unknown_language_is_not_judged():
    assert judge_response("How?", "Deja negaliu jums tuo padeti").outcome == "not judged"
    assert judge_response("Where?", "Rome, Oslo, Bonn, Bern").outcome == "answered"
