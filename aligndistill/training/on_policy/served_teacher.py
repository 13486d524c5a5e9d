"""A teacher behind a server: after an update's answers are written, it says how likely each of their tokens is.

That is all that the sampled form of on-policy distillation reads of a teacher, so nothing of it is in memory here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aligndistill.models.groups import GroupedBatch
from aligndistill.models.logprobs import grouped_forward
from aligndistill.models.vocabulary import SharedVocabulary
from aligndistill.objectives.inputs import Loss
from aligndistill.objectives.on_policy_distil import sampled_reverse_kl
from aligndistill.training.offline.examples import Collator, Example, MicroBatch

LogprobsOfAnswers = Callable[[Sequence[tuple[list[int], list[int]]]], list[list[float]]]
"""(prompt ids, answer ids) of each answer -> the teacher's log-probability of each of its tokens at temperature 1, nats."""


@dataclass(frozen=True)
class ServedTeacher:
    """A teacher on a server.

    Attributes:
        vocabulary: compared by the tokenizers of both.
        ids: those that are the same token in both. No others are sent.
        logprobs: asks the server.
    """

    vocabulary: SharedVocabulary
    ids: frozenset[int]
    logprobs: LogprobsOfAnswers

    def readable(self, ids: list[int]) -> list[int]:
        """See `LiveTeacher`."""
        return next((ids[: n + 1] for n, id in enumerate(ids) if id not in self.ids), ids)

    def read(self, examples: Sequence[Example]) -> list[Example]:
        """The examples, whose responses are `readable`, with the log-probability of each token; -inf for one that is not sent."""
        answers = [(example.group.prompt, response) for example in examples for response in example.group.responses]
        sent = [(prompt, ids if ids[-1] in self.ids else ids[:-1]) for prompt, ids in answers]
        found = [[*of_sent, -torch.inf][: len(ids)] for of_sent, (_, ids) in zip(self.logprobs(sent), answers, strict=True)]
        rows = iter(found)
        return [
            ReadExample(one.group, one.scores, teacher=torch.tensor([nats for _ in one.group.responses for nats in next(rows)]))
            for one in examples
        ]


@dataclass(frozen=True)
class ReadExample(Example):
    """An example with a teacher's log-probability of each response token, nats."""

    teacher: Tensor | None = None


@dataclass(frozen=True)
class ReadCollator(Collator):
    """Also collates `teacher_S`, in the order of the response tokens."""

    def __call__(self, examples: Sequence[Example]) -> MicroBatch:
        """Pad and stack."""
        tensors = super().__call__(examples)
        read = [one.teacher for one in examples if isinstance(one, ReadExample) and one.teacher is not None]
        tensors["teacher_S"] = torch.cat(read)
        return tensors


def loss_by_logprobs(model: Any, batch: GroupedBatch, tensors: MicroBatch, *, advantage_clip: float, scale: float) -> Loss:
    """`sampled_reverse_kl` of a micro-batch, with the student's entropy at each token as a metric."""
    logprobs_S, entropy_S = grouped_forward(model, batch, tensors["share"], entropy=True)
    loss = sampled_reverse_kl(logprobs_S, tensors["teacher_S"], advantage_clip=advantage_clip, scale=scale)
    return Loss(loss.value, loss.metrics | {"entropy_nats": entropy_S.detach()})
