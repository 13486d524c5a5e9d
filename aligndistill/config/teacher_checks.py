"""Rules for what reads a teacher's probabilities: distilled students, and fidelity."""

from collections.abc import Iterator

from aligndistill.config.models import EndpointModel, FunctionModel, LocalModel, Teacher
from aligndistill.config.objectives import OnPolicyDistil
from aligndistill.config.offline_objectives import Distil
from aligndistill.config.problems import Problem
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath


def distilled(config: RunConfig) -> Iterator[Problem]:
    """Students that are distilled: a teacher with the start's tokenizer, which runs here or says how likely given tokens are;
    off-policy, also answers to read."""
    for name, student in config.students.items():
        objective = student.objective
        if not isinstance(objective, Distil | OnPolicyDistil):
            continue
        path = ("students", name, "objective")
        if isinstance(objective, OnPolicyDistil) and isinstance(config.teacher, EndpointModel):
            yield from _served_teacher(config.teacher, objective, path)
        elif reason := _probabilities_unknown("distillation", config.seen_by(name)):
            yield Problem((*path, "kind"), reason)
        if (
            isinstance(objective, Distil)
            and objective.on == "teacher"
            and config.judge is not None
            and "teacher" not in config.candidates.authors
        ):
            yield Problem(
                (*path, "on"), "no candidates are the teacher's: add 'teacher' to candidates.from, or set this to best or all"
            )
        if isinstance(objective, Distil) and objective.hidden is not None:
            models = (config.seen_by(name).start, config.teacher)
            new = [model.from_scratch if isinstance(model, LocalModel) else None for model in models]
            if reason := objective.hidden.missing_layer(*(one.num_hidden_layers if one else None for one in new)):
                yield Problem((*path, "hidden", "layers"), reason)


def _served_teacher(teacher: EndpointModel, objective: OnPolicyDistil, path: KeyPath) -> Iterator[Problem]:
    """A server says how likely given tokens are, at temperature 1."""
    if objective.form == "full":
        text = "form 'full' compares whole distributions, and an endpoint gives the probabilities of given tokens alone"
        yield Problem((*path, "form"), f"{text}: use form: sampled with a vLLM server, or a local teacher")
        return
    if objective.temperature != 1.0:
        yield Problem((*path, "temperature"), "a server's log-probabilities are those at temperature 1: set this to 1")
    if teacher.tokenizer is None:
        text = "on-policy distillation sends token ids to the teacher, which must be its own"
        yield Problem(("teacher", "tokenizer"), f"{text}: set this to the folder or Hub name of the teacher's tokenizer")


def fidelity(config: RunConfig) -> Iterator[Problem]:
    """Fidelity compares whole distributions."""
    if not config.evaluation.fidelity:
        return
    reasons = [_probabilities_unknown("fidelity", one) for one in (config, *map(config.seen_by, config.students))]
    if reason := next(filter(None, reasons), None):
        yield Problem(("evaluation", "fidelity"), reason)


def _probabilities_unknown(reader: str, config: RunConfig) -> str | None:
    """Why the teacher's probabilities of the student's tokens cannot be read; None if they can, as far as the config says."""
    teacher = config.teacher
    if teacher is None:
        return f"{reader} reads a teacher's probabilities, and there is no 'teacher': add that section"
    if isinstance(teacher, EndpointModel | FunctionModel):
        given_by = "an endpoint" if isinstance(teacher, EndpointModel) else "a function"
        reads = f"{reader} reads a teacher's probabilities of every token, which {given_by} does not provide"
        return f"{reads}: use a local teacher, or what reads answers alone"
    if config.start is not None and not _may_share_tokenizer(config):
        text = f"{reader} needs one tokenizer for both models, and one from scratch is trained on the model's demonstrations"
        return f"{text}: give start and teacher the same 'vocab_size' and 'tokenizer_data' in from_scratch, or a 'model'"
    return None


def _may_share_tokenizer(config: RunConfig) -> bool:
    """Whether start and teacher may have one tokenizer. Other ones are compared when they are read."""
    start, teacher = config.start, config.teacher
    assert start is not None and isinstance(teacher, Teacher)
    if start.run is not None or teacher.run is not None:
        return True  # see `stages/chains.py`
    one, other = start.from_scratch, teacher.from_scratch
    if one is None or other is None:
        return one is other
    texts = [new.tokenizer_data or (sft and sft.demonstrations) for new, sft in ((one, config.sft), (other, teacher.sft))]
    return one.vocab_size == other.vocab_size and texts[0] == texts[1]
