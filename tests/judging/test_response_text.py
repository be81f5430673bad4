"""Where broken text begins: one word, letter or repeat on either side of every bound."""

import string

import pytest

from refusal_utils.judging.response_text import repetition

FILLERS = [f"{letter}word" for letter in string.ascii_lowercase[:13]]


def with_triple(n_words: int) -> str:
    """Four times the same three words among others that are all different."""
    gaps = [FILLERS[number::4] for number in range(4)]
    words = [word for gap in gaps for word in ("we", "are", "here", *gap)]
    return " ".join(words[:n_words])


def test_three_words_that_make_up_half_of_all_are_a_loop_with_changes():
    assert len(with_triple(99).split()) == 25
    assert repetition(with_triple(23)) == "we are here"
    assert repetition(with_triple(24)) is None


def test_a_string_of_more_than_25_letters_is_no_word():
    assert repetition(string.ascii_lowercase[:25]) is None
    assert repetition(string.ascii_lowercase) == string.ascii_lowercase


@pytest.mark.parametrize("letters", ["xa" * 9, "xa" * 10 + " and then a text that is longer than it"])
def test_a_loop_of_letters_must_be_long_and_half_of_the_text(letters):
    assert repetition(letters) is None
    assert repetition("xa" * 10) == "xa"


@pytest.mark.parametrize(("n", "found"), [(4, None), (5, "no")])
def test_one_word_is_a_loop_from_five_times_on(n, found):
    assert repetition("no " * n) == found


@pytest.mark.parametrize(("n", "found"), [(3, None), (4, "no way")])
def test_two_words_are_a_loop_from_four_times_on(n, found):
    assert repetition("no way " * n) == found


def test_a_loop_may_begin_after_other_words():
    assert repetition("Well, " + "go on and " * 6) == "go on and"


@pytest.mark.parametrize(("words", "found"), [("cat sat mat", "brt krst plmn"), ("cat sat mat hat", None)])
def test_strings_without_vowels_must_be_half_of_the_words(words, found):
    assert repetition(f"brt krst plmn {words}") == found


@pytest.mark.parametrize(("n", "found"), [(3, None), (4, "go on and")])
def test_three_words_are_a_loop_from_four_times_on(n, found):
    assert repetition("go on and " * n) == found


@pytest.mark.parametrize(("n", "found"), [(2, None), (3, "we like our tea")])
def test_four_words_are_a_loop_from_three_times_on(n, found):
    assert repetition("we like our tea " * n) == found


@pytest.mark.parametrize(("n_others", "found"), [(5, "no"), (6, None)])
def test_a_loop_must_be_half_of_the_words(n_others, found):
    others = " ".join(FILLERS[:n_others])
    assert repetition("no " * 5 + others) == repetition(f"{others} " + "no " * 5) == found


@pytest.mark.parametrize(("end", "found"), [("one two three fours", "xa"), ("one two three fourths", None)])
def test_a_loop_of_letters_must_be_half_of_the_characters(end, found):
    assert repetition("xa" * 10 + " " + end) == found


def test_a_loop_of_numbers_or_marks_is_a_table():
    assert repetition("12 7 " * 9) is None
    assert repetition("12 x " * 9) == "12 x"
    assert repetition("=-" * 20 + " yes") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("BCDFG KLMNP RSTVW", None),
        ("BCDFGH KLMNPQ RSTVWX", "BCDFGH KLMNPQ RSTVWX"),
        ("brt krst", None),
        ("bc df gh jk", None),
        ("brt krst plmn trx grk vlk", "brt krst plmn trx grk"),
        ("Это так: brt krst plm trx", "brt krst plm trx"),
        ("Это просто так: brt krst plm", None),
    ],
)
def test_strings_without_vowels_are_no_acronyms_and_no_quotations_and_at_least_three(text, found):
    assert repetition(text) == found


@pytest.mark.parametrize(("n", "is_loop"), [(14, True), (15, False)])
def test_a_passage_of_fourteen_words_can_be_a_loop_and_a_longer_one_is_read(n, is_loop):
    passage = " ".join(f"{letter}word" for letter in string.ascii_lowercase[:n])
    assert (repetition(f"{passage} " * 3) == passage) == is_loop
