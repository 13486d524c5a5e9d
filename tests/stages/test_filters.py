"""The stages that filter: what is kept, what is asked of models, and what a resumed or a dry run does."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.commands.plan.chats import Ungraded
from aligndistill.config.data import Source
from aligndistill.config.filters import Balance, Filters
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Rankings, Runtime
from aligndistill.data.filters import Decisions, Row, balance
from aligndistill.data.split import split_of
from aligndistill.errors import DataError, JudgeError
from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.models.scoring import score_groups
from aligndistill.models.tokenise import Limits, PromptWithResponses, tokenise
from aligndistill.records import Demonstration, Dropped, Message, Prompt, Ranking, prompt_id
from aligndistill.stages import filters, rankings
from aligndistill.stages.context import StageContext
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from tests.stages.labelled import SERVER
from tests.tiny_models import user, write_tiny_model

TOPICS = ("rivers", "moons", "kings", "rocks", "birds", "ships", "songs", "trees", "maps", "gods", "wars", "cats")


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return StageContext(name="filters", folder=tmp_path / "out", caches=tmp_path / "caches", runtime=Runtime())


def given(context: StageContext, texts: list[str], held_out: tuple[str, ...] = ("What is the tallest tower?",)) -> Path:
    """The folder of a stage with these prompts."""
    folder = context.folder.parent / "in"
    rows = [(text, "train") for text in texts] + [(text, "held_out") for text in held_out]
    records = [
        Prompt.model_validate({"id": prompt_id(user(text)), "messages": user(text), "source": "s row 1", "split": split})
        for text, split in rows
    ]
    write_jsonl(folder / "prompts.jsonl", records)
    return folder


def kept(context: StageContext) -> list[str]:
    return [one.messages[0].content for one in read_jsonl(context.folder / "prompts.jsonl", Prompt)]


def dropped(context: StageContext) -> dict[str, Dropped]:
    return {one.text: one for one in read_jsonl(context.folder / "dropped.jsonl", Dropped)}


def test_prompts_are_kept_or_written_with_the_reason(context: StageContext, tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").write_text(json.dumps({"prompt": "How many rivers are there in all of the northern lands?"}) + "\n")
    good = "Tell me a short story about a cat who went to sea."
    copy = "Tell me a short story about a dog who went to sea."
    texts = ["Why?", good, copy, "Answer: How many rivers are there in all of the northern lands?"]
    settings = Filters.model_validate({"length": [2, 50], "duplicates": 0.4, "against": [str(tmp_path / "bench.jsonl")]})
    made = filters.prompts(context, settings=settings, prompts=given(context, texts), models={}, seed=0)
    assert made.counts == {"train": 1, "held_out": 1}
    assert made.dropped == {"too short": 1, "near duplicate": 1, "contains an evaluation item": 1}
    found = dropped(context)
    assert found["Why?"].score == 1
    assert found[texts[3]].nearest == f"{tmp_path / 'bench.jsonl'} row 1"
    (repeated,) = {good, copy} & found.keys()
    (stays,) = {good, copy} - {repeated}
    assert found[repeated].nearest == prompt_id(user(stays))
    assert set(kept(context)) == {stays, "What is the tallest tower?"}


def test_nothing_left_is_an_error_with_the_reasons(context: StageContext) -> None:
    with pytest.raises(DataError, match=r"no training prompts are left\. Dropped: 2 too short"):
        filters.prompts(context, settings=Filters(length=(9, 99)), prompts=given(context, ["a b", "c d"], ()), models={}, seed=0)


def graded_by_length(asked: list[str]) -> Callable[[tuple[Message, ...], int], str]:
    def reply(messages: tuple[Message, ...], _: int) -> str:
        text = messages[-1].content
        asked.append(text)
        topic = next(topic for topic in TOPICS if topic in text)
        return "no idea" if topic == "gods" else str(min(10, len(topic) * 2))

    return reply


def quality(at_least: float) -> Filters:
    rubric = {"kind": "rubric", "model": "judge"}
    return Filters.model_validate({"length": [3, 50], "quality": {"judge": rubric, "at_least": at_least}})


JUDGE = {"judge": EndpointModel.model_validate(SERVER)}


def test_a_judge_grades_what_other_filters_left(context: StageContext) -> None:
    asked: list[str] = []
    context = replace(context, open_endpoint=lambda _: ScriptedChat(graded_by_length(asked)))
    texts = [f"Tell me about {topic}." for topic in TOPICS if topic != "ships"]
    inputs = given(context, [*texts, "About rivers?"], ("Tell me about ships.",))
    made = filters.prompts(context, settings=quality(10), prompts=inputs, models=JUDGE, seed=0)
    found = dropped(context)
    assert found.pop("About rivers?").reason == "too short"
    assert found.pop("Tell me about gods.").reason == "quality could not be read"
    assert {text: one.score for text, one in found.items()} == {
        f"Tell me about {topic}.": len(topic) * 2 for topic in TOPICS if len(topic) < 5 and topic != "gods"
    }
    assert made.dropped["low quality"] == 3
    assert made.metrics["verdicts"] == len(TOPICS)
    assert made.metrics["unparsed"] == 1
    assert not any("About rivers?" in text for text in asked)


def test_a_resumed_run_asks_only_about_the_rest(context: StageContext) -> None:
    inputs = given(context, [f"Tell me about {topic}." for topic in TOPICS[:9]], ("Tell me about cats.",))
    asked: list[str] = []
    grade = graded_by_length(asked)

    def failing(messages: tuple[Message, ...], sample: int) -> str:
        if len(asked) == 5:
            raise KeyboardInterrupt
        return grade(messages, sample)

    with pytest.raises(KeyboardInterrupt):
        filters.prompts(
            replace(context, open_endpoint=lambda _: ScriptedChat(failing)),
            settings=quality(1),
            prompts=inputs,
            models=JUDGE,
            seed=0,
        )
    again: list[str] = []
    resumed = replace(context, open_endpoint=lambda _: ScriptedChat(graded_by_length(again)))
    made = filters.prompts(resumed, settings=quality(1), prompts=inputs, models=JUDGE, seed=0)
    assert len(asked) == 5
    assert not set(asked) & set(again)
    assert len(again) == 5
    assert made.counts == {"train": 9, "held_out": 1}


def test_a_judge_that_cannot_be_read_stops_the_run(context: StageContext) -> None:
    context = replace(context, open_endpoint=lambda _: ScriptedChat(lambda messages, sample: "hm"))
    with pytest.raises(JudgeError, match="none of the judge's 2 verdicts could be read"):
        filters.prompts(context, settings=quality(1), prompts=given(context, ["a b c d"]), models=JUDGE, seed=0)


def test_a_dry_run_keeps_rows_without_a_grade(context: StageContext) -> None:
    dry = replace(context, open_model=lambda _: ScriptedChat(lambda messages, sample: ""), open_grader=Ungraded)
    made = filters.prompts(dry, settings=quality(5), prompts=given(context, ["a b c d", "e"]), models=JUDGE, seed=0)
    assert made.counts == {"train": 1, "held_out": 1}


# --------------------------------------------------------------------------------------------------------- local model


@pytest.fixture
def pointer(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    path = str(write_tiny_model(tmp_path / "weights"))
    ModelPointer(path=path, layout="chat").write(tmp_path / "model")
    return tmp_path / "model"


def mean_nll(pointer: Path, messages: tuple[Message, ...], text: str) -> float:
    """Of an answer's tokens, by a forward pass of its own."""
    model = load_language_model(ModelPointer(path=str(pointer.parent / "weights"), layout="chat"))
    rows = tokenise(model.conversation, [PromptWithResponses(messages, [text], ["stop"])], Limits(1000, 1000, None))
    (scored,) = score_groups(model, rows.groups, 1)
    return -scored.responses[0].logprob_nats / scored.responses[0].length_tokens


def demonstrations(folder: Path, rows: list[tuple[str, str]]) -> Source:
    (folder / "d.jsonl").write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    return Source(path=str(folder / "d.jsonl"))


def filtered(context: StageContext, settings: dict[str, Any], source: Source, **given: Any) -> tuple[list[str], Any]:
    arguments: dict[str, Any] = {"evaluated": None, "held_out": 0.0, "models": {}, "seed": 0, **given}
    made = filters.demonstrations(context, settings=Filters.model_validate(settings), source=source, **arguments)
    return [one.response for one in read_jsonl(context.folder / "demonstrations.jsonl", Demonstration)], made


ROWS = [
    ("What is the capital of France?", "Paris."),
    ("Repeat the word blue.", "blue blue blue"),
    ("Add two and three.", "No."),
    ("Be kind to all of us please.", "Is there anything else?"),
]


@pytest.mark.parametrize("key", ["ifd", "perplexity"])
def test_difficulty_and_perplexity_are_those_of_the_model(context: StageContext, tmp_path: Path, pointer: Path, key: str) -> None:
    values = []
    for prompt, answer in ROWS:
        given_prompt = mean_nll(pointer, user(prompt), answer)
        values.append(given_prompt / mean_nll(pointer, user(""), answer) if key == "ifd" else math.exp(given_prompt))
    low, high = sorted(values)[1:3]
    middle = [low * (1 - 1e-4), high * (1 + 1e-4)]
    context = replace(context, identities={pointer: "tiny"})
    source = demonstrations(tmp_path, ROWS)
    answers, made = filtered(context, {key: {"between": middle, "model": "m"}}, source, models={"m": pointer})
    assert answers == [answer for (_, answer), value in zip(ROWS, values, strict=True) if low <= value <= high]
    scores = {one.text.split("\n")[1]: (one.reason, one.score) for one in dropped(context).values()}
    name = "instruction difficulty" if key == "ifd" else key
    for (_, answer), value in zip(ROWS, values, strict=True):
        if not low <= value <= high:
            assert scores[answer] == (f"{name} too {'low' if value < low else 'high'}", pytest.approx(value, rel=1e-4))
    assert made.counts == {"rows": 4, "train": 2, "held_out": 0}


def test_perplexity_of_prompts_is_that_of_their_text_alone(context: StageContext, pointer: Path) -> None:
    value = {prompt: math.exp(mean_nll(pointer, user(""), prompt)) for prompt, _ in ROWS}
    lowest, second, third, highest = sorted(value, key=lambda text: value[text])
    limit = (value[second] + value[third]) / 2
    settings = Filters.model_validate({"perplexity": {"between": [0, limit], "model": "m"}})
    inputs = given(context, [second, third, highest], (lowest,))
    filters.prompts(
        replace(context, identities={pointer: "tiny"}), settings=settings, prompts=inputs, models={"m": pointer}, seed=0
    )
    assert kept(context) == [second, lowest]


# ------------------------------------------------------------------------------------------------------ ready-made data


def test_demonstrations_that_contain_a_held_out_prompt_are_dropped(context: StageContext, tmp_path: Path) -> None:
    questions = [" ".join(f"{topic}{number}" for number in range(12)) for topic in TOPICS]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in questions))
    rows = [(f"Please: {text}", f"All about {topic}.") for text, topic in zip(questions, TOPICS, strict=True)]
    rows.append(("Who are you?", "As an AI language model, I cannot have a name."))
    source, evaluated = demonstrations(tmp_path, rows), Source(path=str(tmp_path / "p.jsonl"))
    answers, made = filtered(context, {"self_references": True}, source, evaluated=evaluated, held_out=0.5)
    held_out = {f"All about {topic}." for text, topic in zip(questions, TOPICS, strict=True) if _split(text) == "held_out"}
    of_held_out_rows = {answer for prompt, answer in rows if _split(prompt) == "held_out"}
    assert 2 < len(held_out) < 10
    assert set(answers) == {answer for _, answer in rows[:-1]} - (held_out - of_held_out_rows)
    assert made.dropped == {"self-reference": 1, "contains a held-out prompt": len(rows) - 1 - len(answers)}


def test_held_out_prompts_are_those_of_the_run_also_where_a_model_wrote_them(context: StageContext, tmp_path: Path) -> None:
    """The prompts of another run: the split of each is its root's, not its own."""
    questions = [" ".join(f"{topic}{number}" for number in range(12)) for topic in TOPICS]
    roots = [prompt_id(user(f"Seed about {topic}.")) for topic in TOPICS]
    lines = [{"root": root, "parent": root, "operation": "expand", "author": "teacher"} for root in roots]
    rows = [{"prompt": text, "lineage": line} for text, line in zip(questions, lines, strict=True)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = demonstrations(tmp_path, [(f"Answer this: {text}", text.split()[0]) for text in questions])
    filtered(context, {}, source, evaluated=Source(path=str(tmp_path / "p.jsonl")), held_out=0.5)
    leaked = {found.text.split()[-1] for found in dropped(context).values() if found.reason == "contains a held-out prompt"}
    trained = {text.split()[0] for text in questions if _split(f"Answer this: {text}") == "train"}
    held_out = {text.split()[0] for text, root in zip(questions, roots, strict=True) if split_of(root, 0.5) == "held_out"}
    assert leaked == trained & held_out
    assert leaked != {text.split()[0] for text in questions if _split(text) == "held_out"} & trained


def _split(text: str) -> str:
    return split_of(prompt_id(user(text)), 0.5)


def test_ready_made_rankings_are_filtered(context: StageContext, tmp_path: Path) -> None:
    texts = [f"Tell me what you know about {topic} and about {other}." for topic in TOPICS for other in TOPICS[:5]]
    rows = [{"prompt": text, "chosen": f"Much about {number}.", "rejected": "I cannot help."} for number, text in enumerate(texts)]
    rows.append({"prompt": "What is a refusal?", "chosen": "I'm sorry, but I can't help with that.", "rejected": "A no."})
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"path": str(tmp_path / "r.jsonl")}
    plain = Rankings.model_validate({"source": source, "held_out": 0.3})
    rankings.read(context, settings=plain, conversational=True)
    before = list(read_jsonl(context.folder / "rankings.jsonl", Ranking))
    assert not (context.folder / "dropped.jsonl").exists()
    settings = Rankings.model_validate({"source": source, "held_out": 0.3, "filters": {"refusals": True}})
    made = rankings.read(context, settings=settings, conversational=True)
    after = list(read_jsonl(context.folder / "rankings.jsonl", Ranking))
    assert made.dropped["refusal"] == 1
    gone = {one.prompt_id for one in before} - {one.prompt_id for one in after}
    assert prompt_id(user("What is a refusal?")) in gone
    assert len(before) - len(after) == sum(made.dropped.values())
    assert sum(made.dropped.values()) == len(dropped(context))
    assert {one.prompt_id for one in after if one.split == "held_out"} == {
        one.prompt_id for one in before if one.split == "held_out"
    } - {prompt_id(user("What is a refusal?"))}


TOWER = "What is the tallest tower that people have ever built by hand?"


def test_prompts_of_a_later_round_are_compared_with_those_that_are_known_and_no_other_is_asked_about(
    context: StageContext, tmp_path: Path
) -> None:
    """What was kept stays, though filters would now drop it; the judge sees the new prompts alone."""
    old = ["Why?", "Tell me a short story about a cat who went to sea.", "How do rivers find their way to the sea?"]
    new = ["Tell me a short story about a cat who went to sea?", f"{TOWER} Say it in two words.", "Who?"]
    new += ["How do bees find their way back to the hive?", "Describe a storm at night in the old harbour."]
    known = given(context, old, (TOWER,))
    (tmp_path / "known").mkdir()
    (tmp_path / "known/prompts.jsonl").write_bytes((known / "prompts.jsonl").read_bytes())
    asked: list[str] = []

    def grade(messages: Any, sample: int) -> str:
        asked.append(messages[-1].content)
        return "Grade: 2" if "storm" in messages[-1].content else "Grade: 9"

    scripted = ScriptedChat(grade)
    settings = Filters.model_validate(
        {
            "length": [2, 50],
            "duplicates": 0.7,
            "quality": {"judge": {"kind": "rubric", "model": "judge"}, "at_least": 5},
            "balance": {"by": "operation", "at_most": 0.5},
        }
    )
    made = filters.prompts(
        replace(context, open_endpoint=lambda _: scripted),
        settings=settings,
        prompts=given(context, [*old, *new], (TOWER,)),
        models={"judge": EndpointModel.model_validate(SERVER)},
        seed=0,
        known=tmp_path / "known",
    )
    assert made.dropped == {
        "duplicate": 1,
        "contains a held-out prompt": 1,
        "too short": 1,
        "low quality": 1,
    }
    assert kept(context) == [*old, new[3], TOWER]
    assert len(asked) == 2
    assert all(not any(text in one for one in asked) for text in old)
    assert dropped(context)[new[0]].nearest == prompt_id(user(old[1]))


def test_balance_cuts_new_rows_before_known_ones() -> None:
    known = [Row(f"old {n}", "train", "x", operation="a") for n in range(6)]
    others = [Row(f"b {n}", "train", "x", operation="b") for n in range(4)]
    rows = [*(Row(f"new {n}", "train", "x", operation="a") for n in range(3)), *known, *others]
    decisions: Decisions = [None] * len(rows)
    balance(rows, decisions, Balance(by="operation", at_most=0.5), settled={one.id for one in known})
    # 4 of each are half of all: the 6 known ones stay all the same, and none of the new ones is added to them.
    assert [row for row, drop in zip(rows, decisions, strict=True) if drop is None] == [*known, *others]
