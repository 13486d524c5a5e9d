import io

import pytest
from rich.console import Console

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.report import Report
from aligndistill.reporting.table import compare_table, render_table
from tests.reporting.fake_run import full_report, student


def lines_of(table, width=100, encoding="utf-8"):
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=output, width=width, color_system=None).print(table)
    output.flush()
    return output.buffer.getvalue().decode(encoding).splitlines()


def test_a_line_per_model_with_intervals_and_the_best_starred():
    lines = lines_of(render_table(full_report()))
    rows = {line.split()[0]: line for line in lines if line.split()}
    assert "0.42 [0.37, 0.47]" in rows["start"]
    assert "0.66 [0.61, 0.71]" in rows["teacher"]
    assert " ".join(rows["pro"].split()) == "pro * 0.68 [0.63, 0.73] 0.74 [0.69, 0.79] 0.72 12.3 34.2 1.25 38 s"
    assert rows["dpo"].split()[1] == "0.54"
    assert [line for line in lines if "[low, high]: 95%" in line]


def widest_report():
    """A run in which every number is as wide as numbers get."""
    wide = Mean(mean=-12.34, low=-45.67, high=-10.89, n=96)
    metrics = student(0.5, 0.5).model_copy(
        update={"truth": wide, "kl_nats": wide, "length_tokens": wide, "reward": wide, "train_seconds": 7100.0}
    )
    return full_report().model_copy(update={"run": "r" * 60, "students": {"s" * 60: metrics, "t" * 60: metrics}})


@pytest.mark.parametrize("table", [render_table(widest_report()), compare_table([widest_report(), full_report()])])
def test_nothing_wraps_or_is_cut_at_100_columns(table):
    lines = lines_of(table)
    assert max(map(len, lines)) <= 100
    rows = [line for line in lines if "[-45.7, -10.9]" in line]
    assert len(rows) == 2
    assert all("12.3" in row for row in rows)
    assert "…" not in "".join(lines)
    assert len(lines) == len(lines_of(table, 300))


def test_names_are_text_and_not_markup():
    report = full_report().model_copy(update={"students": {"[bold red]x[/]": student(0.5, 0.5)}})
    assert any("[bold red]x[/]" in line for line in lines_of(render_table(report)))


def test_an_ascii_terminal():
    assert any("pro *" in line for line in lines_of(compare_table([full_report(), widest_report()]), encoding="ascii"))
    assert lines_of(render_table(widest_report()), encoding="ascii")


def test_what_was_not_measured_is_a_dash():
    lines = lines_of(render_table(Report(run="r", seed=0)))
    assert any(line.split() == ["start", "-", "-", "-", "-", "-", "-"] for line in lines)


def test_compare_stars_the_best_of_each_run():
    other = full_report().model_copy(update={"run": "other", "students": {"rrhf": student(0.9, 0.9), "dpo": student(0.1, 0.1)}})
    starred = [line.split()[:3] for line in lines_of(compare_table([full_report(), other])) if " * " in line[:30]]
    assert starred[:2] == [["quick", "pro", "*"], ["other", "rrhf", "*"]]
