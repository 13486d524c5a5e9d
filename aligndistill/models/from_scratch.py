"""A new small model and its tokenizer, for runs that download nothing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from aligndistill.config.from_scratch import FromScratch
from aligndistill.errors import ConfigError

SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_position_embeddings: int) -> Any:
    """A byte-level BPE tokenizer with turn markers, an end token and a padding token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )


def new_model(settings: FromScratch, tokenizer: Any, seed: int) -> Any:
    """A randomly initialised causal language model of the named architecture, float32.

    Raises:
        ConfigError: transformers has no such architecture, or rejects the sizes.
    """
    sizes = settings.model_dump(exclude={"architecture", "vocab_size", "tokenizer_data"}, exclude_none=True)
    sizes.setdefault("intermediate_size", 4 * settings.hidden_size)
    sizes.setdefault("num_key_value_heads", settings.num_attention_heads)
    # The libraries' 0.02 suits wide models; a narrow model learns several times faster with 1 / sqrt(width).
    sizes.setdefault("initializer_range", settings.hidden_size**-0.5)
    try:
        config = AutoConfig.for_model(
            settings.architecture,
            vocab_size=len(tokenizer),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **sizes,
        )
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise ConfigError(
            f"from_scratch: transformers cannot create a '{settings.architecture}' model with these sizes: {error}"
        ) from None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def write_new_model(folder: Path, settings: FromScratch, texts: Iterable[str], seed: int) -> None:
    """Write a new model and its tokenizer as a Hugging Face folder.

    Train them only after loading them from there: on loading, transformers replaces the pre-tokenizer of some architectures
    (Qwen2).
    """
    tokenizer = train_tokenizer(texts, settings.vocab_size, settings.max_position_embeddings)
    new_model(settings, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
