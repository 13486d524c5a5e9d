"""Chains: a student of another run as the teacher or the start of this one, `teacher: {run: runs/medium, student: kd}`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from aligndistill.config.data import Source
from aligndistill.config.labels import Labelled, StartSft
from aligndistill.config.load import load_config
from aligndistill.config.models import BROUGHT, EndpointModel, FunctionModel, LocalModel, Teacher
from aligndistill.config.objectives import OnPolicyDistil
from aligndistill.config.offline_objectives import Distil
from aligndistill.config.problems import did_you_mean
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath
from aligndistill.config.training import Sft
from aligndistill.errors import ConfigError, DataError
from aligndistill.models.folder import read_json
from aligndistill.models.vocabulary import shared_vocabulary, tokens_in
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.run_folder import finished_stage

M = TypeVar("M", bound=LocalModel)


@dataclass(frozen=True)
class RunModel:
    """Where a model of a run comes from.

    Attributes:
        run: the name of the run that uses it.
        role: its name there: `start`, `teacher` or a key of `models`.
        model: a folder, a name, a server's model, `from scratch`, or `RUN: STUDENT`.
    """

    run: str
    role: str
    model: str


def with_models_of_runs(config: RunConfig) -> RunConfig:
    """The config with the folder of every student of another run that it names.

    Raises:
        DataError: a run or a student does not exist or is not finished; the message begins with the key.
    """
    changed = {}
    for key, model in models_of_runs(config):
        try:
            changed[key] = with_folder(model)
        except DataError as error:
            raise DataError(f"{'.'.join(map(str, key))}: {error}") from None
    roles = {str(key[0]): model for key, model in changed.items() if len(key) == 1}
    others = {str(key[1]): model for key, model in changed.items() if key[0] == "models"}
    others |= {f"start-{key[1]}": model for key, model in changed.items() if key[0] == "students"}
    update = {**roles, "models": {**config.models, **others}}
    if config.reward_model is not None and ("reward_model", "model") in changed:
        update["reward_model"] = config.reward_model.model_copy(update={"model": changed["reward_model", "model"]})
    return config.model_copy(update=update) if changed else config


def models_of_runs(config: RunConfig) -> Iterator[tuple[KeyPath, LocalModel]]:
    """The students of other runs among the models of this one, by their keys."""
    own = {f"start-{name}": ("students", name, "start") for name in config.students}
    for name, model in config.local_models.items():
        if model.run is not None and name in own:
            yield own[name], model
        elif model.run is not None:
            yield (name,) if name in ("start", "teacher") else ("models", name), model
    backbone = config.reward_model.model if config.reward_model is not None else None
    if backbone is not None and backbone.run is not None:
        yield ("reward_model", "model"), backbone


def with_folder(model: M) -> M:
    """The section with the folder of the student that it names, and the student's layout.

    Raises:
        DataError: the run or its student does not exist, is not finished, or was saved as adapters.
    """
    assert model.run is not None and model.student is not None
    run = Path(model.run)
    if not (run / "config.yaml").is_file():
        raise DataError(f"there is no run at '{run}': run its config first, or give the folder of a finished run.")
    folder = finished_stage(run, f"student-{model.student}")
    if folder is None or read_manifest(folder) is None:
        known = student_names(config_of(run))
        if model.student not in known:
            raise DataError(no_such_student(model, known))
        raise DataError(f"the run '{run}' has not finished its student '{model.student}': run its config again.")
    saved = read_json(folder / "model.json")
    if saved.get("adapter") is not None:
        text = f"the student '{model.student}' of '{run}' was saved as adapters on a model in few bits"
        raise DataError(f"{text}: set start.quantize.export to 'merged' in its config, and run it again.")
    settings = {name: saved[name] for name in BROUGHT if name not in model.model_fields_set}
    return model.with_model_of_run(str(folder / "model"), **settings)


def config_of(run: Path) -> RunConfig:
    """The config in a run's folder.

    Raises:
        ConfigError: this version cannot read it.
    """
    return load_config(run / "config.yaml")


def student_names(config: RunConfig) -> tuple[str, ...]:
    """The students that a run trains, with those of later rounds and other seeds, and the best-of-n baseline."""
    return tuple(each.of(name) for each in resolved(config).all_rounds for name in each.students)


def no_such_student(model: LocalModel, known: tuple[str, ...]) -> str:
    """The message for a student that its run does not have."""
    student = str(model.student)
    return f"the run '{model.run}' has no student '{student}'{did_you_mean(student, known)} (it has {', '.join(known) or 'none'})."


# --------------------------------------------------------------------------------------------------------- tokenizers


def require_one_tokenizer(config: RunConfig, find: Callable[[Path], RunConfig] = config_of) -> None:
    """Compare the tokenizers of starts and teacher where one is a student of another run, and probabilities of tokens are read.

    A student has the tokenizer of its start. Models on the Hub are compared when they are read.

    Args:
        find: the config of another run.

    Raises:
        ConfigError: they are known to differ.
    """
    for name, student in config.students.items():
        if isinstance(student.objective, Distil | OnPolicyDistil) or config.evaluation.fidelity:
            _compare(config.seen_by(name), find)


def _compare(config: RunConfig, find: Callable[[Path], RunConfig]) -> None:
    start, teacher = config.start, config.teacher
    if start is None or not isinstance(teacher, Teacher) or (start.run is None and teacher.run is None):
        return
    one, other = _tokenizer(start, config.sft, find), _tokenizer(teacher, teacher.sft, find)
    if one == other:
        return
    if isinstance(one, Path) and isinstance(other, Path):
        own, teachers = tokens_in(one), tokens_in(other)
        if own is not None and teachers is not None:
            shared_vocabulary(own, teachers)
    else:
        text = "distillation and fidelity compare probabilities token by token, and start and teacher have other tokenizers"
        advice = "give all from_scratch models of the chain one 'vocab_size' and one 'tokenizer_data', or use a 'model' in all runs"
        raise ConfigError(f"{text}: {advice}.")


def _tokenizer(
    model: LocalModel, sft: Sft | StartSft | None, find: Callable[[Path], RunConfig]
) -> Path | tuple[int, Source | Labelled | None]:
    """A folder or name with the tokenizer, or the size of a new one and the data that it is trained on."""
    if model.run is not None:
        start, trained_on = _start_of(find(Path(model.run)), str(model.student))
        return _tokenizer(start, trained_on, find)
    if model.from_scratch is not None:
        return model.from_scratch.vocab_size, model.from_scratch.tokenizer_data or (sft.demonstrations if sft else None)
    return Path(str(model.model))


def _start_of(config: RunConfig, student: str) -> tuple[LocalModel, Sft | StartSft | None]:
    """The start of one of a run's students, which may be of a later round or another seed, and what it was fine-tuned on first."""
    all_of = resolved(config)
    names = {each.of(name): name for each in all_of.all_rounds for name in each.students}
    own = all_of.students[names[student]].start if student in names else None
    if own is not None:
        return own, own.sft
    assert config.start is not None, "students have a start"
    return config.start, config.sft


# ------------------------------------------------------------------------------------------- models of a chain


def chain_models(config: RunConfig) -> tuple[RunModel, ...]:
    """Where the start, the teacher and the other models of a run come from, and those of the runs that they were trained in."""
    found: dict[RunModel, None] = {}
    waiting, seen = [config], {config.name}
    while waiting:
        of_run = waiting.pop(0)
        for role, model in of_run.named_models.items():
            found[RunModel(of_run.name, role, described(model))] = None
            before = config_of(Path(model.run)) if isinstance(model, LocalModel) and model.run is not None else None
            if before is not None and before.name not in seen:
                waiting.append(before)
                seen.add(before.name)
    return tuple(found)


def described(model: LocalModel | EndpointModel | FunctionModel) -> str:
    """What a model is, in a few words."""
    if isinstance(model, EndpointModel):
        return f"{model.name} at {model.urls[0]}"
    if isinstance(model, FunctionModel):
        return model.function
    if model.run is not None:
        return f"{model.run}: {model.student}"
    return model.model or f"from scratch, {model.from_scratch.hidden_size if model.from_scratch else 0} wide"
