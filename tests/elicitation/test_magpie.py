import pytest

from aligndistill.chat.protocol import Reply
from aligndistill.config.elicitation import Magpie
from aligndistill.elicitation import rules
from aligndistill.elicitation.magpie import magpie
from aligndistill.records import Usage
from tests.elicitation.prompts import HELD_OUT, TRAIN, all_prompts
from tests.elicitation.scripted_teacher import ScriptedAsk, prompt_about


def step(**changes: object) -> Magpie:
    return Magpie.model_validate({"name": "own", "kind": "magpie", "target": 10, **changes})


def test_user_turns_without_any_request() -> None:
    ask = ScriptedAsk(lambda request, sample: f" {prompt_about(str(sample))}\n")
    collected = magpie(step(), all_prompts(), ask, seed=0)
    assert len(collected.kept) == 10
    assert {one.messages for one in ask.asked} == {()}
    assert len({one.sample for one in ask.asked}) == len(ask.asked)
    for one in collected.kept:
        assert one.lineage is not None
        assert (one.lineage.root, one.lineage.parent, one.lineage.operation) == (one.id, None, "magpie")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Hello there", rules.TOO_SHORT),
        ("(What is the longest river?)", rules.NO_TEXT_FIRST),
        ("Show me a map of the alps", rules.FORBIDDEN_WORD),
        ("Which birds stay in the city during warm months?", rules.SIMILAR),
        (TRAIN[0], rules.DUPLICATE),
        (HELD_OUT[0], "repeats a held-out prompt"),
        ("Translate my excuse into polite business Korean", "too similar to a held-out prompt"),
        (Reply("Which is the longest river in", "length", Usage()), rules.CUT_OFF),
        ("", rules.NO_REPLY),
    ],
)
def test_each_rule_is_a_reason_of_its_own(said: str | Reply, reason: str) -> None:
    collected = magpie(step(max_requests=1), all_prompts(), ScriptedAsk(lambda request, sample: said), seed=0)
    assert collected.reasons() == {reason: 1}
    assert "max_requests" in collected.stopped


def test_a_model_that_writes_one_thing_ends_the_step() -> None:
    ask = ScriptedAsk(lambda request, sample: "What is the longest river of all?")
    collected = magpie(step(target=1000, patience=30), all_prompts(), ask, seed=0)
    assert len(collected.kept) == 1
    assert "patience" in collected.stopped
    assert len(ask.asked) <= 64
