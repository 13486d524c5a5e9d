"""What takes the places of models and judges in a dry run, and counts what they would be asked."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aligndistill.chat.http.capabilities import ServerCapabilities
from aligndistill.chat.http.thinking import thinks
from aligndistill.chat.http.token_counts import TokenCount, by_length, token_count
from aligndistill.commands.plan.counting_chat import CountingChat
from aligndistill.config.judges import Judge, Panel
from aligndistill.config.models import EndpointModel, FunctionModel
from aligndistill.config.schema import models_of
from aligndistill.judges.protocol import Judged, Task
from aligndistill.records import Grade, Usage, Verdict, is_unparsed
from aligndistill.stages.context import ModelSource


@dataclass(frozen=True)
class Estimate:
    """The requests to one model.

    Attributes:
        model: its name; `server` is None for a model or a function that runs here.
        verdicts: comparisons or grades, including cached ones; 0 if answers are sampled.
        cached: verdicts whose answer is cached.
        exact_tokens: whether tokens were counted with the model's tokenizer.
        certain: whether the stage's inputs exist, so that only the lengths of answers are assumed.
        possible_thought_tokens: the most tokens of thoughts that each answer may have and that are not counted: those of
            `thinking: auto` on a server that has not been asked yet whether it thinks.
    """

    model: str
    server: EndpointModel | None
    prompts: int
    verdicts: int
    cached: int
    asked: Usage
    exact_tokens: bool
    certain: bool
    possible_thought_tokens: int = 0


@dataclass
class CountedChats:
    """Replaces every model that a stage sends requests to.

    Attributes:
        known: what servers are known to do, by `EndpointModel.identity`.
        fingerprint_of: of the stage whose folder a model of this run is in.
    """

    known: Mapping[str, ServerCapabilities]
    fingerprint_of: Callable[[Path], str]
    opened: dict[str, CountingChat] = field(default_factory=dict)

    def open(self, model: ModelSource) -> CountingChat:
        """The chat model in a model's place; one for each model."""
        key = _key(model)
        if key not in self.opened:
            if isinstance(model, EndpointModel):
                found = self._found(model)
                thinking = thinks(model, found)
                labels, thoughts = bool(found.top_logprobs) and not thinking, model.thinking_tokens if thinking else 0
                chat = CountingChat(model.name, model.identity, token_count(model), labels, thoughts)
            elif isinstance(model, FunctionModel):
                chat = CountingChat(model.function, model.identity, TokenCount(by_length, exact=False), label_logprobs=False)
            else:
                chat = CountingChat(
                    model.name, f"model {self.fingerprint_of(model)}", TokenCount(by_length, exact=False), label_logprobs=True
                )
            self.opened[key] = chat
        return self.opened[key]

    def estimates(
        self,
        models: Mapping[str, ModelSource],
        judge: Judge | None,
        verdicts: Iterable[Verdict],
        prompts: int,
        share: float,
        certain: bool,
    ) -> Iterator[Estimate]:
        """The counts of each model, times `share`. A judge's verdicts are reported with its model, if it asks one."""
        total: Counter[str] = Counter()
        cached: Counter[str] = Counter()
        for verdict in verdicts:
            for one in getattr(verdict, "members", ()) or (verdict,):
                row = _asked_by(judge, one.judge)
                total[row] += 1
                cached[row] += not is_unparsed(one)
        rows = {name: self.opened[_key(model)] for name, model in models.items() if _key(model) in self.opened}
        for row in [*rows, *(row for row in total if row not in rows)]:
            chat, model = rows.get(row), models.get(row)
            usage = Usage(**{name: round(amount * share) for name, amount in chat.asked}) if chat else Usage()
            server = model if isinstance(model, EndpointModel) else None
            yield Estimate(
                model=server.name if server else row,
                server=server,
                prompts=prompts,
                verdicts=round(total[row] * share),
                cached=round(cached[row] * share),
                asked=usage,
                exact_tokens=chat.tokens.exact if chat else True,
                certain=certain,
                possible_thought_tokens=self._possible_thought_tokens(server) if server else 0,
            )

    def _found(self, server: EndpointModel) -> ServerCapabilities:
        return self.known.get(server.identity, ServerCapabilities())

    def _possible_thought_tokens(self, server: EndpointModel) -> int:
        return server.thinking_tokens if server.thinking == "auto" and self._found(server).thinks is None else 0


@dataclass
class Ungraded:
    """Replaces a judge that computes its grades here: the same number of grades, all missing."""

    name: str

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`."""
        for task in tasks:
            grades = (Grade(prompt_id=task.prompt_id, candidate=one.id, value=None, judge=self.name) for one in task.candidates)
            yield Judged(task.prompt_id, tuple(grades))


def _asked_by(judge: Judge | None, name: str) -> str:
    """The model that a judge, or the panel member of this name, asks; the judge itself in brackets if it asks none."""
    section = judge.members[name].judge if isinstance(judge, Panel) and name in judge.members else judge
    asked = models_of(section)
    return f"({name})" if not asked or (section and section.needs_local_model) else asked[0]


def _key(model: ModelSource) -> str:
    return model.identity if isinstance(model, EndpointModel | FunctionModel) else str(model)
