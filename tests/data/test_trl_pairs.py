import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from aligndistill.data.trl_pairs import pairs_of
from aligndistill.records import Message, Ranking, Response

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def ranking(*scores: float, number: int = 0) -> Ranking:
    return Ranking(
        prompt_id=f"p{number}",
        split="train",
        messages=(Message(role="system", content="Be kind."), Message(role="user", content=f"Question {number}?")),
        responses=tuple(
            Response(text=f" answer {score}", score=score, candidate_id=str(index)) for index, score in enumerate(scores)
        ),
    )


def test_a_conversational_row_has_message_lists_and_scores() -> None:
    assert list(pairs_of(ranking(2.0, 0.5), conversational=True)) == [
        {
            "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Question 0?"}],
            "chosen": [{"role": "assistant", "content": " answer 2.0"}],
            "rejected": [{"role": "assistant", "content": " answer 0.5"}],
            "score_chosen": 2.0,
            "score_rejected": 0.5,
        }
    ]


def test_a_plain_row_has_strings() -> None:
    assert list(pairs_of(ranking(2.0, 0.5), conversational=False)) == [
        {
            "prompt": "Be kind.\n\nQuestion 0?",
            "chosen": " answer 2.0",
            "rejected": " answer 0.5",
            "score_chosen": 2.0,
            "score_rejected": 0.5,
        }
    ]


def test_all_gives_every_strictly_ordered_pair_and_best_worst_one() -> None:
    tied = ranking(3.0, 1.0, 1.0, 0.0)
    scores = [(row["score_chosen"], row["score_rejected"]) for row in pairs_of(tied, "all", conversational=False)]
    assert scores == [(3, 1), (3, 1), (3, 0), (1, 0), (1, 0)]
    scores = [(row["score_chosen"], row["score_rejected"]) for row in pairs_of(tied, "best_worst", conversational=False)]
    assert scores == [(3, 0)]
    assert list(pairs_of(ranking(1.0, 1.0), "best_worst", conversational=False)) == []


# ---------------------------------------------------------------------------------------------- TRL loads it unchanged


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    specials = ["<pad>", "<eos>"]
    vocabulary = {token: index for index, token in enumerate([*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = TEMPLATE
    return fast


def tiny_config(tokenizer: PreTrainedTokenizerFast, **more: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **more,
    )


def load_pairs(folder: Path, conversational: bool) -> Dataset:
    path = folder / "pairs.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(2):
            for row in pairs_of(ranking(2.0, 1.0, -1.0, number=number), conversational=conversational):
                file.write(json.dumps(row) + "\n")
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))
    assert isinstance(rows, Dataset)
    assert rows.num_rows == 6
    return rows


def arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }


# What the models read before the answer, in both forms.
READ = {True: "<|system|>Be kind.<eos><|user|>Question 0?<eos><|assistant|>", False: "Be kind.\n\nQuestion 0?"}


@pytest.mark.parametrize("conversational", [True, False])
def test_trls_dpo_trainer_trains_on_the_file(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, conversational: bool) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_config(tokenizer))
    trainer = DPOTrainer(
        model=model,
        ref_model=deepcopy(model),
        args=DPOConfig(**arguments(tmp_path)),
        train_dataset=load_pairs(tmp_path, conversational),
        processing_class=tokenizer,
    )
    row = trainer.train_dataset[0]
    texts = [tokenizer.decode(row[key]) for key in ("prompt_ids", "chosen_ids", "rejected_ids")]
    assert texts == [READ[conversational], " answer 2.0<eos>", " answer 1.0<eos>"]
    assert trainer.train().training_loss == pytest.approx(math.log(2))  # the policy still is the reference
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("conversational", [True, False])
def test_trls_reward_trainer_trains_on_the_file_and_takes_no_margin_from_it(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, conversational: bool
) -> None:
    def loss(rows: Dataset) -> float:
        torch.manual_seed(0)
        trainer = RewardTrainer(
            model=LlamaForSequenceClassification(tiny_config(tokenizer, num_labels=1)),
            args=RewardConfig(**arguments(tmp_path)),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        row = trainer.train_dataset[0]
        assert tokenizer.decode(row["chosen_ids"]) == READ[conversational] + " answer 2.0<eos>"
        assert tokenizer.decode(row["rejected_ids"]) == READ[conversational] + " answer 1.0<eos>"
        return float(trainer.train().training_loss)

    rows = load_pairs(tmp_path, conversational)
    assert loss(rows) == loss(rows.remove_columns(["score_chosen", "score_rejected"]))
    with_margin = rows.rename_column("score_chosen", "margin")
    assert loss(rows) != loss(with_margin)  # so the equality above could have failed
