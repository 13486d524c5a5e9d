"""Compares two answers at a time with a chat model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from aligndistill.chat.protocol import ChatModel
from aligndistill.judges.pair_selection import Pair, PairHistory, Plan, choose_pairs
from aligndistill.judges.parsing import last_line, parse_preference
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.questions import DEFAULT_OPTIONS, JudgeClient, JudgeOptions, Question
from aligndistill.judges.replies import JudgeReplies
from aligndistill.judges.templates import Template
from aligndistill.preferences.scores import sigmoid
from aligndistill.records import PROBABILITY_OF, Candidate, Comparison, Outcome, content_hash, outcome_of, plain_prompt
from aligndistill.store.cache import Cache


@dataclass
class _TaskState:
    """One task while it is judged.

    Attributes:
        candidates: the task's candidates, in the order of the plan's numbering.
        asked: the questions of all rounds, in order.
        verdicts: the verdicts so far.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    history: PairHistory
    plan: Plan
    asked: list[Question] = field(default_factory=list)
    verdicts: dict[Question, Comparison] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every question has a verdict."""
        return len(self.verdicts) == len(self.asked)

    @property
    def judged(self) -> Judged:
        return Judged(self.task.prompt_id, tuple(self.verdicts[question] for question in self.asked))


class PairwiseJudge:
    """Compares the candidates of a task with each other, or the task's `pairs`.

    The verdict is read from the log-probabilities of `A` and `B` if the model gives them, else from its replies.

    Args:
        both_orders: ask each pair in both orders, which cancels position bias. Otherwise each pair is asked in one order: chosen
            by hash for `comparisons: all`, else so that each candidate is shown first about equally often.
        max_new_tokens: the longest text reply.
        cache: stores replies between runs.
        comparisons: which pairs to compare in tasks without `pairs`: `all`, `sort`, `swiss` or `random(n)` (see
            `pair_selection`).
    """

    def __init__(
        self,
        name: str,
        chat: ChatModel,
        template: Template,
        *,
        both_orders: bool = True,
        max_new_tokens: int = 64,
        cache: Cache | None = None,
        seed: int = 0,
        options: JudgeOptions = DEFAULT_OPTIONS,
        comparisons: str = "all",
    ) -> None:
        self.name = name
        self._both_orders = both_orders
        self._comparisons = comparisons
        self._reasoning = options.reasoning
        self._client = JudgeClient(
            judge="pairwise",
            chat=chat,
            template=template,
            labels=("A", "B"),
            ask_plainly="Answer with the single letter A or B.",
            ask_with_reasons=(
                "First give your reasons in a few sentences. Then write the verdict on a line of its own, in double brackets: "
                "[[A]] or [[B]], or [[C]] for a tie."
            ),
            max_new_tokens=max_new_tokens,
            seed=seed,
            readable=lambda reply, shown: self._read(reply) != "unparsed",
            cache=cache,
            fill=lambda client, prompt, answers: client.text(prompt=prompt, first=answers[0], second=answers[1]),
            options=options,
        )

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`. The comparisons of a round are sent together for all tasks; a task with only one candidate has none."""
        states = [self._start(task) for task in tasks]
        active = list(range(len(states)))
        while active:
            questions: list[Question] = []
            for index in active:
                state = states[index]
                of_round = [self._question(index, state, pair) for pair in self._next(state)]
                state.asked += of_round
                questions += of_round
                if not of_round:
                    yield state.judged
            active = sorted({question.task for question in questions})
            for question, judge_replies in self._client.ask(questions):
                state = states[question.task]
                state.verdicts[question] = self._comparison(state.task, question, judge_replies)
                if state.is_complete and (self._comparisons == "all" or state.task.pairs is not None):
                    active.remove(question.task)  # it has only one round and need not wait for others
                    yield state.judged
            active = [index for index in active if states[index].is_complete]  # a batch file may lack answers
            for index in active:
                self._update_history(states[index])

    def _start(self, task: Task) -> _TaskState:
        candidates = task.candidates
        if task.pairs is not None:
            return _TaskState(task, candidates, PairHistory(len(candidates)), iter([list(task.pairs)]))
        if self._comparisons != "all":
            candidates = tuple(sorted(candidates, key=lambda candidate: content_hash("place", candidate.id)))
        history = PairHistory(len(candidates))
        return _TaskState(task, candidates, history, choose_pairs(self._comparisons, history))

    def _next(self, state: _TaskState) -> list[Pair]:
        """The pairs of the next round in the order shown; empty when the task is complete."""
        shown: list[Pair] = []
        for pairs in state.plan:
            for one, other in pairs:
                shown += self._orders(state, one, other, shown)
            if shown:
                break
        return shown

    def _orders(self, state: _TaskState, one: int, other: int, of_round: Sequence[Pair]) -> list[Pair]:
        """The orders in which to show a pair: both, the remaining one, or the one that balances the first positions so far."""
        history = state.history
        fresh = [pair for pair in ((one, other), (other, one)) if pair not in history.shown]
        if self._both_orders or len(fresh) < 2:
            return fresh
        ids = state.candidates[one].id, state.candidates[other].id
        by_hash = fresh[0] if content_hash(*ids) < content_hash(*ids[::-1]) else fresh[1]
        if self._comparisons == "all" or state.task.pairs is not None:
            return [by_hash]
        shown = [*history.shown, *of_round]
        lead = sum((first == one) - (second == one) - (first == other) + (second == other) for first, second in shown)
        return [by_hash if lead == 0 else (other, one) if lead > 0 else (one, other)]

    def _update_history(self, state: _TaskState) -> None:
        """Add the verdicts so far to the history, in the order of their questions."""
        number = {candidate.id: place for place, candidate in enumerate(state.candidates)}
        for question in state.asked:
            first, second = question.candidates
            state.history.shown[number[first], number[second]] = state.verdicts[question].probability_first

    def _question(self, index: int, state: _TaskState, pair: Pair) -> Question:
        first, second = (state.candidates[place] for place in pair)
        text = self._client.filled(plain_prompt(state.task.messages), [first.text, second.text])
        return Question(index, (first.id, second.id), text)

    def _comparison(self, task: Task, question: Question, judge_replies: JudgeReplies) -> Comparison:
        first, second = question.candidates
        probability = self._probability(judge_replies)
        return Comparison(
            prompt_id=task.prompt_id,
            first=first,
            second=second,
            probability_first=probability,
            outcome=outcome_of(probability),
            judge=self.name,
            reply=judge_replies.shown,
            thoughts=judge_replies.thoughts,
            label_mass=judge_replies.label_mass,
            usage=judge_replies.usage,
        )

    def _probability(self, judge_replies: JudgeReplies) -> float | None:
        if judge_replies.label_logprobs is None:
            read = [PROBABILITY_OF[self._read(reply)] for reply in judge_replies.replies]
            known = [probability for probability in read if probability is not None]
            return fmean(known) if known else None
        first, second = judge_replies.label_logprobs
        return sigmoid(first - second)  # softmax of the two

    def _read(self, reply: str) -> Outcome:
        if self._reasoning:
            outcome = parse_preference(last_line(reply))
            if outcome != "unparsed":
                return outcome
        return parse_preference(reply)
