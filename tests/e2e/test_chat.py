"""What a student says to a held-out prompt is what its run wrote down."""

import json

from tests.e2e.command import ForkServer
from tests.e2e.conftest import FinishedRun
from tests.e2e.small_run import read_rows


def test_the_answer_is_the_runs_own(small_run: FinishedRun, forked: ForkServer) -> None:
    artifacts = json.loads((small_run.folder / "runs/small/artifacts.json").read_text())
    prompt = next(row for row in read_rows(small_run.folder / artifacts["prompts"] / "prompts.jsonl") if row["split"] == "held_out")
    written = {}
    for name in ("dpo", "start"):
        rows = read_rows(small_run.folder / artifacts[f"answers-{name}"] / "answers.jsonl")
        written[name] = next(row["text"] for row in rows if row["prompt_id"] == prompt["id"])
    (message,) = prompt["messages"]
    ended = forked.run(small_run.folder, "chat", "runs/small:dpo", "--prompt", message["content"])
    assert (ended.code, ended.output) == (0, written["dpo"] + "\n"), ended.errors
    ended = forked.run(small_run.folder, "chat", "runs/small:dpo", "--against", "start", "--prompt", message["content"])
    assert ended.code == 0, ended.errors
    assert ended.output.split()[:2] == ["dpo", "start"]
