"""How a policy that learns by PPO is compared with the start on held-out prompts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.judges import Pairwise
from aligndistill.config.objectives import Ppo
from aligndistill.config.run import AnswerSampling, Evaluation, Runtime
from aligndistill.judges import pairwise
from aligndistill.judges.templates import Template
from aligndistill.models.load import LanguageModel
from aligndistill.models.sampling import Sampled
from aligndistill.records import Answer, Message, Prompt
from aligndistill.stages import ppo_student
from aligndistill.stages.context import StageContext
from aligndistill.stages.ppo_student import HeldOutWinRate, _win_rate
from aligndistill.store.jsonl import write_jsonl
from aligndistill.training.on_policy.rollouts import PolicyPrompt, RolloutSettings
from tests.tiny_models import QUESTIONS, tiny_language_model, user
from tests.training.as_processes import as_processes

POLICY = tiny_language_model()
EVALUATION = Evaluation(judge=Pairwise(kind="pairwise"))
SAMPLING = AnswerSampling(prompts=None, samples_per_prompt=1, temperature=1.0, max_prompt_tokens=512, max_new_tokens=17)
OBJECTIVE = Ppo(kind="ppo", evaluate_every=1, evaluate_prompts=6)
TEMPLATE = Template("{prompt}|{first}|{second}")


class Look:
    """A look at the six first of eight held-out prompts, with what was sampled and what the judge was asked for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, verdict: Callable[[str, str, str], str]) -> None:
        self.sampled: list[tuple[str, int]] = []
        self.asked: list[str] = []
        prompts = [Prompt(id=f"{n}", messages=user(text), split="held_out", source="test") for n, text in enumerate(QUESTIONS)]
        answers = [Answer(prompt_id=f"{n}", author="start", text="No.", finish="stop", length_tokens=2) for n in range(8)]
        for name, rows in (("prompts", prompts), ("answers", answers)):
            (folder / name).mkdir()
            write_jsonl(folder / name / f"{name}.jsonl", rows)
        self._context = StageContext("student", folder, folder, Runtime())
        self._watched = HeldOutWinRate(EVALUATION, SAMPLING, {}, folder / "prompts", folder / "answers")

        def draw(policy: Any, some: Sequence[PolicyPrompt], keys: Sequence[str], sampling: RolloutSettings) -> list[list[Sampled]]:
            self.sampled += [(prompt.id, sampling.max_new_tokens) for prompt in some]
            ids = POLICY.conversation.response_ids("blue", True)
            return [[Sampled(ids, [0.0] * len(ids), "stop")] for _ in some]

        def reply(messages: tuple[Message, ...], sample: int) -> str:
            self.asked.append(messages[0].content)
            return verdict(*messages[0].content.split("|"))

        def open_judge(*_: object) -> pairwise.PairwiseJudge:
            return pairwise.PairwiseJudge("pairwise", ScriptedChat(reply), TEMPLATE, both_orders=False, max_new_tokens=9)

        monkeypatch.setattr(ppo_student, "sample_rollouts", draw)
        monkeypatch.setattr(ppo_student, "open_judge", open_judge)

    def win_rate(self) -> Callable[[LanguageModel], float | None]:
        return _win_rate(self._context, self._watched, OBJECTIVE, seed=0)


def likes_blue(prompt: str, first: str, second: str) -> str:
    """For the first two questions alone."""
    if prompt in QUESTIONS[:2]:
        return "A" if first == "blue" else "B"
    return "B" if first == "blue" else "A"


def test_the_policy_answers_as_long_as_the_finished_student_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look(tmp_path, monkeypatch, likes_blue)
    assert look.win_rate()(POLICY) == pytest.approx(2 / 6)
    assert look.sampled == [(str(n), 17) for n in range(6)]  # whatever the start's answers were
    assert len(look.asked) == 6


def test_processes_share_the_prompts_and_get_the_same_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for processes in (2, 8):  # of eight, two have nothing to do
        folder = tmp_path / str(processes)
        folder.mkdir()
        look = Look(folder, monkeypatch, likes_blue)
        assert as_processes(monkeypatch, processes, lambda rank, look=look: look.win_rate()(POLICY)) == [2 / 6] * processes
        assert sorted(look.sampled) == [(str(n), 17) for n in range(6)]
        assert len(look.asked) == len(set(look.asked)) == 6


def test_verdicts_that_cannot_be_read_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look(tmp_path, monkeypatch, lambda prompt, *two: likes_blue(prompt, *two) if prompt in QUESTIONS[1:3] else "who knows")
    assert as_processes(monkeypatch, 2, lambda rank: look.win_rate()(POLICY)) == [0.5, 0.5]


def test_without_a_verdict_there_is_no_rate_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    look = Look(tmp_path, monkeypatch, lambda *_: "who knows")
    assert as_processes(monkeypatch, 2, lambda rank: look.win_rate()(POLICY)) == [None, None]
    printed = " ".join(capfd.readouterr().err.split())
    assert printed.count("none of the verdicts of pairwise on the held-out answers could be read: this update has no win rate") == 1
