"""The files that all sides of a row work on: models with random weights, a tokenizer of whole words, and token ids.

Words are `w7`, one id each, so text and ids say the same to everybody.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

PAD, END = 0, 1
FIRST_WORD = 2


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes."""

    vocabulary: int
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int | None = None  # as many as heads
    intermediate: int | None = None  # four times the hidden size
    tied: bool = False

    def config(self, **more: Any) -> LlamaConfig:
        """The config of such a model."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate or 4 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads or self.heads,
            max_position_embeddings=8192,
            initializer_range=self.hidden**-0.5,
            bos_token_id=None,
            eos_token_id=END,
            pad_token_id=PAD,
            tie_word_embeddings=self.tied,
            **more,
        )


def words(ids: Sequence[int]) -> str:
    """Ids as text."""
    return " ".join(f"w{token}" for token in ids)


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """One word per id; id 0 pads, id 1 ends."""
    names = {"<pad>": PAD, "<end>": END, **{f"w{token}": token for token in range(FIRST_WORD, vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", model_max_length=8192, clean_up_tokenization_spaces=False
    ).save_pretrained(folder)


def write_language_model(folder: Path, shape: Shape, seed: int = 0, dtype: str = "float32") -> None:
    """A causal language model with random weights."""
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(shape.config(), dtype=getattr(torch, dtype)).save_pretrained(folder)
    write_tokenizer(folder, shape.vocabulary)


def write_reward_model(folder: Path, shape: Shape, seed: int = 1) -> None:
    """A sequence classifier with random weights."""
    torch.manual_seed(seed)
    LlamaForSequenceClassification(shape.config(num_labels=1)).save_pretrained(folder)
    write_tokenizer(folder, shape.vocabulary)


def write_share_reward_model(folder: Path, shape: Shape, wanted: Sequence[int], scale: float, seed: int = 1) -> None:
    """A Llama whose score rises with the share of `wanted` tokens among those read so far, by construction.

    The first layer's queries are zero, so it averages over what stands before; its value is the first embedding coordinate (1 for a
    wanted token), which it writes into the third. Deeper layers have random weights but write nothing: they only cost their time.
    """
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(shape.config(num_labels=1))
    backbone = model.model
    with torch.no_grad():
        backbone.embed_tokens.weight.zero_()
        backbone.embed_tokens.weight[:, 1] = 1
        backbone.embed_tokens.weight[list(wanted), 0], backbone.embed_tokens.weight[list(wanted), 1] = 1.0, 0.0
        for layer in backbone.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        attention = backbone.layers[0].self_attn
        attention.q_proj.weight.zero_()
        attention.v_proj.weight.zero_()
        attention.v_proj.weight[0, 0] = shape.hidden**-0.5  # undoes the norm, which makes a unit vector's one sqrt(hidden)
        attention.o_proj.weight[2, 0] = 1
        model.score.weight.zero_()
        model.score.weight[0, 2] = scale * shape.hidden**-0.5
    model.save_pretrained(folder)
    write_tokenizer(folder, shape.vocabulary)


@dataclass(frozen=True)
class Rows:
    """Prompts with k responses each, best first and ended by the end token.

    Attributes:
        mixed: lengths are spread log-normally (sigma 0.5) below the ones given, instead of all being that long.
        least_prompt_tokens: prompts are of any length from this to `prompt_tokens`, each as likely.
    """

    prompts: int
    prompt_tokens: int
    response_tokens: int
    k: int
    vocabulary: int
    mixed: bool = False
    least_prompt_tokens: int | None = None

    def write(self, path: Path, seed: int = 2) -> None:
        """As JSON lines."""
        generator = torch.Generator().manual_seed(seed)

        def length(most: int) -> int:
            if not self.mixed:
                return most
            return max(2, min(most, round(most / 2 * float((0.5 * torch.randn((), generator=generator)).exp()))))

        def prompt_length() -> int:
            if self.least_prompt_tokens is None:
                return length(self.prompt_tokens)
            return int(torch.randint(self.least_prompt_tokens, self.prompt_tokens + 1, (), generator=generator))

        def ids(count: int) -> list[int]:
            found: list[int] = torch.randint(FIRST_WORD, self.vocabulary, (count,), generator=generator).tolist()
            return found

        rows = [
            {
                "prompt": ids(prompt_length()),
                "responses": [[*ids(length(self.response_tokens) - 1), END] for _ in range(self.k)],
                "scores": [float(self.k - rank) / 2 for rank in range(self.k)],
            }
            for _ in range(self.prompts)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
