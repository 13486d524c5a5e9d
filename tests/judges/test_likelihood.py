from pathlib import Path

import pytest
import torch

from aligndistill.judges.likelihood import LikelihoodJudge
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.reward_model import RewardModelJudge
from aligndistill.judges.token_grades import GradeCache
from aligndistill.models.load import LanguageModel, ModelPointer
from aligndistill.models.reward import RewardModel, new_reward_model
from aligndistill.records import Candidate, Finish, Grade, prompt_id
from aligndistill.store.cache import Cache
from tests.tiny_models import tiny_language_model, user, write_tiny_model


def task(question: str, *answers: tuple[str, Finish]) -> Task:
    messages = user(question)
    candidates = tuple(
        Candidate(id=str(n), prompt_id=prompt_id(messages), text=text, author="start", finish=finish)
        for n, (text, finish) in enumerate(answers)
    )
    return Task(prompt_id(messages), messages, candidates)


TASKS = [
    task("No?", ("No.", "stop"), ("blue blue blue", "length"), ("", "stop")),
    task("What is the capital of France?", ("The capital is Paris.", "stop"), ("", "length")),
    task("blue " * 80, ("No.", "stop"), ("Yes.", "stop")),
]


def values(judged: list[Judged]) -> dict[str, list[float | None]]:
    found = {}
    for one in judged:
        assert one.prompt_id not in found
        grades = [verdict for verdict in one.verdicts if isinstance(verdict, Grade)]
        assert [grade.candidate for grade in grades] == [str(n) for n in range(len(one.verdicts))]
        found[one.prompt_id] = [grade.value for grade in grades]
    return found


def mean_logprob(teacher: LanguageModel, one: Task, text: str, finish: Finish) -> float:
    """Written out: log-softmax at each of the response's places, averaged."""
    prompt = teacher.conversation.prompt_ids(one.messages)
    response = teacher.conversation.response_ids(text, finished=finish == "stop")
    with torch.no_grad():
        logprobs_TV = teacher.model(input_ids=torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
    return sum(logprobs_TV[len(prompt) - 1 + t, token].item() for t, token in enumerate(response)) / len(response)


@pytest.mark.parametrize("shape", ["llama", "gemma2"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_grade_is_the_mean_log_probability_per_token(shape: str, batch_size: int) -> None:
    teacher = tiny_language_model(shape)
    found = values(list(LikelihoodJudge("likelihood", teacher, batch_size).judge(TASKS)))
    assert set(found) == {one.prompt_id for one in TASKS}
    for one in TASKS[:2]:
        expected = [mean_logprob(teacher, one, candidate.text, candidate.finish) for candidate in one.candidates]
        assert found[one.prompt_id] == pytest.approx(expected, abs=1e-4)
    # What the teacher has no positions for gets no value: unreadable is never a score.
    assert found[TASKS[2].prompt_id] == [None, None]


def test_verdicts_name_judge_and_cost() -> None:
    teacher = tiny_language_model()
    (judged,) = LikelihoodJudge("my judge", teacher, 4).judge(TASKS[:1])
    for grade in judged.verdicts:
        assert grade.judge == "my judge"
        assert grade.usage.calls == 1
        assert grade.usage.prompt_tokens == len(teacher.conversation.prompt_ids(TASKS[0].messages))


def reward_by_hand(reward_model: RewardModel, one: Task, text: str, finish: Finish) -> float:
    ids = reward_model.conversation.prompt_ids(one.messages)
    ids = ids + reward_model.conversation.response_ids(text, finished=finish == "stop")
    with torch.no_grad():
        hidden_TH = reward_model.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return float(reward_model.model.score(hidden_TH[-1]))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_reward_models_grade_is_its_score(batch_size: int, tmp_path: Path) -> None:
    reward_model = new_reward_model(ModelPointer(path=str(write_tiny_model(tmp_path)), layout="chat"), seed=1)
    found = values(list(RewardModelJudge("reward_model", reward_model, batch_size).judge(TASKS)))
    assert set(found) == {one.prompt_id for one in TASKS}
    for one in TASKS[:2]:
        expected = [reward_by_hand(reward_model, one, candidate.text, candidate.finish) for candidate in one.candidates]
        assert found[one.prompt_id] == pytest.approx(expected, abs=1e-5)
    assert found[TASKS[2].prompt_id] == [None, None]


def test_what_was_graded_before_is_not_read_again(tmp_path: Path) -> None:
    teacher, cache = tiny_language_model(), Cache(tmp_path / "grades.sqlite")
    read: list[int] = []
    teacher.model.get_input_embeddings().register_forward_hook(lambda module, args, output: read.append(args[0].numel()))

    def grades(tasks: list[Task], model: str = "teacher") -> dict[str, list[float | None]]:
        read.clear()
        return values(list(LikelihoodJudge("likelihood", teacher, 1, GradeCache(cache, model)).judge(tasks)))

    expected = values(list(LikelihoodJudge("likelihood", teacher, 1).judge(TASKS)))
    assert grades(TASKS[:1]) == {TASKS[0].prompt_id: expected[TASKS[0].prompt_id]}
    assert grades(TASKS) == expected
    assert len(read) == len(TASKS) - 2  # neither the one that is known nor the one that does not fit is read
    assert grades(TASKS) == expected
    assert read == []
    assert grades(TASKS, "another model") == expected
    assert len(read) == len(TASKS) - 1
