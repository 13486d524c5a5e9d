"""What a stage that is not finished would ask of its models. Nothing is asked and nothing is written.

Where the candidates are there already, the judge's own questions are counted, and those with a kept answer are left out. Otherwise
as many answers of the greatest length are assumed.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from aligndistill.chat.http.token_counts import TokenCount, by_length, token_count
from aligndistill.chat.protocol import Request, Sampling
from aligndistill.commands.plan.counting_chat import PlanningChat
from aligndistill.config.audit import AuditProbes
from aligndistill.config.judges import FunctionJudge, Judge, LikelihoodJudge, PanelJudge, RewardModelJudge, judge_models
from aligndistill.config.models import EndpointModel
from aligndistill.config.objectives import Online, Ppo
from aligndistill.config.run import Candidates, Evaluation
from aligndistill.config.students import Student
from aligndistill.judges.protocol import Task
from aligndistill.models.load import read_pointer
from aligndistill.records import Answer, Candidate, Message, Prompt, Usage, is_unparsed
from aligndistill.stages.context import Work
from aligndistill.stages.evaluation import ANSWERS, evaluation_tasks
from aligndistill.stages.opening import Servers, judge_model_input, open_judge
from aligndistill.stages.rewards import RewardPart, for_part
from aligndistill.stages.sampling import Written
from aligndistill.stages.shards import parts
from aligndistill.stages.verdicts import JudgedTask, in_order, labelling_order
from aligndistill.store.artifacts import SCRATCH, read_manifest
from aligndistill.store.jsonl import read_jsonl

MOST_MADE_UP = 200
"""So many tasks are made up and counted; the rest is multiplied."""

KnowsLogprobs = Callable[[EndpointModel], bool]


@dataclass(frozen=True)
class Estimate:
    """What would be asked of one model.

    Attributes:
        model: its name; `server` is None for one that runs here.
        verdicts: comparisons or grades, those included whose answer is kept; 0 where answers are written.
        cached: verdicts whose answer is kept.
        tokens: how they were counted.
        certain: whether the candidates are there, so that nothing but the lengths of answers is assumed.
    """

    model: str
    server: EndpointModel | None
    prompts: int
    verdicts: int
    cached: int
    asked: Usage
    exact_tokens: bool
    certain: bool


@dataclass
class Planner:
    """Estimates stages.

    Attributes:
        gives_logprobs: whether a server is known to.
        prompts: of the run, whether they have been written or not.
    """

    gives_logprobs: KnowsLogprobs
    prompts: Sequence[Prompt]

    # -------------------------------------------------------------------------------------------------------- writers

    def candidates(self, work: Work, settings: Candidates, servers: Mapping[str, EndpointModel]) -> Iterator[Estimate]:
        """Of each author."""
        written = _written(work)
        wanted = {prompt.id: prompt.messages for prompt in self.prompts}
        for author in settings.authors:
            done = written[author]
            yield self._writing(work, author, servers.get(author), wanted, settings.per_prompt, settings.max_new_tokens, done)

    def answers(
        self, work: Work, author: str, settings: Evaluation, new_tokens: int, endpoint: EndpointModel | None
    ) -> Iterator[Estimate]:
        """Of one author to the held-out prompts."""
        wanted = {prompt.id: prompt.messages for prompt in self.held_out(settings.prompts)}
        yield self._writing(work, author, endpoint, wanted, settings.samples_per_prompt, new_tokens, _written(work)[author])

    def held_out(self, limit: int | None) -> list[Prompt]:
        """The held-out prompts that the evaluation takes."""
        return sorted((prompt for prompt in self.prompts if prompt.split == "held_out"), key=lambda prompt: prompt.id)[:limit]

    def _writing(
        self,
        work: Work,
        author: str,
        endpoint: EndpointModel | None,
        wanted: Mapping[str, tuple[Message, ...]],
        samples: int,
        new_tokens: int,
        done: Mapping[str, set[int]],
    ) -> Estimate:
        chat = self._chat(work, author, endpoint)
        requests = [
            Request(messages, tuple(n for n in range(samples) if n not in done.get(prompt, set())))
            for prompt, messages in wanted.items()
        ]
        for _ in chat.answer(requests, Sampling(1.0, new_tokens)):
            pass
        model = author if endpoint is None else endpoint.name
        return Estimate(model, endpoint, len(wanted), 0, 0, chat.asked, chat.tokens.exact, certain=True)

    # --------------------------------------------------------------------------------------------------------- judges

    def verdicts(
        self, work: Work, settings: Judge, servers: Servers, probes: AuditProbes, candidates: Candidates, done: bool
    ) -> Iterator[Estimate]:
        """Of the labelling judge, the audit's probes included. `done` says whether the candidates are there."""
        second = replace(work, seed=work.seed + 1)
        if done:
            order = labelling_order(work, settings, probes)
            labelling = self.judged(work, settings, servers, order.tasks, "verdicts")
            return _added_up(labelling, self.judged(second, settings, servers, order.again, "repeats"))
        texts = candidates.per_prompt * len(candidates.authors)
        tasks = [_made_up(prompt, texts, candidates.max_new_tokens) for prompt in self.prompts[:MOST_MADE_UP]]
        order = in_order(tasks, settings, probes)
        labelling = self._times(self.judged(work, settings, servers, order.labelled, ""), len(self.prompts))
        canaries = self.judged(work, settings, servers, [canary.task for canary in order.canaries], "")
        return _added_up(labelling, canaries, self.judged(second, settings, servers, order.again, ""))

    def evaluation(
        self, work: Work, settings: Evaluation, judge: Judge, servers: Servers, new_tokens: int, done: bool
    ) -> Iterator[Estimate]:
        """Of the evaluation's judge. `done` says whether the answers are there."""
        if done:
            return self.judged(work, judge, servers, evaluation_tasks(work, settings), "comparisons")
        prompts = self.held_out(settings.prompts)
        authors = [name.removeprefix(ANSWERS) for name in work.inputs if name.startswith(ANSWERS)]
        tasks = []
        for prompt in prompts[:MOST_MADE_UP]:
            answers = {
                author: {prompt.id: [_made_up_answer(prompt.id, author, n, new_tokens) for n in range(settings.samples_per_prompt)]}
                for author in authors
            }
            tasks.append(evaluation_tasks(work, settings, {prompt.id: prompt.messages}, answers)[0])
        return self._times(self.judged(work, judge, servers, tasks, ""), len(prompts))

    def rewards(self, work: Work, student: Student, parts: Sequence[RewardPart]) -> Iterator[Estimate]:
        """Of the judges that a student learns from."""
        objective = student.objective
        assert isinstance(objective, Online)
        train = [prompt for prompt in self.prompts if prompt.split == "train"]
        sampled = round(len(train) * student.num_train_epochs)
        if student.max_steps > 0 and isinstance(objective, Ppo):
            sampled = student.max_steps // objective.ppo_epochs * student.batch_size
        elif student.max_steps > 0:
            sampled = student.max_steps * student.batch_size
        some = train[:MOST_MADE_UP]
        tasks = [_made_up(prompt, objective.samples_per_prompt, student.max_response_tokens) for prompt in some]
        for part in parts:
            if part.judge is not None:
                yield from self._times(self.judged(for_part(work, part.inputs), part.judge, part.servers, tasks, ""), sampled)

    def judged(self, work: Work, judge: Judge, servers: Servers, tasks: Sequence[Task], partial: str) -> Iterator[Estimate]:
        """Of one judge on some tasks; those that are judged in the stage's file `partial` are left out."""
        files = parts(work.folder / SCRATCH / f"{partial}.jsonl") if partial else []
        judged = {one.prompt_id: one for file in files for one in read_jsonl(file, JudgedTask)}
        done = sum(len(judged[task.prompt_id].verdicts) for task in tasks if task.prompt_id in judged)
        left = [task for task in tasks if task.prompt_id not in judged]
        return self._asked(work, judge, servers, left, len(tasks), done, bool(partial))

    def _asked(
        self,
        work: Work,
        judge: Judge,
        servers: Servers,
        left: Sequence[Task],
        prompts: int,
        done: int,
        certain: bool,
        part: str = "",
    ) -> Iterator[Estimate]:
        """Of one judge, or of one member of a panel, on what is left of so many prompts; `done` verdicts were given before."""
        if isinstance(judge, PanelJudge):
            members = [
                self._asked(work, member.judge, servers, left, prompts, done, certain, name)
                for name, member in judge.members.items()
            ]
            yield from _added_up(*members)
            return
        verdicts = cached = done
        if isinstance(judge, LikelihoodJudge | FunctionJudge | RewardModelJudge):
            grades = sum(len(task.candidates) for task in left)
            yield Estimate(f"({part or judge.kind})", None, prompts, verdicts + grades, cached, Usage(), True, certain)
            return
        chats: dict[tuple[str, str], tuple[PlanningChat, EndpointModel | None]] = {}

        def opened(endpoint: EndpointModel) -> PlanningChat:
            key = (endpoint.base_url, endpoint.name)
            if key not in chats:
                server = None if endpoint.base_url == HERE else endpoint
                chats[key] = (self._chat(work, endpoint.name, server), server)
            return chats[key][0]

        local_ones = {
            name: EndpointModel(kind="endpoint", base_url=HERE, name=name)
            for name in (judge_model_input(part or asked.part) for asked in judge_models(judge))
            if name not in servers
        }
        with tempfile.TemporaryDirectory() as empty:
            caches = work.caches if work.caches.is_dir() else Path(empty)
            planned = replace(work, open_endpoint=opened, caches=caches)
            for one in open_judge(planned, judge, {**servers, **local_ones}, part).judge(left):
                verdicts += len(one.verdicts)
                cached += sum(not is_unparsed(verdict) for verdict in one.verdicts)
        for number, ((_, name), (chat, server)) in enumerate(chats.items()):
            counted = (prompts, verdicts, cached) if number == 0 else (0, 0, 0)
            yield Estimate(name, server, *counted, chat.asked, chat.tokens.exact, certain)

    def _times(self, estimates: Iterator[Estimate], prompts: int) -> Iterator[Estimate]:
        """Estimates of made-up tasks, for so many prompts."""
        for one in estimates:
            share = prompts / one.prompts if one.prompts else 1.0
            asked = Usage(**{name: round(amount * share) for name, amount in one.asked})
            yield replace(one, prompts=prompts, verdicts=round(one.verdicts * share), asked=asked)

    def _chat(self, work: Work, name: str, endpoint: EndpointModel | None) -> PlanningChat:
        if endpoint is not None:
            return PlanningChat(endpoint.identity, token_count(endpoint), self.gives_logprobs(endpoint))
        folder = work.inputs.get(name)
        tokens = TokenCount(by_length, exact=False)
        if folder is not None and read_manifest(folder) is not None:
            tokens = token_count(EndpointModel(kind="endpoint", base_url=HERE, name=read_pointer(folder).path))
        return PlanningChat(f"{name} {work.identities.get(name, '')}", tokens, label_logprobs=True)


def _added_up(first: Iterator[Estimate], *more: Iterator[Estimate]) -> Iterator[Estimate]:
    """One estimate for each model; the prompts are the first's."""
    sums = {one.model: one for one in first}
    for one in chain(*more):
        if one.model in sums:
            so_far = sums[one.model]
            asked = Usage(**{name: amount + getattr(one.asked, name) for name, amount in so_far.asked})
            one = replace(so_far, verdicts=so_far.verdicts + one.verdicts, cached=so_far.cached + one.cached, asked=asked)
        sums[one.model] = one
    return iter(sums.values())


HERE = "http://here.invalid"
"""Stands for this machine where a server's address is expected; nothing is sent to it."""


def _written(work: Work) -> dict[str, dict[str, set[int]]]:
    """Which samples of which prompts each author has written already."""
    done: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for file in parts(work.folder / SCRATCH / "written.jsonl"):
        for one in read_jsonl(file, Written):
            done[one.author][one.prompt_id].add(one.sample)
    return done


def _text(number: int, tokens: int) -> str:
    return f"{number}" + " the" * tokens


def _made_up(prompt: Prompt, texts: int, tokens: int) -> Task:
    candidates = tuple(
        Candidate(id=f"{prompt.id}-{n}", prompt_id=prompt.id, text=f"{prompt.id} {_text(n, tokens)}", author="start")
        for n in range(texts)
    )
    return Task(prompt.id, prompt.messages, candidates)


def _made_up_answer(prompt: str, author: str, number: int, tokens: int) -> Answer:
    text = f"{author} {_text(number, tokens)}"
    return Answer(prompt_id=prompt, author=author, text=text, finish="stop", length_tokens=tokens)
