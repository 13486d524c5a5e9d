"""What TRL's trainers make of answers that have no score."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import pytest

from aligndistill.config.objectives import Grpo, Rewarded, Rloo
from aligndistill.models.conversation import Conversation
from aligndistill.training.on_policy.rollouts import PolicyPrompt, SampledPrompt
from aligndistill.training.on_policy.trl import reward_function, train_by_trl
from tests.models.chat_families import tokenizer_of
from tests.tiny_models import QUESTIONS, tiny_job, tiny_language_model, user

PENALTY = 3.0


def some_prompts(count: int) -> list[PolicyPrompt]:
    conversation = tiny_language_model().conversation
    return [PolicyPrompt(str(n), user(text), conversation.prompt_ids(user(text))) for n, text in enumerate(QUESTIONS[:count])]


def test_an_answer_without_a_score_gets_neither_a_reward_nor_the_penalty() -> None:
    conversation = tiny_language_model().conversation
    (end, *_) = conversation.eos_ids
    scores: list[list[float | None]] = [[1.0, 3.0, None], [None, None]]
    reward = reward_function(conversation, some_prompts(2), lambda asked: scores, PENALTY)
    found = reward(completion_ids=[[5, end], [5, 6], [5, 6], [5, 6], [5, end]], place=[0, 0, 0, 1, 1])
    assert found == [1.0, 0.0, None, None, None]


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
    assert reward_function(conversation, prompts, score, PENALTY)(completion_ids=ids, place=[0, 0, 0]) == [1.0, 1.0, -2.0]
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
