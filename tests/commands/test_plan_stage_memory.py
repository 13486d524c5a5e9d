"""Whose limits bound the rows that a plan counts, against sums worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligndistill.commands.plan.memory import DISTILLED_LOGIT_COPIES
from aligndistill.commands.plan.stage_memory import planned_memory
from aligndistill.config.run import RunConfig
from tests.tiny_models import SIZES_FOR_BITS, tiny_model

SIZES = {"architecture": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PER_TOKEN = (10 * 8 + 4 * 16) * 4 * 2  # values of a layer, float32, two layers
LOGITS = 320 * 4 * 3  # of each response token: vocabulary, float32, copies


def activations(**changes: Any) -> dict[str, int]:
    """Of each stage: four prompts at once, two candidates each."""
    config = {
        "name": "plan",
        "prompts": {"source": {"path": "prompts.jsonl"}},
        "start": {"from_scratch": {**SIZES, "vocab_size": 320}},
        "judge": {"kind": "rubric", "model": "start"},
        "candidates": {"per_prompt": 2, "max_prompt_tokens": 96, "max_new_tokens": 32},
        "reward_model": {"batch_size": 4},
        "students": {
            "dpo": {"objective": {"kind": "dpo"}, "batch_size": 4},
            "short": {"objective": {"kind": "dpo"}, "batch_size": 4, "max_prompt_tokens": 50, "max_response_tokens": 20},
            "best": {"objective": {"kind": "best_of_n"}, "batch_size": 4},
            "ppo": {"objective": {"kind": "ppo", "samples_per_prompt": 2}, "batch_size": 4},
        },
        "runtime": {"per_device_train_batch_size": 4},
        **changes,
    }
    return {name: memory.activations for name, memory in planned_memory(RunConfig.model_validate(config)).items()}


def of(prompt: int, response: int, responses: int = 2) -> int:
    return 4 * (prompt + responses * response) * PER_TOKEN + 4 * responses * response * LOGITS


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_candidates_bound_what_learns_from_them() -> None:
    found = activations()
    assert found == {
        "reward_model": of(96, 32),
        "student-dpo": of(96, 32),
        "student-short": of(50, 20),
        "student-best": of(96, 32, 1),
        "student-ppo": of(512, 512),  # its prompts are the run's, whatever candidates they have, and its answers its own
    }


def test_a_server_answers_prompts_of_any_length() -> None:
    teacher = {"kind": "endpoint", "base_url": "http://localhost/v1", "name": "m"}
    candidates = {"per_prompt": 1, "from": ["start", "teacher"], "max_prompt_tokens": 96, "max_new_tokens": 32}
    assert activations(teacher=teacher, candidates=candidates)["student-dpo"] == of(512, 32)


def test_ready_made_rankings_are_bounded_by_nothing_else() -> None:
    source = {"rankings": {"source": {"path": "pairs.jsonl"}}, "prompts": None, "judge": None}
    assert activations(**source, students={"dpo": {"objective": {"kind": "dpo"}, "batch_size": 4}})["student-dpo"] == of(512, 512)


def test_a_distilled_teacher_is_kept_beside_the_student() -> None:
    sizes = {"from_scratch": {**SIZES, "vocab_size": 320}}
    texts = {"demonstrations": {"path": "texts.jsonl"}}
    teacher = {**sizes, "from_scratch": {**sizes["from_scratch"], "hidden_size": 16}, "sft": texts}
    students: dict[str, Any] = {
        **{on: {"objective": {"kind": "distil", "on": on}, "batch_size": 4} for on in ("teacher", "best", "all")},
        "dpo": {"objective": {"kind": "dpo"}, "batch_size": 4},
        "opd": {"objective": {"kind": "on_policy_distil", "samples_per_prompt": 3}, "batch_size": 4, "max_response_tokens": 16},
    }
    config: dict[str, Any] = {
        "name": "plan",
        "prompts": {"source": {"path": "prompts.jsonl"}},
        "start": sizes,
        "sft": texts,
        "teacher": teacher,
        "judge": {"kind": "rubric"},
        "candidates": {"per_prompt": 2, "from": ["start", "teacher"], "max_prompt_tokens": 96, "max_new_tokens": 32},
        "students": students,
        "runtime": {"per_device_train_batch_size": 4},
    }
    found = planned_memory(RunConfig.model_validate(config))
    for on, responses in (("teacher", 2), ("best", 1), ("all", 4)):
        tokens = 4 * (96 + responses * 32) * PER_TOKEN
        assert found[f"student-{on}"].activations == tokens + 4 * responses * 32 * 320 * 4 * DISTILLED_LOGIT_COPIES
        embeddings, layer, norms = 320 * 16, 4 * 16 * 16 + 3 * 16 * 16, 5 * 16
        assert found[f"student-{on}"].weights - found["student-dpo"].weights == pytest.approx(
            4 * (embeddings + 2 * layer + norms), rel=0.2
        )
    tokens = 4 * (512 + 3 * 16) * PER_TOKEN  # its prompts are the run's, which no candidate bounds
    assert found["student-opd"].activations == tokens + 4 * 3 * 16 * 320 * 4 * DISTILLED_LOGIT_COPIES
    assert found["student-opd"].weights == found["student-all"].weights
    bounded = {**students["opd"], "objective": {**students["opd"]["objective"], "kl_budget": 4}}
    config["students"]["bounded"] = bounded  # measured against a frozen reference of the start's size
    reference = planned_memory(RunConfig.model_validate(config))["student-bounded"].weights - found["student-opd"].weights
    assert reference == found["student-dpo"].weights
    without = {"start": sizes, "sft": texts, "name": "plan", "prompts": config["prompts"], "runtime": config["runtime"]}
    sampled = {**students["opd"], "objective": {**students["opd"]["objective"], "form": "sampled"}}
    server = {"kind": "endpoint", "base_url": "http://localhost/v1", "name": "m", "tokenizer": "t"}
    served = planned_memory(RunConfig.model_validate({**without, "teacher": server, "students": {"opd": sampled}}))
    assert served["student-opd"].weights == found["student-dpo"].weights  # the teacher is elsewhere
    config["students"]["all"]["objective"]["top_k"] = 64
    stored = planned_memory(RunConfig.model_validate(config))["student-all"]
    assert stored.weights == found["student-dpo"].weights
    assert stored.activations < found["student-all"].activations
    del config["students"]["all"]["objective"]["top_k"]
    config["teacher"] = {"model": "some/teacher"}
    config["start"], config["sft"] = {"model": "some/start"}, None
    assert "student-all" not in planned_memory(RunConfig.model_validate(config))


def test_students_have_the_starts_quantised_weights_and_a_reward_model_has_not(tmp_path: Path) -> None:
    tiny_model(**SIZES_FOR_BITS).save_pretrained(tmp_path)

    def weights(quantize: str | None) -> dict[str, int]:
        students = {
            "dpo": {"objective": {"kind": "dpo"}},
            "ppo": {"objective": {"kind": "ppo", "critic": "separate"}},
            "best": {"objective": {"kind": "best_of_n"}},
        }
        config = {
            "name": "plan",
            "prompts": {"source": {"path": "prompts.jsonl"}},
            "start": {"model": str(tmp_path), "lora": {"r": 4}, "quantize": quantize},
            "judge": {"kind": "rubric", "model": "start"},
            "reward_model": {"lora": {"r": 4}},
            "students": students,
        }
        return {name: memory.weights for name, memory in planned_memory(RunConfig.model_validate(config)).items()}

    whole, small = weights(None), weights("int8")
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)  # of two layers: queries and outputs, keys and values, feed-forward
    assert {name: whole[name] - small[name] for name in whole} == {
        "reward_model": 0,
        "student-dpo": 3 * linear,  # 1 byte instead of 4
        "student-ppo": 3 * linear,
        "student-best": 3 * linear,
    }


def test_ppo_has_the_reward_model_that_it_reads_beside_it_and_no_other(tmp_path: Path) -> None:
    def folder(name: str, hidden: int) -> dict[str, str]:
        (tmp_path / name).mkdir()
        numbers = {**SIZES, "model_type": "llama", "vocab_size": 320, "hidden_size": hidden, "num_key_value_heads": 2}
        (tmp_path / name / "config.json").write_text(json.dumps(numbers))
        return {"model": str(tmp_path / name)}

    def parameters(hidden: int) -> int:
        """Embeddings and output layer, two layers (attention, feed-forward of width 16, two norms), and the last norm."""
        return 2 * 320 * hidden + 2 * (4 * hidden * hidden + 3 * 16 * hidden + 2 * hidden) + hidden

    def weights(reward: Any, **changes: Any) -> int | None:
        """Of a policy, a critic and a reference of the student's start, and what gives the reward."""
        config = {
            "name": "plan",
            "prompts": {"source": {"path": "prompts.jsonl"}},
            "start": models["small"],
            "judge": {"kind": "rubric", "model": "start"},
            "reward_model": {"model": changes.pop("scored_by", None)},
            "students": {"ppo": {"objective": {"kind": "ppo", "reward": reward}, **changes}},
        }
        found = planned_memory(RunConfig.model_validate(config)).get("student-ppo")
        return found and found.weights

    models = {"small": folder("small", 8), "big": folder("big", 32)}
    small, big = 4 * parameters(8), 4 * parameters(32)
    assert weights("reward_model") == 3 * small + small
    assert weights("reward_model", scored_by=models["big"]) == 3 * small + big
    assert weights("judge", scored_by=models["big"]) == 3 * small
    assert weights([{"source": "judge"}, {"source": "reward_model"}], scored_by=models["big"]) == 3 * small + big
    assert weights("reward_model", start=models["big"]) == 3 * big + small
    downloaded_first = {"model": "some/model"}
    assert weights("reward_model", scored_by=downloaded_first) is None
    assert weights("judge", scored_by=downloaded_first) == 3 * small
