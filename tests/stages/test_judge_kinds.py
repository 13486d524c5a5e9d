"""Every kind of judge from its section in the config, for labelling, for rewards and for evaluation, and by batch file."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from aligndistill.chat.batch import read_answers
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.commands.batch_files import import_answers, open_questions
from aligndistill.config.audit import AuditProbes
from aligndistill.config.judges import Judge
from aligndistill.config.models import EndpointModel
from aligndistill.config.objectives import WeightedReward
from aligndistill.config.run import Rankings
from aligndistill.config.schema import with_named_models
from aligndistill.models.load import ModelPointer
from aligndistill.records import Comparison, Message, Ranking
from aligndistill.stages import rankings, verdicts
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import read_verdicts
from aligndistill.stages.labelling import labelling_tasks
from aligndistill.stages.opening import open_judge
from aligndistill.stages.rewards import open_rewards
from aligndistill.stages.verdicts import ask
from aligndistill.store.jsonl import read_jsonl
from aligndistill.training.on_policy.rollouts import SampledPrompt
from tests.judges.tasks import task
from tests.stages.labelled import SERVER, context_in, inputs_of, label, labelling_of
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


def judge_of(kind: str) -> tuple[Judge, Mapping[str, ModelSource]]:
    """The judge as a resolved config has it, and the models that it names."""
    models: dict[str, Any] = {}
    judge: Judge = with_named_models(JUDGE.validate_python(KINDS[kind]), "judge", models)
    return judge, models


def with_longest(context: StageContext) -> StageContext:
    return replace(context, open_endpoint=lambda _: ScriptedChat(longest))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_labels_and_its_rankings_have_the_teachers_order(kind: str, tmp_path: Path) -> None:
    context = with_longest(context_in(tmp_path, prompts=12, answers=4))
    label(context, *judge_of(kind), NO_PROBES)
    rankings.make(context, settings=Rankings(), conversational=True, **inputs_of(context), verdicts=context.folder)
    ranked = list(read_jsonl(context.folder / "rankings.jsonl", Ranking))
    assert len(ranked) == 12
    wrong = sum(
        better.score > worse.score and len(better.text) < len(worse.text)
        for ranking in ranked
        for better in ranking.responses
        for worse in ranking.responses
    )
    assert wrong == 0


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_in_parts_have_the_same_verdicts(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for place, at_once in (("whole", 100), ("parts", 5)):
        monkeypatch.setattr(verdicts, "TASKS_AT_ONCE", at_once)
        (tmp_path / place).mkdir()
        context = with_longest(context_in(tmp_path / place, prompts=12, answers=3))
        label(context, *judge_of(kind), NO_PROBES)
        found.append(list(read_verdicts(context.folder)))
    assert found[0]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_rewards(kind: str, tmp_path: Path) -> None:
    judge, models = judge_of(kind)
    parts = [WeightedReward(source=judge, weight=1.0)]
    score = open_rewards(with_longest(context_in(tmp_path, prompts=1)), parts, models, None, seed=0)
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
    judge, models = judge_of(kind)
    whole = task("why", "x" * 5, "x" * 25, "x" * 45)
    named = type(whole)(whole.prompt_id, whole.messages, whole.candidates, pairs=((0, 2),))
    verdicts = ask(with_longest(context_in(tmp_path, prompts=1)), judge, models, [named], 0, "comparisons")
    compared = {frozenset((one.first, one.second)) for one in verdicts if isinstance(one, Comparison)}
    assert compared in (set(), {frozenset((whole.candidates[0].id, whole.candidates[2].id))})  # none: it grades
    assert verdicts


def test_members_have_their_own_local_models_and_names(tmp_path: Path) -> None:
    folders = {}
    for number, name in enumerate(("one", "other")):
        folder = tmp_path / name
        folder.mkdir()
        ModelPointer(path=str(write_tiny_model(folder / "model", seed=number)), layout="chat").write(folder)
        folders[name] = folder
    members = {name: {"judge": {"kind": "likelihood", "model": name}} for name in ("one", "other")}
    judge = JUDGE.validate_python({"kind": "panel", "members": members})
    context = context_in(tmp_path / "judged", prompts=1)
    context = replace(context, identities={folder: name for name, folder in folders.items()})
    (judged,) = open_judge(context, judge, folders, seed=0).judge([task("No?", "blue", "Paris")])
    (verdict,) = judged.verdicts
    assert isinstance(verdict, Comparison)
    assert [member.judge for member in verdict.members] == ["one", "one", "other", "other"]
    values = [member.value for member in verdict.members if member.kind == "grade"]
    assert values[:2] != values[2:]


@pytest.mark.parametrize("kind", ["swiss", "sort", "listwise", "panel"])
def test_batches_continue_until_every_round_is_answered(kind: str, tmp_path: Path) -> None:
    """A plan of several rounds takes several batches; the verdicts are those of asking the server."""
    context = context_in(tmp_path / "batch", prompts=4, answers=4)
    judge, models = judge_of(kind)
    labelling = labelling_of(context, judge, models, NO_PROBES)
    batches = 0
    while requests := open_questions(labelling, logprobs=False):
        batches += 1
        rows = []
        for request in requests:
            messages = tuple(Message.model_validate(message) for message in request["body"]["messages"])
            body = {"choices": [{"message": {"role": "assistant", "content": longest(messages, 0)}, "finish_reason": "stop"}]}
            rows.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})
        import_answers(labelling, read_answers(rows))
    assert (batches > 1) == (kind in ("swiss", "sort"))
    assert labelling_tasks(judge, NO_PROBES, **inputs_of(context)).tasks

    def outcomes(made: StageContext) -> list[tuple[str, str, str]]:
        label(made, judge, models, NO_PROBES)
        return [(v.first, v.second, v.outcome) for v in read_verdicts(made.folder) if isinstance(v, Comparison)]

    def no_reply(messages: tuple[Message, ...], sample: int) -> str:
        raise AssertionError("all of it is in the cache")

    # The cache knows an answer by its server.
    endpoint = EndpointModel.model_validate(SERVER)
    identity = f"endpoint {endpoint.base_url.rstrip('/')} {endpoint.name}"
    silent = replace(context, open_endpoint=lambda _: ScriptedChat(no_reply, identity=identity))
    assert outcomes(silent) == outcomes(with_longest(context_in(tmp_path / "asked", prompts=4, answers=4)))


def test_equal_models_of_a_panel_are_one_and_others_are_named_by_their_member() -> None:
    assert judge_of("listwise")[1].keys() == {"judge"}
    _, models = judge_of("panel")  # two members ask one server
    assert len(models) == 1
    panel = {
        "kind": "panel",
        "members": {name: {"judge": {"kind": "pairwise", "model": {**SERVER, "name": name}}} for name in "ab"},
    }
    named: dict[str, Any] = {}
    with_named_models(JUDGE.validate_python(panel), "judge", named)
    assert {name: model.name for name, model in named.items()} == {"judge-a": "a", "judge-b": "b"}
