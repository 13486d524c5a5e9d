"""The memory of each training stage of a config, if its models' shapes are known in advance."""

from pathlib import Path
from typing import Any, TypeVar

from aligndistill.commands.plan.decoder_shapes import shape_from_numbers
from aligndistill.commands.plan.memory import MemoryEstimate, OnPolicyMemory, Shape, estimate, read_sharding, shape_of
from aligndistill.config.models import EndpointModel, FunctionModel, LocalModel, Lora, Quantize
from aligndistill.config.objectives import OnPolicyDistil, Ppo
from aligndistill.config.offline_objectives import BestOfN, Distil
from aligndistill.config.paths import at_home
from aligndistill.config.run import RunConfig
from aligndistill.config.students import Student
from aligndistill.config.training import Training
from aligndistill.models.folder import read_json
from aligndistill.processes.devices import find_gpus
from aligndistill.processes.ranks import world_size

T = TypeVar("T", bound=Training)


def planned_memory(config: RunConfig) -> dict[str, MemoryEstimate]:
    """One process's memory by stage. Stages of a model that must be downloaded first are omitted: a plan downloads nothing."""
    start = _shape(config.start)
    planned: dict[str, MemoryEstimate] = {}
    lora = config.start.lora if config.start else None
    if start is not None and config.sft is not None:
        adapters = None if config.start and config.start.from_scratch else lora
        planned["start"] = _of(config, start, config.sft, adapters, 1)
    backbone = None
    if config.reward_model is not None:
        backbone = _shape(config.reward_model.model) if config.reward_model.model else start
        if backbone is not None:
            settings = _as_long_as_rankings(config, config.reward_model)
            head_alone = config.reward_model.trains == "head"
            planned["reward_model"] = _of(
                config, backbone, settings, config.reward_model.lora, _responses(config), head_alone=head_alone
            )
    for name, student in config.students.items():
        seen = config.seen_by(name)
        shape = _shape(seen.start)
        own = seen.start.lora if seen.start else None
        if shape is not None and (memory := _of_student(seen, shape, student, own, backbone)) is not None:
            planned[f"student-{name}"] = memory
    return planned


def _of_student(
    config: RunConfig, start: Shape, student: Student, lora: Lora | None, reward_model: Shape | None
) -> MemoryEstimate | None:
    """One process's memory; None if a model beside the student must be downloaded first.

    Args:
        config: with the student's start.
        reward_model: the run's, if there is one and its shape is known.
    """
    quantize = config.start.quantize if config.start else None
    match student.objective:
        case Ppo() as objective:
            frozen = start.parameters if lora is None else 0  # the reference, unless it is the policy without its adapters
            if "reward_model" in objective.reads:
                if reward_model is None:
                    return None
                frozen += reward_model.parameters
            beside = OnPolicyMemory(objective.critic == "separate", frozen)
            return _of(config, start, student, lora, objective.samples_per_prompt, beside, quantize=quantize)
        case OnPolicyDistil() as objective:
            teacher = _teacher_shape(config)
            compared = objective.kl_budget is not None and lora is None
            beside = OnPolicyMemory(critic=False, frozen_parameters=compared * start.parameters)
            responses = objective.samples_per_prompt
            if teacher is None and not isinstance(config.teacher, EndpointModel):  # one that must be downloaded first
                return None
            return _of(config, start, student, lora, responses, beside, teacher, quantize)
        case BestOfN():
            return _of(config, start, _as_long_as_rankings(config, student), lora, 1, quantize=quantize)
        case Distil() as objective:
            every = _responses(config)
            read = {"best": 1, "all": every, "teacher": min(config.candidates.per_prompt, every)}[objective.on]
            teacher = _teacher_shape(config)
            settings = _as_long_as_rankings(config, student)
            if objective.top_k is not None:  # what is read of the teacher is on disk
                return _of(config, start, settings, lora, read, quantize=quantize)
            return _of(config, start, settings, lora, read, teacher=teacher, quantize=quantize) if teacher is not None else None
    return _of(config, start, _as_long_as_rankings(config, student), lora, _responses(config), quantize=quantize)


def _teacher_shape(config: RunConfig) -> Shape | None:
    return _shape(config.teacher) if isinstance(config.teacher, LocalModel) else None


def _of(
    config: RunConfig,
    shape: Shape,
    settings: Training,
    lora: Lora | None,
    responses: int,
    online: OnPolicyMemory | None = None,
    teacher: Shape | None = None,
    quantize: Quantize | None = None,
    head_alone: bool = False,
) -> MemoryEstimate:
    gpus = find_gpus()
    processes = config.runtime.processes or (world_size() if world_size() > 1 else max(gpus.count, 1))
    return estimate(
        shape,
        settings,
        config.runtime,
        read_sharding(config.runtime.deepspeed),
        lora=lora,
        responses=responses,
        processes=processes,
        bf16=gpus.bf16,
        online=online,
        teacher_parameters=teacher.parameters if teacher else 0,
        quantize=quantize,
        head_alone=head_alone,
    )


def _as_long_as_rankings(config: RunConfig, settings: T) -> T:
    """The settings, with the limits of the run's own candidates if those are lower.

    Only for training on rankings: prompts of an on-policy student have no candidates. Servers and functions accept prompts of any
    length, so if an author is one, only the section's own limit bounds the prompts.
    """
    candidates = config.candidates
    if config.rankings.source is not None or config.judge is None:
        return settings
    lower = {"max_response_tokens": min(settings.max_response_tokens, candidates.max_new_tokens)}
    models = {"teacher": config.teacher, **config.models}
    if not any(isinstance(models.get(author), EndpointModel | FunctionModel) for author in candidates.authors):
        lower["max_prompt_tokens"] = min(settings.max_prompt_tokens, candidates.max_prompt_tokens)
    return settings.model_copy(update=lower)


def _responses(config: RunConfig) -> int:
    """The most responses per prompt: two if the rankings are ready-made."""
    return config.candidates.per_prompt * len(config.candidates.authors) if config.rankings.source is None else 2


def _shape(model: LocalModel | None) -> Shape | None:
    if model is None:
        return None
    folder = at_home(model.model) if model.model else Path()
    if model.from_scratch is not None:
        numbers = model.from_scratch.model_dump(exclude={"architecture"}, exclude_none=True)
        numbers |= {"model_type": model.from_scratch.architecture}
        numbers.setdefault("intermediate_size", 4 * model.from_scratch.hidden_size)
        numbers.setdefault("num_key_value_heads", model.from_scratch.num_attention_heads)
    elif folder.is_dir():
        numbers = read_json(folder / "config.json")
    else:
        return None
    return shape_from_numbers(numbers) or _shape_by_torch(numbers if model.from_scratch else folder)


def _shape_by_torch(model: Path | dict[str, Any]) -> Shape:
    from transformers import AutoConfig  # imported only if needed: it takes seconds

    if isinstance(model, Path):
        return shape_of(AutoConfig.from_pretrained(model, local_files_only=True))
    return shape_of(AutoConfig.for_model(**model))
