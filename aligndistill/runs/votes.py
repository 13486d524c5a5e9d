"""People's votes in a run's folder, and what they say of its judge."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from aligndistill.evaluation.votes import Vote, VotedAnswer, VoteMetrics, standing, vote_metrics
from aligndistill.evaluation.wins import by_prompt
from aligndistill.stages.files import SCORED, read_verdicts
from aligndistill.stages.scored_answers import ScoredAnswer, answer_key
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.run_folder import finished_stage

VOTES = "votes"
"""The folder of the votes, a file for each voter."""


def read_votes(run: Path) -> dict[str, list[Vote]]:
    """Voter -> the votes that stand. Lines that a killed process left incomplete are skipped."""
    return {file.stem: standing(read_file(file)) for file in vote_files(run)}


def vote_files(run: Path) -> list[Path]:
    """The files of a run's votes."""
    folder = run / VOTES
    return sorted(folder.glob("*.jsonl")) if folder.is_dir() else []


def read_file(path: Path) -> Iterator[Vote]:
    """Every vote of a file, undone ones among them."""
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                yield Vote.model_validate_json(line)
            except ValidationError:
                continue


def measured_votes(run: Path) -> VoteMetrics | None:
    """What the votes on a run's held-out answers say of its judge; None without votes or without an evaluation.

    Raises:
        DataError: there is no run.
    """
    by_voter = read_votes(run)
    if not any(by_voter.values()):
        return None
    evaluation = finished_stage(run, "evaluation")
    return measured_against(evaluation, by_voter) if evaluation is not None else None


def measured_against(evaluation: Path, by_voter: Mapping[str, Sequence[Vote]]) -> VoteMetrics:
    """The metrics of votes, from the evaluation's answers and verdicts."""
    pairs = {vote.pair for votes in by_voter.values() for vote in votes}
    voted = {prompt for prompt, _, _ in pairs}
    answers: dict[tuple[str, str], VotedAnswer] = {}
    for one in read_jsonl(evaluation / SCORED, ScoredAnswer):
        if one.prompt_id in voted:
            key = one.prompt_id, answer_key(one.prompt_id, one.text)
            before = answers[key].authors if key in answers else ()
            answers[key] = VotedAnswer(len(one.text), {*before, one.author})
    verdicts = by_prompt(one for one in read_verdicts(evaluation) if one.prompt_id in voted)
    judged = {
        (prompt, one, other): verdicts[prompt].win_probability(one, other) for prompt, one, other in pairs if prompt in verdicts
    }
    return vote_metrics(by_voter, judged, answers)
