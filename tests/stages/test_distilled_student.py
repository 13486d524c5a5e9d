"""The stage of a student that is distilled: which answers it reads, and what it refuses before a model is loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Distil
from aligndistill.config.run import Runtime
from aligndistill.config.students import Student
from aligndistill.errors import ConfigError, DataError
from aligndistill.models import load
from aligndistill.models.from_scratch import train_tokenizer
from aligndistill.models.load import ModelPointer, load_language_model, read_pointer
from aligndistill.models.scoring import kl_nats
from aligndistill.models.tokenise import Limits
from aligndistill.records import Ranking
from aligndistill.stages import distilled_student, students, teacher_tokens
from aligndistill.stages.context import StageContext
from aligndistill.stages.distilled_student import distilled_examples
from aligndistill.stages.files import PROJECTIONS
from aligndistill.stages.shards import shards
from aligndistill.store.jsonl import write_jsonl
from aligndistill.store.stage import StageResult
from aligndistill.training.offline.examples import tokenise_rankings
from aligndistill.training.offline.teacher_tokens import ROWS, KnownExample, read_teacher_tokens
from tests.tiny_models import TEXTS, ragged_rankings, tiny_model, write_tiny_model


def by(ranking: Ranking, *authors: str) -> Ranking:
    """The same with these authors, in turn."""
    responses = tuple(
        response.model_copy(update={"author": authors[number % len(authors)]}) for number, response in enumerate(ranking.responses)
    )
    return ranking.model_copy(update={"responses": responses})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A start, a teacher and eight rankings of two to four answers; the teacher's are second and fourth, and none in one ranking.

    The first ranking is tied.
    """
    for seed, name in enumerate(("start", "teacher")):
        write_tiny_model(tmp_path / name / "model", "llama" if name == "start" else "qwen3", seed)
        ModelPointer(path="model", layout="chat").write(tmp_path / name)
    (tmp_path / "rankings").mkdir()
    first, second, *others = ragged_rankings()
    tied = tuple(response.model_copy(update={"score": 0.0}) for response in first.responses)
    write_jsonl(tmp_path / "rankings" / "ties.jsonl", [by(first.model_copy(update={"responses": tied}), "start", "teacher")])
    write_jsonl(tmp_path / "rankings" / "rankings.jsonl", [by(second, "start"), *(by(one, "start", "teacher") for one in others)])
    return tmp_path


def context_of(folder: Path, name: str, **runtime: Any) -> StageContext:
    (folder / name).mkdir(exist_ok=True)
    identities = {folder / one: one for one in ("start", "rankings", "teacher")}
    return StageContext(name, folder / name, folder / "caches", Runtime(**{"logging_steps": 1, **runtime}), identities)


def make(folder: Path, name: str = "student-kd", lora: Lora | None = None, **objective: Any) -> StageResult:
    settings = Student(
        objective=Distil(kind="distil", **objective), batch_size=4, max_steps=2, learning_rate=1e-2, lr_scheduler_type="constant"
    )
    inputs = {one: folder / one for one in ("start", "rankings", "teacher")}
    if settings.teacher_tokens is not None:
        inputs = store_tokens(folder, settings, f"tokens-{name}")
    return students.make(context_of(folder, name), settings=settings, lora=lora, seed=0, models={}, **inputs)


def store_tokens(folder: Path, settings: Student, name: str) -> dict[str, Path]:
    """Store the teacher's tokens, as the pipeline does; returns the inputs of the student."""
    inputs = {one: folder / one for one in ("start", "rankings")}
    assert settings.teacher_tokens is not None
    made = teacher_tokens.make(context_of(folder, name), settings=settings.teacher_tokens, teacher=folder / "teacher", **inputs)
    assert made.counts["tokens"] > 0
    return {**inputs, "teacher_tokens": folder / name}


def logged(folder: Path, name: str = "student-kd") -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("on", "rankings", "dropped"), [("teacher", 7, {"without an answer of 'teacher'": 1}), ("best", 8, {}), ("all", 8, {})]
)
def test_which_answers_are_read(folder: Path, on: Any, rankings: int, dropped: dict[str, int]) -> None:
    made = make(folder, on=on)
    assert (made.counts["rankings"], made.dropped, made.counts["steps"]) == (rankings, dropped, 2)
    assert {"loss", "divergence", "nll"} <= logged(folder)[0].keys()
    read = [json.loads(path.read_text()) for path in (folder / "caches" / "tokens").glob("*/counts.json")]
    assert len(read) == 1
    load_language_model(read_pointer(folder / "student-kd"))


def test_the_teachers_answers_are_only_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    plain = distilled_student.train_distilled

    def noting(*arguments: Any) -> Any:
        seen.extend(arguments[4].groups[:])
        return plain(*arguments)

    monkeypatch.setattr(distilled_student, "train_distilled", noting)
    make(folder, on="teacher")
    ours = load_language_model(read_pointer(folder / "start")).conversation
    texts = [[ours.response_text(group.prompt, ids) for ids in group.responses] for group in seen]
    first, _, *others = ragged_rankings()
    assert sorted(texts) == sorted([[response.text for response in one.responses[1::2]] for one in (*others, first)])


def test_a_student_comes_closer_to_its_teacher_with_adapters_too(folder: Path) -> None:
    for lora in (None, Lora(r=4, lora_alpha=8)):
        name = f"student-{lora is not None}"
        make(folder, name, lora, on="all", sft_weight=0.0)
        start, student, teacher = (load_language_model(read_pointer(folder / one)) for one in ("start", name, "teacher"))
        groups = tokenise_rankings(start.conversation, ragged_rankings(), Limits(40, 40, None)).groups
        before, after = (sum(map(sum, kl_nats(teacher, one, groups, 8))) for one in (start, student))
        assert after < before


def test_projections_of_hidden_states_are_no_part_of_the_student(folder: Path) -> None:
    shutil.rmtree(folder / "teacher" / "model")
    write_tiny_model(folder / "teacher" / "model", "gpt2", 1, n_embd=24)
    for lora in (None, Lora(r=4, lora_alpha=8)):
        name = f"student-{lora is not None}"
        make(folder, name, lora, on="all", hidden={"layers": [[1, 2]]})
        assert all(entry["hidden"] > 0 for entry in logged(folder, name))
        student = load_file(folder / name / "model" / "model.safetensors")
        assert student.keys() == load_file(folder / "start" / "model" / "model.safetensors").keys()
        projections = load_file(folder / name / PROJECTIONS)
        assert {pair: tuple(weight.shape) for pair, weight in projections.items()} == {"1-2.weight": (24, 16)}
        load_language_model(read_pointer(folder / name))
    make(folder, "student-plain", on="all")
    assert not (folder / "student-plain" / PROJECTIONS).exists()


def test_rankings_without_an_answer_of_the_teacher_say_so(folder: Path) -> None:
    write_jsonl(folder / "rankings" / "rankings.jsonl", [by(one, "start") for one in ragged_rankings()])
    (folder / "rankings" / "ties.jsonl").write_text("")
    with pytest.raises(
        DataError,
        match=r"no training rankings with an answer of 'teacher' are left. Dropped: 8 without an answer of 'teacher'.*"
        r"add it to candidates.from, or set `on` to best or all",
    ):
        make(folder)


# ------------------------------------------------------------------------------------------------------------ vocabularies


def replace_tokenizer(model: Path, texts: tuple[str, ...]) -> None:
    train_tokenizer(texts, 320, 64).save_pretrained(model)


def test_another_tokenizer_is_refused_before_a_model_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_tokenizer(folder / "teacher" / "model", ("zebras and quaggas", "quaggas and zebras") * 3)
    monkeypatch.setattr(distilled_student, "load_language_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(
        ConfigError, match=r"another tokenizer than the student: id \d+ is '.+' in '.*/teacher/model' and '.+' in '.*/start"
    ):
        make(folder)


def test_models_of_other_widths_train(folder: Path) -> None:
    """As Qwen2.5's 151,936 and 152,064 rows for one tokenizer."""
    shutil.rmtree(folder / "teacher" / "model")
    write_tiny_model(folder / "teacher" / "model", "qwen3", 1, vocab_size=384)
    assert make(folder, on="all").counts["steps"] == 2
    assert all(0 < entry["divergence"] < 20 for entry in logged(folder))


def test_a_token_of_the_students_alone_is_masked_and_refused_in_the_data(folder: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 320, 64)
    tokenizer.add_tokens(["<|own|>"], special_tokens=True)
    model = tiny_model("llama", 0, vocab_size=len(tokenizer))
    model.save_pretrained(folder / "start" / "model")
    tokenizer.save_pretrained(folder / "start" / "model")
    shutil.rmtree(folder / "teacher" / "model")
    write_tiny_model(folder / "teacher" / "model", "qwen3", 1, vocab_size=len(tokenizer))
    assert make(folder, on="all").counts["steps"] == 2

    tokenizer.chat_template = "<|own|>" + tokenizer.chat_template
    tokenizer.save_pretrained(folder / "start" / "model")
    with pytest.raises(
        DataError, match=r"the data have the token '<\|own\|>' \(id 320\), which the teacher's tokenizer does not have"
    ):
        make(folder, "student-again", on="all")


def test_a_longer_row_than_the_teacher_has_positions_for_is_cut(folder: Path) -> None:
    shutil.rmtree(folder / "teacher" / "model")
    write_tiny_model(folder / "teacher" / "model", "gpt2", 1, n_positions=20)  # it has no position behind them
    made = make(folder, on="all")
    assert made.counts["responses_cut"] > 0 or made.dropped


def test_a_teacher_is_read_in_its_own_precision(folder: Path) -> None:
    ModelPointer(path="model", layout="chat", dtype="bfloat16").write(folder / "teacher")
    make(folder, "student-half", on="all", sft_weight=0.0)
    ModelPointer(path="model", layout="chat", dtype="float32").write(folder / "teacher")
    make(folder, "student-single", on="all", sft_weight=0.0)
    half, single = (logged(folder, name)[0]["divergence"] for name in ("student-half", "student-single"))
    assert half == pytest.approx(single, rel=0.05)
    assert half != single
    assert torch.isfinite(torch.tensor(half))


# ---------------------------------------------------------------------------------------------------------- stored tokens


@pytest.mark.parametrize("on", ["teacher", "best", "all"])
@pytest.mark.parametrize("divergence", ["forward_kl", "jsd"])
def test_all_tokens_stored_are_the_teacher_itself(folder: Path, on: Any, divergence: Any) -> None:
    """The first loss and the whole training are those with the teacher in memory, which the student then does not load."""
    live = make(folder, "student-live", on=on, divergence=divergence)
    stored = make(folder, "student-stored", on=on, divergence=divergence, top_k=10_000)
    assert (stored.counts, stored.dropped) == (live.counts, live.dropped)
    for one, other in zip(logged(folder, "student-stored"), logged(folder, "student-live"), strict=True):
        for name in ("loss", "divergence", "nll", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-3), name


def test_fewer_tokens_are_a_smaller_divergence(folder: Path) -> None:
    found = []
    for k in (1, 8, 64):
        make(folder, f"student-{k}", on="all", sft_weight=0.0, top_k=k)
        found.append(logged(folder, f"student-{k}")[0]["divergence"])
    make(folder, "student-live", on="all", sft_weight=0.0)
    assert 0 < found[0] < found[1] < found[2]
    assert found[-1] < logged(folder, "student-live")[0]["divergence"]


@pytest.mark.parametrize("wider", ["start", "teacher"])
def test_stored_tokens_of_models_of_other_widths(folder: Path, wider: str) -> None:
    shutil.rmtree(folder / wider / "model")
    write_tiny_model(folder / wider / "model", "qwen3", 1, vocab_size=384)
    make(folder, "student-live", on="all")
    make(folder, "student-stored", on="all", top_k=10_000)
    one, other = (logged(folder, name)[0]["divergence"] for name in ("student-stored", "student-live"))
    assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("count", [2, 9])
def test_processes_store_their_shares(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a file of its own; together they are what one process stores. Of nine processes one has nothing to do."""
    settings = Student(objective=Distil(kind="distil", on="all", top_k=5), batch_size=4)
    alone = store_tokens(folder, settings, "alone")["teacher_tokens"]
    monkeypatch.setenv("WORLD_SIZE", str(count))
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        together = store_tokens(folder, settings, "together")["teacher_tokens"]
    monkeypatch.undo()
    assert [len(shards(one / ROWS)) for one in (alone, together)] == [1, count]
    read = []
    for one in (alone, together):
        conversation = load_language_model(read_pointer(folder / "start")).conversation
        examples, _ = distilled_examples(
            context_of(folder, "reading"), folder / "rankings", conversation, Limits(512, 512, 64), "all"
        )
        read.append(list(read_teacher_tokens(shards(one / ROWS), examples)))
    assert len(read[0]) == len(read[1]) == 8
    for one, other in zip(*read, strict=True):
        assert isinstance(one, KnownExample)
        assert isinstance(other, KnownExample)
        assert one.group == other.group
        assert one.known is not None
        assert other.known is not None
        torch.testing.assert_close(one.known.logps_Sk, other.known.logps_Sk, rtol=1e-5, atol=1e-5)
        assert torch.equal(one.known.ids_Sk, other.known.ids_Sk)


def test_tokens_of_other_examples_are_refused(folder: Path) -> None:
    settings = Student(objective=Distil(kind="distil", on="all", top_k=5), batch_size=4, max_steps=1)
    inputs = store_tokens(folder, settings, "tokens")
    (folder / "rankings" / "ties.jsonl").write_text("")
    other = StageContext(
        "student-other", folder / "other", folder / "caches", Runtime(), {path: f"other {path}" for path in inputs.values()}
    )
    other.folder.mkdir()
    with pytest.raises(DataError, match="the teacher's stored tokens are of 8 examples, not of 7"):
        students.make(other, settings=settings, lora=None, seed=0, models={}, **inputs)


def test_another_tokenizer_is_refused_before_anything_is_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_tokenizer(folder / "teacher" / "model", ("zebras and quaggas", "quaggas and zebras") * 3)
    monkeypatch.setattr(load, "load_language_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match="another tokenizer than the student"):
        make(folder, top_k=4)
