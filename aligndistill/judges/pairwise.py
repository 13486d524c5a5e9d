"""Which of two answers is better, by a chat model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from aligndistill.chat.protocol import ChatModel
from aligndistill.judges.pair_selection import Pair, PairHistory, Plan, choose_pairs
from aligndistill.judges.parsing import last_line, parse_preference
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.questions import DEFAULT_OPTIONS, JudgeClient, JudgeOptions, JudgeReplies, Question
from aligndistill.judges.templates import Template
from aligndistill.preferences.scores import sigmoid
from aligndistill.records import PROBABILITY_OF, Candidate, Comparison, Outcome, content_hash, outcome_of, plain_prompt
from aligndistill.store.cache import Cache


@dataclass
class _Contest:
    """One task while it is judged.

    Attributes:
        candidates: the task's, numbered as its plan numbers them.
        asked: the questions of all rounds, in order.
        verdicts: what came of them, so far.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    history: PairHistory
    plan: Plan
    asked: list[Question] = field(default_factory=list)
    verdicts: dict[Question, Comparison] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked is answered."""
        return len(self.verdicts) == len(self.asked)

    @property
    def judged(self) -> Judged:
        return Judged(self.task.prompt_id, tuple(self.verdicts[question] for question in self.asked))


class PairwiseJudge:
    """Compares the candidates of a task with each other, or the pairs that it names.

    The verdict is read off the log-probabilities of `A` and `B` where the model gives them, else off its replies.

    Args:
        both_orders: ask each pair in both orders, which cancels a preference for a place. Otherwise a pair is asked in one, which
            a hash decides under `comparisons: all`, and which balances how often each candidate is shown first elsewhere.
        max_new_tokens: the longest reply in text.
        cache: where answers are kept between runs.
        comparisons: which pairs of a task that names none: `all`, `sort`, `swiss` or `random(n)` (see `comparing`).
    """

    def __init__(
        self,
        name: str,
        chat: ChatModel,
        template: Template,
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
        self._asking = JudgeClient(
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
            fill=lambda asking, prompt, answers: asking.text(prompt=prompt, first=answers[0], second=answers[1]),
            options=options,
        )

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`. A round's comparisons of all tasks are asked at once; a task of fewer than two candidates has none."""
        matches = [self._contest(task) for task in tasks]
        going = list(range(len(matches)))
        while going:
            questions: list[Question] = []
            for index in going:
                match_ = matches[index]
                of_round = [self._question(index, match_, pair) for pair in self._next(match_)]
                match_.asked += of_round
                questions += of_round
                if not of_round:
                    yield match_.judged
            going = sorted({question.task for question in questions})
            for question, judge_replies in self._asking.ask(questions):
                match_ = matches[question.task]
                match_.verdicts[question] = self._comparison(match_.task, question, judge_replies)
                if match_.is_complete and (self._comparisons == "all" or match_.task.pairs is not None):
                    going.remove(question.task)  # it has one round only, and need not wait for the others
                    yield match_.judged
            going = [index for index in going if matches[index].is_complete]  # a batch file may lack answers
            for index in going:
                self._count(matches[index])

    def _contest(self, task: Task) -> _Contest:
        candidates = task.candidates
        if task.pairs is not None:
            return _Contest(task, candidates, PairHistory(len(candidates)), iter([list(task.pairs)]))
        if self._comparisons != "all":
            candidates = tuple(sorted(candidates, key=lambda candidate: content_hash("place", candidate.id)))
        history = PairHistory(len(candidates))
        return _Contest(task, candidates, history, choose_pairs(self._comparisons, history))

    def _next(self, match_: _Contest) -> list[Pair]:
        """The pairs of the next round as they are shown; none when the task is judged."""
        shown: list[Pair] = []
        for pairs in match_.plan:
            for one, other in pairs:
                shown += self._orders(match_, one, other, shown)
            if shown:
                break
        return shown

    def _orders(self, match_: _Contest, one: int, other: int, of_round: Sequence[Pair]) -> list[Pair]:
        """The orders in which a pair is shown: both, the one that is left, or the one that is fair after those of this round."""
        history = match_.history
        fresh = [pair for pair in ((one, other), (other, one)) if pair not in history.shown]
        if self._both_orders or len(fresh) < 2:
            return fresh
        ids = match_.candidates[one].id, match_.candidates[other].id
        by_hash = fresh[0] if content_hash(*ids) < content_hash(*ids[::-1]) else fresh[1]
        if self._comparisons == "all" or match_.task.pairs is not None:
            return [by_hash]
        shown = [*history.shown, *of_round]
        lead = sum((first == one) - (second == one) - (first == other) + (second == other) for first, second in shown)
        return [by_hash if lead == 0 else (other, one) if lead > 0 else (one, other)]

    def _count(self, match_: _Contest) -> None:
        """Take a round's verdicts into the standing, in the order in which they were asked."""
        number = {candidate.id: place for place, candidate in enumerate(match_.candidates)}
        for question in match_.asked:
            first, second = question.candidates
            match_.history.shown[number[first], number[second]] = match_.verdicts[question].probability_first

    def _question(self, index: int, match_: _Contest, pair: Pair) -> Question:
        first, second = (match_.candidates[place] for place in pair)
        text = self._asking.filled(plain_prompt(match_.task.messages), [first.text, second.text])
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
