"""The mark of a model beside its name: one shape and colour for each, the same on the page and in its plots.

Seven colours and seven shapes are combined so that 49 students differ; the start is a filled star and the teacher a hollow one.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

SERIES = ("#0072b2", "#d55e00", "#009e73", "#b8559a", "#a87200", "#1f8fce", "#7a6a00")
"""The colours on a light page, after Okabe and Ito (2008); pages set `--series-1` ... for theirs."""
PATHS = (
    "M6 1.5a4.5 4.5 0 1 0 .01 0z",  # circle
    "M2 2h8v8H2z",  # square
    "M6 1 11 10.5H1z",  # triangle
    "M6 .5 11.5 6 6 11.5.5 6z",  # diamond
    "M6 11 1 1.5h10z",  # triangle on its tip
    "M4 1h4v3h3v4H8v3H4V8H1V4h3z",  # plus
    "M3.5 1 6 3.5 8.5 1 11 3.5 8.5 6 11 8.5 8.5 11 6 8.5 3.5 11 1 8.5 3.5 6 1 3.5z",  # cross
)
STAR = "M6 .6 7.5 4.4l4 .3-3.1 2.6 1 4L6 9.1l-3.4 2.2 1-4L.5 4.7l4-.3z"


def series_of(names: Sequence[str]) -> dict[str, int | None]:
    """The number of each model's colour and shape: none for start and teacher, one for each student in order."""
    students = [name for name in dict.fromkeys(names) if name not in ("start", "teacher")]
    return {"start": None, "teacher": None} | {name: index for index, name in enumerate(students)}


def shape_of(series: int) -> int:
    """The number of a student's shape; with the second seven colours each has another one."""
    return (series + series // len(SERIES)) % len(PATHS)


def colour_of(series: int | None) -> str:
    """The colour of a student as CSS; None is the colour of text."""
    if series is None:
        return "currentColor"
    place = series % len(SERIES)
    return f"var(--series-{place + 1}, {SERIES[place]})"


def mark(name: str, series: Mapping[str, int | None]) -> Markup:
    """The mark as an `<svg>` element."""
    number = series[name]
    path = STAR if number is None else PATHS[shape_of(number)]
    fill = "none" if name == "teacher" else colour_of(number)
    return Markup('<svg class="mark" viewBox="0 0 12 12" aria-hidden="true"><path d="{}" fill="{}" stroke="{}"/></svg>').format(
        path, fill, colour_of(number)
    )
