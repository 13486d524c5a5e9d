"""Teachers with planted faults, from their replies to what the audit makes of them."""

import hashlib
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.audit import Audit, AuditSettings
from aligndistill.config.data import Source
from aligndistill.config.run import Rankings
from aligndistill.data.loading import load_judgments
from aligndistill.errors import DataError, JudgeError
from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.judges.canaries import CONSTANT_ANSWER
from aligndistill.preferences.agreement import order_bias
from aligndistill.preferences.rankings import rank_responses
from aligndistill.records import Candidate, Comparison, Prompt
from aligndistill.runs.report_files import write_verdicts
from aligndistill.stages.audit import audit_labelling, read_labelling, recorded
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import read_verdicts
from aligndistill.store.jsonl import read_jsonl
from tests.stages.labelled import Teacher, audit_of, audited, context_in, inputs_of, labelled


def share(*texts: str) -> float:
    """A number in [0, 1) that belongs to the texts."""
    return int(hashlib.sha256("|".join(texts).encode()).hexdigest()[:8], 16) / 16**8


def worth(prompt: str, answer: str) -> float:
    """How good an answer is in this world: any number, except that no canary is any good."""
    is_bad = answer in ("", prompt, CONSTANT_ANSWER) or not answer.endswith(".") or prompt.split()[-1][:-1] not in answer
    return -1.0 if is_bad else share(prompt, answer)


def honest(prompt: str, first: str, second: str) -> str:
    return "[[A]]" if worth(prompt, first) > worth(prompt, second) else "[[B]]"


def always_first(prompt: str, first: str, second: str) -> str:
    return "[[A]]"


def always_longer(prompt: str, first: str, second: str) -> str:
    return "[[A]]" if len(first) > len(second) else "[[B]]"


def fifth_garbage(prompt: str, first: str, second: str) -> str:
    return "Well, who can say?" if share(prompt, first, second) < 0.2 else honest(prompt, first, second)


def all_of_them(prompt: str, first: str, second: str) -> str:
    """A fifth rubbish; else the longer where it is much longer; else the first."""
    if share(prompt, first, second) < 0.2:
        return "Well, who can say?"
    return "[[B]]" if len(second) > len(first) + 15 else "[[A]]"


def canary_lover(prompt: str, first: str, second: str) -> str:
    return "[[A]]" if worth(prompt, first) < worth(prompt, second) else "[[B]]"


def prompts_of(context: StageContext) -> list[Prompt]:
    return list(read_jsonl(inputs_of(context)["prompts"] / "prompts.jsonl", Prompt))


def candidates_of(context: StageContext) -> list[Candidate]:
    return list(read_jsonl(inputs_of(context)["candidates"] / "candidates.jsonl", Candidate))


def test_an_honest_teacher_passes(tmp_path: Path) -> None:
    found = audited(context_in(tmp_path), honest)
    assert (found["warnings"], found["stops"]) == ([], [])
    metrics = AuditMetrics.model_validate(found["metrics"])
    assert metrics.canaries is not None
    assert (metrics.canaries.mean, metrics.canaries.n) == (0, 20)
    assert {kind: rate.n for kind, rate in metrics.canaries_by_kind.items()} == dict.fromkeys(
        ("empty", "echo", "constant", "truncated", "other_prompt"), 4
    )
    assert metrics.self_consistency is not None
    assert metrics.self_consistency.mean == 1


@pytest.mark.parametrize(
    ("teacher", "complaints"),
    [
        (always_first, ["have another winner", "shown first", "known-bad"]),
        (always_longer, ["longer answer"]),
        (fifth_garbage, ["could not be parsed"]),
        (all_of_them, ["could not be parsed", "have another winner", "shown first", "longer answer"]),
    ],
)
def test_a_planted_bias_is_caught(tmp_path: Path, teacher: Teacher, complaints: Sequence[str]) -> None:
    found: Any = audited(context_in(tmp_path, prompts=100), teacher)
    for words in complaints:
        assert any(words in warning for warning in found["warnings"]), (words, found["warnings"])
    assert not found["stops"]


def test_both_orders_take_the_position_bias_out_of_the_rankings(tmp_path: Path) -> None:
    """It takes the first unless the second is clearly better. Put together, both orders never rank a pair the wrong way round."""

    def pulled(prompt: str, first: str, second: str) -> str:
        return "[[B]]" if worth(prompt, second) > worth(prompt, first) + 0.3 else "[[A]]"

    context = labelled(context_in(tmp_path, prompts=100, answers=2), pulled)
    verdicts = list(read_verdicts(context.folder))
    flips = order_bias([one for one in verdicts if isinstance(one, Comparison)]).flips
    assert 0.2 < flips.count / flips.total < 0.8
    candidates = candidates_of(context)
    tied = 0
    for prompt in prompts_of(context):
        of_prompt = [one for one in candidates if one.prompt_id == prompt.id]
        outcome = rank_responses(prompt, of_prompt, [one for one in verdicts if one.prompt_id == prompt.id], Rankings())
        if outcome.ranking is None:
            tied += 1  # the two orders contradict each other: nothing is learned from that
        else:
            better, worse = outcome.ranking.responses
            assert worth(prompt.messages[0].content, better.text) > worth(prompt.messages[0].content, worse.text)
    assert tied == flips.count


def test_a_teacher_that_loves_canaries_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"nothing is trained.*100% .* known-bad answers are preferred.*audit\.stop") as caught:
        audited(context_in(tmp_path), canary_lover)
    assert caught.value.exit_code == 4
    assert "known-bad" in (tmp_path / "audit.json").read_text()  # what was measured is there to look at
    assert "verdicts.html in the run's folder" in str(caught.value)
    lenient = Audit.model_validate({"stop": {"canaries": None}})
    audit_of(labelled(context_in(tmp_path / "again"), canary_lover), lenient)


def test_canaries_never_enter_the_labels(tmp_path: Path) -> None:
    context = labelled(context_in(tmp_path), honest)
    prompts = {prompt.id for prompt in prompts_of(context)}
    candidates = {one.id for one in candidates_of(context)}
    verdicts = [verdict for verdict in read_verdicts(context.folder) if isinstance(verdict, Comparison)]
    assert len(verdicts) == 60 * 6
    assert {verdict.prompt_id for verdict in verdicts} == prompts
    assert {one for verdict in verdicts for one in (verdict.first, verdict.second)} <= candidates
    canaries = read_labelling({**inputs_of(context), "verdicts": context.folder}).canaries
    assert not {verdict.prompt_id for canary in canaries for verdict in canary.verdicts} & prompts


def test_no_probes_where_none_are_wanted(tmp_path: Path) -> None:
    asked = []

    def counting(prompt: str, first: str, second: str) -> str:
        asked.append((prompt, first, second))
        return honest(prompt, first, second)

    labelled(context_in(tmp_path), counting, Audit.model_validate({"probes": {"canaries": 0, "repeats": 0}}))
    assert len(asked) == len(set(asked)) == 60 * 6


def test_a_fickle_teacher(tmp_path: Path) -> None:
    times: dict[tuple[str, ...], int] = {}

    def fickle(prompt: str, first: str, second: str) -> str:
        times[prompt, first, second] = times.get((prompt, first, second), 0) + 1
        other = {"[[A]]": "[[B]]", "[[B]]": "[[A]]"}
        verdict = honest(prompt, first, second)
        return other[verdict] if times[prompt, first, second] == 2 else verdict

    found: Any = audited(context_in(tmp_path), fickle)
    assert found["metrics"]["self_consistency"]["mean"] == 0
    assert ["asked twice" in warning for warning in found["warnings"]] == [True]


def test_labels_are_joined_by_prompt_and_text(tmp_path: Path) -> None:
    context = labelled(context_in(tmp_path), honest)
    candidates = [one for one in candidates_of(context) if not one.id.endswith("-2")]
    prompts = {prompt.id: prompt.messages[0].content for prompt in prompts_of(context)}
    rows = []
    for identity, prompt in prompts.items():
        texts = [one.text for one in candidates if one.prompt_id == identity]
        rows.append({"prompt": prompt, "responses": texts, "scores": [worth(prompt, text) for text in texts]})
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Audit(labels=Source(path=str(path)))
    audit_of(context, settings)
    metrics = AuditMetrics.model_validate(json.loads((tmp_path / "audit.json").read_text())["metrics"])
    assert metrics.labels is not None
    assert (metrics.labels.agreement.mean, metrics.labels.agreement.n, metrics.labels.kappa.mean) == (1, 60, 1)
    path.write_text(json.dumps({"prompt": "Another?", "responses": ["a", "b"], "scores": [0, 1]}) + "\n")
    with pytest.raises(DataError, match="none of its labels are for two answers that were judged here"):
        audit_of(context, settings)


def pairs_file(path: Path, *rows: tuple[str, str, float]) -> Source:
    """Preferences on each of two prompts: the better answer, the other, and by how much."""
    given = [
        {"prompt": f"Question {n}?", "chosen": one, "rejected": other, "score_chosen": by, "score_rejected": 0}
        for n in range(2)
        for one, other, by in rows
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return Source(path=str(path))


def test_pairs_of_a_file_agree_with_themselves(tmp_path: Path) -> None:
    """Several of one prompt, whose answers are chosen in one and rejected in another."""
    source = pairs_file(tmp_path / "pairs.jsonl", ("a", "b", 1), ("c", "a", 1), ("b", "d", 1), ("d", "c", 1))
    metrics = audit_labelling(recorded(load_judgments(source)), AuditSettings(labels=source)).metrics
    assert metrics.labels is not None
    assert (metrics.labels.agreement.mean, metrics.labels.kappa.mean) == (1, 1)


def test_labels_of_pairs_by_hand(tmp_path: Path) -> None:
    judged = tmp_path / "judged.jsonl"
    rows = [{"prompt": f"Question {n}?", "responses": ["a", "b", "c", "d"], "scores": [4, 3, 2, 1]} for n in range(2)]
    judged.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = pairs_file(
        tmp_path / "labels.jsonl",
        *[("a", "b", 1), ("d", "b", 1)],  # one as the judge, one not
        *[("c", "a", 1), ("a", "c", 1)],  # as many for one as for the other: a tie, which is not counted
        *[("c", "d", 1), ("d", "c", 5), ("c", "d", 2)],  # two of three as the judge, whatever the scores
    )
    metrics = audit_labelling(recorded(load_judgments(Source(path=str(judged)))), AuditSettings(labels=labels)).metrics
    assert metrics.labels is not None
    assert metrics.labels.agreement.mean == pytest.approx(2 / 3)
    assert metrics.labels.kappa.mean == pytest.approx((2 / 3 - 1 / 2) / (1 - 1 / 2))


def worths(prompt: str, responses: list[str]) -> list[float]:
    return [round(worth(prompt, response), 1) for response in responses]


def test_labels_by_the_truth_are_of_held_out_pairs(tmp_path: Path) -> None:
    """Honest, except that it is wrong about every pair of one prompt; the truth calls some pairs ties."""

    def wrong_once(prompt: str, first: str, second: str) -> str:
        return honest(prompt, second, first) if prompt == "What is question 5?" else honest(prompt, first, second)

    context = labelled(context_in(tmp_path), wrong_once)
    labelling = read_labelling({**inputs_of(context), "verdicts": context.folder})
    metrics = audit_labelling(labelling, AuditSettings(truth=f"{__name__}:worths")).metrics
    texts = {
        prompt.messages[0].content: [one.text for one in candidates_of(context) if one.prompt_id == prompt.id]
        for prompt in prompts_of(context)
        if prompt.split == "held_out"
    }
    decided = {prompt: sum(one != other for one, other in combinations(worths(prompt, some), 2)) for prompt, some in texts.items()}
    assert len(decided) == 12
    assert sum(decided.values()) < 12 * 3
    assert metrics.labels is not None
    assert metrics.labels.agreement.mean == pytest.approx(1 - decided["What is question 5?"] / sum(decided.values()))


def test_the_page_shows_every_reply_and_trusts_none(tmp_path: Path) -> None:
    def hostile(prompt: str, first: str, second: str) -> str:
        return f"<script>alert(1)</script> {honest(prompt, first, second)}"

    context = context_in(tmp_path)
    audited(context, hostile)
    (tmp_path / "run").mkdir()
    write_verdicts("run", tmp_path / "run", {**inputs_of(context), "verdicts": tmp_path})
    page = (tmp_path / "run/verdicts.html").read_text()
    assert not (tmp_path / "run/verdicts").exists()  # 60 prompts and 20 canaries are one page
    assert "<script>" not in page
    assert "Known-bad answer: echo" in page
    # 360 labels, 40 on canaries, 5 prompts asked again.
    assert page.count("&lt;script&gt;alert(1)") == 360 + 40 + 30
