"""Training a student on a teacher's next-token distributions: both read the same tokens, and their logits are compared position by
position.

A live teacher is one frozen copy in every process, sharded under ZeRO-3. Its states are computed once per micro-batch; its logits
only beside the student's, a chunk of positions at a time, and again in the backward pass. Of a stored teacher, the likeliest tokens
are read with the examples.

Where hidden states are compared, too, the student's are projected to the teacher's width by matrices that are trained, resumed and
sharded with the student, and are no part of it: DistillKit's are saved inside of the student.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Distil, Divergent, HiddenStates
from aligndistill.errors import ConfigError, DataError
from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import GroupedBatch, TokenGroup
from aligndistill.models.layer_states import ProjectedPolicy, captured_states, decoder_layers, states_at_tokens
from aligndistill.models.load import LanguageModel
from aligndistill.models.logprobs import Beside, grouped_forward, logprobs_beside
from aligndistill.models.scoring import states_and_head
from aligndistill.models.vocabulary import SharedVocabulary
from aligndistill.objectives.distil import Distilled, distil
from aligndistill.objectives.divergences import Dense, TopK, divergence, gradient_scale
from aligndistill.objectives.hidden_states import hidden_distance
from aligndistill.objectives.inputs import Loss
from aligndistill.training.adapters import with_adapters
from aligndistill.training.fit import Trained, TrainingJob
from aligndistill.training.frozen import gathered
from aligndistill.training.offline.examples import Collator, Example, MicroBatch
from aligndistill.training.offline.teacher_tokens import KnownCollator
from aligndistill.training.offline.trainer import GroupedTrainer, _train, tokens
from aligndistill.training.policy_module import PolicyModuleTrainer


@dataclass(frozen=True)
class LiveTeacher:
    """A teacher in memory, frozen."""

    model: LanguageModel
    vocabulary: SharedVocabulary

    def __post_init__(self) -> None:
        self.model.model.requires_grad_(False)

    @property
    def sharded(self) -> Any:
        """The model that ZeRO-3 shards; None if its rows go through one by one, in each process other numbers of them."""
        return self.model.model if self.model.shares_prompt else None

    @cached_property
    def rows(self) -> int:
        """How many ids have an embedding."""
        return len(self.model.model.get_input_embeddings().weight)

    def readable(self, ids: list[int]) -> list[int]:
        """An answer up to the first token that the teacher does not have. That token is part of it, since it is predicted."""
        unshared = self.vocabulary.unshared
        return next((ids[: n + 1] for n, id in enumerate(ids) if id >= self.rows or id in unshared), ids)


@dataclass(frozen=True)
class StoredTeacher:
    """What the examples (`teacher_tokens.KnownExamples`) know of a teacher. `width`: ids below this count."""

    vocabulary: SharedVocabulary
    width: int


def train_distilled(
    policy: LanguageModel,
    teacher: LiveTeacher | StoredTeacher,
    objective: Distil,
    lora: Lora | None,
    examples: Sequence[Example],
    job: TrainingJob,
) -> Trained:
    """Train a policy on a teacher's distributions over the tokens of given responses, ranked best first.

    Raises:
        ConfigError: hidden states are compared in a layer that does not exist.
    """
    scale, hidden = gradient_scale(objective.divergence, objective.temperature), objective.hidden
    hidden_weight = hidden.weight if hidden is not None else 0.0

    def loss_of_batch(model: Any, batch: GroupedBatch, tensors: MicroBatch) -> Loss:
        logprobs_S, divergence_S, hidden_S = _compared(model, teacher, objective, batch, tensors)
        imitated_S = _of_best(batch) if objective.on == "all" else torch.ones_like(batch.targets_S, dtype=torch.bool)
        distilled = Distilled(divergence_S, logprobs_S, imitated_S, hidden_S)
        return distil(distilled, sft_weight=objective.sft_weight, scale=scale, hidden_weight=hidden_weight)

    model = with_adapters(policy.model, lora, "CAUSAL_LM", job.seed)
    collator: Collator = KnownCollator(policy.conversation.pad_id, policy.shares, policy.shares_prompt)
    sharded, trainer = None, GroupedTrainer
    if isinstance(teacher, LiveTeacher):
        collator, sharded = collator_for_both(policy, teacher.model), teacher.sharded
        if hidden is not None:
            model, trainer = _projected(model, teacher, hidden, job.seed), ProjectedPolicyTrainer
    return _train(model, policy.conversation.tokenizer, loss_of_batch, tokens, collator, examples, job, None, sharded, trainer)


class ProjectedPolicyTrainer(PolicyModuleTrainer, GroupedTrainer):
    """Trains a student with the projections of its hidden states."""


def save_projections(trained: Trained, file: Path) -> None:
    """Write the projections of a student, if it has any: for each pair `STUDENT-TEACHER.weight`, (H teacher, H student).

    A collective call.
    """
    model = trained.trainer.model
    if not isinstance(model, ProjectedPolicy) or not model.projections:
        return
    with gathered([model.projections]):
        if trained.trainer.args.should_save:
            save_file({name: weight.contiguous() for name, weight in model.projections.state_dict().items()}, file)


def _projected(policy: Any, teacher: LiveTeacher, hidden: HiddenStates, seed: int) -> ProjectedPolicy:
    taught_by = teacher.model.model
    if reason := hidden.missing_layer(len(decoder_layers(policy)), len(decoder_layers(taught_by))):
        raise ConfigError(f"objective.hidden.layers: {reason}")
    return ProjectedPolicy(policy, hidden.layers, taught_by.config.get_text_config().hidden_size, seed)


def _compared(
    model: Any, teacher: LiveTeacher | StoredTeacher, objective: Distil, batch: GroupedBatch, tensors: MicroBatch
) -> tuple[Tensor, Tensor, Tensor | None]:
    """logprobs_S, divergence_S and, if it is asked for, the distance of the hidden states."""
    hidden = objective.hidden
    if hidden is None or isinstance(teacher, StoredTeacher):
        return *logprobs_beside(model, batch, tensors["share"], beside(teacher, objective, batch, tensors)), None
    with captured_states(teacher.model.model, [layer for _, layer in hidden.layers]) as captured:
        compared = beside(teacher, objective, batch, tensors)
    teachers = [states_at_tokens(captured[layer], batch) for _, layer in hidden.layers]
    logprobs_S, divergence_S, *students = grouped_forward(model, batch, tensors["share"], beside=compared)
    return logprobs_S, divergence_S, hidden_distance(students, teachers, hidden.kind)


def collator_for_both(policy: LanguageModel, teacher: LanguageModel) -> Collator:
    """Batches in which rows share their prompt only if both models can do that, and it is cheaper for both."""

    def shares(groups: Sequence[TokenGroup]) -> bool:
        return policy.shares(groups) and teacher.shares(groups)

    return Collator(policy.conversation.pad_id, shares, policy.shares_prompt and teacher.shares_prompt)


def beside(teacher: LiveTeacher | StoredTeacher, objective: Divergent, batch: GroupedBatch, tensors: MicroBatch) -> Beside:
    """The teacher at the response tokens of a micro-batch."""
    kind, vocabulary = objective.divergence, teacher.vocabulary
    alone = not (isinstance(objective, Distil) and objective.sft_weight)  # on-policy, there are no examples to imitate
    settings = {"beta": objective.beta, "skew": objective.skew, "temperature": objective.temperature}
    if isinstance(teacher, LiveTeacher):

        def compare(logits_CV: Tensor, teacher_CV: Tensor) -> Tensor:
            student_CV, target_CV = vocabulary.cut(logits_CV, teacher_CV)
            return divergence(student_CV, Dense(target_CV), kind, **settings)

        return Beside(*states_and_head(teacher.model, batch, tensors["share"]), compare, alone)

    width, known = teacher.width, TopK(tensors["known_ids_Sk"], tensors["known_logps_Sk"], tensors["known_tail_S"])

    def compare_known(logits_CV: Tensor, places_C: Tensor) -> Tensor:
        target = TopK(known.ids_Sk[places_C], known.logps_Sk[places_C], known.log_tail_S[places_C])
        return divergence(vocabulary.restricted(logits_CV, width), target, kind, **settings)

    places_S = torch.arange(len(batch.targets_S), device=batch.targets_S.device)
    return Beside(places_S, lambda places_C: places_C, compare_known, alone)


def _of_best(batch: GroupedBatch) -> Tensor:
    """mask_S: the tokens of each prompt's first response."""
    first_K = torch.arange(batch.tokens_BKR.shape[1], device=batch.tokens_BKR.device) == 0
    return first_K.view(1, -1, 1).expand_as(batch.tokens_BKR)[batch.tokens_BKR]


def require_readable(
    groups: Sequence[TokenGroup], students: Conversation, teachers: Conversation, vocabulary: SharedVocabulary
) -> None:
    """The teacher knows every token of the data, and each model stops where the other ends its answers.

    Raises:
        DataError: a token is in one of the vocabularies only.
        ConfigError: an end token of one does not end the other's answers.
    """
    for one, other, names in ((students, teachers, ("student", "teacher")), (teachers, students, ("teacher", "student"))):
        if one.end_of_turn not in other.eos_ids:
            raise ConfigError(
                f"the {names[0]} ends its answers with {one.tokenizer.convert_ids_to_tokens(one.end_of_turn)!r}, at which the "
                f"{names[1]} does not stop: a student would learn not to end. Give both the same 'layout' and 'chat_template', or "
                "fine-tune the start in the teacher's format first."
            )
    for group in groups if vocabulary.unshared else ():
        for ids in (group.prompt, *group.responses):
            if (unknown := vocabulary.first_unshared(ids)) is not None:
                token = students.tokenizer.convert_ids_to_tokens(unknown)
                raise DataError(
                    f"the data have the token {token!r} (id {unknown}), which the teacher's tokenizer does not have. Take another "
                    "teacher, or a chat template without this token."
                )
