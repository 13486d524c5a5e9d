"""What the processes of an update must agree on."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from aligndistill.config.objectives import Ppo
from aligndistill.models.conversation import Conversation
from aligndistill.models.sampling import Sampled
from aligndistill.training.on_policy import collecting
from aligndistill.training.on_policy.collecting import Collector, PpoWork
from aligndistill.training.on_policy.rollouts import PolicyPrompt, RolloutSettings
from tests.models.chat_families import tokenizer_of
from tests.tiny_models import user
from tests.training.as_processes import as_processes


def collector(rank: int, win_rate: Any = None) -> Collector:
    """Of a process that has none of the update's prompts."""
    policy: Any = SimpleNamespace(batches=lambda groups, size: [], conversation=SimpleNamespace(response_text=None), rank=rank)
    work = PpoWork([], policy, lambda asked: [], win_rate, lambda update, rollouts: None)
    accelerator = SimpleNamespace(process_index=rank, num_processes=2, autocast=nullcontext)
    model: Any = SimpleNamespace(critic=policy)
    work.reference.model = SimpleNamespace(parameters=list)  # type: ignore[union-attr]
    return Collector(
        Ppo(kind="ppo", evaluate_every=1), model, policy, work, RolloutSettings(1, 1.0, 4, 2, 0), accelerator, nullcontext
    )


def test_log_probs_of_sampling_are_kept_only_where_every_process_found_them_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ([True, True], [True, False], [False, True], [False, False]):
        monkeypatch.setattr(collecting, "sampling_is_training", lambda policy, *rest, found=found: found[policy.rank])
        agreed = as_processes(monkeypatch, 2, lambda rank: collector(rank).collect(0, [], None).keeps_logprobs)
        assert agreed == [all(found)] * 2


def test_a_win_rate_that_could_not_be_read_is_not_logged() -> None:
    assert collector(0, lambda policy: 0.0).collect(0, [], keeps=True).metrics["held_out_win_rate"] == 0
    assert "held_out_win_rate" not in collector(0, lambda policy: None).collect(0, [], keeps=True).metrics


def test_what_is_scored_is_the_answer_and_not_the_thoughts_in_front_of_it() -> None:
    tokenizer = tokenizer_of("qwen3")
    of_process = collector(0)
    of_process.policy.conversation = Conversation(tokenizer, "chat")  # type: ignore[misc]
    prompt = PolicyPrompt("0", user("Hi"), of_process.policy.conversation.prompt_ids(user("Hi")))
    texts = ("<think>\nRome?\n</think>\n\nNo.<|im_end|>", "No.<|im_end|>", "<think>\nRome?")
    drawn = [Sampled(tokenizer(text, add_special_tokens=False).input_ids, [], "stop") for text in texts]
    (asked,) = of_process._as_asked([prompt], [drawn])
    assert asked.texts == ("No.", "No.", "")
