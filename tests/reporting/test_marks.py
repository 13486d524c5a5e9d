"""Colours: enough contrast, by WCAG's formula, in both themes; and no two students alike."""

import re
from pathlib import Path

import pytest

import aligndistill.reporting
from aligndistill.reporting.marks import PATHS, SERIES, colour_of, mark, series_of, shape_of

CSS = (Path(aligndistill.reporting.__path__[0]) / "page.css").read_text()
THEMES = dict(zip(("light", "dark"), re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2], strict=True))


def colours(theme: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", THEMES[theme]))


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the grey that is usually named


@pytest.mark.parametrize("theme", THEMES)
def test_texts_have_a_contrast_of_4_5_and_marks_of_3(theme: str) -> None:
    known = colours(theme)
    for ground in ("page", "panel", "good", "added", "removed"):
        assert contrast(known["text"], known[ground]) >= 4.5, ground
    for ground in ("page", "panel", "good"):
        assert contrast(known["quiet"], known[ground]) >= 4.5, ground
    for number in range(1, 8):
        for ground in ("page", "panel"):
            assert contrast(known[f"series-{number}"], known[ground]) >= 3, (number, ground)


def test_the_light_pages_colours_are_those_of_plots() -> None:
    assert [colours("light")[f"series-{number}"] for number in range(1, 8)] == list(SERIES)


def test_no_two_of_49_students_have_one_shape_and_colour() -> None:
    assert len({(shape_of(number), colour_of(number)) for number in range(49)}) == 49
    assert [shape_of(number) for number in (0, 6, 7, 8)] == [0, 6, 1, 2]
    assert len(set(PATHS)) == 7


def test_the_start_is_filled_and_the_teacher_hollow() -> None:
    series = series_of(["dpo", "start", "teacher", "pro", "dpo"])
    assert series == {"start": None, "teacher": None, "dpo": 0, "pro": 1}
    assert 'fill="currentColor"' in mark("start", series)
    assert 'fill="none" stroke="currentColor"' in mark("teacher", series)
    assert 'fill="var(--series-2, #d55e00)"' in mark("pro", series)
