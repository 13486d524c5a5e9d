"""A student: the start, aligned by one objective. The objective declares its inputs and its trainer."""

from collections.abc import Mapping
from pathlib import Path

from aligndistill.config.models import EndpointModel, FunctionModel, Lora
from aligndistill.config.run import AnswerSampling, Evaluation
from aligndistill.config.students import Student
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.store.stage import StageResult, trains


@trains
def make(
    context: StageContext,
    *,
    settings: Student,
    lora: Lora | None,
    seed: int,
    models: Mapping[str, ModelSource],
    start: Path,
    rankings: Path | None = None,
    prompts: Path | None = None,
    reference: Path | None = None,
    teacher: ModelSource | None = None,
    teacher_tokens: Path | None = None,
    reward_model: Path | None = None,
    critic: Path | None = None,
    start_answers: Path | None = None,
    evaluation: Evaluation | None = None,
    sampling: AnswerSampling | None = None,
) -> StageResult:
    """Train a student and save it as a Hugging Face folder.

    Args:
        models: the models that the judges of its reward, and of its evaluation during training, name.
        teacher: the model that is distilled, or
        teacher_tokens: what was stored of it.
        critic: the model that PPO's separate critic is initialised from.
        start_answers: the start's answers to the held-out prompts, to compare with during training, by `evaluation` and `sampling`.
    """
    match settings.objective.trainer:
        case "offline":
            from aligndistill.stages.offline_student import train_offline

            assert rankings is not None
            return train_offline(context, settings, lora, seed, start, rankings, reference)
        case "distil":
            from aligndistill.stages.distilled_student import train_by_teacher

            assert rankings is not None and not isinstance(teacher, EndpointModel | FunctionModel)
            return train_by_teacher(context, settings, lora, seed, start, rankings, teacher, teacher_tokens)
        case "on_policy_distil":
            from aligndistill.stages.on_policy_distilled_student import train_beside_teacher

            assert prompts is not None and teacher is not None
            return train_beside_teacher(context, settings, lora, seed, start, prompts, teacher, reference)
        case "ppo":
            from aligndistill.stages.ppo_student import HeldOutWinRate, PpoSources, train_with_ppo

            assert prompts is not None and reference is not None
            watched = None
            if start_answers is not None:
                assert evaluation is not None and sampling is not None
                watched = HeldOutWinRate(evaluation, sampling, models, prompts, start_answers)
            inputs = PpoSources(start, reference, prompts, models, reward_model, critic)
            return train_with_ppo(context, settings, lora, seed, inputs, watched)
        case "trl":
            from aligndistill.stages.trl_student import train_with_trl

            assert prompts is not None
            return train_with_trl(context, settings, lora, seed, start, prompts, models, reward_model)
