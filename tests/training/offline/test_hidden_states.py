"""The hidden-state term of distillation: loss and gradient against plain transformers, what does not change it, what is saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Distil, HiddenStates
from aligndistill.errors import ConfigError
from aligndistill.models.layer_states import ProjectedPolicy
from aligndistill.models.load import LanguageModel, ModelPointer
from aligndistill.models.vocabulary import SharedVocabulary
from aligndistill.training.fit import Trained
from aligndistill.training.offline.distillation import LiveTeacher, save_projections, train_distilled
from aligndistill.training.offline.examples import Example
from aligndistill.training.save import save_model
from tests.tiny_models import (
    assert_same_steps,
    ragged_examples,
    tiny_job,
    tiny_language_model,
    tiny_model,
    write_tiny_model,
)

WIDER = {"n_embd": 24, "n_layer": 3}
ALL = [[0, 0], [1, 2], [2, 3]]


pytestmark = pytest.mark.usefixtures("damped")


def train(
    folder: Path,
    student: LanguageModel | None = None,
    teacher: LanguageModel | None = None,
    hidden: dict[str, Any] | None = None,
    lora: Lora | None = None,
    runtime: dict[str, Any] | None = None,
    steps: int = 1,
    **objective: Any,
) -> Trained:
    student, teacher = student or tiny_language_model(seed=0), teacher or tiny_language_model("gpt2", 1, **WIDER)
    settings = Distil(kind="distil", **{"on": "all", "hidden": {"layers": ALL, "weight": 0.5, **(hidden or {})}, **objective})
    job = tiny_job(folder, max_steps=steps, runtime=runtime)
    return train_distilled(student, LiveTeacher(teacher, SharedVocabulary(frozenset())), settings, lora, ragged_examples(), job)


def weights(trained: Trained) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained.trainer.model.named_parameters()}


def states(model: Any, rows: Sequence[Example], of: Sequence[tuple[int, int]]) -> tuple[list[Any], Tensor]:
    """transformers' own forward pass over one padded row for each answer: `hidden_states`, and the logits."""
    texts = [rows[prompt].group.prompt + rows[prompt].group.responses[k] for prompt, k in of]
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return output.hidden_states, output.logits


def expected(student: Any, teacher: Any, objective: Distil) -> tuple[float, float, float]:
    """Loss, its hidden term, and the norm of the loss's gradient by loops over answers and tokens (forward KL at temperature 1)."""
    rows, hidden = ragged_examples(), objective.hidden
    assert hidden is not None
    width = teacher.config.get_text_config().hidden_size
    policy = ProjectedPolicy(student, hidden.layers, width, seed=0)
    of = [(prompt, k) for prompt, row in enumerate(rows) for k in range(len(row.group.responses))]
    (ours, logits), (theirs, others) = states(student, rows, of), states(teacher, rows, of)
    total, distance, tokens = torch.zeros(()), torch.zeros(()), 0
    for n, (prompt, k) in enumerate(of):
        for place, token in enumerate(rows[prompt].group.responses[k], start=len(rows[prompt].group.prompt) - 1):
            log_p, log_q = others[n, place].detach().log_softmax(-1), logits[n, place].log_softmax(-1)
            total = total + (1 - objective.sft_weight) * (log_p.exp() * (log_p - log_q)).sum()
            total = total - (objective.sft_weight * log_q[token] if k == 0 else 0)
            for one, other in hidden.layers:
                state, target = ours[one][n, place], theirs[other][n, place].detach()
                state = policy.projections[f"{one}-{other}"](state) if policy.projections else state
                far = ((state - target) ** 2).sum() / width if hidden.kind == "mse" else 1 - cosine_similarity(state, target, dim=0)
                distance = distance + far / len(hidden.layers)
            tokens += 1
    loss = (total + hidden.weight * distance) / tokens
    loss.backward()
    gradients = [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]
    return loss.item(), distance.item() / tokens, torch.stack([gradient.norm() for gradient in gradients]).norm().item()


CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("llama", "gpt2", WIDER, {}),
    ("llama", "gpt2", WIDER, {"kind": "cosine", "weight": 2.0}),
    ("llama", "gpt2", {}, {"layers": [[1, 1], [2, 2]]}),  # equal widths
    ("gemma2", "gpt2", WIDER, {"layers": [[0, 1], [2, 0]]}),  # the student goes through its own forward pass
    ("qwen3", "gemma2", {"hidden_size": 24, "num_hidden_layers": 3}, {}),  # the teacher does, a row at a time
    ("gpt_neox", "mistral_window", {}, {"layers": [[1, 2], [2, 1], [1, 1]], "kind": "cosine"}),
]


@pytest.mark.parametrize(("student", "teacher", "sizes", "hidden"), CASES)
def test_loss_and_gradient_are_those_of_plain_forward_passes(
    student: str, teacher: str, sizes: dict[str, Any], hidden: dict[str, Any], tmp_path: Path
) -> None:
    """Over separate padded rows with `output_hidden_states`; projections from the seed alone."""
    entry = train(tmp_path, tiny_language_model(student, 0), tiny_language_model(teacher, 1, **sizes), hidden).log[0]
    settings = HiddenStates(**{"layers": ALL, "weight": 0.5, **hidden})
    objective = Distil(kind="distil", on="all", hidden=settings)
    loss, distance, norm = expected(tiny_model(student, 0), tiny_model(teacher, 1, **sizes), objective)
    assert entry["loss"] == pytest.approx(loss, rel=1e-4)
    assert entry["hidden"] == pytest.approx(distance, rel=1e-4)
    assert entry["grad_norm"] == pytest.approx(norm, rel=1e-3)


def test_only_the_likelihood_may_stand_beside_it(tmp_path: Path) -> None:
    entry = train(tmp_path, sft_weight=1.0, on="best").log[0]
    assert entry["loss"] == pytest.approx(entry["nll"] + 0.5 * entry["hidden"], rel=1e-5)


def test_a_student_that_is_its_teacher_learns_nothing(tmp_path: Path) -> None:
    """In the states of every layer, too: equal widths have no projection."""
    for kind in ("mse", "cosine"):
        hidden = {"layers": [[0, 0], [1, 1], [2, 2]], "kind": kind}
        trained = train(tmp_path / kind, teacher=tiny_language_model(seed=0), hidden=hidden, sft_weight=0.0)
        assert abs(trained.log[0]["loss"]) < 1e-5
        assert trained.log[0]["grad_norm"] < 1e-5


@pytest.mark.parametrize("lora", [None, Lora(r=4, lora_alpha=8)])
def test_neither_the_split_nor_recomputed_activations_nor_the_layout_change_the_step(
    lora: Lora | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes = {
        "whole": {"per_device_train_batch_size": 8},
        "split": {"per_device_train_batch_size": 1},
        "recomputed": {"gradient_checkpointing": True},
        "apart": {},
    }
    found = {}
    for name, runtime in runtimes.items():
        if name == "apart":
            monkeypatch.setattr(LanguageModel, "shares", lambda self, groups: False)
        found[name] = train(tmp_path / name, lora=lora, runtime=runtime, steps=2)
    assert found["split"].trainer.args.gradient_accumulation_steps == 8
    for name in ("split", "recomputed", "apart"):
        for ours, theirs in zip(found[name].log, found["whole"].log, strict=True):
            for metric in ("loss", "grad_norm", "hidden", "divergence", "nll"):
                assert ours[metric] == pytest.approx(theirs[metric], rel=1e-4, abs=1e-6), (name, metric)
        assert_same_steps(weights(found[name]), weights(found["whole"]))


@pytest.mark.parametrize("lora", [None, Lora(r=4, lora_alpha=8)])
def test_the_projections_learn_and_are_saved_apart(lora: Lora | None, tmp_path: Path) -> None:
    base = ModelPointer(path=str(write_tiny_model(tmp_path / "start")), layout="chat")
    before = ProjectedPolicy(tiny_model(), [(0, 0), (1, 2), (2, 3)], 24, seed=0).projections.state_dict()
    trained = train(tmp_path / "job", lora=lora, steps=6, sft_weight=0.0)
    assert trained.log[-1]["hidden"] < trained.log[0]["hidden"]
    save_projections(trained, tmp_path / "projections.safetensors")
    save_model(trained, tmp_path / "model", base if lora else None, lora is not None, AutoModelForCausalLM)

    kept = load_file(tmp_path / "projections.safetensors")
    assert kept.keys() == before.keys() == {"0-0.weight", "1-2.weight", "2-3.weight"}
    assert all(not torch.equal(kept[name], before[name]) for name in kept)
    files = [*(tmp_path / "model").iterdir(), *((tmp_path / "model-adapter").iterdir() if lora else ())]
    names = [name for file in files if file.suffix == ".safetensors" for name in load_file(file)]
    assert names
    assert not [name for name in names if "projection" in name or name.startswith("policy.")]
    plain = tiny_model().state_dict().keys()
    _, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert set(load_file(tmp_path / "model" / "model.safetensors")) <= set(plain)


def test_of_equal_widths_nothing_is_saved(tmp_path: Path) -> None:
    trained = train(tmp_path / "job", teacher=tiny_language_model("gpt2", 1), hidden={"layers": [[1, 1]]})
    save_projections(trained, tmp_path / "projections.safetensors")
    assert not (tmp_path / "projections.safetensors").exists()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([[3, 1]], r"objective\.hidden\.layers: the student has no layer 3: its layers are 0 \(the embeddings\) to 2"),
        ([[2, 4], [0, 0]], r"objective\.hidden\.layers: the teacher has no layer 4: its layers are 0 \(the embeddings\) to 3"),
    ],
)
def test_layers_that_do_not_exist_are_refused(layers: list[list[int]], message: str, tmp_path: Path) -> None:
    """Those of models from the Hub are known only here."""
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, hidden={"layers": layers})
