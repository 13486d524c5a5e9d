"""evaluation.json: metrics of every author's answers to the held-out prompts; scored.jsonl: the answers with their scores.

`model_outputs/AUTHOR.json` has an author's first answers in the format of `alpaca_eval --model_outputs`.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from types import MappingProxyType

from aligndistill.config.run import Evaluation
from aligndistill.evaluation.intervals import Mean, bootstrap_mean
from aligndistill.evaluation.leading import Leading, Measure, Measured, leading_by_first
from aligndistill.evaluation.length_control import Controlled, controlled_win_rate, style_differences
from aligndistill.evaluation.text_metrics import distinct_n, repetition
from aligndistill.evaluation.wins import Compared, by_prompt, compared, win_rates
from aligndistill.judges.protocol import Task
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Answer, Candidate, Grade, Message, Record
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import ANSWERS, EVALUATION, MODEL_OUTPUTS, SCORED, VERDICTS, held_out_prompts
from aligndistill.stages.opening import cached_grades
from aligndistill.stages.scored_answers import Scores, answer_id, scored_answers, write_model_outputs
from aligndistill.stages.truths import truths_of
from aligndistill.stages.verdicts import CACHED, IN_EVALUATION, ask_tasks, judge_metrics, require_readable, verdicts_of
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult, collects, together


class AuthorMetrics(Record):
    """The metrics of one author; None if not measured.

    `length_warning` says why the controlled win rate is None, or cannot be trusted.
    """

    truth: Mean | None
    length_tokens: Mean
    reward: Mean | None
    win_rate: Mean | None
    win_rate_lc: Mean | None
    win_rate_style: Mean | None
    win_rate_teacher: Mean | None
    win_rate_own: Mean | None = None
    length_warning: str | None
    kl_nats: Mean | None
    distinct_2: float | None
    repetition_4: Mean


class EvaluationResult(Record):
    """All authors' metrics, the judge's calls and tokens in the evaluation, and the leading student."""

    authors: dict[str, AuthorMetrics]
    judge: dict[str, int] | None
    leading: Leading | None = None


@together
@collects
def make(
    context: StageContext,
    *,
    settings: Evaluation,
    models: Mapping[str, ModelSource],
    prompts: Path,
    answers: Mapping[str, Path],
    reward_model: Path | None,
    seed: int,
    students: Mapping[str, str],
    stops: Mapping[str, Path] | None = None,
    orders: Mapping[str, Path] | None = None,
    own_starts: Mapping[str, str] | None = None,
) -> StageResult:
    """Score the answers by truth, reward model and judge, and compute means with intervals over prompts.

    Args:
        stops, orders: of repeated rounds, what decided whether another followed, and with it which answers there are.
        own_starts: of students that are not trained from the run's start, the author that they are trained from.
        students: the authors of whom one leads, each with the name that its seeds share.
    """
    assert settings.judge != "same", "a resolved config names the judge"
    judge = settings.judge
    messages = {prompt.id: prompt.messages for prompt in held_out_prompts(prompts, settings.prompts)}
    by_author = read_answers(answers)
    opponents = ["start", "teacher"] if settings.against_teacher else ["start"]
    own = own_starts or {}
    tasks = [answers_task(prompt, messages[prompt], by_author, opponents, own) for prompt in messages]
    tasks = [task for task in tasks if task.candidates]
    judged = ask_tasks(context, judge, models, tasks, seed, "comparisons") if judge else []
    verdicts = verdicts_of(judged)
    require_readable(context, verdicts, "comparisons")
    if not is_main_process():
        return StageResult()
    truths = truths_of(settings.truth, messages, {task.prompt_id: task.candidates for task in tasks}) if settings.truth else {}
    rewards = _rewards(context, reward_model, tasks) if reward_model else {}
    write_jsonl(context.folder / VERDICTS, verdicts)

    truth_of = {identity: score for of_prompt in truths.values() for identity, score in of_prompt.items()}
    scores = Scores(truth_of, rewards, by_prompt(verdicts))
    result = EvaluationResult(
        authors={author: _metrics(author, by_author, scores, settings, own.get(author)) for author in by_author},
        judge=judge_metrics(verdicts) if judge else None,
        leading=_leading(students, by_author, scores, settings),
    )
    (context.folder / EVALUATION).write_text(result.model_dump_json(indent=2) + "\n")
    write_jsonl(context.folder / SCORED, scored_answers(by_author, messages, scores))
    write_model_outputs(context.folder / MODEL_OUTPUTS, by_author, messages)
    rounds = {"rounds": len(stops) + 1} if stops else {}
    return StageResult(
        counts={**rounds, "prompts": len(tasks), "answers": sum(len(a) for by in by_author.values() for a in by.values())},
        metrics={CACHED: {IN_EVALUATION: sum(one.cached for one in judged)}} if judge else {},
    )


def read_answers(folders: Mapping[str, Path]) -> dict[str, dict[str, list[Answer]]]:
    """Group answers by author and prompt."""
    answers: dict[str, dict[str, list[Answer]]] = {}
    for author, folder in folders.items():
        answers[author] = defaultdict(list)
        for answer in read_jsonl(folder / ANSWERS, Answer):
            answers[author][answer.prompt_id].append(answer)
    return answers


def answers_task(
    prompt: str,
    messages: tuple[Message, ...],
    answers: Mapping[str, Mapping[str, Sequence[Answer]]],
    opponents: Sequence[str],
    own_starts: Mapping[str, str] = MappingProxyType({}),
) -> Task:
    """A prompt's distinct answers, and the pairs that win rates over these opponents, and over students' own starts, need."""
    candidates: dict[str, Candidate] = {}
    for of_author in answers.values():
        for answer in of_author.get(prompt, ()):
            identity = answer_id(answer)
            candidates.setdefault(
                identity,
                Candidate(id=identity, prompt_id=prompt, text=answer.text, author=answer.author, finish=answer.finish),
            )
    place = {identity: index for index, identity in enumerate(candidates)}
    against = [(author, opponent) for opponent in opponents for author in answers if author not in (opponent, "teacher")]
    pairs: dict[tuple[int, int], None] = {}
    for author, opponent in [*against, *own_starts.items()]:
        for ours, theirs in zip(answers[author].get(prompt, ()), answers.get(opponent, {}).get(prompt, ()), strict=False):
            a, b = place[answer_id(ours)], place[answer_id(theirs)]
            if a != b:
                pairs[min(a, b), max(a, b)] = None
    return Task(prompt, messages, tuple(candidates.values()), tuple(pairs))


def _rewards(context: StageContext, folder: Path, tasks: Sequence[Task]) -> dict[str, float]:
    from aligndistill.judges.reward_model import RewardModelJudge
    from aligndistill.models.load import read_pointer
    from aligndistill.models.reward import load_reward_model

    reward_model = load_reward_model(read_pointer(folder))
    cache = cached_grades(context, f"reward {context.identities[folder]}")
    judge = RewardModelJudge("reward_model", reward_model, context.runtime.per_device_eval_batch_size, cache)
    grades = [verdict for judged in judge.judge(tasks) for verdict in judged.verdicts]
    return {one.candidate: one.value for one in grades if isinstance(one, Grade) and one.value is not None}


def _metrics(
    author: str,
    answers: Mapping[str, Mapping[str, Sequence[Answer]]],
    scores: Scores,
    settings: Evaluation,
    own_start: str | None,
) -> AuthorMetrics:
    ours = answers[author]

    def compared_with(opponent: str) -> list[Compared]:
        if settings.judge is None or opponent not in answers or author in (opponent, "teacher"):
            return []
        return compared(scores.verdicts, answer_ids(ours), answer_ids(answers[opponent]))

    against_start, against_teacher = compared_with("start"), compared_with("teacher")
    by_length, by_style = controlled(against_start, ours, answers.get("start", {}), settings)
    length_tokens = mean_over_prompts(ours, lambda answer: answer.length_tokens)
    repetition_4 = mean_over_prompts(ours, lambda answer: repetition(answer.text))
    assert length_tokens is not None and repetition_4 is not None
    return AuthorMetrics(
        truth=mean_over_prompts(ours, lambda answer: scores.truths.get(answer_id(answer))),
        length_tokens=length_tokens,
        reward=mean_over_prompts(ours, lambda answer: scores.rewards.get(answer_id(answer))),
        win_rate=win_rate(against_start),
        win_rate_lc=by_length.win_rate,
        win_rate_style=by_style.win_rate,
        win_rate_teacher=win_rate(against_teacher),
        win_rate_own=win_rate(compared_with(own_start)) if own_start else None,
        length_warning=by_length.warning or by_style.warning,
        kl_nats=mean_over_prompts(ours, lambda answer: answer.kl_nats),
        distinct_2=distinct_n([answer.text for of_prompt in ours.values() for answer in of_prompt], 2),
        repetition_4=repetition_4,
    )


def _leading(
    students: Mapping[str, str],
    answers: Mapping[str, Mapping[str, Sequence[Answer]]],
    scores: Scores,
    settings: Evaluation,
) -> Leading | None:
    """The leading student by truth, or else by the win rate over the start, at equal length where that is measured."""
    truths: dict[str, list[Measured]] = defaultdict(list)
    wins: dict[str, list[Measured]] = defaultdict(list)
    starts = answers.get("start", {})
    for author, name in students.items():
        if author not in answers:  # of a round that was not run
            continue
        ours = answers[author]
        values = [(one.prompt_id, scores.truths.get(answer_id(one))) for of_prompt in ours.values() for one in of_prompt]
        truths[name] += [Measured(prompt, value) for prompt, value in values if value is not None]
        for one in compared(scores.verdicts, answer_ids(ours), answer_ids(starts)) if settings.judge is not None else ():
            a, b = ours[one.prompt][one.sample], starts[one.prompt][one.sample]
            wins[name].append(Measured(one.prompt, one.probability, a.length_tokens - b.length_tokens))
    measures: dict[Measure, Mapping[str, Sequence[Measured]]] = {"truth": truths}
    measures |= {"win_rate_lc": wins, "win_rate": wins} if settings.length_control else {"win_rate": wins}
    return leading_by_first(measures)


def mean_over_prompts(answers: Mapping[str, Sequence[Answer]], value: Callable[[Answer], float | None]) -> Mean | None:
    """The mean over prompts of a prompt's mean over its answers; None if no answer has a value."""
    means = []
    for of_prompt in answers.values():
        known = [v for v in map(value, of_prompt) if v is not None]
        if known:
            means.append(fmean(known))
    return bootstrap_mean(means) if means else None


def win_rate(comparisons: Sequence[Compared]) -> Mean | None:
    """The mean over prompts; None without comparisons."""
    return bootstrap_mean(win_rates(comparisons)) if comparisons else None


def controlled(
    comparisons: Sequence[Compared],
    ours: Mapping[str, Sequence[Answer]],
    theirs: Mapping[str, Sequence[Answer]],
    settings: Evaluation,
) -> tuple[Controlled, Controlled]:
    """The win rate with the length controlled, and with the length and the style."""
    pairs = [(ours[one.prompt][one.sample], theirs[one.prompt][one.sample]) for one in comparisons]
    probabilities, prompts = [one.probability for one in comparisons], [one.prompt for one in comparisons]
    differences = [a.length_tokens - b.length_tokens for a, b in pairs]
    unmeasured = Controlled(win_rate=None)
    by_length = by_style = unmeasured
    if comparisons and settings.length_control:
        by_length = controlled_win_rate(probabilities, differences, prompts)
    if comparisons and settings.style_control:
        by_style = controlled_win_rate(probabilities, differences, prompts, [style_differences(a.text, b.text) for a, b in pairs])
    return by_length, by_style


def answer_ids(answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[str]]:
    """Prompt id -> the ids of its answers, one per sample."""
    return {prompt: [answer_id(answer) for answer in of_prompt] for prompt, of_prompt in answers.items()}
