"""On-policy distillation, update by update, on models of a few thousand parameters."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Distil
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel, wrap_language_model
from aligndistill.models.vocabulary import SharedVocabulary
from aligndistill.training.offline.distillation import LiveTeacher, train_distilled
from aligndistill.training.offline.examples import Example
from tests.tiny_models import (
    assert_same_steps,
    tiny_job,
    tiny_language_model,
    tiny_model,
    tiny_tokenizer,
)
from tests.training.on_policy.tiny_distillation import SAME, Distilled, tiny_distillation

KINDS = ["forward_kl", "reverse_kl", "jsd", "skew_forward", "skew_reverse", "tvd", "akl"]
LOGGED = {
    *("update", "loss", "grad_norm", "learning_rate", "divergence", "kl_forward_nats", "kl_reverse_nats", "entropy_nats"),
    *("agreement", "length_tokens", "eos_rate", "unreadable", "rollout_seconds"),
}


pytestmark = pytest.mark.usefixtures("damped")


def often_ending() -> LanguageModel:
    """Many tokens end an answer, so that answers have many lengths."""
    model = tiny_model()
    model.generation_config.eos_token_id = [1, *range(200, 240)]
    return wrap_language_model(model, tiny_tokenizer(), "chat")


def logits(model: Any, ids: list[int], before: int, temperature: float) -> tuple[Tensor, Tensor]:
    """log-softmax where each token after the first `before` is predicted, by a plain forward pass, and those tokens."""
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([ids])).logits[0, before - 1 : -1].double()
    return (logits_TV / temperature).log_softmax(-1), torch.tensor(ids[before:])


def without_seconds(log: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in entry.items() if not name.endswith("seconds")} for entry in log]


# -------------------------------------------------------------------------------------------------------------- updates


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.7}, {"form": "sampled"}, {"form": "sampled", "temperature": 2.0, "advantage_clip": 0.5}],
    ids=str,
)
def test_an_update_is_a_mean_over_the_tokens_that_the_student_wrote(settings: dict[str, Any], tmp_path: Path) -> None:
    """By plain forward passes, answer by answer: loss and metrics, with the tokens counted in the answers themselves."""
    ran = tiny_distillation(tmp_path, student=often_ending(), updates=1, **settings)
    (entry,) = ran.trained.log
    assert entry.keys() >= LOGGED
    temperature, clip = settings.get("temperature", 1.0), settings.get("advantage_clip", 10.0)
    before, teacher = often_ending().model, tiny_model(seed=1)
    rows: dict[str, list[Tensor]] = {}
    lengths = []
    for prompt, samples in ran.answers[0]:
        for one in samples:
            log_q_RV, tokens_R = logits(before, prompt.ids + one.ids, len(prompt.ids), temperature)
            log_p_RV, _ = logits(teacher, prompt.ids + one.ids, len(prompt.ids), temperature)
            log_q_R, log_p_R = (rows.gather(-1, tokens_R.unsqueeze(-1)).squeeze(-1) for rows in (log_q_RV, log_p_RV))
            assert one.logprobs == pytest.approx(log_q_R.tolist(), abs=1e-4)
            found = {
                "kl_reverse_nats": (log_q_RV.exp() * (log_q_RV - log_p_RV)).sum(-1),
                "kl_forward_nats": (log_p_RV.exp() * (log_p_RV - log_q_RV)).sum(-1),
                "entropy_nats": -(log_q_RV.exp() * log_q_RV).sum(-1),
                "estimate": (log_q_R - log_p_R).clamp(-clip, clip),
            }
            for name, values_R in found.items():
                rows.setdefault(name, []).append(values_R)
            lengths.append(len(one.ids))
    means = {name: float(torch.cat(values).mean()) for name, values in rows.items()}
    assert len(set(lengths)) > 3
    for name in ("kl_reverse_nats", "kl_forward_nats", "entropy_nats"):
        assert entry[name] == pytest.approx(means[name], rel=1e-4), name
    value = means["estimate"] if settings.get("form") == "sampled" else means["kl_reverse_nats"]
    assert entry["divergence"] == pytest.approx(value, rel=1e-4)
    assert entry["loss"] == pytest.approx(temperature**2 * value, rel=1e-4)
    assert entry["length_tokens"] == pytest.approx(sum(lengths) / 24)
    finishes = [one.finish for _, samples in ran.answers[0] for one in samples]
    assert entry["eos_rate"] == pytest.approx(finishes.count("stop") / 24)
    assert entry["unreadable"] == 0


@pytest.mark.parametrize("settings", [{}, {"divergence": "jsd", "beta": 0.3, "temperature": 1.5}, {"divergence": "akl"}], ids=str)
@pytest.mark.parametrize("lora", [None, Lora(r=4, lora_alpha=8)], ids=["all", "lora"])
def test_the_full_form_is_distillation_on_the_students_own_answers(
    settings: dict[str, Any], lora: Lora | None, tmp_path: Path
) -> None:
    ran = tiny_distillation(tmp_path / "on", student=often_ending(), lora=lora, updates=1, **settings)
    given = [Example(TokenGroup(prompt.ids, [one.ids for one in samples]), [0.0] * 3) for prompt, samples in ran.answers[0]]
    objective = Distil(kind="distil", on="all", sft_weight=0.0, **{"divergence": "reverse_kl", **settings})
    teacher = LiveTeacher(tiny_language_model(seed=1), SAME)
    off = train_distilled(often_ending(), teacher, objective, lora, given, tiny_job(tmp_path / "off", max_steps=1))
    for name in ("loss", "grad_norm", "divergence"):
        assert ran.trained.log[0][name] == pytest.approx(off.log[0][name], rel=1e-5), name
    assert_same_steps(ran.weights, Distilled(off).weights)


@pytest.mark.parametrize("settings", [*({"divergence": kind} for kind in KINDS), {"form": "sampled"}], ids=str)
def test_a_student_that_is_its_teacher_learns_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    ran = tiny_distillation(tmp_path, teacher=tiny_language_model(seed=0), updates=1, **settings)
    (entry,) = ran.trained.log
    assert abs(entry["loss"]) < 1e-5
    assert entry["grad_norm"] < 1e-4
    assert entry["agreement"] > 0.99


@pytest.mark.parametrize(
    ("student", "teacher"), [("llama", "gpt2"), ("llama", "gemma2"), ("gemma2", "llama"), ("mistral_window", "qwen3")]
)
@pytest.mark.parametrize("form", ["full", "sampled"])
def test_models_of_any_shape_may_meet(student: str, teacher: str, form: str, tmp_path: Path) -> None:
    models = tiny_language_model(student, 0), tiny_language_model(teacher, 1)
    ran = tiny_distillation(tmp_path, student=models[0], teacher=models[1], form=form, updates=1)
    estimates = []
    for prompt, samples in ran.answers[0]:
        for one in samples:
            log_q_RV, _ = logits(tiny_model(student, 0), prompt.ids + one.ids, len(prompt.ids), 1.0)
            log_p_RV, _ = logits(tiny_model(teacher, 1), prompt.ids + one.ids, len(prompt.ids), 1.0)
            estimates.append((log_q_RV.exp() * (log_q_RV - log_p_RV)).sum(-1))
    assert ran.trained.log[0]["kl_reverse_nats"] == pytest.approx(float(torch.cat(estimates).mean()), rel=1e-4)


@pytest.mark.parametrize("lora", [None, Lora(r=4, lora_alpha=8, lora_dropout=0.5)], ids=["all", "lora"])
def test_the_student_comes_closer_to_the_teacher_on_what_it_writes(lora: Lora | None, tmp_path: Path) -> None:
    student, teacher = tiny_language_model(seed=0), tiny_language_model(seed=1)
    before = [{name: value.clone() for name, value in one.model.named_parameters()} for one in (student, teacher)]
    rates = {"learning_rate": 3e-2 if lora else 1e-2}
    ran = tiny_distillation(tmp_path, student=student, teacher=teacher, lora=lora, updates=16, job=rates)
    kl = [entry["kl_reverse_nats"] for entry in ran.trained.log]
    assert sum(kl[-3:]) < 0.9 * sum(kl[:3])
    assert all(torch.equal(dict(teacher.model.named_parameters())[name], value) for name, value in before[1].items())
    if lora is not None:
        wrapped = ran.trained.trainer.model.named_parameters()
        inside = {name.replace("base_model.model.", "").replace(".base_layer", ""): value for name, value in wrapped}
        assert all(torch.equal(inside[name], value) for name, value in before[0].items())


# ---------------------------------------------------------------------------------------- what does not change an update


@pytest.mark.parametrize("settings", [{}, {"form": "sampled"}], ids=str)
def test_however_an_update_is_split_it_is_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    """Answers of many lengths: a mean over each micro-batch would be another. Rounding may change a token of the next update."""
    whole, *splits = (
        tiny_distillation(
            tmp_path / str(size), student=often_ending(), runtime={"per_device_train_batch_size": size}, updates=1, **settings
        )
        for size in (8, 2, 1)
    )
    for split in splits:
        assert split.trained.trainer.args.gradient_accumulation_steps > 1
        assert split.ids == whole.ids
        for ours, theirs in zip(split.trained.log, whole.trained.log, strict=True):
            for name in LOGGED - {"rollout_seconds"}:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name
        assert_same_steps(split.weights, whole.weights)


def test_answers_do_not_depend_on_how_many_are_written_at_once(tmp_path: Path) -> None:
    runs = [tiny_distillation(tmp_path / str(size), updates=1, runtime={"per_device_eval_batch_size": size}) for size in (32, 3, 1)]
    for other in runs[1:]:
        assert other.ids == runs[0].ids
        assert_same_steps(other.weights, runs[0].weights)


def test_a_token_budget_makes_micro_batches_smaller_and_updates_no_other(tmp_path: Path) -> None:
    plain = tiny_distillation(tmp_path / "plain", updates=1)
    longest = max(len(prompt.ids) for prompt, _ in plain.answers[0]) + 3 * 8
    limited = tiny_distillation(tmp_path / "limited", updates=1, runtime={"max_tokens_per_batch": 2 * longest + 1})
    assert [ran.trained.trainer.args.per_device_train_batch_size for ran in (plain, limited)] == [8, 2]
    assert limited.ids == plain.ids
    assert_same_steps(limited.weights, plain.weights)


def test_a_run_is_its_seed_and_every_update_has_new_answers(tmp_path: Path) -> None:
    one, other = (tiny_distillation(tmp_path / name) for name in "ab")
    assert one.ids == other.ids
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    asked = [sorted(prompt.id for prompt, _ in update) for update in one.answers]
    assert asked == [sorted(map(str, range(8)))] * 2
    first, second = ({prompt.id: [tuple(s.ids) for s in samples] for prompt, samples in update} for update in one.answers)
    assert not any(set(first[name]) & set(second[name]) for name in first)


@pytest.mark.parametrize("settings", [{}, {"lora": Lora(r=2), "form": "sampled"}], ids=["full", "lora-sampled"])
def test_a_run_that_stops_in_the_middle_ends_where_an_uninterrupted_one_does(settings: dict[str, Any], tmp_path: Path) -> None:
    """It is interrupted twice: in the middle of an epoch, and while it trains on an update's answers."""
    more: dict[str, Any] = {
        "updates": 7,
        "runtime": {"save_steps": 1, "per_device_train_batch_size": 2},
        "job": {"batch_size": 4, "lr_scheduler_type": "cosine", "learning_rate": 1e-2},
    }
    whole = tiny_distillation(tmp_path / "whole", **more, **settings)
    for number, step in enumerate((3, 6)):
        with pytest.MonkeyPatch.context() as patch:
            _interrupt(patch, step, micro_batch=number)
            with pytest.raises(KeyboardInterrupt):
                tiny_distillation(tmp_path / "again", **more, **settings)
    resumed = tiny_distillation(tmp_path / "again", **more, **settings)
    assert resumed.ids == whole.ids[5:]  # the sixth update is answered again, with the same words
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    assert without_seconds(resumed.trained.log) == without_seconds(whole.trained.log)


def _interrupt(patch: pytest.MonkeyPatch, step: int, micro_batch: int) -> None:
    """Raise in this micro-batch (from 0) of this step (from 1)."""
    from aligndistill.training.on_policy.distillation import OnPolicyDistilTrainer

    plain, seen = OnPolicyDistilTrainer.compute_loss, []

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(self.state.global_step)
        if seen.count(step - 1) == micro_batch + 1:
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    patch.setattr(OnPolicyDistilTrainer, "compute_loss", compute_loss)


# ------------------------------------------------------------------------------------------------------------ vocabularies


def wider(rows: int, seed: int) -> LanguageModel:
    """A tiny model with rows behind the tokenizer's last id."""
    return wrap_language_model(tiny_model("qwen2", seed, vocab_size=len(tiny_tokenizer()) + rows), tiny_tokenizer(), "chat")


@pytest.mark.parametrize("form", ["full", "sampled"])
def test_an_answer_is_read_up_to_the_first_token_that_the_teacher_does_not_have(form: str, tmp_path: Path) -> None:
    """A third of the student's tokens have no row in the teacher, and some that have one are not in its tokenizer."""
    known = len(tiny_tokenizer())
    vocabulary = SharedVocabulary(frozenset(range(100, 120)))
    ran = tiny_distillation(
        tmp_path, student=wider(known // 2, 0), teacher=wider(0, 1), vocabulary=vocabulary, form=form, updates=1
    )
    (entry,) = ran.trained.log
    cut = [any(token >= known or 100 <= token < 120 for token in one.ids[:-1]) for _, samples in ran.answers[0] for one in samples]
    assert entry["unreadable"] == pytest.approx(sum(cut) / len(cut))
    assert 0.1 < entry["unreadable"] < 1
    assert all(math.isfinite(entry[name]) for name in LOGGED)
    if form == "sampled":
        assert entry["clip_fraction"] > 0.05
