"""Adapters on a weight that head and embeddings share: what is saved is what was trained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import BestOfN
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model
from aligndistill.models.scoring import score_groups
from aligndistill.training.offline.examples import Example
from aligndistill.training.offline.policy import train_policy
from aligndistill.training.save import save_model
from tests.tiny_models import random_groups, tiny_job, write_tiny_model

GROUPS = random_groups([(6, [5, 4])] * 4)


def logprobs(model: LanguageModel) -> list[float]:
    found = {one.index: one.responses for one in score_groups(model, GROUPS, 4)}
    return [response.logprob_nats for n in range(len(GROUPS)) for response in found[n]]


@pytest.mark.parametrize(
    ("shape", "targets", "changed"),
    [
        ("llama", ("q_proj", "lm_head"), {"lm_head.weight"}),
        ("llama", "model.embed_tokens", {"model.embed_tokens.weight"}),
        ("gemma", ("lm_head", "embed_tokens"), {"lm_head.weight", "model.embed_tokens.weight"}),
        ("gpt2", ("lm_head",), {"lm_head.weight"}),
        ("llama", "all-linear", set()),
    ],
)
def test_a_merged_model_has_a_head_of_its_own_where_the_adapters_are_on_the_tied_weight(
    shape: str, targets: str | tuple[str, ...], changed: set[str], tmp_path: Path
) -> None:
    base = ModelPointer(path=str(write_tiny_model(tmp_path / "base", shape)), layout="chat")
    policy = load_language_model(base)
    before = logprobs(policy)
    tied = policy.model.get_input_embeddings().weight
    (embeddings,) = [name for name, weight in policy.model.named_parameters() if weight is tied]
    start = tied.detach().clone()
    examples = [Example(group, [1.0, 0.0]) for group in GROUPS]
    job = tiny_job(tmp_path / "job", max_steps=3, batch_size=4, learning_rate=1e-2)
    trained = train_policy(policy, BestOfN(kind="best_of_n"), Lora(r=2, target_modules=targets), examples, job)
    expected = logprobs(LanguageModel(trained.trainer.model.eval(), policy.conversation, policy.shares_prompt))
    assert max(abs(a - b) for a, b in zip(expected, before, strict=True)) > 0.1, "it learned something"

    save_model(trained, tmp_path / "model", base, True, AutoModelForCausalLM)
    merged = ModelPointer(path=str(tmp_path / "model"), layout="chat")
    adapted = base.model_copy(update={"adapter": str(tmp_path / "model-adapter")})
    for pointer in (merged, adapted):
        assert logprobs(load_language_model(pointer)) == pytest.approx(expected, abs=1e-4)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert json.loads((tmp_path / "model" / "config.json").read_text()).get("tie_word_embeddings", True) == (not changed)
    assert ("lm_head.weight" in saved) == bool(changed)
    if changed:
        assert {name for name in ("lm_head.weight", embeddings) if not torch.equal(saved[name], start)} == changed
