"""A student that is distilled, from prompts to report, beside one that imitates the same answers."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from aligndistill.models.load import LanguageModel, load_language_model, read_pointer
from aligndistill.models.scoring import kl_nats
from aligndistill.models.tokenise import Limits, PromptWithResponses, tokenise
from aligndistill.records import Answer, Prompt
from aligndistill.store.jsonl import read_jsonl
from tests.e2e.command import ForkServer
from tests.e2e.small_run import SIZES, write_config

ONLY_IMITATES = 1 - 1e-9
"""A `sft_weight` that leaves the teacher's distributions out: the same answers, steps and rates without them."""


def only(folder: Path, stage: str) -> Path:
    (found,) = (folder / "runs/store").glob(f"{stage}-*")
    return found


def test_distributions_teach_more_of_the_teacher_than_its_answers(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    training = {"batch_size": 16, "max_steps": 40, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    texts = {"path": "teacher_demonstrations.jsonl"}
    config |= {
        "start": {"from_scratch": SIZES},
        "sft": {"demonstrations": texts, "learning_rate": 1e-2, "batch_size": 16, "max_steps": 6},
        "teacher": {
            "from_scratch": {**SIZES, "hidden_size": 48},
            "sft": {"demonstrations": texts, "learning_rate": 1e-2, "batch_size": 16, "max_steps": 60},
        },
        "candidates": {"per_prompt": 2, "from": ["teacher", "start"], "max_new_tokens": 12},
        "reward_model": None,
        "students": {
            "kd": {"objective": {"kind": "distil", "sft_weight": 0.0}, **training},
            "sft": {"objective": {"kind": "distil", "sft_weight": ONLY_IMITATES}, **training},
        },
    }
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors[-6000:]
    report = json.loads((folder / f"runs/{config['name']}/report.json").read_text())
    assert {"kd", "sft"} <= report["students"].keys()

    models = {name: load_language_model(read_pointer(only(folder, name))) for name in ("teacher", "student-kd", "student-sft")}
    logs = [
        [json.loads(line) for line in (only(folder, name) / "metrics.jsonl").read_text().splitlines()]
        for name in models
        if name != "teacher"
    ]
    assert logs[0][-1]["step"] == logs[1][-1]["step"]
    groups = held_out(folder, models["teacher"])
    kd, sft = (
        fmean(kl for row in kl_nats(models["teacher"], models[name], groups, 32) for kl in row)
        for name in ("student-kd", "student-sft")
    )
    assert kd < 0.6 * sft


def held_out(folder: Path, teacher: LanguageModel) -> Any:
    """The teacher's answers to the held-out prompts, which nothing was trained on."""
    prompts = {one.id: one for one in read_jsonl(only(folder, "prompts") / "prompts.jsonl", Prompt)}
    answers = list(read_jsonl(only(folder, "answers-teacher") / "answers.jsonl", Answer))
    assert len(answers) > 10
    exchanges = (PromptWithResponses(prompts[one.prompt_id].messages, [one.text], [one.finish]) for one in answers)
    return tokenise(teacher.conversation, exchanges, Limits(96, 96, None)).groups
