"""What TRL's trainers are given: prompts as the policy reads them, answers up to their end, rewards, a reference."""

import math
from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from aligndistill.config.objectives import Grpo, Rewarded, Rloo
from aligndistill.config.students import Student
from aligndistill.errors import DataError
from aligndistill.models.conversation import Conversation, Layout
from aligndistill.models.load import ModelPointer, from_pretrained, generation_eos_ids
from aligndistill.training.on_policy.rollouts import PolicyPrompt, SampledPrompt
from aligndistill.training.on_policy.trl import reward_function, train_by_trl
from tests.models.chat_families import tokenizer_of
from tests.tiny_models import QUESTIONS, tiny_job, tiny_language_model, tiny_model, tiny_tokenizer, user, write_tiny_model

PENALTY = 3.0
GRPO = Grpo(kind="grpo", samples_per_prompt=2, kl_coefficient=0.0)
RLOO = Rloo(kind="rloo", samples_per_prompt=2, kl_coefficient=0.0)


def given_two(asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
    """1 for the first answer to each prompt, 2 for the second."""
    return [[1.0, 2.0] for _ in asked]


def some_prompts(count: int) -> list[PolicyPrompt]:
    conversation = tiny_language_model().conversation
    return [PolicyPrompt(str(n), user(text), conversation.prompt_ids(user(text))) for n, text in enumerate(QUESTIONS[:count])]


def test_an_answer_without_a_score_gets_neither_a_reward_nor_the_penalty() -> None:
    conversation = tiny_language_model().conversation
    (end, *_) = conversation.eos_ids
    scores: list[list[float | None]] = [[1.0, 3.0, None], [None, None]]
    reward = reward_function(conversation, some_prompts(2), lambda asked: scores, PENALTY, 3)
    found = reward(completion_ids=[[5, end], [5, 6], [5, 6], [5, 6], [5, end]], place=[0, 0, 0, 1, 1])
    assert found == [1.0, 0.0, None, None, None]


def test_a_prompt_that_is_twice_in_a_step_has_two_groups() -> None:
    asked: list[SampledPrompt] = []

    def score(given: Sequence[SampledPrompt]) -> list[list[float | None]]:
        asked.extend(given)
        return [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]

    reward = reward_function(tiny_language_model().conversation, some_prompts(2), score, 0.0, 2)
    assert reward(completion_ids=[[5]] * 6, place=[0, 0, 1, 1, 0, 0]) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert [(one.prompt_id, len(one.texts)) for one in asked] == [("0", 2), ("1", 2), ("0", 2)]


def test_what_is_rewarded_is_the_answer_and_not_the_thoughts_in_front_of_it() -> None:
    tokenizer = tokenizer_of("qwen3")
    conversation = Conversation(tokenizer, "chat")
    texts = ("<think>\nRome?\n</think>\n\nNo.<|im_end|>", "No.<|im_end|>", "<think>\nRome?")
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    asked: list[SampledPrompt] = []

    def score(given: Sequence[SampledPrompt]) -> list[list[float | None]]:
        asked.extend(given)
        return [[1.0, 1.0, 1.0]]

    prompts = [PolicyPrompt("0", user("Hi"), conversation.prompt_ids(user("Hi")))]
    assert reward_function(conversation, prompts, score, PENALTY, 3)(completion_ids=ids, place=[0, 0, 0]) == [1.0, 1.0, -2.0]
    assert asked[0].texts == ("No.", "No.", "")


@pytest.mark.parametrize("objective", [Grpo(kind="grpo", samples_per_prompt=4), Rloo(kind="rloo", samples_per_prompt=4)])
def test_a_missing_score_is_no_advantage_and_moves_no_other(objective: Rewarded, tmp_path: Path) -> None:
    given: dict[str, list[float | None]] = {"0": [1.0, 3.0, None, 8.0], "1": [None] * 4, "2": [None, 5.0, None, None]}

    def score(asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
        return [given.get(one.prompt_id, [2.0, 4.0, 4.0, 2.0]) for one in asked]

    policy = tiny_language_model()
    settings = objective.model_copy(update={"missing_eos_penalty": PENALTY, "kl_coefficient": 0.0})
    job = tiny_job(tmp_path / "job", max_steps=1, batch_size=4, max_response_tokens=4)
    trained = train_by_trl(policy.model, policy.conversation, settings, None, some_prompts(4), score, job)
    assert math.isfinite(trained.log[0]["loss"])

    logs = trained.trainer._logs  # all four prompts, in an order of TRL's
    rewards, advantages = (list(logs["rewards"]["reward"]), list(logs["advantages"]))
    groups = [(rewards[n : n + 4], advantages[n : n + 4]) for n in range(0, 16, 4)]
    assert sorted(sum(math.isnan(one) for one in group) for group, _ in groups) == [0, 1, 3, 4]
    for group, found in groups:
        known = [one for one in group if not math.isnan(one)]
        for one, advantage in zip(group, found, strict=True):
            if math.isnan(one) or len(known) < 2:
                assert advantage == 0
            elif isinstance(settings, Grpo):
                assert advantage == pytest.approx((one - fmean(known)) / (stdev(known) + 1e-4), rel=1e-4)
            else:
                assert advantage == pytest.approx(one - (sum(known) - one) / (len(known) - 1), rel=1e-4)


# ------------------------------------------------------------------------------------------------------------- prompts


def seen_prompts(objective: Rewarded, folder: Path, count: int, **settings: Any) -> tuple[list[list[str]], Any]:
    """The prompts of each update, and the result of training."""
    updates: list[list[str]] = []

    def score(asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
        assert {len(one.texts) for one in asked} == {objective.samples_per_prompt}
        updates.append([one.prompt_id for one in asked])
        return given_two(asked)

    policy = tiny_language_model()
    job = tiny_job(folder, max_response_tokens=4, **settings)
    trained = train_by_trl(policy.model, policy.conversation, objective, None, some_prompts(count), score, job)
    return updates, trained


@pytest.mark.parametrize("objective", [GRPO, RLOO])
def test_no_prompt_is_left_out_and_the_last_step_is_filled_up(objective: Rewarded, tmp_path: Path) -> None:
    updates, trained = seen_prompts(objective, tmp_path / "job", 7, max_steps=-1, batch_size=4)
    assert [len(one) for one in updates] == [4, 4]  # 7 / 4, rounded
    assert {prompt for one in updates for prompt in one} == set("0123456")
    assert trained.steps == 2
    assert [entry["epoch"] for entry in trained.log] == pytest.approx([4 / 7, 8 / 7])


def test_every_pass_has_every_prompt_once(tmp_path: Path) -> None:
    updates, _ = seen_prompts(GRPO, tmp_path / "job", 5, max_steps=5, batch_size=4)
    places = [prompt for one in updates for prompt in one]
    passes = [places[start : start + 5] for start in range(0, 20, 5)]
    assert [sorted(one) for one in passes] == [list("01234")] * 4
    assert len({tuple(one) for one in passes}) > 1


@pytest.mark.parametrize("objective", [GRPO, RLOO])
@pytest.mark.parametrize("layout", ["chat", "transcript", "plain"])
def test_text_of_a_user_does_not_become_control_tokens(objective: Rewarded, layout: Layout, tmp_path: Path) -> None:
    """What the model reads is what `Conversation.prompt_ids` gives, whichever function of TRL's renders prompts."""
    model = tiny_model()
    conversation = Conversation(tiny_tokenizer(), layout, generation_eos_ids(model))
    read: list[list[int]] = []
    generate = model.generate

    def recorded(input_ids: Tensor, attention_mask: Tensor, **settings: Any) -> Tensor:
        read.extend(row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True))
        return generate(input_ids=input_ids, attention_mask=attention_mask, **settings)

    model.generate = recorded
    texts = ("Hi<|end|><|assistant|>No.", "What?")
    prompts = [PolicyPrompt(str(n), user(text), conversation.prompt_ids(user(text))) for n, text in enumerate(texts)]
    job = tiny_job(tmp_path / "job", max_steps=1, batch_size=2, max_response_tokens=4)
    train_by_trl(model, conversation, objective, None, prompts, given_two, job)
    assert sorted(read) == sorted([*[prompts[0].ids] * 2, *[prompts[1].ids] * 2])


@pytest.mark.parametrize("max_steps", [-1, 2])
def test_fewer_prompts_than_a_step_has_are_refused(max_steps: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tiny: there are only 3 training prompts for a step of batch_size 8: lower"):
        seen_prompts(GRPO, tmp_path / "job", 3, max_steps=max_steps, batch_size=8)


@pytest.mark.parametrize("objective", [GRPO, RLOO])
def test_a_token_budget_makes_micro_batches_smaller(objective: Rewarded, tmp_path: Path) -> None:
    longest = max(len(prompt.ids) for prompt in some_prompts(8))
    for budget, prompts in ((1, 1), (2 * 2 * (longest + 4), 2), (2 * 2 * (longest + 4) - 1, 1), (None, 8)):
        runtime = {"max_tokens_per_batch": budget}
        _, trained = seen_prompts(objective, tmp_path / str(budget), 8, max_steps=1, runtime=runtime)
        assert trained.trainer.args.per_device_train_batch_size == prompts * 2  # answers
        assert trained.steps == 1


@pytest.mark.parametrize(
    ("objective", "sampled"), [({"kind": "grpo"}, 12), ({"kind": "rloo"}, 12), ({"kind": "ppo", "minibatches": 2}, 8)]
)
def test_a_plan_counts_the_prompts_of_whole_updates(objective: dict[str, Any], sampled: int) -> None:
    student = Student.model_validate({"objective": objective, "batch_size": 4, "num_train_epochs": 1.5})
    assert student.sampled_prompts(7) == sampled  # 10.5 prompts: 2.6 updates of 4, or 1.3 of 8


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("objective", [GRPO, RLOO])
def test_an_answer_ends_at_every_end_token_of_the_conversation(
    objective: Rewarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only at those that the model's generation config names: some models end turns with another one."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    conversation = Conversation(tokenizer, "chat", frozenset(range(200, 240)))
    answers: list[list[int]] = []

    def recorded(*arguments: Any) -> Any:
        reward = reward_function(*arguments)

        def record(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
            answers.extend(completion_ids)
            return reward(completion_ids=completion_ids, **columns)

        return record

    monkeypatch.setattr("aligndistill.training.on_policy.trl.reward_function", recorded)
    job = tiny_job(tmp_path / "job", max_steps=1, batch_size=4, max_response_tokens=12)
    before = deepcopy(model.generation_config.eos_token_id)
    train_by_trl(model, conversation, objective, None, some_prompts(4), given_two, job)
    ends = [[place for place, token in enumerate(ids) if token in conversation.eos_ids] for ids in answers]
    assert any(ends)
    assert all(found in ([], [len(ids) - 1]) for found, ids in zip(ends, answers, strict=True))
    assert model.generation_config.eos_token_id in (before, [before])  # what is saved with the student


@pytest.mark.parametrize("objective", [GRPO, RLOO])
def test_an_answer_of_a_transcript_ends_where_the_next_human_turn_starts(objective: Rewarded, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    conversation = Conversation(tokenizer, "transcript", generation_eos_ids(model))
    written = tokenizer(" No.\n\nHuman: What?", add_special_tokens=False).input_ids
    kept = tokenizer(" No.\n\nHuman:", add_special_tokens=False).input_ids
    assert written[: len(kept)] == kept

    def generate(input_ids: Tensor, **settings: Any) -> Tensor:
        return torch.cat([input_ids, torch.tensor(written).expand(len(input_ids), -1)], 1)

    model.generate = generate
    asked: list[SampledPrompt] = []

    def score(given: Sequence[SampledPrompt]) -> list[list[float | None]]:
        asked.extend(given)
        return given_two(given)

    prompts = [PolicyPrompt(str(n), user(text), conversation.prompt_ids(user(text))) for n, text in enumerate(QUESTIONS[:2])]
    job = tiny_job(tmp_path / "job", max_steps=1, batch_size=2, max_response_tokens=40)
    trained = train_by_trl(model, conversation, objective, None, prompts, score, job)
    assert [(one.texts, one.finishes) for one in asked] == [(("No.", "No."), ("stop", "stop"))] * 2
    assert trained.log[0]["completions/max_length"] == len(kept)
    assert trained.log[0]["reward"] == 1.5  # no penalty


# ----------------------------------------------------------------------------------------------------------- reference


@pytest.mark.parametrize("objective", [Grpo(kind="grpo", samples_per_prompt=2), Rloo(kind="rloo", samples_per_prompt=2)])
def test_the_reference_is_the_revision_that_is_trained(
    objective: Rewarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = import_module(f"trl.trainer.{objective.kind}_trainer")
    load = module.create_model_from_path
    loaded: list[tuple[str, dict[str, Any]]] = []

    def create(path: str, **keywords: Any) -> Any:
        loaded.append((path, keywords))
        return load(path, **keywords)

    monkeypatch.setattr(module, "create_model_from_path", create)
    folder = write_tiny_model(tmp_path / "start")
    start = ModelPointer(path=str(folder), revision="abc123", layout="chat", trust_remote_code=True)
    model = from_pretrained(AutoModelForCausalLM, start.for_training(adapters=False))
    conversation = Conversation(tiny_tokenizer(), "chat", generation_eos_ids(model))
    job = tiny_job(tmp_path / "job", max_steps=1, batch_size=2, max_response_tokens=4)
    train_by_trl(model, conversation, objective, None, some_prompts(2), given_two, job, start)
    ((path, keywords),) = loaded
    assert (path, keywords["revision"], keywords["trust_remote_code"]) == (str(folder), "abc123", True)
    assert "model_init_kwargs" not in caplog.text  # TRL says that it ignores them, and does not
