"""KTO's baseline: how far the policy has moved from the reference on responses that belong to other prompts.

Each example has one mismatched pair, fixed before training: its prompt with a response to the next prompt of the data. So the
reference's log-probabilities of the pairs are computed once and cached, like all others, and the pairs depend on neither the order
of training nor the split into micro-batches and processes. The baseline of an optimiser step is the mean log-ratio of the pairs of
all its prompts, measured without gradient before the step's first micro-batch.

Pairs rotate over prompts, not over responses: the mismatched response is never one of the prompt's own, however small or uneven a
batch is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aligndistill.config.offline_objectives import LEAST_PROMPTS, Kto
from aligndistill.errors import DataError
from aligndistill.models.groups import TokenGroup, collate
from aligndistill.models.logprobs import token_logprobs
from aligndistill.models.prompt_sharing import to_device
from aligndistill.objectives.kto import desirability
from aligndistill.training.offline.examples import Example, Mismatched, padded
from aligndistill.training.offline.token_dataset import OnDiskSequence
from aligndistill.training.offline.trainer import MeanOfStep, split_by_length

_CHUNK = 4096
"""Rankings that are looked at together."""


@dataclass(frozen=True)
class MismatchedGroups(OnDiskSequence[TokenGroup]):
    """Each group's prompt with one response to another prompt.

    Responses take turns: example i gets the one of rank i, modulo their number, so that good and bad ones both occur, as in the
    authors' code and in TRL.

    Attributes:
        groups: the training data.
        others: for each group, whose response it gets.
        positions: the model's limit on prompt and response together: a response is cut there, as in `tokenise_one`.
    """

    groups: Sequence[TokenGroup]
    others: Sequence[int]
    positions: int | None

    def __len__(self) -> int:
        return len(self.others)

    def item(self, index: int) -> TokenGroup:
        """Read both groups."""
        prompt, responses = self.groups[index].prompt, self.groups[self.others[index]].responses
        room = None if self.positions is None else self.positions - len(prompt)
        return TokenGroup(prompt, [responses[index % len(responses)][:room]])


@dataclass(frozen=True)
class MismatchedPairs(OnDiskSequence[Mismatched]):
    """Mismatched groups with the reference's log-probs."""

    groups: Sequence[TokenGroup]
    reference: Sequence[list[float]]

    def __len__(self) -> int:
        return len(self.groups)

    def item(self, index: int) -> Mismatched:
        """Read one group."""
        return Mismatched(self.groups[index], self.reference[index][0])


def mismatched_groups(groups: Sequence[TokenGroup], positions: int | None) -> MismatchedGroups:
    """Pair each group with the next one that has another prompt; after the last comes the first.

    Raises:
        DataError: there are not enough prompts.
    """
    prompts = [hash(tuple(group.prompt)) for group in groups]  # the ids themselves would fill the memory
    if len(prompts) < LEAST_PROMPTS or len(set(prompts)) < 2:
        raise DataError(
            f"kto pairs each prompt with an answer to another one, in steps of {LEAST_PROMPTS} prompts or more, but there are only "
            f"{len(prompts)} training rankings with {len(set(prompts))} different prompts. Add prompts, or use another objective."
        )
    others = [0] * len(prompts)
    following = next(i for i, prompt in enumerate(prompts) if prompt != prompts[-1])
    for i in reversed(range(len(prompts))):
        if i + 1 < len(prompts) and prompts[i + 1] != prompts[i]:
            following = i + 1
        others[i] = following
    return MismatchedGroups(groups, others, positions)


def in_whole_steps(count: int, batch_size: int) -> int:
    """How many of the examples to train on so that the last step of an epoch has enough prompts for a baseline, too."""
    last = count % batch_size
    return count - last if last < LEAST_PROMPTS else count


def baseline_of_step(pad_id: int) -> MeanOfStep:
    """A function that measures a process's part of a step's baseline, in the examples' mismatched pairs."""

    def measure(model: Any, examples: Sequence[Example], counted: int, parts: int, device: torch.device) -> Tensor:
        pairs = [example.mismatched for example in examples if example.mismatched is not None]
        assert len(pairs) == len(examples), "each example has a mismatched pair"
        return summed_log_ratios(model, pairs, counted, parts, pad_id, device)

    return measure


@torch.no_grad()
def summed_log_ratios(
    model: Any, pairs: Sequence[Mismatched], counted: int, parts: int, pad_id: int, device: torch.device
) -> Tensor:
    """The sum of log(policy / reference) over the pairs that count, nats, and their number: (2,), float64.

    The model is left in evaluation mode; the trainer switches training mode on before each micro-batch.

    Args:
        counted: the first ones count. There are others only where there is one pair for each pass.
        parts: forward passes, in each process the same number: under ZeRO-3 a pass is a collective call.
    """
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    for indices in split_by_length([one.group.tokens(share=False) for one in pairs], parts):
        chosen = [pairs[i] for i in indices]
        batch = to_device(collate([one.group for one in chosen], pad_id, share=False), device)
        policy_B = token_logprobs(model, batch, share=False).sum(dim=(1, 2))
        reference_B = torch.tensor([one.reference for one in chosen], device=device)
        if indices[0] < counted:
            total += (policy_B - reference_B).double().sum()
    return torch.stack([total, torch.full_like(total, counted)])


def with_weights(objective: Kto, examples: Sequence[Example]) -> Kto:
    """The objective with numbers in place of `auto`.

    Desirable and undesirable responses then weigh the same in the training data, counted as the loss counts them, each prompt once.
    Where both weights are `auto`, their mean over all labels is 1.

    Raises:
        DataError: a kind of response whose weight is needed does not occur.
    """
    desirable = undesirable = 0.0
    for start in range(0, len(examples), _CHUNK):
        rows = [one.scores for one in examples[start : start + _CHUNK]]
        lengths_B1 = torch.tensor([len(row) for row in rows]).unsqueeze(1)
        scores_BK = padded(rows)
        valid_BK = torch.arange(scores_BK.shape[1]) < lengths_B1
        as_desirable_BK, as_undesirable_BK = desirability(scores_BK, valid_BK, objective.labels, objective.margin or 0.0)
        desirable += float(as_desirable_BK.double().sum())
        undesirable += float(as_undesirable_BK.double().sum())
    found = {"desirable": desirable, "undesirable": undesirable}
    for kind, count in found.items():
        if not count and (getattr(objective, f"{kind}_weight") == "auto" or not any(found.values())):
            raise DataError(
                f"kto found no {kind} answer in {len(examples)} training rankings. With split: margin that may be the margin "
                f"({objective.margin or 0:g}): lower it or set split: mean. Or give a number as {kind}_weight."
            )
    half = (desirable + undesirable) / 2
    match objective.desirable_weight, objective.undesirable_weight:
        case "auto", "auto":
            weights = half / desirable, half / undesirable
        case "auto", float(given):
            weights = given * undesirable / desirable, given
        case float(given), "auto":
            weights = given, given * desirable / undesirable
        case _:
            return objective
    return objective.model_copy(update={"desirable_weight": weights[0], "undesirable_weight": weights[1]})
