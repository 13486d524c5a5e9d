import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from aligndistill.config.data import Source
from aligndistill.config.offline_objectives import BestOfN, Cpo, Dpo, Kto, OfflineObjective, Orpo, Pro, Simpo, Sppo
from aligndistill.config.run import Rankings, Runtime
from aligndistill.config.students import RewardTraining, Student
from aligndistill.errors import DataError
from aligndistill.models import grouped_model
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import ModelPointer, load_tokenizer, read_pointer
from aligndistill.stages import offline_student, rankings, reward_model, students
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import HeldOutPair
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.training import arguments
from tests.models.chat_families import tokenizer_of
from tests.tiny_models import pairs, ragged_rankings, tiny_model, user, write_tiny_model


def context_of(folder: Path, name: str, **runtime: Any) -> StageContext:
    """Of a stage in its own folder, beside those of the start and the rankings."""
    (folder / name).mkdir(exist_ok=True)
    identities = {folder / one: one for one in ("start", "rankings")}
    return StageContext(name, folder / name, folder / "caches", Runtime(**runtime), identities)


def first_loss(folder: Path) -> float:
    """Of DPO with a large beta, which makes every difference between policy and reference show."""
    write_tiny_model(folder / "start" / "model")
    ModelPointer(path="model", layout="chat").write(folder / "start")
    (folder / "rankings").mkdir()
    write_jsonl(folder / "rankings" / "rankings.jsonl", pairs())
    inputs = {"start": folder / "start", "rankings": folder / "rankings", "reference": folder / "start"}
    dpo = Student(objective=Dpo(kind="dpo", beta=5.0), learning_rate=1e-5, batch_size=8, max_steps=1)
    students.make(context_of(folder, "student-dpo", logging_steps=1), settings=dpo, lora=None, seed=0, models={}, **inputs)
    loss: float = json.loads((folder / "student-dpo" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    return loss


@pytest.mark.parametrize("bf16", [False, True])
def test_the_reference_is_rounded_as_the_policy_is(bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step the policy is the reference, so the loss is log 2.

    Both read all rows as one batch: in bfloat16 the rounding depends on a batch's shape, by up to 2e-3 of this loss.
    """
    monkeypatch.setattr(grouped_model, "SHORTEST", 0.0)
    for module in (arguments, offline_student):
        monkeypatch.setattr(module, "trains_in_bf16", lambda: bf16)
    assert first_loss(tmp_path) == pytest.approx(math.log(2), abs=1e-6)


def test_a_student_is_saved_with_the_format_that_it_was_trained_in(tmp_path: Path) -> None:
    """Its template has the mode, the arguments and the date of the start."""
    tokenizer = tokenizer_of("smollm3")
    tiny_model(vocab_size=len(tokenizer), max_position_embeddings=512).save_pretrained(tmp_path / "start" / "model")
    tokenizer.save_pretrained(tmp_path / "start" / "model")
    start = ModelPointer(path="model", layout="chat", thinking="off", template_arguments={"date_string": "1 Feb 2026"})
    start.write(tmp_path / "start")
    (tmp_path / "rankings").mkdir()
    write_jsonl(tmp_path / "rankings" / "rankings.jsonl", pairs())
    inputs = {"start": tmp_path / "start", "rankings": tmp_path / "rankings", "reference": tmp_path / "start"}
    dpo = Student(objective=Dpo(kind="dpo"), batch_size=8, max_steps=1)
    made = students.make(context_of(tmp_path, "student-dpo"), settings=dpo, lora=None, seed=0, models={}, **inputs)
    assert made.counts["rankings"] == len(pairs())
    folder = tmp_path / "student-dpo"
    plain = AutoTokenizer.from_pretrained(folder / "model")
    prompt = plain.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False)
    assert "Today Date: 01 February 2026\nReasoning Mode: /no_think\n" in prompt
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n")
    again = load_tokenizer(read_pointer(folder))
    assert again.chat_template == plain.chat_template
    asked = load_tokenizer(read_pointer(tmp_path / "start"))
    assert Conversation(asked, "chat").prompt_ids(user("Hi")) == plain(prompt, add_special_tokens=False).input_ids


def start_and_rankings(folder: Path, count: int = 8) -> dict[str, Any]:
    """Write a start and rankings of two to four answers; returns the arguments of a stage that learns from them."""
    write_tiny_model(folder / "start" / "model")
    ModelPointer(path="model", layout="chat").write(folder / "start")
    (folder / "rankings").mkdir()
    write_jsonl(folder / "rankings" / "rankings.jsonl", ragged_rankings()[:count])
    write_jsonl(folder / "rankings" / "ties.jsonl", [])
    return {"start": folder / "start", "rankings": folder / "rankings", "lora": None, "seed": 0, "models": {}}


@pytest.mark.parametrize(
    ("objective", "learning_rate"),
    [
        (Dpo(kind="dpo", sft_weight=0.5), 1e-3),
        (Simpo(kind="simpo"), 1e-3),
        (Cpo(kind="cpo"), 1e-3),
        (Orpo(kind="orpo", labels="soft"), 1e-3),
        (Kto(kind="kto"), 1e-3),
        (Kto(kind="kto", labels="soft"), 1e-3),
        (Kto(kind="kto", split="margin", margin=0.75), 1e-3),
        (Sppo(kind="sppo", eta=10), 1e-3),
    ],
    ids=lambda value: value.kind if isinstance(value, OfflineObjective) else "",
)
def test_every_objective_lowers_its_loss(objective: OfflineObjective, learning_rate: float, tmp_path: Path) -> None:
    inputs = start_and_rankings(tmp_path)
    if "reference" in objective.reads:
        inputs["reference"] = tmp_path / "start"
    settings = {"learning_rate": learning_rate, "batch_size": 8, "max_steps": 6, "lr_scheduler_type": "constant", "warmup_ratio": 0}
    student = Student(objective=objective, **settings)
    context = context_of(tmp_path, "student-new", logging_steps=1, per_device_train_batch_size=4)
    made = students.make(context, settings=student, **inputs)
    assert (made.counts["rankings"], made.counts["steps"], made.dropped) == (8, 6, {})
    log = [json.loads(line) for line in (tmp_path / "student-new" / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"] * 0.98
    assert log[-1]["rewards/margins"] > log[0]["rewards/margins"]


def test_kto_caches_the_reference_of_mismatched_pairs_and_drops_what_is_too_few_for_a_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    plain = offline_student.score_groups
    monkeypatch.setattr(offline_student, "score_groups", lambda *given: scored.append(len(given[1])) or plain(*given))
    events: list[str] = []
    monkeypatch.setattr(offline_student, "wait_for_others", lambda event, ranks: events.append(event))
    inputs = {**start_and_rankings(tmp_path, count=7), "reference": tmp_path / "start"}
    kto = Student(objective=Kto(kind="kto"), batch_size=5, num_train_epochs=2)
    made = students.make(context_of(tmp_path, "student-kto"), settings=kto, **inputs)
    assert made.counts["rankings"] == 5  # the other two would be a step of their own
    assert made.counts["steps"] == 2
    assert made.dropped == {"last step of an epoch under 4 prompts": 2}
    assert scored == [7, 7]  # the pairs, and the prompts with their own answers
    assert len(set(events)) == 2  # an event that all processes announced once holds none of them back a second time
    for name, objective in (("again", Kto(kind="kto", beta=0.2)), ("dpo", Dpo(kind="dpo"))):
        student = Student(objective=objective, batch_size=5, max_steps=1)
        students.make(context_of(tmp_path, f"student-{name}"), settings=student, **inputs)
    assert scored == [7, 7, 0, 0, 0]


@pytest.mark.parametrize("count", [1, 3])
def test_kto_with_too_few_prompts_is_refused_before_it_trains(count: int, tmp_path: Path) -> None:
    inputs = {**start_and_rankings(tmp_path, count), "reference": tmp_path / "start"}
    kto = Student(objective=Kto(kind="kto"), batch_size=8)
    with pytest.raises(DataError, match=f"kto pairs each prompt .* only {count} training rankings"):
        students.make(context_of(tmp_path, "student-kto"), settings=kto, **inputs)


def start_and_rows(folder: Path, scores: Callable[[int], list[float]]) -> Rankings:
    """Write a start and 24 rows of two answers each; returns the settings that read them."""
    write_tiny_model(folder / "start" / "model")
    ModelPointer(path="model", layout="chat").write(folder / "start")
    rows = [{"prompt": f"Question {n}?", "responses": ["yes", "no"], "scores": scores(n)} for n in range(24)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Rankings(source=Source(path=str(folder / "rows.jsonl"), format="rankings"), held_out=0.2)


def test_only_soft_labels_learn_from_rankings_of_ties(tmp_path: Path) -> None:
    settings = start_and_rows(tmp_path, lambda n: [1.0, float(n % 2)])
    inputs = {"start": tmp_path / "start", "rankings": tmp_path / "rankings"}
    made = rankings.read(context_of(tmp_path, "rankings"), settings=settings, conversational=True)
    strict, tied = made.counts["train"], len((tmp_path / "rankings" / "ties.jsonl").read_text().splitlines())
    assert (strict + made.counts["held_out"], made.dropped) == (12, {"all tied": 12})
    assert 0 < tied < 12  # the others are held out

    once = {"batch_size": 2, "max_steps": 1}
    for labels, count in (("hard", strict), ("soft", strict + tied)):
        dpo = Student(objective=Dpo(kind="dpo", labels=labels), **once)
        learning: Any = {"lora": None, "seed": 0, "models": {}, "reference": tmp_path / "start"}
        student = students.make(context_of(tmp_path, f"student-{labels}"), settings=dpo, **learning, **inputs)
        assert student.counts["rankings"] == count
        of_reward = RewardTraining(labels=labels, **once)
        trained = reward_model.make(context_of(tmp_path, f"reward-{labels}"), settings=of_reward, seed=0, **inputs)
        assert trained.counts["train"] == count


def test_where_all_rankings_are_tied_soft_labels_and_best_of_n_still_learn(tmp_path: Path) -> None:
    settings = start_and_rows(tmp_path, lambda n: [1.0, 1.0])
    inputs = {"start": tmp_path / "start", "rankings": tmp_path / "rankings"}
    with pytest.raises(DataError, match=r"no training rankings are left. Dropped: 24 all tied\..* `labels: soft`"):
        rankings.read(context_of(tmp_path, "rankings"), settings=settings, conversational=True)
    made = rankings.read(context_of(tmp_path, "rankings"), settings=settings, conversational=True, learns_ties=True)
    tied = len((tmp_path / "rankings" / "ties.jsonl").read_text().splitlines())
    assert (made.counts["train"], made.counts["pairs"], made.dropped) == (0, 0, {"all tied": 24})

    learning: Any = {"lora": None, "seed": 0, "models": {}}
    reference = {"reference": tmp_path / "start"}
    for objective, more in ((Dpo(kind="dpo", labels="soft"), reference), (BestOfN(kind="best_of_n"), {})):
        student = Student(objective=objective, batch_size=2, max_steps=1)
        trained = students.make(context_of(tmp_path, f"student-{objective.kind}"), settings=student, **learning, **inputs, **more)
        assert (trained.counts["rankings"], trained.counts["steps"]) == (tied, 1)
    for objective, more in ((Dpo(kind="dpo"), reference), (Pro(kind="pro"), {})):
        student = Student(objective=objective, batch_size=2, max_steps=1)
        with pytest.raises(DataError, match=f"no training rankings are left. Dropped: {tied} all tied"):
            students.make(context_of(tmp_path, f"strict-{objective.kind}"), settings=student, **learning, **inputs, **more)


def test_a_length_debiased_reward_model_tells_its_term(tmp_path: Path) -> None:
    settings = start_and_rows(tmp_path, lambda n: [float(n % 3 > 0), float(n % 3 == 0)])
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"yes"', '"yes, of course"'))
    inputs = {"start": tmp_path / "start", "rankings": tmp_path / "rankings"}
    rankings.read(context_of(tmp_path, "rankings"), settings=settings, conversational=True)
    debiased = RewardTraining(length_debiased=True, batch_size=8, max_steps=1)
    made = reward_model.make(context_of(tmp_path, "debiased"), settings=debiased, seed=0, **inputs)
    term = made.metrics["length_term"]
    gap = abs(next(read_jsonl(tmp_path / "debiased" / "held_out.jsonl", HeldOutPair)).length_gap_tokens)
    assert term["deviation_tokens"] == gap > 0  # the answers are always the same two
    for pair in read_jsonl(tmp_path / "debiased" / "held_out.jsonl", HeldOutPair):
        assert pair.length_term == pytest.approx(term["weight"] * math.tanh(pair.length_gap_tokens / gap), rel=1e-6)
    plain = reward_model.make(context_of(tmp_path, "plain"), settings=RewardTraining(batch_size=8, max_steps=1), seed=0, **inputs)
    assert plain.metrics["length_term"] is None
    assert all(pair.length_term == 0 for pair in read_jsonl(tmp_path / "plain" / "held_out.jsonl", HeldOutPair))
