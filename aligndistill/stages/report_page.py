"""What report.html shows besides the metrics: curves, lengths, samples, counts, read from the folders of stages."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.records import plain_prompt
from aligndistill.reporting.report import Report
from aligndistill.reporting.samples import SampleAnswer, SamplePrompt, samples_of
from aligndistill.stages.files import HELD_OUT_PAIRS, SAMPLES, HeldOutPair, RolloutSample, read_log
from aligndistill.stages.models import COPY
from aligndistill.stages.scored_answers import ScoredAnswer
from aligndistill.store.artifacts import Manifest
from aligndistill.store.jsonl import read_jsonl

if TYPE_CHECKING:
    from aligndistill.evaluation.preference_metrics import LengthGapBin
    from aligndistill.reporting.page import DataCounts, PageData
    from aligndistill.reporting.updates import Updates

LENGTH_GAP_EDGES_TOKENS = (-50, -10, 0, 10, 50)


def page_data(
    report: Report,
    counts: "DataCounts",
    shown: str,
    reward_model: Path | None,
    students: Mapping[str, Path],
    on_policy: Collection[str],
    scored: Sequence[ScoredAnswer],
) -> "PageData":
    """The data of the page, with the plots' data read from the stages' folders."""
    from aligndistill.evaluation.calibration import reliability
    from aligndistill.reporting.page import PageData

    pairs = list(read_jsonl(reward_model / HELD_OUT_PAIRS, HeldOutPair)) if reward_model else []
    answers = [answer for answer in scored if COPY not in answer.author]
    return PageData(
        report=report,
        curves={
            name: [(int(entry["step"]), entry["loss"]) for entry in read_log(folder)]
            for name, folder in students.items()
            if name not in on_policy
        },
        updates={name: _updates(folder) for name, folder in students.items() if name in on_policy},
        lengths=_lengths(answers),
        samples=samples_of(report.students, sample_prompts(answers)),
        reliability=reliability(*_probabilities(pairs)) if pairs else (),
        length_gaps=_by_length_gap(pairs) if pairs else (),
        counts=counts,
        config_yaml=shown,
    )


def _updates(folder: Path) -> "Updates":
    from aligndistill.reporting.updates import Updates, WrittenSample

    entries = read_log(folder)
    shown = read_jsonl(folder / SAMPLES, RolloutSample) if (folder / SAMPLES).is_file() else ()
    samples = [
        WrittenSample(one.update, plain_prompt(one.messages), one.text, one.score, one.kl_nats, one.length_tokens) for one in shown
    ]
    return Updates([entry if "update" in entry else trl_entry(entry) for entry in entries], samples)


def trl_entry(entry: Mapping[str, float]) -> dict[str, float]:
    """An entry of TRL's log with this package's names of the same metrics. TRL's KL is per token, so it is not among them."""
    names = {"step": "update", "reward": "score", "entropy": "entropy_nats", "completions/mean_length": "length_tokens"}
    return {ours: entry[theirs] for theirs, ours in names.items() if theirs in entry}


def _probabilities(pairs: Iterable[HeldOutPair]) -> tuple[list[float], list[float]]:
    from scipy.special import expit

    probabilities = [float(expit(pair.difference)) for pair in pairs]
    return probabilities, [1.0] * len(probabilities)


def _by_length_gap(pairs: Sequence[HeldOutPair]) -> "list[LengthGapBin]":
    from aligndistill.evaluation.calibration import accuracy_by_length_gap

    gaps = [pair.length_gap_tokens for pair in pairs]
    return accuracy_by_length_gap([pair.difference for pair in pairs], gaps, LENGTH_GAP_EDGES_TOKENS)


def _lengths(answers: Iterable[ScoredAnswer]) -> dict[str, list[int]]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for answer in answers:
        lengths[answer.author].append(answer.length_tokens)
    return dict(lengths)


def sample_prompts(answers: Iterable[ScoredAnswer]) -> list[SamplePrompt]:
    """Each held-out prompt with every author's first answer."""
    first: dict[str, dict[str, ScoredAnswer]] = defaultdict(dict)
    for answer in answers:
        first[answer.prompt_id].setdefault(answer.author, answer)
    return [
        SamplePrompt(
            prompt=plain_prompt(next(iter(by_author.values())).messages),
            answers=tuple(
                SampleAnswer(one.author, one.text, one.truth, one.reward, one.length_tokens, one.win) for one in by_author.values()
            ),
            id=prompt,
        )
        for prompt, by_author in first.items()
    ]


def counted(manifests: Mapping[str, Manifest]) -> "DataCounts":
    """The numbers of records of these stages."""
    from aligndistill.reporting.page import DataCounts

    def count(stage: str, name: str) -> int | None:
        return manifests[stage].counts.get(name) if stage in manifests else None

    dropped = {f"{stage}: {reason}": number for stage, manifest in manifests.items() for reason, number in manifest.dropped.items()}
    rankings = manifests["rankings"].counts if "rankings" in manifests else None
    return DataCounts(
        train_prompts=count("prompts", "train"),
        held_out_prompts=count("prompts", "held_out"),
        candidates=count("candidates", "candidates"),
        rankings=rankings["train"] + rankings["held_out"] if rankings else None,
        pairs=rankings["pairs"] if rankings else None,
        dropped=dropped,
    )
