"""The stages of a run as a graph: a column for each step from the data, coloured by state."""

from collections.abc import Sequence
from math import ceil

from markupsafe import Markup, escape

from aligndistill.commands.view.run_folder import StageState
from aligndistill.reporting.texts import visible

WIDTH, HEIGHT = 132, 24
ACROSS, DOWN = 162, 34
LONGEST = 19
LARGE = 960
"""Units, which are pixels: a wider graph may be drawn smaller, down to this width; the others are never scaled."""


def stage_graph(stages: Sequence[StageState]) -> Markup:
    """Boxes with names, and a line from each stage to those that read it, unless a way over others leads there, too. The table
    beside it has all of them in words.
    """
    depth: dict[str, int] = {}
    before: dict[str, set[str]] = {}
    for stage in stages:  # in topological order
        before[stage.name] = {name for one in stage.inputs for name in (one, *before.get(one, ()))}
        depth[stage.name] = max((depth[name] + 1 for name in stage.inputs if name in depth), default=0)
    if not depth or max(depth.values()) == 0:
        return Markup("")
    columns = [[stage for stage in stages if depth[stage.name] == number] for number in range(max(depth.values()) + 1)]
    rows = max(map(len, columns))
    place = {
        stage.name: (number * ACROSS + 2, round((row + (rows - len(column)) / 2) * DOWN) + 2)
        for number, column in enumerate(columns)
        for row, stage in enumerate(column)
    }
    parts = [
        _line(place[name], place[stage.name])
        for stage in stages
        for name in dict.fromkeys(stage.inputs)
        if name in place and not any(name in before.get(other, ()) for other in stage.inputs)
    ]
    parts += [_box(stage, *place[stage.name]) for stage in stages]
    width, height = (len(columns) - 1) * ACROSS + WIDTH + 4, ceil(rows * DOWN)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    kind = "graph large" if width > LARGE else "graph"
    done = sum(stage.state == "done" for stage in stages)
    alt = f"{len(stages)} stages in {len(columns)} steps, {done} done"
    return Markup(f'<svg class="{kind}" {size} role="img" aria-label="{alt}">{"".join(parts)}</svg>')


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x1, y1), (x2, y2) = (start[0] + WIDTH, start[1] + HEIGHT // 2), (end[0], end[1] + HEIGHT // 2)
    return f'<path class="edge" d="M{x1} {y1}C{x1 + 15} {y1} {x2 - 15} {y2} {x2} {y2}"/>'


def _box(stage: StageState, x: int, y: int) -> str:
    name = visible(stage.name)
    shown = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
    return (
        f'<rect class="box {escape(stage.state)}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="4"/>'
        f'<text class="tick middle" x="{x + WIDTH // 2}" y="{y + 16}">{escape(shown)}</text>'
    )
