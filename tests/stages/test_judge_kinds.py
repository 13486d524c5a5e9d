"""Every kind of judge from its section in the config, for labelling, for rewards and for evaluation, and by batch file."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from aligndistill.chat.batch import read_answers
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.commands.batch_files import import_answers, open_questions
from aligndistill.config.audit import AuditProbes
from aligndistill.config.judges import Judge, judge_models
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Rankings
from aligndistill.models.load import ModelPointer
from aligndistill.records import Comparison, Message, Ranking
from aligndistill.stages.context import Work
from aligndistill.stages.opening import JUDGE_MODEL, Servers, judge_model_input, open_judge
from aligndistill.stages.rankings import make_rankings
from aligndistill.stages.rewards import RewardPart, open_rewards
from aligndistill.stages.verdicts import judge_tasks, labelling_order, make_verdicts, read_verdicts
from aligndistill.store.jsonl import read_jsonl
from aligndistill.training.on_policy.rollouts import SampledPrompt
from tests.judges.tasks import task
from tests.stages.labelled import SERVER, work_of
from tests.tiny_models import user, write_tiny_model

JUDGE: TypeAdapter[Judge] = TypeAdapter(Judge)
NO_PROBES = AuditProbes(canaries=0, repeats=0)
ANSWER = re.compile(r"\[Start of answer(?: (\w))? (?P<mark>\w{12})\]\n(.*?)\n\[End of answer(?: \w)? (?P=mark)\]", re.DOTALL)


def length(prompt: str, responses: list[str]) -> list[float]:
    """A judge function."""
    return [len(response) / 10 for response in responses]


def longest(messages: tuple[Message, ...], sample: int) -> str:
    """A teacher that likes length, whatever it is asked."""
    answers = {letter: text for letter, _, text in ANSWER.findall(messages[-1].content)}
    if set(answers) == {""}:
        return str(min(10, 1 + len(answers[""]) // 10))
    order = sorted(answers, key=lambda letter: -len(answers[letter]))
    return " > ".join(order) if "Order the answers" in messages[-1].content else order[0]


KINDS: dict[str, dict[str, Any]] = {
    "pairwise": {"kind": "pairwise", "model": SERVER},
    "swiss": {"kind": "pairwise", "model": SERVER, "comparisons": "swiss", "both_orders": False},
    "sort": {"kind": "pairwise", "model": SERVER, "comparisons": "sort"},
    "random": {"kind": "pairwise", "model": SERVER, "comparisons": "random(6)", "both_orders": False},
    "rubric": {"kind": "rubric", "model": SERVER, "samples": 3},
    "listwise": {"kind": "listwise", "model": SERVER},
    "function": {"kind": "function", "function": f"{__name__}:length"},
    "panel": {
        "kind": "panel",
        "combine": "product",
        "members": {
            "pairs": {"judge": {"kind": "pairwise", "model": SERVER}, "weight": 2},
            "list": {"judge": {"kind": "listwise", "model": SERVER}},
            "rules": {"judge": {"kind": "function", "function": f"{__name__}:length"}, "temperature": 2},
        },
    },
}


def settings_of(kind: str) -> Judge:
    return JUDGE.validate_python(KINDS[kind])


def servers_of(judge: Judge) -> Servers:
    return {judge_model_input(one.part): one.model for one in judge_models(judge) if isinstance(one.model, EndpointModel)}


def with_longest(work: Work) -> Work:
    return Work(**{**vars(work), "open_endpoint": lambda _: ScriptedChat(longest)})


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_labels_and_its_rankings_have_the_teachers_order(kind: str, tmp_path: Path) -> None:
    work = with_longest(work_of(tmp_path, prompts=12, answers=4))
    judge = settings_of(kind)
    make_verdicts(work, judge, servers_of(judge), "", NO_PROBES)
    make_rankings(work, Rankings(), conversational=True)
    rankings = list(read_jsonl(work.folder / "rankings.jsonl", Ranking))
    assert len(rankings) == 12
    wrong = sum(
        better.score > worse.score and len(better.text) < len(worse.text)
        for ranking in rankings
        for better in ranking.responses
        for worse in ranking.responses
    )
    assert wrong == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_rewards(kind: str, tmp_path: Path) -> None:
    judge = settings_of(kind)
    score = open_rewards(with_longest(work_of(tmp_path, prompts=1)), [RewardPart(judge, servers_of(judge), "", "", 1.0)])
    ((short, middle, long, middle_again), (alone,)) = score(
        [
            SampledPrompt("a?", user("a?"), ("x" * 5, "x" * 25, "x" * 45, "x" * 25), ("stop",) * 4),
            SampledPrompt("b?", user("b?"), ("alone",), ("stop",)),
        ]
    )
    assert short is not None
    assert middle is not None
    assert long is not None
    assert short < middle < long
    assert middle_again == middle
    assert alone is not None


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_judges_the_pairs_that_an_evaluation_names(kind: str, tmp_path: Path) -> None:
    judge = settings_of(kind)
    whole = task("why", "x" * 5, "x" * 25, "x" * 45)
    named = type(whole)(whole.prompt_id, whole.messages, whole.candidates, pairs=((0, 2),))
    verdicts = judge_tasks(with_longest(work_of(tmp_path, prompts=1)), judge, servers_of(judge), [named], "comparisons")
    compared = {frozenset((one.first, one.second)) for one in verdicts if isinstance(one, Comparison)}
    assert compared in (set(), {frozenset((whole.candidates[0].id, whole.candidates[2].id))})  # none: it grades
    assert verdicts


def test_members_have_their_own_local_models_and_names(tmp_path: Path) -> None:
    folders = {}
    for number, name in enumerate(("one", "other")):
        folder = tmp_path / name
        folder.mkdir()
        ModelPointer(path=str(write_tiny_model(folder / "model", seed=number)), layout="chat").write(folder)
        folders[judge_model_input(name)] = folder
    members = {name: {"judge": {"kind": "likelihood"}} for name in ("one", "other")}
    judge = JUDGE.validate_python({"kind": "panel", "members": members})
    work = work_of(tmp_path / "work", prompts=1)
    work = Work(**{**vars(work), "inputs": {**work.inputs, **folders}, "identities": {name: name for name in folders}})
    (judged,) = open_judge(work, judge, {}).judge([task("No?", "blue", "Paris")])
    (verdict,) = judged.verdicts
    assert isinstance(verdict, Comparison)
    assert [member.judge for member in verdict.members] == ["one", "one", "other", "other"]
    values = [member.value for member in verdict.members if member.kind == "grade"]
    assert values[:2] != values[2:]


@pytest.mark.parametrize("kind", ["swiss", "sort", "listwise", "panel"])
def test_batches_go_on_until_every_round_is_answered(kind: str, tmp_path: Path) -> None:
    """A plan of several rounds takes several batches; the verdicts are those of asking the server."""
    work = work_of(tmp_path / "batch", prompts=4, answers=4)
    judge = settings_of(kind)
    servers = servers_of(judge)
    batches = 0
    while requests := open_questions(work, judge, servers, NO_PROBES, logprobs=False):
        batches += 1
        rows = []
        for request in requests:
            messages = tuple(Message.model_validate(message) for message in request["body"]["messages"])
            body = {"choices": [{"message": {"role": "assistant", "content": longest(messages, 0)}, "finish_reason": "stop"}]}
            rows.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})
        import_answers(work, judge, servers, NO_PROBES, read_answers(rows))
    assert (batches > 1) == (kind in ("swiss", "sort"))
    assert labelling_order(work, judge, NO_PROBES).tasks

    def outcomes(made: Work) -> list[tuple[str, str, str]]:
        make_verdicts(made, judge, servers, "", NO_PROBES)
        return [(v.first, v.second, v.outcome) for v in read_verdicts(made.folder) if isinstance(v, Comparison)]

    def nobody(messages: tuple[Message, ...], sample: int) -> str:
        raise AssertionError("all of it is in the cache")

    # The cache knows an answer by its server.
    endpoint = EndpointModel.model_validate(SERVER)
    identity = f"endpoint {endpoint.base_url.rstrip('/')} {endpoint.name}"
    silent = Work(**{**vars(work), "open_endpoint": lambda _: ScriptedChat(nobody, identity=identity)})
    assert outcomes(silent) == outcomes(with_longest(work_of(tmp_path / "asked", prompts=4, answers=4)))


def test_the_only_model_of_a_judge_that_is_no_panel_has_the_plain_name() -> None:
    assert set(servers_of(settings_of("listwise"))) == {JUDGE_MODEL}
    assert set(servers_of(settings_of("panel"))) == {f"{JUDGE_MODEL} pairs", f"{JUDGE_MODEL} list"}
