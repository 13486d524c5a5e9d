"""A run whose judge is a real llama.cpp server with a model that thinks."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import ForkServer
from tests.e2e.small_run import read_rows, write_config, write_rows
from tests.judges.llama_server import LlamaServers
from tests.judges.tiny_judge import MARKER, THOUGHTS, WORDS

PROMPTS, PER_PROMPT = 8, 3


@pytest.mark.parametrize("thinking", ["auto", "on"])
def test_a_run_to_the_rankings(tmp_path: Path, llama_servers: LlamaServers, forked: ForkServer, thinking: str) -> None:
    chance = random.Random(1)
    prompts = [" ".join(chance.choices(WORDS, k=4)) for _ in range(PROMPTS)]
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
    write_rows(tmp_path / "demonstrations.jsonl", [{"prompt": p, "completion": a} for p in prompts for a in ANSWERS])
    write_config(tmp_path / "run.yaml", config(llama_servers, thinking))
    ended = forked.run(tmp_path, "run", "run.yaml", "--until", "rankings")
    assert ended.code == 0, ended.errors

    (found,) = json.loads((tmp_path / "runs/run/servers.json").read_text()).values()
    assert (found["thinks"], found["switch"]) == (True, "chat_template_kwargs" if thinking == "auto" else None)
    store = tmp_path / "runs/store"
    texts = {row["id"]: row["text"] for row in read_rows(next(store.glob("candidates-*/candidates.jsonl")))}
    verdicts = read_rows(next(store.glob("verdicts-*/verdicts.jsonl")))
    assert len(verdicts) >= PROMPTS
    assert all(row["outcome"] != "unparsed" for row in verdicts)
    clear = [row for row in verdicts if (MARKER in texts[row["first"]]) != (MARKER in texts[row["second"]])]
    agreed = sum(row["outcome"] == ("first" if MARKER in texts[row["first"]] else "second") for row in clear)
    assert len(clear) > 4
    assert agreed / len(clear) > 0.8  # the candidates are not the sentences that it was trained on
    if thinking == "on":
        assert all(THOUGHTS in row["thoughts"] for row in verdicts)
    rankings = read_rows(next(store.glob("rankings-*/rankings.jsonl")))
    assert any(MARKER in row["responses"][0]["text"] for row in rankings)


ANSWERS = [f"the {MARKER} house", f"a {MARKER} door", "the old hill", "more wind rain"]


def config(llama_servers: LlamaServers, thinking: str) -> dict[str, Any]:
    model = {
        "kind": "endpoint",
        "base_url": llama_servers.with_switch,
        "name": "tiny",
        "thinking": thinking,
        "thinking_tokens": 100,
    }
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "name": "run",
        "prompts": {"source": {"path": "prompts.jsonl"}, "held_out": 0.2},
        "start": {"from_scratch": {**sizes, "max_position_embeddings": 96}},
        "sft": {
            "demonstrations": {"path": "demonstrations.jsonl"},
            "learning_rate": 1e-2,
            "batch_size": 16,
            "max_steps": 60,
        },
        "candidates": {"per_prompt": PER_PROMPT, "from": ["start"], "max_new_tokens": 12},
        "judge": {"kind": "pairwise", "model": model, "template": llama_servers.pairwise_template},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
        "runtime": {"per_device_train_batch_size": 16},
    }
