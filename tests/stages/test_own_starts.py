"""Win rates over the run's start and over the student's own, by hand."""

import json
from pathlib import Path

from aligndistill.config.judges import Function
from aligndistill.config.run import Evaluation, Runtime
from aligndistill.records import Answer, Message, Prompt, prompt_id
from aligndistill.stages import evaluation
from aligndistill.stages.context import StageContext
from aligndistill.store.jsonl import write_jsonl

ANSWERS = {"start": ["aaa", "aaa"], "start-small": ["a", "aaaa"], "small": ["aa", "aaaaa"], "large": ["a", "aa"]}


def test_a_student_is_compared_with_both_starts(tmp_path: Path) -> None:
    messages = [(Message(role="user", content=text),) for text in ("one", "two")]
    prompts = [Prompt(id=prompt_id(one), messages=one, source="x", split="held_out") for one in messages]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    for author, texts in ANSWERS.items():
        (tmp_path / author).mkdir()
        rows = [
            Answer(prompt_id=prompt.id, author=author, text=text, finish="stop", length_tokens=len(text))
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        write_jsonl(tmp_path / author / "answers.jsonl", rows)
    (tmp_path / "made").mkdir()
    context = StageContext(name="x", folder=tmp_path / "made", caches=tmp_path, runtime=Runtime(), identities={})
    judge = Function(kind="function", function="tests.stages.test_own_starts:by_length")
    evaluation.make(
        context,
        settings=Evaluation(judge=judge),
        models={},
        prompts=tmp_path,
        answers={author: tmp_path / author for author in ANSWERS},
        reward_model=None,
        seed=0,
        students={"small": "small", "large": "large"},
        own_starts={"small": "start-small"},
    )
    authors = json.loads((tmp_path / "made/evaluation.json").read_text())["authors"]
    rates = {author: authors[author]["win_rate"] and authors[author]["win_rate"]["mean"] for author in ANSWERS}
    assert rates == {"start": None, "start-small": 0.5, "small": 0.5, "large": 0.0}
    own = {author: authors[author]["win_rate_own"] and authors[author]["win_rate_own"]["mean"] for author in ANSWERS}
    assert own == {"start": None, "start-small": None, "small": 1.0, "large": None}


def by_length(prompt: str, responses: list[str]) -> list[float]:
    return [float(len(response)) for response in responses]
