"""PPO on a problem whose solution is known: answers of one token, among five.

The policy that maximises E[r(y)] - beta KL(policy || reference) is reference(y) exp(r(y) / beta), normalised.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aligndistill.config.objectives import Ppo
from aligndistill.models.load import LanguageModel
from aligndistill.training.on_policy.collecting import PpoWork
from aligndistill.training.on_policy.ppo import train_ppo
from aligndistill.training.on_policy.rollouts import SampledPrompt
from tests.tiny_models import tiny_job, tiny_language_model, tiny_tokenizer
from tests.training.on_policy.tiny_ppo import policy_prompts

LETTERS = "abcde"
REFERENCE = torch.tensor([0.1, 0.35, 0.3, 0.2, 0.05])
REWARDS = dict(zip(LETTERS, [1.0, 0.2, 0.6, -0.5, 0.9], strict=True))
CASES = [(1.0, 1.0), (0.3, 1.0), (0.5, 0.6)]


def bandit() -> LanguageModel:
    """A model that answers the one question with one of five letters; its head has a row for each, so any odds can be learned."""
    policy = tiny_language_model("llama", num_hidden_layers=1, tie_word_embeddings=False)
    model = policy.model
    (prompt,) = policy_prompts(policy, ["No?"])
    with torch.no_grad():
        hidden_H = model.base_model(input_ids=torch.tensor([prompt.ids])).last_hidden_state[0, -1]
        logits_V = torch.full((model.config.vocab_size,), -30.0)
        logits_V[letter_ids()] = REFERENCE.log()
        model.lm_head.weight.copy_(logits_V.unsqueeze(1) * hidden_H / hidden_H.square().sum())
    return policy


def letter_ids() -> list[int]:
    ids = [tiny_tokenizer()(letter, add_special_tokens=False).input_ids for letter in LETTERS]
    assert all(len(one) == 1 for one in ids)
    return [one[0] for one in ids]


def odds(policy: LanguageModel, temperature: float) -> Tensor:
    """The probabilities of the five letters."""
    (prompt,) = policy_prompts(policy, ["No?"])
    with torch.no_grad():
        logits_V = policy.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1].double()
    return (logits_V / temperature).softmax(-1)[letter_ids()]


def score(asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
    return [[REWARDS.get(text, -9.0) for text in one.texts] for one in asked]


def learn(folder: Path, beta: float, temperature: float) -> tuple[float, float]:
    """Total variation from the optimum at the start, and after PPO."""
    policy, reference = bandit(), bandit()
    settings = Ppo(
        kind="ppo",
        critic="shared",
        samples_per_prompt=64,
        temperature=temperature,
        kl_coefficient=beta,
        missing_eos_penalty=0.0,
        ppo_epochs=2,
    )
    job = tiny_job(
        folder,
        runtime={"per_device_train_batch_size": 8, "save_steps": 1000},
        learning_rate=2e-2,
        lr_scheduler_type="linear",
        batch_size=2,
        max_steps=40,
        max_response_tokens=1,
    )
    start = odds(reference, temperature)
    assert start.sum() == pytest.approx(1, abs=1e-6)
    optimum = start * (torch.tensor([REWARDS[letter] for letter in LETTERS]) / beta).exp()
    optimum /= optimum.sum()
    work = PpoWork(policy_prompts(policy, ["No?"]), reference, score, None, lambda update, rollouts: None)
    train_ppo(policy, None, settings, None, work, job)
    learned = odds(policy, temperature)
    return float((start - optimum).abs().sum() / 2), float((learned - optimum).abs().sum() / 2)


@pytest.mark.parametrize(("beta", "temperature"), CASES)
def test_it_finds_the_optimum(beta: float, temperature: float, tmp_path: Path) -> None:
    before, after = learn(tmp_path, beta, temperature)
    assert before > 0.15
    assert after < 0.05
