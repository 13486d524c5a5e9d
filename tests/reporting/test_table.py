import io

import pytest
from rich.console import Console

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.report import Report
from aligndistill.reporting.seeds import over_seeds
from aligndistill.reporting.table import render_table
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


def test_nothing_wraps_or_is_cut_at_100_columns():
    table = render_table(widest_report())
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
    assert any("pro *" in line for line in lines_of(render_table(full_report()), encoding="ascii"))
    assert lines_of(render_table(widest_report()), encoding="ascii")


def test_what_was_not_measured_is_a_dash():
    lines = lines_of(render_table(Report(run="r", seed=0)))
    assert any(line.split() == ["start", "-", "-", "-", "-", "-", "-"] for line in lines)
    assert lines[-1].rstrip() == "-: not measured, or has no meaning for this model"


def test_all_that_are_not_distinguishable_from_the_leader_are_starred():
    lead = full_report().leading.model_copy(update={"group": ("pro", "dpo")})
    lines = lines_of(render_table(full_report().model_copy(update={"leading": lead})))
    assert [line.split()[0] for line in lines if " * " in line[:30]] == ["dpo", "pro"]


def test_seeds_are_summed_up_and_marked_together():
    students = {
        f"{name}-s{seed}": student(truth + seed / 10, 0.6).model_copy(update={"of": name, "seed": seed})
        for name, truth in (("dpo", 0.5), ("pro", 0.6))
        for seed in (0, 1)
    }
    report = full_report().model_copy(update={"students": students, "over_seeds": over_seeds(students)})
    assert report.over_seeds["pro"]["truth"].model_dump() == pytest.approx(
        {"mean": 0.65, "deviation": 0.1 / 2**0.5, "low": 0.6, "high": 0.7, "n": 2}
    )
    lines = lines_of(render_table(report))
    assert [line.split()[0] for line in lines if " * " in line[:30]] == ["pro-s0", "pro-s1"]
    assert "pro over 2 seeds: truth 0.65 (sd 0.07), win rate 0.60 (sd 0.00)" in " ".join("\n".join(lines).split())


def test_a_metric_that_a_seed_lacks_is_left_out():
    one, other = (student(0.5, 0.6).model_copy(update={"of": "dpo", "seed": seed}) for seed in (0, 1))
    found = over_seeds({"dpo-s0": one, "dpo-s1": other.model_copy(update={"truth": None}), "alone": student(0.1, 0.1)})
    assert found.keys() == {"dpo"}
    assert "truth" not in found["dpo"]
    assert found["dpo"]["win_rate"].deviation == 0
