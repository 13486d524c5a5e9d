import pytest

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.writing import duration, interval, number, shortened, size_text, with_interval


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.625, "0.62"), (9.994, "9.99"), (9.996, "10.0"), (34.25, "34.2"), (99.96, "100"), (12345.6, "12,346"), (-1.5, "-1.50")],
)
def test_number(value, written):
    assert number(value) == written


def test_no_negative_zero():
    assert number(-0.004) == "0.00"
    assert number(-0.006) == "-0.01"


def test_interval_has_the_decimals_of_its_larger_end():
    figure = Mean(mean=9.5, low=8.25, high=11.75, n=5)
    assert interval(figure) == "[8.2, 11.8]"
    assert with_interval(figure) == "9.5 [8.2, 11.8]"


@pytest.mark.parametrize(
    ("seconds", "written"), [(3.21, "3.2 s"), (38.2, "38 s"), (119, "119 s"), (150, "2.5 min"), (7200, "2.0 h")]
)
def test_duration(seconds, written):
    assert duration(seconds) == written


def test_shortened():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abc..."


@pytest.mark.parametrize(("size", "text"), [(12, "12 B"), (1500, "1.5 kB"), (34_000_000, "34 MB"), (1_200_000_000, "1.2 GB")])
def test_sizes(size, text):
    assert size_text(size) == text
