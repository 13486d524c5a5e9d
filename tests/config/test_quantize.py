"""`start.quantize` and `lora.use_dora`: short forms, fingerprints, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.load import dump_config, load_config
from aligndistill.config.models import Lora, Quantize
from aligndistill.config.run import RunConfig
from aligndistill.errors import ConfigError
from aligndistill.pipeline import pipeline

DPO = "students: {a: {objective: {kind: dpo}}}"
PPO = "students: {a: {objective: {kind: ppo, reward: judge, server: {base_url: 'http://localhost:1/v1', name: m}}}}"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def loaded(start: str, *more: str) -> RunConfig:
        given = ("name: x", "prompts: {source: {path: p.jsonl}}", "judge: {kind: rubric, model: start}", f"start: {{{start}}}")
        Path("c.yaml").write_text("\n".join([*given, *(more or (DPO,)), ""]))
        return load_config([Path("c.yaml")])

    return loaded


def test_the_kind_alone_is_enough(load: Any) -> None:
    short = load("model: m, lora: {r: 4}, quantize: nf4").start
    assert short.quantize == Quantize(kind="nf4") == load("model: m, lora: {r: 4}, quantize: {kind: nf4}").start.quantize
    assert load("model: m, lora: {r: 4}, quantize: null").start.quantize is None


def test_a_written_config_is_read_again(load: Any, tmp_path: Path) -> None:
    config = load("model: m, lora: {r: 4, use_dora: true}, quantize: {kind: int8, export: adapter}")
    (tmp_path / "d.yaml").write_text(dump_config(config))
    assert load_config([tmp_path / "d.yaml"]) == config


def test_it_is_part_of_the_fingerprint_and_its_absence_is_not(load: Any) -> None:
    def fingerprints(start: str) -> dict[str, str]:
        return {stage.name: stage.fingerprint for stage in pipeline(load(start)).stages if stage.name in ("start", "student-a")}

    plain = fingerprints("model: m, lora: {r: 4}")
    assert plain == fingerprints("model: m, lora: {r: 4, use_dora: false}, quantize: null")
    found = [
        fingerprints(f"model: m, lora: {{r: 4}}, quantize: {{{quantize}}}")
        for quantize in ("kind: nf4", "kind: int8", "kind: nf4, double: false", "kind: nf4, export: adapter")
    ]
    for name in ("start", "student-a"):
        assert len({plain[name], *(one[name] for one in found)}) == 5
    assert fingerprints("model: m, lora: {r: 4, use_dora: true}")["student-a"] != plain["student-a"]


@pytest.mark.parametrize(
    ("start", "more", "line"),
    [
        ("model: m, quantize: nf4", (), "start.quantize: quantised weights cannot be trained, only adapters on them: add 'lora'"),
        ("model: m, lora: {r: 4}, quantize: nf5", (), "start.quantize.kind: "),
        ("model: m, lora: {r: 4}, quantize: 4", (), "start.quantize: "),
        (
            "model: m, lora: {r: 4}, quantize: {kind: int8, double: false}",
            (),
            "'double' has an effect with kind nf4 only: remove it",
        ),
        ("model: m, lora: {r: 4}, quantize: {kind: nf4, export: merged_4bit}", (), "keeps 2 % of a small LoRA delta"),
        ("model: m, lora: {r: 4}, quantize: {kind: nf4, export: nf4}", (), "keeps 2 % of a small LoRA delta"),
        ("model: m, lora: {r: 4}, quantize: {kind: nf4, export: folder}", (), "start.quantize.export: "),
        (
            "from_scratch: {}, lora: {r: 4}, quantize: nf4",
            (DPO, "sft: {demonstrations: {path: d.jsonl}}"),
            "start.quantize: a model from scratch is trained whole",
        ),
        (
            "model: m, lora: {r: 4}, quantize: nf4",
            (DPO, "sft: {demonstrations: {path: d.jsonl}}"),
            "start.quantize: the start after `sft` would be quantised again",
        ),
        ("model: m, lora: {r: 4}, quantize: nf4", (DPO, "runtime: {deepspeed: zero3}"), "runtime.deepspeed: ZeRO-3 shards weights"),
        ("model: m, lora: {r: 4}, quantize: nf4", (DPO, "runtime: {deepspeed: zero3_offload}"), "use zero1 or zero2"),
        ("model: m, lora: {r: 4}, quantize: nf4", (PPO,), "students.a.objective.server: a rollout server loads whole weights"),
        ("model: m, lora: {r: 4, use_dora: true}", (PPO,), "merged by LoRA's rule, not DoRA's"),
        ("model: m, load_in_4bit: true", (), "give `quantize: nf4` in 'start'"),
    ],
)
def test_what_cannot_be_is_refused(start: str, more: tuple[str, ...], line: str, load: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(start, *more)
    assert line in str(caught.value)


def test_zero_1_and_2_are_accepted(load: Any) -> None:
    for name in ("zero1", "zero2"):
        load("model: m, lora: {r: 4}, quantize: nf4", DPO, f"runtime: {{deepspeed: {name}}}")


def test_sizes() -> None:
    assert Quantize(kind="nf4").bytes_per_weight * 8 == pytest.approx(4.127, abs=1e-3)
    assert Quantize(kind="nf4", double=False).bytes_per_weight * 8 == 4.5
    assert not Lora().use_dora
