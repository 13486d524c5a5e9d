"""What `doctor` asks of each server: the first questions of a run (`chat/http/probe.py`), and a real one where it judges."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.commands.output import Finding
from aligndistill.config.judges import Listwise, Pairwise, Rubric
from aligndistill.config.models import EndpointModel
from aligndistill.config.objectives import OnPolicyDistil
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import models_of
from aligndistill.errors import UserError
from aligndistill.processes.progress import doing
from aligndistill.records import Candidate, Comparison, Grade, Message, is_unparsed, prompt_id

if TYPE_CHECKING:
    from aligndistill.chat.endpoint import EndpointChat
    from aligndistill.chat.http.capabilities import Capabilities, ServerCapabilities

QUESTION = (Message(role="user", content="What is the capital of France? Answer in one sentence."),)
GOOD, BAD = "The capital of France is Paris.", "I do not know, and I do not care."


def server_findings(config: RunConfig) -> Iterator[Finding]:
    """A line for each ability of each server of a run."""
    run = resolved(config)
    second = run.audit.second.judge if run.audit.second is not None else None
    judges = [judge for judge in (run.judge, run.evaluation.judge, second) if judge is not None and judge != "same"]
    for name, model in run.endpoints.items():
        asking = (one for judge in judges for one in _members(judge) if models_of(one) == (name,))
        try:
            yield from _of_server(name, model, next(asking, None))
        except UserError as error:
            yield Finding(name, str(error), passed=False)
        if name == "teacher" and any(isinstance(one.objective, OnPolicyDistil) for one in run.students.values()):
            yield _reading(model)


def _members(judge: object) -> list[Pairwise | Listwise | Rubric]:
    members = getattr(judge, "members", None)
    every = [judge] if members is None else [member.judge for member in members.values()]
    return [one for one in every if isinstance(one, Pairwise | Listwise | Rubric)]


def _of_server(name: str, model: EndpointModel, judge: Pairwise | Listwise | Rubric | None) -> Iterator[Finding]:
    with doing(f"asking {model.urls[0]}"):
        chat, capabilities = _looked_at(model, model.urls[0])
        chat.find_answer_format()
    found = capabilities.found
    yield Finding(name, f"{model.urls[0]} answers as {model.name}")
    for url in model.urls[1:]:
        yield _of_replica(name, url, model, found)
    yield Finding("  thinks", _thinking(model, found.thinks, found.switch))
    logprobs = f"yes; the letter asked for had {found.label_mass:.2f}" if found.label_mass is not None else "no: verdicts from text"
    yield Finding("  log-probabilities", logprobs)
    yield Finding("  answer format", {"json_schema": "JSON schema", "json_object": "JSON"}.get(str(found.answer_format), "text"))
    context = found.context_tokens or model.context_tokens
    yield Finding("  context", f"{context} tokens" if context else "not reported: set context_tokens, else long requests may fail")
    if judge is not None:
        with doing("asking for a verdict"):
            verdict = _verdict(chat, judge, model)
        yield verdict


def _looked_at(model: EndpointModel, url: str) -> "tuple[EndpointChat, Capabilities]":
    """One of a model's servers, and what the first questions to it found."""
    from aligndistill.chat.endpoint import EndpointChat
    from aligndistill.chat.http.capabilities import Capabilities

    capabilities = Capabilities()
    chat = EndpointChat(model.model_copy(update={"max_retries": 0, "base_url": url}), capabilities, looks=True)
    chat.look()
    return chat, capabilities


def _of_replica(name: str, url: str, model: EndpointModel, first: "ServerCapabilities") -> Finding:
    """Whether a further server of a list answers as the first one does."""
    try:
        found = _looked_at(model, url)[1].found
    except UserError as error:
        return Finding(name, str(error), passed=False)
    same = (found.thinks, found.switch, found.context_tokens) == (first.thinks, first.switch, first.context_tokens)
    if not same:
        return Finding(name, f"{url} answers as {model.name}, but not as {model.urls[0]} does: start both alike", passed=False)
    return Finding(name, f"{url} answers as {model.name}")


def _reading(model: EndpointModel) -> Finding:
    """Whether a server says how likely given tokens are, for students that write while it reads."""
    from aligndistill.chat.answer_logprobs import AnswerLogprobs
    from aligndistill.chat.endpoint import EndpointChat

    try:
        AnswerLogprobs(EndpointChat(model.model_copy(update={"max_retries": 0})).server).of([([0], [0])])
    except UserError as error:
        return Finding("  given tokens", str(error), passed=False)
    return Finding("  given tokens", "their log-probabilities")


def _thinking(model: EndpointModel, thinks: bool | None, switch: str | None) -> str:
    if not thinks:
        return f"yes, switched on by {switch}" if switch else "no" if thinks is False else "unknown"
    if switch:
        return f"yes, switched off by {switch}"
    return f"yes, with up to {model.thinking_tokens} tokens (thinking: {model.thinking})"


def _verdict(chat: "EndpointChat", judge: Pairwise | Listwise | Rubric, model: EndpointModel) -> Finding:
    """Ask the judge about a good and a bad answer."""
    from aligndistill.config.run import Runtime
    from aligndistill.judges.protocol import Task
    from aligndistill.stages.context import StageContext
    from aligndistill.stages.opening import open_judge

    identity = prompt_id(QUESTION)
    answers = tuple(Candidate(id=text, prompt_id=identity, text=text, author="doctor") for text in (GOOD, BAD))
    with tempfile.TemporaryDirectory() as folder:
        context = StageContext("doctor", Path(folder), Path(folder), Runtime(), open_endpoint=lambda _: chat)
        opened = open_judge(context, judge, {models_of(judge)[0]: model}, seed=0)
        verdicts = [verdict for judged in opened.judge([Task(identity, QUESTION, answers)]) for verdict in judged.verdicts]
    unread = next((verdict for verdict in verdicts if is_unparsed(verdict)), None)
    if unread is not None:
        return Finding("  a verdict", f"cannot be read; the reply was {(unread.reply or '')[:200]!r}", passed=False)
    tokens = max(verdict.usage.completion_tokens for verdict in verdicts)
    wrong = sum(not _is_right(verdict) for verdict in verdicts if isinstance(verdict, Comparison))
    grades = {verdict.candidate: verdict.value or 0.0 for verdict in verdicts if isinstance(verdict, Grade)}
    if wrong or (grades and grades[GOOD] <= grades[BAD]):
        said = "does not prefer the right answer: see by `aligndistill judge audit` whether it can judge"
    else:
        said = "prefers the right answer"
    return Finding("  a verdict", f"{said} ({len(verdicts)} questions, up to {tokens} tokens each)")


def _is_right(comparison: Comparison) -> bool:
    return comparison.outcome == ("first" if comparison.first == GOOD else "second")
