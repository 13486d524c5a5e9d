"""Random models of a few thousand parameters, one for each shape of decoder that matters here, and a tokenizer for them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM as AutoModel
from transformers import (
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    TrainingArguments,
)

from aligndistill.config.run import Runtime
from aligndistill.config.training import Training
from aligndistill.models import load
from aligndistill.models.conversation import Conversation
from aligndistill.models.from_scratch import train_tokenizer
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel, switch_dropout_off, wrap_language_model
from aligndistill.models.prompt_sharing import shares_prompt_exactly
from aligndistill.models.scoring import score_groups
from aligndistill.models.tokenise import Limits
from aligndistill.records import Message, Ranking, Response, prompt_id
from aligndistill.training.fit import TrainingJob
from aligndistill.training.offline.examples import Example, Mismatched, tokenise_rankings
from aligndistill.training.offline.mismatched import MismatchedPairs, mismatched_groups

TEXTS = (
    "What is the capital of France?",
    "The capital of France is Paris.",
    "Please add two and three, and be kind.",
    "Gladly! Two and three make five. Is there anything else?",
    "No.",
    "Repeat the word blue four times.",
    "blue blue blue blue",
)
VOCABULARY = 320
ROPE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
SIZES_FOR_BITS = {"hidden_size": 64, "intermediate_size": 128}
"""bitsandbytes gives 64 weights one scale, and has its own layout for rows of 64 weights on some CPUs."""

SHAPES: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": lambda **more: LlamaConfig(**{**ROPE, "tie_word_embeddings": True, **more}),
    "qwen2": lambda **more: Qwen2Config(**{**ROPE, **more}),
    "qwen3": lambda **more: Qwen3Config(**{**ROPE, "head_dim": 8, **more}),
    "gpt2": lambda **more: GPT2Config(**{"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, **more}),
    "gpt_neo": lambda **more: GPTNeoConfig(
        **{"hidden_size": 16, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4}
        | {"window_size": 32, "max_position_embeddings": 64, **more}
    ),
    "gpt_neox": lambda **more: GPTNeoXConfig(**{**ROPE, **more}),
    "gemma": lambda **more: GemmaConfig(**{**ROPE, "head_dim": 4, **more}),
    "mistral": lambda **more: MistralConfig(**{**ROPE, "sliding_window": None, **more}),
    "mistral_window": lambda **more: MistralConfig(**{**ROPE, "sliding_window": 5, **more}),
    "gemma2": lambda **more: Gemma2Config(**{**ROPE, "head_dim": 4, "final_logit_softcapping": 2.0, **more}),
}


@cache
def tiny_tokenizer() -> Any:
    """Shared: tests that change a tokenizer make their own with `train_tokenizer`."""
    return train_tokenizer(TEXTS, VOCABULARY, 64)


def tiny_model(shape: str = "llama", seed: int = 0, **more: Any) -> Any:
    """A randomly initialised model with weights large enough for its probabilities to be far from uniform.

    What is made again is a copy, with torch's random numbers where they were.
    """
    key = repr((shape, seed, sorted(more.items())))
    if key not in _made:
        torch.manual_seed(seed)
        _made[key] = _new_model(shape, **more), torch.get_rng_state()
    model, random_state = _made[key]
    torch.set_rng_state(random_state)
    return deepcopy(model)


_made: dict[str, tuple[Any, Tensor]] = {}


def _new_model(shape: str, **more: Any) -> Any:
    tokenizer = tiny_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,
    }
    config = SHAPES[shape](**{**common, **more})
    switch_dropout_off(config)
    model = AutoModel.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def tiny_language_model(shape: str = "llama", seed: int = 0, **more: Any) -> LanguageModel:
    """The model with its tokenizer. Whether prompts may be shared is measured once for a shape: it depends on no weight."""
    key = repr((shape, sorted(more.items())))

    def known(model: Any, pad_id: int, score: Callable[..., Tensor]) -> bool:
        if key not in _shares_prompt:
            _shares_prompt[key] = shares_prompt_exactly(model, pad_id, score), model.config._attn_implementation
        shares, attention = _shares_prompt[key]
        model.set_attn_implementation(attention)
        return shares

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "shares_prompt_exactly", known)
        return wrap_language_model(tiny_model(shape, seed, **more), tiny_tokenizer(), "chat")


_shares_prompt: dict[str, tuple[bool, str]] = {}


def write_tiny_model(folder: Path, shape: str = "llama", seed: int = 0, **more: Any) -> Path:
    """The same as a Hugging Face folder."""
    tiny_model(shape, seed, **more).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def random_groups(sizes: list[tuple[int, list[int]]], seed: int = 0) -> list[TokenGroup]:
    """Groups of random ids with these (prompt length, response lengths)."""
    random = Random(seed)

    def ids(count: int) -> list[int]:
        return [random.randrange(5, len(tiny_tokenizer())) for _ in range(count)]

    return [TokenGroup(ids(prompt), [ids(length) for length in responses]) for prompt, responses in sizes]


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def ranking(question: str, *answers: str) -> Ranking:
    """Best first, one unit of score apart."""
    messages = user(question)
    responses = tuple(Response(text=text, score=float(-rank), candidate_id=str(rank)) for rank, text in enumerate(answers))
    return Ranking(prompt_id=prompt_id(messages), split="train", messages=messages, responses=responses)


QUESTIONS = (
    "What is the capital of France?",
    "Repeat the word blue four times.",
    "Please add two and three.",
    "No?",
    "What is blue?",
    "Is there anything else?",
    "Please be kind.",
    "Two and two?",
)
ANSWERS = ("The capital is Paris.", "blue blue blue blue", "Gladly! Five.", "No.", "Two and three make five, I think.")


def pairs() -> list[Ranking]:
    """One pair per question."""
    return [ranking(question, ANSWERS[n % 5], ANSWERS[(n + 2) % 5]) for n, question in enumerate(QUESTIONS)]


def ragged_rankings() -> list[Ranking]:
    """Two to four answers per question."""
    return [ranking(question, *[ANSWERS[(n + k) % 5] for k in range(2 + n % 3)]) for n, question in enumerate(QUESTIONS)]


def ranking_examples(
    conversation: Conversation, rankings: Sequence[Ranking], reference: LanguageModel | None = None, mismatched: bool = False
) -> list[Example]:
    """Rankings as training rows, with reference log-probs where a reference is given, and for KTO those of mismatched pairs."""
    groups = tokenise_rankings(conversation, rankings, Limits(40, 40, None)).groups
    scores = [[response.score for response in one.responses] for one in rankings]
    if reference is None:
        return [Example(group, score) for group, score in zip(groups, scores, strict=True)]

    def logprobs(of: Sequence[TokenGroup]) -> list[list[float]]:
        found = {one.index: [response.logprob_nats for response in one.responses] for one in score_groups(reference, of, 4)}
        return [found[n] for n in range(len(of))]

    others: Sequence[Mismatched | None] = [None] * len(groups)
    if mismatched:
        mismatched_ones = mismatched_groups(groups, None)
        others = MismatchedPairs(mismatched_ones, logprobs(mismatched_ones))
    return [Example(*row) for row in zip(groups, scores, logprobs(groups), others, strict=True)]


def ragged_examples() -> list[Example]:
    """The ragged rankings as a tiny language model reads them."""
    tokenizer = tiny_tokenizer()
    return ranking_examples(Conversation(tokenizer, "chat", frozenset({tokenizer.eos_token_id})), ragged_rankings())


def tiny_job(folder: Path, *, runtime: Mapping[str, Any] | None = None, **settings: Any) -> TrainingJob:
    """A few steps over all eight questions, a constant rate, every step logged."""
    training = {
        "learning_rate": 1e-3,
        "batch_size": 8,
        "max_steps": 3,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0.0,
        **settings,
    }
    return TrainingJob("tiny", Training(**training), Runtime(**{"logging_steps": 1, **(runtime or {})}), folder, seed=0)


DAMPED_EPSILON = 1e-2
"""About the size of one gradient of a model of 10,000 weights whose gradient is clipped to a norm of 1."""


@contextmanager
def damped_adam() -> Iterator[None]:
    """Adam with an epsilon of the gradients' size, so that weights can be compared between two ways to the same step.

    Adam divides a gradient by its own size. With the usual epsilon of 1e-8 a gradient that is zero but for the rounding of float32
    (1e-8 to 1e-7, other on every processor) becomes a step of up to the learning rate, of any sign: no bound on the weights holds
    everywhere. With this epsilon a step is at most (difference of the gradients / epsilon) * learning rate away from the other's.
    """
    plain = TrainingArguments.__post_init__

    def post_init(self: TrainingArguments) -> None:
        self.adam_epsilon = DAMPED_EPSILON
        plain(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingArguments, "__post_init__", post_init)
        yield


def assert_same_steps(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], learning_rate: float = 1e-3) -> None:
    """Weights that came by `damped_adam` from one start, the same up to the rounding of sums in another order.

    Gradients, clipped to a norm of 1, are sums in float32: the order moves them by 1e-6 or so, several steps of PPO by 1e-5. So a
    weight may differ by 1e-4 / epsilon = a hundredth of the largest step that Adam takes; micro-batches that are averaged with the
    wrong weights moved it by two steps.
    """
    assert found.keys() >= expected.keys()
    for name, value in expected.items():
        difference = float((found[name] - value).abs().max())
        assert difference <= 1e-4 / DAMPED_EPSILON * learning_rate, f"{name}: {difference}"
