"""`aligndistill judge ...` as users give it, with the real stages; the teacher answers by batch file."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from aligndistill.cli.app import app
from aligndistill.config.data import Source
from aligndistill.data.loading import load_judgments
from aligndistill.records import Candidate, Ranking
from aligndistill.store.jsonl import read_jsonl
from tests.stages.labelled import TEMPLATE, shown
from tests.tiny_models import write_tiny_model

PROMPTS = 20
JUDGMENTS = [
    {"prompt": f"Question {number}?", "responses": ["Short.", "A longer answer."], "scores": [0.0, 1.0 if number else -1.0]}
    for number in range(PROMPTS)
]
"""All but one go to the longer answer."""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "prompts.jsonl", ({"prompt": f"Please add {number}."} for number in range(PROMPTS)))
    (tmp_path / "template.txt").write_text(TEMPLATE)
    server = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "name": "teacher"}
    settings = {
        "name": "small",
        "prompts": {"source": {"path": "prompts.jsonl"}, "held_out": 0.2},
        "start": {"model": str(write_tiny_model(tmp_path / "start")), "layout": "plain"},
        "candidates": {"per_prompt": 2, "from": ["start"], "max_new_tokens": 8},
        "judge": {"kind": "pairwise", "model": server, "template": "template.txt"},
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(settings))
    return path


def answers(questions: Path, decide: Callable[[str, str, str], str]) -> Path:
    """What a provider makes of a batch file."""
    rows = []
    for request in map(json.loads, questions.read_text().splitlines()):
        message = {"role": "assistant", "content": decide(*shown(request["body"]["messages"][0]["content"]))}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        rows.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})
    return write(questions.with_suffix(".answers.jsonl"), rows)


def written(folder: Path) -> set[str]:
    """The texts that models wrote, in distinction from the canaries."""
    (candidates,) = folder.glob("runs/store/candidates-*/candidates.jsonl")
    return {candidate.text for candidate in read_jsonl(candidates, Candidate)}


def test_a_run_by_batch_file_its_audit_and_its_export(config: Path, tmp_path: Path) -> None:
    asked = call("judge", "export-batch", config, "--output", "questions.jsonl", "--no-logprobs")
    assert asked.exit_code == 0, asked.output
    real = written(tmp_path)

    def honest(prompt: str, first: str, second: str) -> str:
        return "[[A]]" if (first in real, first) > (second in real, second) else "[[B]]"

    given = answers(tmp_path / "questions.jsonl", honest)
    taken = call("judge", "import-batch", config, "--results", given)
    assert "0 failed" in taken.output
    assert "; 0 questions are still open" in taken.output.replace("\n", " ")
    done = call("run", config)  # the server is not there: every verdict comes from the batch
    assert done.exit_code == 0, done.output

    audited = call("judge", "audit", "runs/small")
    assert audited.exit_code == 0, audited.output
    assert "known-bad answers preferred" in audited.output

    assert call("judge", "export", "runs/small", "--output", "out.jsonl").exit_code == 0
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["model_name"] == "pairwise"
    assert {pair["raw_output"] for pair in first["distilabel_metadata"]["raw_output_pairs"]} == {"[[A]]", "[[B]]"}
    for form, name in (("distilabel", "out.jsonl"), ("rankings", "by_hand.jsonl"), ("ultrafeedback", "u.jsonl")):
        assert call("judge", "export", "runs/small", "--output", name, "--format", form).exit_code == 0
        (made,) = tmp_path.glob("runs/store/rankings-*/rankings.jsonl")
        assert contents(load_judgments(Source(path=name))) == contents(read_jsonl(made, Ranking))
    assert call("judge", "export", "runs/small", "--output", "pairs.jsonl", "--format", "rewardbench").exit_code == 0
    (made,) = tmp_path.glob("runs/store/rankings-*/rankings.jsonl")
    both = [one for one in read_jsonl(made, Ranking) if one.responses[0].score > one.responses[1].score]
    assert contents(load_judgments(Source(path="pairs.jsonl"))) == contents(both)


def contents(rankings: Iterable[Ranking]) -> list[Any]:
    return [(one.prompt_id, [(r.text, r.author, pytest.approx(r.score)) for r in one.responses]) for one in rankings]


def test_a_teacher_that_loves_canaries_stops_the_run(config: Path, tmp_path: Path) -> None:
    assert call("judge", "export-batch", config, "--output", "questions.jsonl").exit_code == 0
    real = written(tmp_path)
    # "Another prompt's answer" is among the written ones; of those, shortest first is no better than chance.
    given = answers(
        tmp_path / "questions.jsonl",
        lambda _, first, second: "[[A]]" if (first in real, first) < (second in real, second) else "[[B]]",
    )
    assert call("judge", "import-batch", config, "--results", given).exit_code == 0
    stopped = call("run", config, "audit.stop.canaries=0.5")
    assert stopped.exit_code == 4, stopped.output
    assert "known-bad answers are preferred" in stopped.stderr
    assert not list(tmp_path.glob("runs/store/rankings-*/manifest.json"))
    seen = call("judge", "audit", "runs/small")
    assert seen.exit_code == 4
    assert "known-bad answers preferred" in seen.stdout


def test_recorded_judgments_are_audited_from_a_file_and_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "judgments.jsonl", JUDGMENTS)
    of_file = call("judge", "audit", path)
    assert of_file.exit_code == 0
    assert f"{100 * (PROMPTS - 1) / PROMPTS:.0f}%" in of_file.stdout
    assert "go to the longer answer (limit longer_wins: 0.7)" in of_file.stdout
    (tmp_path / "run.yaml").write_text("name: recorded\nrankings: {source: {path: judgments.jsonl}, held_out: 0.2}\n")
    assert call("run", "run.yaml").exit_code == 0
    assert call("judge", "audit", "runs/recorded").stdout == of_file.stdout
    assert call("run", "run.yaml", "audit.stop.longer_wins=0.7").exit_code == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("audit", "nowhere"), 3, "neither a run's folder nor a file"),
        (("import-batch", "run.yaml", "--results", "nowhere.jsonl"), 3, "nowhere.jsonl"),
        (("export-batch", "run.yaml", "--output", "x.jsonl"), 2, "so no judge labels anything"),
    ],
)
def test_what_cannot_be_done_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "judgments.jsonl", JUDGMENTS)
    (tmp_path / "run.yaml").write_text("name: recorded\nrankings: {source: {path: judgments.jsonl}, held_out: 0.2}\n")
    ended = call("judge", *arguments)
    assert ended.exit_code == code, ended.output
    assert words in ended.stderr
