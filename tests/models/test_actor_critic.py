"""Log-probabilities, entropy and values of every token, against plain transformers on one unpadded row at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aligndistill.config.models import Lora
from aligndistill.models import logprobs as logprobs_module
from aligndistill.models.actor_critic import (
    ActorCritic,
    Outputs,
    critic_from_backbone,
    critic_from_reward_model,
    outputs,
    token_values,
)
from aligndistill.models.groups import GroupedBatch, TokenGroup, collate
from aligndistill.models.load import ModelPointer
from aligndistill.models.logprobs import read_logits
from aligndistill.models.reward import RewardModel, new_reward_model, score_rewards
from aligndistill.training.adapters import with_adapters
from tests.tiny_models import random_groups, tiny_language_model, write_tiny_model

GROUPS = random_groups([(7, [4, 6, 1]), (3, [25, 2]), (9, [38])], seed=2)  # 76 tokens; chunks of the head hold 64 at least
TEMPERATURE = 0.7


@dataclass
class Plain:
    """What one row at a time says, one tensor per response, in the order of the groups."""

    logprobs: list[Tensor]
    entropy: list[Tensor]
    hidden: list[Tensor]


def plainly(model: Any, temperature: float) -> Plain:
    found = Plain([], [], [])
    for group in GROUPS:
        for response in group.responses:
            output = model(input_ids=torch.tensor([group.prompt + response]), output_hidden_states=True)
            before = slice(len(group.prompt) - 1, len(group.prompt) - 1 + len(response))
            softmax = torch.distributions.Categorical(logits=output.logits[0, before].double() / temperature)
            found.logprobs.append(softmax.log_prob(torch.tensor(response)))
            found.entropy.append(softmax.entropy())
            found.hidden.append(output.hidden_states[-1][0, before])
    return found


def rows(values_BKR: Tensor) -> list[Tensor]:
    """The real tokens of each response; the rest must be 0."""
    found = []
    for b, group in enumerate(GROUPS):
        for k, response in enumerate(group.responses):
            found.append(values_BKR[b, k, : len(response)])
            assert not values_BKR[b, k, len(response) :].any()
        assert not values_BKR[b, len(group.responses) :].any()
    return found


def require_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(torch.cat(found).double(), torch.cat(expected).double(), rtol=tolerance, atol=tolerance)


def actor(shape: str, critic: Any = None) -> ActorCritic:
    model = ActorCritic(tiny_language_model(shape).model, critic)
    if model.value_head is not None:
        torch.manual_seed(1)
        torch.nn.init.normal_(model.value_head.weight)
        torch.nn.init.normal_(model.value_head.bias)
    return model


def pointer(folder: Path) -> ModelPointer:
    return ModelPointer(path=str(folder), layout="chat")


@pytest.mark.parametrize("temperature", [1.0, TEMPERATURE])
@pytest.mark.parametrize(
    ("shape", "share"), [("llama", True), ("llama", False), ("gpt2", True), ("gemma2", False), ("mistral_window", False)]
)
@pytest.mark.parametrize("chunks", [False, True])
def test_a_value_head_on_the_backbone(
    shape: str, share: bool, temperature: float, chunks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunks:
        monkeypatch.setattr(logprobs_module, "HEAD_ELEMENTS", 1)
    model = actor(shape)
    assert model.value_head is not None
    expected = plainly(model.policy, temperature)
    values = [model.value_head(hidden).squeeze(-1) for hidden in expected.hidden]
    found = outputs(model, collate(GROUPS, 0, share), share, temperature)
    require_close(rows(found.logprobs_BKR), expected.logprobs)
    require_close(rows(found.entropy_BKR), expected.entropy)
    require_close(rows(found.values_BKR), values)

    def weighted(*parts: list[Tensor]) -> Tensor:
        """A number in which every token of every kind has a weight of its own."""
        flat = torch.cat([torch.cat(part).double() for part in parts])
        return (flat * torch.arange(1, len(flat) + 1)).sum() / 100

    ours = weighted(rows(found.logprobs_BKR), rows(found.entropy_BKR), rows(found.values_BKR))
    theirs = weighted(expected.logprobs, expected.entropy, values)
    parameters = list(model.parameters())
    for one, other in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        assert float((one - other).abs().max() / other.abs().max().clamp(min=1)) < 1e-4


@pytest.mark.parametrize(("shape", "share"), [("llama", True), ("llama", False), ("gemma2", False)])
def test_a_critic_of_its_own_changes_nothing_about_the_policy(shape: str, share: bool, tmp_path: Path) -> None:
    critic = new_reward_model(pointer(write_tiny_model(tmp_path, shape, seed=5)), seed=1)
    model = actor(shape, critic.model)
    batch = collate(GROUPS, 0, share)
    found = outputs(model, batch, share, TEMPERATURE)
    expected = plainly(model.policy, TEMPERATURE)
    require_close(rows(found.logprobs_BKR), expected.logprobs)
    require_close(rows(found.entropy_BKR), expected.entropy)
    values = [value for group in GROUPS for value in values_by_hand(critic, group)]
    require_close(rows(found.values_BKR), values)
    assert torch.equal(token_values(model, batch, share), found.values_BKR)


def values_by_hand(critic: RewardModel, group: TokenGroup) -> list[Tensor]:
    """Backbone and head on one row, read at the place before each token."""
    found = []
    for response in group.responses:
        hidden_TH = critic.model.base_model(input_ids=torch.tensor([group.prompt + response])).last_hidden_state[0]
        found.append(critic.model.score(hidden_TH[len(group.prompt) - 1 : -1]).squeeze(-1))
    return found


@pytest.mark.parametrize("share", [True, False])
def test_a_critic_that_begins_as_the_reward_model_expects_its_score_of_what_is_written_so_far(share: bool, tmp_path: Path) -> None:
    """The value at a token is that of the state before it: so it is the reward of the response up to, and without, that token."""
    reward_model = new_reward_model(pointer(write_tiny_model(tmp_path / "backbone")), seed=1)
    reward_model.model.save_pretrained(tmp_path / "reward")
    reward_model.conversation.tokenizer.save_pretrained(tmp_path / "reward")
    critic = critic_from_reward_model(pointer(tmp_path / "reward"))
    values_BKR = token_values(actor("llama", critic.model), collate(GROUPS, 0, share), share)
    for b, group in enumerate(GROUPS):
        for k, response in enumerate(group.responses):
            written = TokenGroup(group.prompt, [response[:length] for length in range(1, len(response))])
            if written.responses:
                (scored,) = score_rewards(reward_model, [written], 4)
                assert values_BKR[b, k, 1 : len(response)].tolist() == pytest.approx(scored.rewards, abs=1e-5)
            # Before the first token nothing is written, and the prompt itself is what the reward model reads.
            (of_prompt,) = score_rewards(reward_model, [TokenGroup(group.prompt[:-1], [group.prompt[-1:]])], 1)
            assert values_BKR[b, k, 0].item() == pytest.approx(of_prompt.rewards[0], abs=1e-5)


def test_a_critic_from_a_reward_model_of_the_mean_reads_each_token(tmp_path: Path) -> None:
    values = {}
    for pooling in ("last", "mean"):
        reward_model = new_reward_model(pointer(write_tiny_model(tmp_path / "backbone")), seed=1, pooling=pooling)
        reward_model.model.save_pretrained(tmp_path / pooling)
        reward_model.conversation.tokenizer.save_pretrained(tmp_path / pooling)
        critic = critic_from_reward_model(pointer(tmp_path / pooling))
        values[pooling] = token_values(actor("llama", critic.model), collate(GROUPS, 0, True), True)
    torch.testing.assert_close(values["mean"], values["last"])


def test_without_a_reward_model_a_critic_begins_at_zero(tmp_path: Path) -> None:
    batch = collate(GROUPS, 0, True)
    separate = ActorCritic(tiny_language_model().model, critic_from_backbone(pointer(write_tiny_model(tmp_path)), seed=0).model)
    shared = ActorCritic(tiny_language_model().model, None)
    for model in (separate, shared):
        assert not outputs(model, batch, True, 1.0).values_BKR.any()
    assert torch.equal(outputs(separate, batch, True, 1.0).logprobs_BKR, outputs(shared, batch, True, 1.0).logprobs_BKR)


def test_adapters_on_both_give_what_the_bare_models_give(tmp_path: Path) -> None:
    """New adapters change nothing, whichever wrapper runs the forward pass."""
    lora = Lora(r=2)
    folder = write_tiny_model(tmp_path)

    def both(lora: Lora | None) -> Outputs:
        critic = new_reward_model(pointer(folder), seed=1).model
        model = ActorCritic(
            with_adapters(tiny_language_model().model, lora, "CAUSAL_LM", 0), with_adapters(critic, lora, "SEQ_CLS", 0)
        ).eval()
        return outputs(model, collate(GROUPS, 0, True), True, TEMPERATURE)

    for name, values_BKR in vars(both(None)).items():
        torch.testing.assert_close(vars(both(lora))[name], values_BKR, msg=name)


def test_a_forbidden_token_has_no_part_in_the_entropy() -> None:
    logits_SV = torch.tensor([[0.5, -torch.inf, 1.5], [2.0, 2.0, -torch.inf]], requires_grad=True)
    logprobs_S, entropy_S = read_logits(logits_SV, torch.tensor([0, 1]), 2.0, entropy=True)
    p = 1 / (1 + torch.tensor(0.5).exp())
    expected = torch.tensor([-(p * p.log() + (1 - p) * (1 - p).log()), torch.tensor(2.0).log()])
    torch.testing.assert_close(entropy_S, expected)
    torch.testing.assert_close(logprobs_S, torch.stack([p.log(), torch.tensor(0.5).log()]))
    (gradient,) = torch.autograd.grad(entropy_S.sum() + logprobs_S.sum(), logits_SV)
    assert bool(gradient.isfinite().all())


def test_a_batch_on_one_row_or_many_is_the_same_batch() -> None:
    """`GroupedBatch` of one group at a time: no response sees another's group."""
    model = actor("llama")
    whole = outputs(model, collate(GROUPS, 0, True), True, 1.0)
    for b, group in enumerate(GROUPS):
        batch: GroupedBatch = collate([group], 0, True)
        alone = outputs(model, batch, True, 1.0)
        width = batch.tokens_BKR.shape[2]
        for name, values_BKR in vars(alone).items():
            torch.testing.assert_close(
                vars(whole)[name][b : b + 1, : len(group.responses), :width], values_BKR, rtol=1e-4, atol=1e-5
            )
