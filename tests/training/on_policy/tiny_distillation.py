"""On-policy distillation on models of a few thousand parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from aligndistill.config.models import Lora
from aligndistill.config.objectives import OnPolicyDistil
from aligndistill.models.load import LanguageModel
from aligndistill.models.sampling import Sampled
from aligndistill.models.vocabulary import SharedVocabulary
from aligndistill.training.fit import Trained
from aligndistill.training.offline.distillation import LiveTeacher
from aligndistill.training.on_policy.distillation import train_on_own_answers
from aligndistill.training.on_policy.rollouts import PolicyPrompt
from aligndistill.training.on_policy.served_teacher import ServedTeacher
from tests.tiny_models import tiny_job, tiny_language_model
from tests.training.on_policy.tiny_ppo import policy_prompts

SAME = SharedVocabulary(frozenset())


@dataclass
class Distilled:
    """A finished run: its result, and every update's prompts with their answers."""

    trained: Trained
    answers: list[list[tuple[PolicyPrompt, Sequence[Sampled]]]] = field(default_factory=list)

    @property
    def weights(self) -> dict[str, Tensor]:
        """What was trained."""
        model = self.trained.trainer.model
        return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}

    @property
    def ids(self) -> list[list[list[list[int]]]]:
        """Of each update, prompt and answer."""
        return [[[one.ids for one in samples] for _, samples in update] for update in self.answers]


def tiny_distillation(
    folder: Path,
    *,
    student: LanguageModel | None = None,
    teacher: LanguageModel | ServedTeacher | None = None,
    vocabulary: SharedVocabulary = SAME,
    reference: LanguageModel | None = None,
    lora: Lora | None = None,
    updates: int = 2,
    prompts: int = 8,
    runtime: dict[str, Any] | None = None,
    job: dict[str, Any] | None = None,
    **objective: Any,
) -> Distilled:
    """Eight questions (more repeat the first), three answers of up to eight tokens each."""
    settings = OnPolicyDistil(**{"kind": "on_policy_distil", "samples_per_prompt": 3, **objective})
    student, teacher = student or tiny_language_model(seed=0), teacher or tiny_language_model(seed=1)
    answers: list[list[tuple[PolicyPrompt, Sequence[Sampled]]]] = []
    trained = train_on_own_answers(
        student,
        LiveTeacher(teacher, vocabulary) if isinstance(teacher, LanguageModel) else teacher,
        settings,
        lora,
        (policy_prompts(student) * 2)[:prompts],
        lambda update, prompts, drawn: answers.append(list(zip(prompts, drawn, strict=True))),
        tiny_job(folder, runtime=runtime, **{"max_steps": updates, "max_response_tokens": 8, **(job or {})}),
        reference,
    )
    return Distilled(trained, answers)
