"""evaluation.json: every author's answers to the held-out prompts, measured; scored.jsonl: the answers with their scores.

`model_outputs/AUTHOR.json` has an author's first answers as `alpaca_eval --model_outputs` reads them.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from aligndistill.config.judges import Judge
from aligndistill.config.plugins import load_plugin
from aligndistill.config.run import Evaluation
from aligndistill.errors import DataError
from aligndistill.evaluation.intervals import Mean, bootstrap_mean
from aligndistill.evaluation.text_metrics import distinct_n, repetition
from aligndistill.evaluation.wins import PromptVerdicts, by_prompt, win_rates
from aligndistill.judges.protocol import Task
from aligndistill.judges.reward_model import RewardModelJudge
from aligndistill.models.load import read_pointer
from aligndistill.models.reward import load_reward_model
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Answer, Candidate, Grade, Message, Record, candidate_id, plain_prompt
from aligndistill.stages.answers import held_out_prompts
from aligndistill.stages.context import Work
from aligndistill.stages.opening import Servers, kept_grades
from aligndistill.stages.verdicts import judge_figures, judge_tasks
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import Made

ANSWERS = "answers by "
"""Inputs of this stage that hold an author's answers are named so."""

MODEL_OUTPUTS = "model_outputs"


class AuthorFigures(Record):
    """What was measured of one author; None where it was not."""

    truth: Mean | None
    length_tokens: Mean
    reward: Mean | None
    win_rate: Mean | None
    win_rate_teacher: Mean | None
    kl_nats: Mean | None
    distinct_2: float | None
    repetition_4: Mean


class EvaluationResult(Record):
    """All authors' figures, and what the judge cost here."""

    authors: dict[str, AuthorFigures]
    judge: dict[str, int] | None


class ScoredAnswer(Record):
    """One answer with its scores."""

    prompt_id: str
    messages: tuple[Message, ...]
    author: str
    text: str
    length_tokens: int
    truth: float | None
    reward: float | None
    win: float | None


def make_evaluation(work: Work, settings: Evaluation, judge: Judge | None, servers: Servers, contents: Sequence[str]) -> Made:
    """Score the answers by truth, reward model and judge, and put intervals over prompts around the means.

    `contents` are the hashes of the judge's files and of the truth's module: another template is another judge.
    """
    messages = {prompt.id: prompt.messages for prompt in held_out_prompts(work, settings.prompts)}
    answers = _answers(work)
    tasks = evaluation_tasks(work, settings, messages, answers)
    verdicts = judge_tasks(work, judge, servers, tasks, "comparisons") if judge else []
    if not is_main_process():
        return Made()
    truths = _truths(settings.truth, tasks) if settings.truth else {}
    rewards = _rewards(work, tasks)
    write_jsonl(work.folder / "verdicts.jsonl", verdicts)

    scores = _Scores(truths, rewards, by_prompt(verdicts))
    result = EvaluationResult(
        authors={author: _figures(author, answers, scores, judge is not None) for author in answers},
        judge=judge_figures(verdicts) if judge else None,
    )
    (work.folder / "evaluation.json").write_text(result.model_dump_json(indent=2) + "\n")
    write_jsonl(work.folder / "scored.jsonl", _scored(answers, messages, scores))
    _write_model_outputs(work.folder / MODEL_OUTPUTS, answers, messages)
    return Made(counts={"prompts": len(tasks), "answers": sum(len(a) for by in answers.values() for a in by.values())})


Answers = Mapping[str, Mapping[str, Sequence[Answer]]]
"""By author and prompt."""


def evaluation_tasks(
    work: Work, settings: Evaluation, messages: Mapping[str, tuple[Message, ...]] | None = None, answers: Answers | None = None
) -> list[Task]:
    """What the judge is asked: of the stage's own prompts and answers, unless others are given."""
    if messages is None:
        messages = {prompt.id: prompt.messages for prompt in held_out_prompts(work, settings.prompts)}
    if answers is None:
        answers = _answers(work)
    tasks = [_task(prompt, messages[prompt], answers, settings.against_teacher) for prompt in messages]
    return [task for task in tasks if task.candidates]


def _answers(work: Work) -> dict[str, dict[str, list[Answer]]]:
    answers: dict[str, dict[str, list[Answer]]] = {}
    for name in work.inputs:
        if name.startswith(ANSWERS):
            author = name.removeprefix(ANSWERS)
            answers[author] = defaultdict(list)
            for answer in read_jsonl(work.inputs[name] / "answers.jsonl", Answer):
                answers[author][answer.prompt_id].append(answer)
    return answers


@dataclass(frozen=True)
class _Scores:
    """Truth and reward by answer id, verdicts by prompt id."""

    truths: Mapping[str, float]
    rewards: Mapping[str, float]
    verdicts: Mapping[str, PromptVerdicts]


def _answer_id(answer: Answer) -> str:
    """Answers with the same text are one answer, whoever wrote them."""
    return candidate_id(answer.prompt_id, "answer", answer.text)


def _task(
    prompt: str, messages: tuple[Message, ...], answers: Mapping[str, Mapping[str, Sequence[Answer]]], against_teacher: bool
) -> Task:
    """A prompt's distinct answers, and the pairs that win rates need."""
    candidates: dict[str, Candidate] = {}
    for of_author in answers.values():
        for answer in of_author.get(prompt, ()):
            identity = _answer_id(answer)
            candidates.setdefault(
                identity,
                Candidate(id=identity, prompt_id=prompt, text=answer.text, author=answer.author, finish=answer.finish),
            )
    place = {identity: index for index, identity in enumerate(candidates)}
    pairs: dict[tuple[int, int], None] = {}
    opponents = ["start", "teacher"] if against_teacher else ["start"]
    for opponent in opponents:
        for author, of_author in answers.items():
            if author in (opponent, "teacher") or opponent not in answers:
                continue
            for ours, theirs in zip(of_author.get(prompt, ()), answers[opponent].get(prompt, ()), strict=False):
                a, b = place[_answer_id(ours)], place[_answer_id(theirs)]
                if a != b:
                    pairs[min(a, b), max(a, b)] = None
    return Task(prompt, messages, tuple(candidates.values()), tuple(pairs))


def _truths(name: str, tasks: Sequence[Task]) -> dict[str, float]:
    truth: Callable[[str, list[str]], Sequence[float]] = load_plugin(name)
    scores: dict[str, float] = {}
    for task in tasks:
        values = list(truth(plain_prompt(task.messages), [candidate.text for candidate in task.candidates]))
        if len(values) != len(task.candidates):
            raise DataError(
                f"evaluation.truth '{name}' gave {len(values)} scores for {len(task.candidates)} answers; give one each."
            )
        scores.update(zip((candidate.id for candidate in task.candidates), map(float, values), strict=True))
    return scores


def _rewards(work: Work, tasks: Sequence[Task]) -> dict[str, float]:
    if "reward_model" not in work.inputs:
        return {}
    reward_model = load_reward_model(read_pointer(work.inputs["reward_model"]))
    kept = kept_grades(work, f"reward {work.identities['reward_model']}")
    judge = RewardModelJudge("reward_model", reward_model, work.runtime.per_device_eval_batch_size, kept)
    grades = [verdict for judged in judge.judge(tasks) for verdict in judged.verdicts]
    return {one.candidate: one.value for one in grades if isinstance(one, Grade) and one.value is not None}


def _figures(author: str, answers: Mapping[str, Mapping[str, Sequence[Answer]]], scores: _Scores, judged: bool) -> AuthorFigures:
    ours = answers[author]

    def per_prompt(value: Callable[[Answer], float | None]) -> Mean | None:
        means = []
        for of_prompt in ours.values():
            known = [v for v in map(value, of_prompt) if v is not None]
            if known:
                means.append(fmean(known))
        return bootstrap_mean(means) if means else None

    def wins_against(opponent: str) -> Mean | None:
        if not judged or opponent not in answers or author in (opponent, "teacher"):
            return None
        rates = win_rates(scores.verdicts, _ids(ours), _ids(answers[opponent]))
        return bootstrap_mean(rates) if rates else None

    length_tokens = per_prompt(lambda answer: answer.length_tokens)
    repetition_4 = per_prompt(lambda answer: repetition(answer.text))
    assert length_tokens is not None and repetition_4 is not None
    return AuthorFigures(
        truth=per_prompt(lambda answer: scores.truths.get(_answer_id(answer))),
        length_tokens=length_tokens,
        reward=per_prompt(lambda answer: scores.rewards.get(_answer_id(answer))),
        win_rate=wins_against("start"),
        win_rate_teacher=wins_against("teacher"),
        kl_nats=per_prompt(lambda answer: answer.kl_nats),
        distinct_2=distinct_n([answer.text for of_prompt in ours.values() for answer in of_prompt], 2),
        repetition_4=repetition_4,
    )


def _ids(answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[str]]:
    return {prompt: [_answer_id(answer) for answer in of_prompt] for prompt, of_prompt in answers.items()}


def _scored(
    answers: Mapping[str, Mapping[str, Sequence[Answer]]], messages: Mapping[str, tuple[Message, ...]], scores: _Scores
) -> list[ScoredAnswer]:
    rows = []
    for of_author in answers.values():
        for prompt, of_prompt in of_author.items():
            starts = answers.get("start", {}).get(prompt, ())
            for sample, answer in enumerate(of_prompt):
                identity = _answer_id(answer)
                against = _answer_id(starts[sample]) if sample < len(starts) else None
                verdicts = scores.verdicts.get(prompt)
                rows.append(
                    ScoredAnswer(
                        prompt_id=prompt,
                        messages=messages[prompt],
                        author=answer.author,
                        text=answer.text,
                        length_tokens=answer.length_tokens,
                        truth=scores.truths.get(identity),
                        reward=scores.rewards.get(identity),
                        win=verdicts.win_probability(identity, against) if verdicts and against else None,
                    )
                )
    return rows


def _write_model_outputs(
    folder: Path, answers: Mapping[str, Mapping[str, Sequence[Answer]]], messages: Mapping[str, tuple[Message, ...]]
) -> None:
    folder.mkdir(exist_ok=True)
    for author, of_author in answers.items():
        rows = [
            {
                "instruction": plain_prompt(messages[prompt]),
                "output": of_prompt[0].text,
                "generator": author,
                "dataset": "held_out",
                "datasplit": "eval",
            }
            for prompt, of_prompt in of_author.items()
        ]
        (folder / f"{author}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
