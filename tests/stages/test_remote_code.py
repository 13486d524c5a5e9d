"""A start with code of its own, which the config allowed: what is trained from it has the code too, and is loaded with it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import dynamic_module_utils
from typer.testing import CliRunner

from aligndistill.cli.app import app
from aligndistill.commands.share.names import TrainedModel
from aligndistill.commands.share.weights import write_weights
from aligndistill.config.data import Source
from aligndistill.config.models import LocalModel
from aligndistill.config.offline_objectives import Dpo
from aligndistill.config.run import Runtime
from aligndistill.config.students import RewardTraining, Student
from aligndistill.config.training import Sft
from aligndistill.errors import DataError
from aligndistill.models.load import load_language_model, read_pointer
from aligndistill.models.reward import load_reward_model
from aligndistill.records import Message, as_dicts
from aligndistill.stages import models, reward_model, students
from aligndistill.stages.chains import with_folder
from aligndistill.stages.context import StageContext
from aligndistill.store.jsonl import write_jsonl
from tests.stages.finished_runs import config_of, write_run
from tests.tiny_models import ragged_rankings, user, write_tiny_model

CODE = """
from pathlib import Path
from transformers import AutoModel, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel

Path({ran!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "somebodys_own"

class OwnBackbone(LlamaModel):
    config_class = OwnConfig

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

class OwnClassifier(LlamaForSequenceClassification):
    config_class = OwnConfig

AutoModel.register(OwnConfig, OwnBackbone)
"""
CLASSES = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "OwnModel", "AutoModelForSequenceClassification": "OwnClassifier"}
ONCE: dict[str, Any] = {"batch_size": 4, "max_steps": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a store: the start's pointer, and rankings."""
    made = tmp_path_factory.mktemp("own_code")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(made / "modules"))
        patch.syspath_prepend(str(made / "modules"))
        write_tiny_model(made / "own")
        (made / "own" / "own.py").write_text(CODE.format(ran=str(made / "ran")))
        settings = json.loads((made / "own" / "config.json").read_text())
        auto_map = {"auto_map": {name: f"own.{own}" for name, own in CLASSES.items()}}
        (made / "own" / "config.json").write_text(json.dumps({**settings, "model_type": "somebodys_own", **auto_map}))
        models.point(context_of(made, "start"), settings=own_start(made))
        (made / "rankings").mkdir()
        write_jsonl(made / "rankings" / "rankings.jsonl", ragged_rankings())
        write_jsonl(made / "rankings" / "ties.jsonl", [])
        yield made


def own_start(folder: Path) -> LocalModel:
    return LocalModel(model=str(folder / "own"), trust_remote_code=True)


def context_of(folder: Path, name: str) -> StageContext:
    (folder / name).mkdir(exist_ok=True)
    identities = {folder / one: one for one in ("start", "rankings")}
    return StageContext(name, folder / name, folder / "caches", Runtime(), identities)


def dpo(folder: Path) -> Path:
    inputs = {"start": folder / "start", "rankings": folder / "rankings", "reference": folder / "start"}
    settings = Student(objective=Dpo(kind="dpo"), **ONCE)
    students.make(context_of(folder, "student-dpo"), settings=settings, lora=None, seed=0, models={}, **inputs)
    return folder / "student-dpo"


def fine_tuned(folder: Path) -> Path:
    rows = [{"messages": as_dicts((*user(f"{n} and {n}?"), Message(role="assistant", content="blue")))} for n in range(8)]
    (folder / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = Sft(demonstrations=Source(path=str(folder / "shown.jsonl")), **ONCE)
    models.fine_tune(context_of(folder, "sft"), settings=own_start(folder), sft=sft, held_out=0.0, seed=0)
    return folder / "sft"


def require_code(folder: Path, load: Callable[..., Any], made: Path) -> None:
    pointer = read_pointer(made)
    (folder / "ran").unlink(missing_ok=True)
    with pytest.raises(DataError, match="trust_remote_code"):
        load(pointer.model_copy(update={"trust_remote_code": False}))
    assert not (folder / "ran").exists()
    assert type(load(pointer).model).__module__.startswith("transformers_modules.")


@pytest.mark.parametrize("train", [dpo, fine_tuned])
def test_a_student_is_loaded_with_the_code_that_the_config_allowed(train: Callable[[Path], Path], folder: Path) -> None:
    require_code(folder, load_language_model, train(folder))


@pytest.mark.parametrize("ensemble", [1, 2])
def test_a_reward_model_is_loaded_with_the_code_that_the_config_allowed(ensemble: int, folder: Path) -> None:
    context = context_of(folder, f"reward_model-{ensemble}")
    settings = RewardTraining(ensemble=ensemble, **ONCE)
    reward_model.make(context, settings=settings, rankings=folder / "rankings", seed=0, start=folder / "start")
    require_code(folder, load_reward_model, context.folder)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_student_is_exported_with_its_code(dtype: str | None, folder: Path, tmp_path: Path) -> None:
    made = dpo(folder)
    student = TrainedModel(tmp_path, "dpo", made, {}, config_of("run"))
    written = write_weights(student, tmp_path, False, dtype, user("Hi"))
    assert written.dtype == (dtype or "float32")
    assert (tmp_path / "own.py").read_text() == (folder / "own" / "own.py").read_text()


def test_a_folder_cannot_allow_its_own_code(folder: Path, tmp_path: Path) -> None:
    """A student of another run needs the permission in the config that names it; `eval-rm FOLDER` never gives it."""
    run = config_of("other", runtime={"runs": str(tmp_path / "runs"), "store": str(tmp_path / "store")})
    saved = LocalModel(model="m").model_dump(include={"layout", "dtype", "attn_implementation", "thinking"})
    write_run(run, **saved, trust_remote_code=True)
    named = {"run": str(run.runtime.runs / run.name), "student": "kd"}
    assert not with_folder(LocalModel(**named)).trust_remote_code
    assert with_folder(LocalModel(**named, trust_remote_code=True)).trust_remote_code

    (tmp_path / "model.json").write_text(json.dumps({"path": str(folder / "own"), "layout": "chat", "trust_remote_code": True}))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c", "subset": "x", "id": 0}) + "\n")
    (folder / "ran").unlink(missing_ok=True)
    ended = CliRunner().invoke(app, ["eval-rm", str(tmp_path), "--dataset", str(rows)])
    assert "trust_remote_code" in str(ended.exception) + ended.output
    assert not (folder / "ran").exists()
