"""Rounds in which the teacher writes prompts from what the student was weak at: killed, by two processes, and without them."""

import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp
from pathlib import Path
from typing import Any

import pytest

from aligndistill.reporting.report import read_report
from tests.e2e.command import ForkServer, ranks
from tests.e2e.reports import written_rows
from tests.e2e.small_run import read_rows, write_config
from tests.e2e.test_kill_elicited import asked, killing_after
from tests.elicitation.teacher_server import TeacherServer

PORT = 29930 + os.getpid() % 60
SEEDS, IN_FLIGHT = 6, 2
STEP = {"name": "weak", "kind": "evolve", "weak_seeds": SEEDS, "per_prompt": 2}
PRICES = {"scripted": {"prompt": 1.0, "completion": 2.0}}


@contextmanager
def serving(folder: Path, place: str) -> Iterator[tuple[Path, int]]:
    """A folder of its own for a run, with the data and the start of `folder`, and a server whose log is in it."""
    own = folder / place
    own.mkdir()
    for name in ("prompts.jsonl", "counting_judge.py"):
        (own / name).write_bytes((folder / name).read_bytes())
    (own / "start").symlink_to(folder / "start")
    server = TeacherServer(0, own / "asked.jsonl")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield own, server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def eliciting(config: dict[str, Any], port: int) -> dict[str, Any]:
    teacher = {"kind": "endpoint", "base_url": f"http://127.0.0.1:{port}/v1", "name": "scripted", "concurrency": IN_FLIGHT}
    training = {"batch_size": 8, "max_steps": 3, "learning_rate": 1e-3}
    return {
        **config,
        "teacher": teacher,
        "prompts": {**config["prompts"], "elicit": [STEP], "filters": {"duplicates": 0.9}},
        "students": {"dpo": {"objective": {"kind": "dpo"}, **training}},
        "rounds": {"count": 3, "promotes": "dpo", "prompts": {"per_round": 12, "repeats": 1}, "stop": None},
        "budget": {"prices": PRICES},
    }


def of_stage(folder: Path, stage: str, file: str) -> list[dict[str, Any]]:
    (made,) = (folder / "runs/store").glob(f"{stage}-{'?' * 16}")
    return read_rows(made / file)


def told_apart(rows: list[dict[str, Any]]) -> tuple[set[str], set[str]]:
    """The ids of training and of held-out prompts."""
    train, held_out = ({row["id"] for row in rows if row["split"] == split} for split in ("train", "held_out"))
    return train, held_out


@pytest.mark.timeout(400)
def test_weak_prompts_become_new_ones_and_nothing_is_asked_twice(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    run = ("run", "run.yaml")
    with serving(folder, "whole") as (whole, port):
        write_config(whole / "run.yaml", eliciting(config, port))
        ended = forked.run(whole, *run)
        assert ended.code == 0, ended.errors
        once = asked(whole / "asked.jsonl")
    check_the_whole(whole, once)
    with serving(folder, "killed") as (killed, port):
        write_config(killed / "run.yaml", eliciting(config, port))
        for requests in (5, SEEDS * 2 + 3):  # while prompts are evolved, and compared
            until = killing_after(killed / "asked.jsonl", requests)
            ended = forked.run(killed, *run, "--until", "filters-r2", meanwhile=until)
            assert ended.code == -signal.SIGKILL, ended.errors
        ended = forked.run(killed, *run, "--until", "filters-r2")
        assert ended.code == 0, ended.errors
        again = asked(killed / "asked.jsonl")
    assert written_rows(killed, "prompts-weak-r2", "prompts.jsonl") == written_rows(whole, "prompts-weak-r2", "prompts.jsonl")
    assert again.keys() <= once.keys()
    assert again.total() - len(again) <= 2 * IN_FLIGHT  # requests whose replies were not yet on disk
    with serving(folder, "two") as (two, port):
        write_config(two / "run.yaml", eliciting(config, port))
        ended = forked.run(two, *run, "--until", "filters-r2", environments=ranks(2, PORT))
        assert ended.code == 0, ended.errors
        assert asked(two / "asked.jsonl") == Counter(dict.fromkeys(again, 1))
    assert written_rows(two, "filters-r2", "prompts.jsonl") == written_rows(whole, "filters-r2", "prompts.jsonl")


def check_the_whole(folder: Path, asked: Counter[tuple[str, int, int]]) -> None:
    assert set(asked.values()) == {1}
    train, held_out = told_apart(of_stage(folder, "prompts", "prompts.jsonl"))
    texts = {row["id"]: row["messages"][-1]["content"] for row in of_stage(folder, "prompts", "prompts.jsonl")}
    sent = {found[1] for text, *_ in asked if (found := re.search(r"-----\n(.*?)\n-----", text, re.DOTALL))}
    report = read_report(folder / "runs/run/report.json")
    seeds, ids = set(), []
    for number in (2, 3):
        rows = of_stage(folder, f"prompts-weak-r{number}", "seeds.jsonl")
        scored = {
            row["prompt_id"]: [one["score"] for one in row["responses"]]
            for kind in ("rankings", "ties")
            for row in of_stage(folder, f"rankings{f'-r{number - 1}' if number > 2 else ''}", f"{kind}.jsonl")
            if row["split"] == "train" and row["prompt_id"] in train
        }
        hardest = sorted((difficulty(one) for one in scored.values()), reverse=True)[:SEEDS]
        assert [row["difficulty"] for row in rows] == pytest.approx(hardest)
        assert {row["id"] for row in rows} <= train
        seeds |= {row["id"] for row in rows}
        of_step = of_stage(folder, f"prompts-weak-r{number}", "prompts.jsonl")
        new = [row for row in of_step if row.get("lineage") and row["id"] not in ids]
        assert {row["lineage"]["parent"] for row in new} <= {row["id"] for row in rows}
        assert 0 < len(new) <= 2 * SEEDS
        lines = {line["id"]: line for line in of_stage(folder, f"prompts-weak-r{number}", "generated.jsonl")}
        assert all(lines[row["id"]]["usd"] > 0 and lines[row["id"]]["model"] == "scripted" for row in new)
        of_round = of_stage(folder, f"prompts-round-r{number}", "prompts.jsonl")
        assert told_apart(of_round)[1] == held_out
        assert len(told_apart(of_round)[0]) == 12 + len(new)
        assert {row["id"] for row in new} <= told_apart(of_round)[0]
        assert not {row["id"] for row in of_round} & set(ids)  # those of round 2 are not in round 3
        ids += [row["id"] for row in new]
        entry, measured = report.elicitation[number - 2], report.rounds[number - 1].new_prompts
        assert (entry.round, entry.seeds, entry.kept) == (str(number), SEEDS, len(new))
        assert measured is not None
        assert measured.prompts == len(new)
        assert measured.accept_rate is not None
        assert measured.accept_rate_of_others is not None
        assert (measured.accept_rate.n, measured.accept_rate_of_others.n) <= (len(new), 12)
    assert report.rounds[0].new_prompts is None
    assert {texts[one] for one in seeds} <= sent
    assert not {texts[one] for one in held_out} & sent
    page = (folder / "runs/run/report.html").read_text()
    assert "Prompts written for a round" in page
    assert "weak, round 2" in page
    assert json.loads((folder / "runs/run/report.json").read_text())["elicitation"][0]["usd_per_prompt"] > 0


def difficulty(scores: list[float]) -> float:
    """1 less the accept rate, of answers that are all the student's: see docs/rounds.md."""
    best = max(scores)
    return 1 - sum(1 / (1 + exp(best - score)) for score in scores) / len(scores)
