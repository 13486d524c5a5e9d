import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligndistill.evaluation.text_metrics import distinct_n, repetition


def test_distinct_by_hand():
    # Bigrams: (a b) (b a) (a b) and (a b): 2 distinct of 4. Unigrams: a, b of 6.
    assert distinct_n(["a b a b", "a  b"], 2) == 0.5
    assert distinct_n(["a b a b", "a  b"], 1) == pytest.approx(2 / 6)


def test_distinct_sees_answers_that_are_all_the_same():
    assert distinct_n(["I cannot help"] * 10, 2) == pytest.approx(0.1)


def test_distinct_of_texts_without_ngrams_is_not_measured():
    assert distinct_n(["Paris", ""], 2) is None
    assert distinct_n([], 1) is None


def test_an_ngram_does_not_span_two_texts():
    assert distinct_n(["a b", "c d", "b c"], 2) == 1.0


def test_repetition_by_hand():
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)  # 5 four-grams, of which the last repeats the first
    assert repetition("no no no no", n=1) == 0.75
    assert repetition("too short") == 0.0
    assert repetition("") == 0.0


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=20))
def test_within_one_text_distinct_and_repetition_are_complements(words):
    text = " ".join(words)
    assert distinct_n([text], 2) == pytest.approx(1 - repetition(text, 2))
