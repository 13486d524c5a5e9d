"""The schema of what a config names from outside: data, models here and behind servers, and how models are trained."""

import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from aligndistill.config_section import Section as Section  # the other files of the schema import it from here
from aligndistill.redaction import redact

PLUGIN_PATTERN = r"^[\w.]+:[\w.]+$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A name that is safe as a folder's."""

PluginName = Annotated[str, Field(pattern=PLUGIN_PATTERN)]
"""`package.module:name`, importable from the working directory or the environment."""


# ---------------------------------------------------------------------------------------------------------------- data


class Source(Section):
    """Where rows come from: a file, a folder of files, or a data set on the Hub at a pinned revision.

    Attributes:
        path: a JSON, JSONL, CSV or Parquet file (`.gz` too), a folder of such files or from `save_to_disk`, or the Hub name of a
            data set.
        revision: the commit of the Hub data set; required for one, so that a run means the same tomorrow.
        name: the Hub data set's configuration.
        split: the Hub data set's split.
        format: `auto` reads it off the columns. `hh`: transcripts in `chosen`/`rejected`. `preference`: TRL's, with an explicit
            or implicit prompt. `prompts`: prompt-only, `messages`, or `prompt` and `completion`. `rankings`: `prompt`,
            `responses`, `scores`. `distilabel`, `rewardbench` (version 2), `ultrafeedback`: the data sets' own columns.
        columns: our name to the file's name, as in `{prompt: question}`.
        limit: read no more rows than this.
        on_bad_row: stop at a row that cannot be read, or drop and count it.
    """

    path: str
    revision: str | None = None
    name: str | None = None
    split: str = "train"
    format: Literal["auto", "distilabel", "hh", "preference", "prompts", "rankings", "rewardbench", "ultrafeedback"] = "auto"
    columns: dict[str, str] = Field(default={})
    limit: int | None = Field(default=None, gt=0)
    on_bad_row: Literal["error", "drop"] = "error"


# -------------------------------------------------------------------------------------------------------------- models


class FromScratch(Section):
    """A new model of a Hugging Face architecture, with a byte-level BPE tokenizer trained on the demonstrations."""

    architecture: str = "llama"
    vocab_size: int = Field(default=1024, ge=300)
    hidden_size: int = Field(default=128, gt=0)
    num_hidden_layers: int = Field(default=3, gt=0)
    num_attention_heads: int = Field(default=4, gt=0)
    num_key_value_heads: int | None = Field(default=None, gt=0)
    intermediate_size: int | None = Field(default=None, gt=0)
    max_position_embeddings: int = Field(default=256, gt=0)
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_divide(self) -> "FromScratch":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("'hidden_size' must be a multiple of 'num_attention_heads'")
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise ValueError("'num_attention_heads' must be a multiple of 'num_key_value_heads'")
        return self


class Lora(Section):
    """Low-rank adapters through peft; names are peft's."""

    r: int = Field(default=16, gt=0)
    lora_alpha: int = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


Attention = Literal["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4"]
"""transformers' names. Kernels from the Hub are left out: they are code that comes over the network."""


class LocalModel(Section):
    """A causal language model that runs here.

    Attributes:
        model: a Hub name or a local folder; leave it out for `from_scratch`.
        layout: how a conversation becomes text. `chat`: the tokenizer's template. `transcript`: Human/Assistant turns.
            `plain`: the response simply continues the prompt.
        attn_implementation: transformers' choice by default, which is `sdpa` for nearly all.
        trust_remote_code: run code that comes with the model. Off unless asked for, and never inherited.
    """

    kind: Literal["local"] = "local"
    model: str | None = None
    revision: str | None = None
    from_scratch: FromScratch | None = None
    layout: Literal["chat", "transcript", "plain"] = "chat"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: Attention | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> "LocalModel":
        if (self.model is None) == (self.from_scratch is None):
            raise ValueError("give either 'model' (a Hub name or a folder) or 'from_scratch'; the other one must be absent or null")
        return self


class StudentModel(LocalModel):
    """The student before it is aligned; with `lora`, adapters are trained instead of all weights."""

    lora: Lora | None = None


def _without_credentials(value: str) -> str:
    address = urlsplit(value)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError("expected the address of a server, such as http://localhost:8000/v1")
    if "@" in address.netloc or address.query or address.fragment:
        raise ValueError("an address carries no user, password or query, because it is written to files: use 'api_key_env'")
    return value


def _name_of_a_variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) or redact(value) != value:
        raise ValueError("expected the name of an environment variable, such as OPENAI_API_KEY, never the key itself")
    return value


ServerUrl = Annotated[str, AfterValidator(_without_credentials)]
"""Where an OpenAI-compatible server is, such as http://localhost:8000/v1. It is written to files, so it carries no secret."""

KeyVariable = Annotated[str, AfterValidator(_name_of_a_variable)]
"""The name of the environment variable that holds a key."""


class EndpointModel(Section):
    """A model behind an OpenAI-compatible HTTP server. The key is read from the environment variable named here, only.

    Attributes:
        requests_per_minute, tokens_per_minute: the most that the server allows; no limit unless given.
        tokenizer: the model's, a folder or a Hub name, to count tokens with; else they are estimated.
        context_tokens: the most that prompt and answer may have together. Longer requests are not sent.
    """

    pace: ClassVar[frozenset[str]] = frozenset(
        {"api_key_env", "concurrency", "timeout_seconds", "max_retries", "requests_per_minute", "tokens_per_minute"}
    )
    """Settings that change how the server is reached, never what it answers: they stay out of fingerprints."""

    kind: Literal["endpoint"]
    base_url: ServerUrl
    name: str
    api_key_env: KeyVariable | None = None
    concurrency: int = Field(default=8, gt=0)
    timeout_seconds: float = Field(default=120, gt=0)
    max_retries: int = Field(default=5, ge=0)
    requests_per_minute: int | None = Field(default=None, gt=0)
    tokens_per_minute: int | None = Field(default=None, gt=0)
    tokenizer: str | None = None
    context_tokens: int | None = Field(default=None, gt=0)

    @property
    def server(self) -> str:
        """Its address and the model's name there: what is one server to us."""
        return f"{self.base_url.rstrip('/')} {self.name}"

    @property
    def identity(self) -> str:
        """What answers of this model are kept under, however they were asked for."""
        return f"endpoint {self.server}"


class Price(Section):
    """What a server's model costs, US dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Of so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Budget(Section):
    """The most that a run may spend on servers, over all its resumptions. It stops there, and goes on when given more.

    Attributes:
        requests: HTTP requests, repeated tries among them.
        tokens: of prompts and answers.
        usd: by `prices`.
        prices: by the model's `name` on its server.
    """

    requests: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    usd: float | None = Field(default=None, ge=0)
    prices: dict[str, Price] = Field(default={})


# ------------------------------------------------------------------------------------------------------------ training


class Training(Section):
    """How long and how hard to train.

    Attributes:
        batch_size: prompts per optimiser step, over all processes; how it is split is `runtime`'s.
        max_steps: stop after so many optimiser steps; -1 trains `num_train_epochs`.
        max_prompt_tokens: prompts longer than this are left out and counted: half a question is another question.
        max_response_tokens: longer responses are cut, and have no end token then.
    """

    learning_rate: float = Field(default=2e-5, gt=0)
    batch_size: int = Field(default=32, gt=0)
    num_train_epochs: float = Field(default=1.0, gt=0)
    max_steps: int = -1
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    lr_scheduler_type: str = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_prompt_tokens: int = Field(default=512, gt=0)
    max_response_tokens: int = Field(default=512, gt=0)


class Sft(Training):
    """Supervised start: the model imitates demonstrations (rows with a prompt and a completion, or `messages`)."""

    demonstrations: Source


class Teacher(LocalModel):
    """A local teacher, which may be taught by demonstrations first."""

    sft: Sft | None = None


def _model_kind(value: Any) -> str:
    kind = value.get("kind", "local") if isinstance(value, dict) else getattr(value, "kind", "local")
    return str(kind)


Model = Annotated[Annotated[Teacher, Tag("local")] | Annotated[EndpointModel, Tag("endpoint")], Discriminator(_model_kind)]
"""A local model (the default) or an endpoint (`kind: endpoint`)."""


def name_or_section(value: Any) -> str:
    """Which branch of a union of names and sections a value belongs to."""
    return "name" if isinstance(value, str) else "section"


ModelRef = Annotated[Annotated[str, Tag("name")] | Annotated[Model, Tag("section")], Discriminator(name_or_section)]
"""A model written out, or the name of one: `teacher`, `start`, or a key of `models`."""
