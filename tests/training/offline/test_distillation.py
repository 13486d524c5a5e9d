"""Distillation from a live teacher: the loss against plain forward passes, and what does not change it."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Distil
from aligndistill.errors import ConfigError, DataError
from aligndistill.models import logprobs
from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel, wrap_language_model
from aligndistill.models.vocabulary import SharedVocabulary, Tokens, shared_vocabulary
from aligndistill.objectives.divergences import Dense, divergence
from aligndistill.training.fit import Trained
from aligndistill.training.offline.distillation import LiveTeacher, require_readable, train_distilled
from aligndistill.training.offline.examples import Example
from tests.models.chat_families import tokenizer_of
from tests.tiny_models import (
    assert_same_steps,
    ragged_examples,
    random_groups,
    tiny_job,
    tiny_language_model,
    tiny_model,
    tiny_tokenizer,
)

SAME = SharedVocabulary(frozenset())


pytestmark = pytest.mark.usefixtures("damped")


def train(
    folder: Path,
    student: LanguageModel | None = None,
    teacher: LanguageModel | None = None,
    vocabulary: SharedVocabulary = SAME,
    lora: Lora | None = None,
    rows: Sequence[Example] | None = None,
    runtime: dict[str, Any] | None = None,
    steps: int = 1,
    **objective: Any,
) -> Trained:
    job = tiny_job(folder, max_steps=steps, runtime=runtime)
    student, teacher = student or tiny_language_model(seed=0), teacher or tiny_language_model(seed=1)
    settings = Distil(kind="distil", **{"on": "all", **objective})
    return train_distilled(student, LiveTeacher(teacher, vocabulary), settings, lora, rows or ragged_examples(), job)


def weights(trained: Trained) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained.trainer.model.named_parameters()}


def expected_loss(student: Any, teacher: Any, rows: Sequence[Example], objective: Distil) -> float:
    """A plain forward pass of each model for each answer, all logits at once, and loops over positions."""
    total = tokens = 0.0
    scale = objective.temperature ** (1 if objective.divergence == "tvd" else 2)
    for row in rows:
        for number, response in enumerate(row.group.responses):
            ids = torch.tensor([row.group.prompt + response])
            with torch.no_grad():
                student_TV, teacher_TV = (model(input_ids=ids).logits[0].double() for model in (student, teacher))
            for place, token in enumerate(response, start=len(row.group.prompt) - 1):
                value = divergence(
                    student_TV[place : place + 1],
                    Dense(teacher_TV[place : place + 1]),
                    objective.divergence,
                    beta=objective.beta,
                    skew=objective.skew,
                    temperature=objective.temperature,
                )
                total += (1 - objective.sft_weight) * scale * value.item()
                if objective.on != "all" or number == 0:
                    total -= objective.sft_weight * student_TV[place].log_softmax(-1)[token].item()
                tokens += 1
    return total / tokens


CASES: list[dict[str, Any]] = [
    {},
    {"on": "teacher", "temperature": 2.0},
    {"on": "best", "divergence": "reverse_kl", "sft_weight": 0.0, "temperature": 3.0},
    {"divergence": "jsd", "beta": 0.2, "sft_weight": 0.2},
    {"divergence": "skew_forward", "skew": 0.3},
    {"divergence": "skew_reverse", "temperature": 0.5},
    {"divergence": "tvd", "temperature": 4.0, "sft_weight": 0.1},
    {"divergence": "akl"},
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_the_loss_is_that_of_plain_forward_passes(settings: dict[str, Any], tmp_path: Path) -> None:
    objective = Distil(kind="distil", **{"on": "all", **settings})
    trained = train(tmp_path, **settings)
    expected = expected_loss(tiny_model(seed=0), tiny_model(seed=1), ragged_examples(), objective)
    assert trained.log[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert trained.log[0]["grad_norm"] > 0
    assert trained.trainer.train_dataset[0].group.responses


@pytest.mark.parametrize(
    ("student", "teacher"), [("llama", "gpt2"), ("llama", "gemma2"), ("gemma2", "llama"), ("mistral_window", "qwen3")]
)
def test_models_of_any_shape_may_meet(student: str, teacher: str, tmp_path: Path) -> None:
    """Also those that go through their own forward pass: `gemma2` caps its logits, `mistral_window` cannot share prompts."""
    trained = train(tmp_path, tiny_language_model(student, 0), tiny_language_model(teacher, 1))
    expected = expected_loss(tiny_model(student, 0), tiny_model(teacher, 1), ragged_examples(), Distil(kind="distil", on="all"))
    assert trained.log[0]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "skew_forward", "skew_reverse", "tvd", "akl"])
def test_a_student_that_is_its_teacher_learns_nothing(kind: str, tmp_path: Path) -> None:
    trained = train(tmp_path, teacher=tiny_language_model(seed=0), divergence=kind, sft_weight=0.0, temperature=2.0)
    assert abs(trained.log[0]["loss"]) < 1e-5
    assert trained.log[0]["grad_norm"] < 1e-5


def test_the_log_has_both_terms_as_means_over_their_tokens(tmp_path: Path) -> None:
    entry = train(tmp_path, temperature=2.0, sft_weight=0.25).log[0]
    rows = ragged_examples()
    best = sum(len(row.group.responses[0]) for row in rows)
    every = sum(len(response) for row in rows for response in row.group.responses)
    assert entry["loss"] == pytest.approx(0.75 * 4 * entry["divergence"] + 0.25 * entry["nll"] * best / every, rel=1e-5)


# ------------------------------------------------------------------------------------------ what does not change the loss


@pytest.mark.parametrize("settings", [{"divergence": "jsd"}, {"on": "best", "temperature": 2.0}], ids=str)
def test_however_a_step_is_split_it_is_the_same_step(settings: dict[str, Any], tmp_path: Path) -> None:
    whole, *splits = (
        train(tmp_path / str(size), steps=2, runtime={"per_device_train_batch_size": size}, **settings) for size in (8, 2, 1)
    )
    for split in splits:
        assert split.trainer.args.gradient_accumulation_steps > 1
        for ours, theirs in zip(split.log, whole.log, strict=True):
            for name in ("loss", "grad_norm", "divergence", "nll"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name
        assert_same_steps(weights(split), weights(whole))


@pytest.mark.parametrize("student", ["llama", "gemma2"])
@pytest.mark.parametrize("teacher", ["llama", "gemma2"])
def test_chunks_change_nothing_and_bound_the_logits_of_both(
    student: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tiny_language_model(student, 0), tiny_language_model(teacher, 1)
    whole = train(tmp_path / "whole", *models, steps=2)
    monkeypatch.setattr(logprobs, "_chunk_size", lambda head: 4)
    models = tiny_language_model(student, 0), tiny_language_model(teacher, 1)
    sizes: dict[int, list[int]] = {0: [], 1: []}
    for number, model in enumerate(models):
        head = model.model.get_output_embeddings()
        plain = head.forward
        head.reads_chunks = False
        del head.reads_chunks

        def counted(hidden: Tensor, *, plain: Any = plain, number: int = number, **more: Any) -> Any:
            sizes[number].append(hidden.shape[:-1].numel())
            return plain(hidden, **more)

        head.forward = counted
    chunked = train(tmp_path / "chunked", *models, steps=2)
    for ours, theirs in zip(chunked.log, whole.log, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    assert_same_steps(weights(chunked), weights(whole))
    longest = max(len(response) for row in ragged_examples() for response in row.group.responses)
    assert max(sizes[1]) == (4 if teacher == "llama" else longest + 1)  # of one that caps its logits: an answer and its end
    if student == "llama":
        assert max(sizes[0]) == 4


def test_separate_rows_and_shared_prompts_give_one_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where either model cannot share, neither does."""
    shared = train(tmp_path / "shared")
    unshared = tiny_language_model(seed=1)
    monkeypatch.setattr(LanguageModel, "shares", lambda self, groups: self is not unshared)
    apart = train(tmp_path / "apart", teacher=unshared)
    assert apart.log[0]["loss"] == pytest.approx(shared.log[0]["loss"], rel=1e-5)
    assert_same_steps(weights(apart), weights(shared))


@pytest.mark.parametrize("lora", [None, Lora(r=4, lora_alpha=8)])
def test_recomputed_activations_change_nothing(lora: Lora | None, tmp_path: Path) -> None:
    logs = []
    for recompute in (False, True):
        runtime = {"gradient_checkpointing": recompute}
        logs.append(train(tmp_path / str(recompute), lora=lora, runtime=runtime, steps=2).log)
    for one, other in zip(*logs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert one["grad_norm"] > 0


def test_adapters_learn_and_neither_their_base_nor_the_teacher_does(tmp_path: Path) -> None:
    student, teacher = tiny_language_model(seed=0), tiny_language_model(seed=1)
    before = [{name: value.clone() for name, value in one.model.named_parameters()} for one in (student, teacher)]
    trained = train(tmp_path, student, teacher, lora=Lora(r=4, lora_alpha=8), steps=4, sft_weight=0.0)
    assert trained.log[-1]["loss"] < trained.log[0]["loss"]
    wrapped = trained.trainer.model
    inside = {name.replace("base_model.model.", "").replace(".base_layer", ""): value for name, value in wrapped.named_parameters()}
    assert all(torch.equal(inside[name], value) for name, value in before[0].items())
    assert all(torch.equal(dict(teacher.model.named_parameters())[name], value) for name, value in before[1].items())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_only_positions_that_predict_a_response_token_get_a_gradient(tmp_path: Path) -> None:
    """The last of a prompt predicts the first of an answer, and the last of an answer predicts nothing."""
    student = tiny_language_model("gemma2", 0)  # it projects every position through its head
    seen: list[Tensor] = []

    def keep(head: Any, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: seen.append(gradient))

    student.model.get_output_embeddings().register_forward_hook(keep)
    (group,) = random_groups([(5, [4])])
    train(tmp_path, student, rows=[Example(group, [0.0])] * 8, runtime={"per_device_train_batch_size": 1})
    assert len(seen) == 8
    for gradient_NTV in seen:
        moved_T = (gradient_NTV[0] != 0).any(-1)
        assert moved_T.tolist() == [False] * 4 + [True] * 4 + [False]


def test_training_lowers_the_divergence(tmp_path: Path) -> None:
    log = train(tmp_path, steps=12, sft_weight=0.0).log
    assert all(later["divergence"] < earlier["divergence"] for earlier, later in pairwise(log))


# ------------------------------------------------------------------------------------------------------------ vocabularies


def wider(rows: int, seed: int) -> LanguageModel:
    """A tiny model with rows behind the tokenizer's last id, which are large, so that their mass shows."""
    model = tiny_model("qwen2", seed, vocab_size=len(tiny_tokenizer()) + rows)
    return wrap_language_model(model, tiny_tokenizer(), "chat")


@pytest.mark.parametrize(("student_rows", "teacher_rows"), [(0, 7), (7, 0), (3, 7)])
def test_surplus_rows_are_cut_off(student_rows: int, teacher_rows: int, tmp_path: Path) -> None:
    """As if they were not there: a student that equals its teacher in the rows of both learns nothing."""
    student, teacher = wider(student_rows, 0), wider(teacher_rows, 0)
    common = len(tiny_tokenizer()) + min(student_rows, teacher_rows)
    with torch.no_grad():
        for (name, one), (_, other) in zip(student.model.named_parameters(), teacher.model.named_parameters(), strict=True):
            if one.shape == other.shape:
                other.copy_(one)
            else:
                assert name in ("model.embed_tokens.weight", "lm_head.weight")
                other[:common] = one[:common]
    entry = train(tmp_path, student, teacher, sft_weight=0.0).log[0]
    assert abs(entry["loss"]) < 1e-6
    assert entry["grad_norm"] < 1e-5


def test_ids_that_only_one_has_are_masked(tmp_path: Path) -> None:
    student, teacher = tiny_language_model("qwen2", 0), tiny_language_model("qwen2", 0)
    with torch.no_grad():
        teacher.model.get_output_embeddings().weight[300:302] += 5  # the teacher says these two, which the student does not have
    assert train(tmp_path / "all", student, teacher, sft_weight=0.0).log[0]["loss"] > 1e-3
    student = tiny_language_model("qwen2", 0)
    entry = train(tmp_path / "masked", student, teacher, SharedVocabulary(frozenset({300, 301, 9999})), sft_weight=0.0).log[0]
    assert abs(entry["loss"]) < 1e-6
    assert entry["grad_norm"] < 1e-5


def test_a_padding_id_that_the_teacher_does_not_have_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(tmp_path / "plain", wider(7, 0), tiny_language_model(seed=1)).log[0]["loss"]
    student = wider(7, 0)
    monkeypatch.setitem(student.conversation.__dict__, "pad_id", len(tiny_tokenizer()) + 6)
    assert train(tmp_path / "padded", student, tiny_language_model(seed=1)).log[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_another_tokenizer_is_named_by_its_first_id() -> None:
    one, other = Tokens("./start", {0: "a", 1: "b", 5: "c"}), Tokens("./teacher", {0: "a", 1: "B", 5: "C", 6: "d"})
    with pytest.raises(ConfigError, match=r"id 1 is 'B' in './teacher' and 'b' in './start'.* take a teacher with the student's"):
        shared_vocabulary(one, other)
    assert shared_vocabulary(one, Tokens("./teacher", {1: "b", 6: "d"})).unshared == {0, 5, 6}


def test_data_with_a_token_that_the_teacher_does_not_have_are_refused() -> None:
    conversation = tiny_language_model().conversation
    group = TokenGroup([7, 8], [[9, 10]])
    require_readable([group], conversation, conversation, SharedVocabulary(frozenset({11})))
    for id in (8, 10):
        with pytest.raises(
            DataError, match=rf"the data have the token .* \(id {id}\), which the teacher's tokenizer does not have"
        ):
            require_readable([group], conversation, conversation, SharedVocabulary(frozenset({id, 11})))


def test_a_teacher_whose_end_the_student_does_not_know_is_refused() -> None:
    """Else the student would learn to end its answers with a token at which nothing stops it."""
    tokenizer = tokenizer_of("qwen2_5")
    tokenizer.eos_token = "<|im_start|>"  # a base model's, which is not the end of a turn
    plain, chat = (Conversation(tokenizer, layout) for layout in ("plain", "chat"))
    with pytest.raises(ConfigError, match=r"the teacher ends its answers with '<\|im_end\|>', at which the student does not stop"):
        require_readable([], plain, chat, SAME)
    with pytest.raises(ConfigError, match=r"the student ends its answers with '<\|im_end\|>', at which the teacher does not stop"):
        require_readable([], chat, plain, SAME)
    require_readable([], chat, chat, SAME)


def test_the_teacher_of_a_finite_student_may_be_lost(tmp_path: Path) -> None:
    """A teacher whose logits are no numbers ends the run with an error, and is not averaged away."""
    teacher = tiny_language_model(seed=1)
    with torch.no_grad():
        teacher.model.get_output_embeddings().weight[0] = math.nan
    with pytest.raises(Exception, match="not finite at step 1"):
        train(tmp_path, teacher=teacher)
