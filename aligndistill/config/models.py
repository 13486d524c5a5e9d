"""The schema of models: local ones, those behind servers, and functions."""

import hashlib
import json
import re
from collections.abc import Container, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from aligndistill.config.data import MayTrain
from aligndistill.config.from_scratch import FromScratch
from aligndistill.config.path_fields import HomeText
from aligndistill.config.plugins import plugin_file
from aligndistill.config.secrets import redact
from aligndistill.config.section import HashedIfSet, NamesModel, NotHashed, PluginName, ReadsFile, Section, name_or_section
from aligndistill.config.servers import KeyVariable, ServerUrls
from aligndistill.config.training import Sft

BROUGHT = ("layout", "dtype", "attn_implementation", "thinking")
"""What the `model.json` of another run's student says, if the config does not."""


class Lora(Section):
    """Low-rank adapters through peft; names are peft's.

    Attributes:
        use_dora: also trains the length of each output's weights (DoRA, arXiv:2402.09353); slower.
    """

    r: int = Field(default=16, gt=0)
    lora_alpha: int = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    use_dora: Annotated[bool, HashedIfSet] = False


class Quantize(Section):
    """Linear layers in few bits through bitsandbytes; embeddings, norms and the head keep the model's `dtype`, in which layers are
    computed, too.

    Attributes:
        kind: `nf4`, the 4 bits of QLoRA (arXiv:2305.14314), or `int8`, one scale per output.
        double: with nf4, the scales are quantised as well: 4.13 instead of 4.5 bits per weight.
        export: what a student is saved as. `merged`: one model in `dtype`, the dequantised base with the adapters added. `adapter`:
            the adapters alone, which need the base.
    """

    kind: Literal["nf4", "int8"]
    double: bool = True
    export: Literal["merged", "adapter"] = "merged"

    @field_validator("export", mode="before")
    @classmethod
    def _not_quantised_again(cls, value: Any) -> Any:
        if isinstance(value, str) and re.search(r"quant|nf4|fp4|int[48]|[48]_?bit", value):
            raise ValueError(
                "a merged model that is quantised again keeps 2 % of a small LoRA delta (below 1 % of the weights' norm): "
                "use merged or adapter"
            )
        return value

    @model_validator(mode="after")
    def _double_is_used(self) -> "Quantize":
        if self.kind != "nf4" and not self.double:
            raise ValueError("'double' has an effect with kind nf4 only: remove it")
        return self

    @property
    def bytes_per_weight(self) -> float:
        """Memory of one weight: nf4 has a float32 scale for 64 weights, or an 8-bit one and a float32 scale for 256 of those."""
        if self.kind == "int8":
            return 1.0
        return 0.5 + ((1 + 4 / 256) / 64 if self.double else 4 / 64)


def _kind_alone(value: Any) -> Any:
    """`quantize: nf4` is short for `quantize: {kind: nf4}`."""
    return {"kind": value} if isinstance(value, str) else value


Thinking = Literal["auto", "off", "on"]
"""Whether a model thinks before it answers. `auto`: no, where it can be switched off."""

Attention = Literal["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4"]
"""transformers' names. Kernels from the Hub are not supported, because they are code downloaded at run time."""


PASSED_TO_TEMPLATES = frozenset({"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"})
"""Variables of chat templates that transformers gives."""


def _are_arguments(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in PASSED_TO_TEMPLATES:
            raise ValueError(f"'{name}' cannot be set: give one of the template's own variables")
    return values


TemplateArguments = Annotated[dict[str, bool | int | float | str], AfterValidator(_are_arguments)]
"""Variables of a chat template, such as `{reasoning_effort: low}`."""


class LocalModel(Section):
    """A causal language model that runs locally.

    Attributes:
        model: a Hub name or a local folder; omit it with `from_scratch` and `run`.
        run, student: the folder of another run and the name of one of its students, which brings its own layout and template.
        layout: how a conversation is converted to text. `chat`: the tokenizer's template. `transcript`: Human/Assistant turns.
            `plain`: the response continues the prompt.
        thinking: with `layout: chat`, whether the model thinks before it answers. `auto`: no, where its template has a switch.
        template_arguments: values of the template's variables. `date_string` is also the date that a template reads from the
            clock; by default that is 26 Jul 2024, so that prompts are the same on every day.
        chat_template: a file with a Jinja template that replaces the tokenizer's.
        attn_implementation: by default transformers' choice, which is `sdpa` for most models.
        trust_remote_code: run code that comes with the model. Off by default, and set for each model separately.
        licence: its licence, for `provenance.json`; by default what the README.md of its folder says.
        outputs_may_train: whether what it writes may be used to train other models.
    """

    kind: Literal["local"] = "local"
    model: Annotated[HomeText | None, ReadsFile] = None
    run: Annotated[HomeText | None, NotHashed] = None
    student: Annotated[str | None, NotHashed] = None
    revision: str | None = None
    from_scratch: FromScratch | None = None
    layout: Literal["chat", "transcript", "plain"] = "chat"
    thinking: Annotated[Thinking, HashedIfSet] = "auto"
    template_arguments: Annotated[TemplateArguments, HashedIfSet] = Field(default={})
    chat_template: Annotated[str | None, ReadsFile, HashedIfSet] = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: Attention | None = None
    trust_remote_code: bool = False
    licence: Annotated[str | None, NotHashed] = None
    outputs_may_train: Annotated[MayTrain, NotHashed] = "unknown"
    _of_run: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _one_origin(self) -> "LocalModel":
        if self.run is None and (self.model is None) == (self.from_scratch is None):
            raise ValueError("give either 'model' (a Hub name or a folder) or 'from_scratch', not both")
        if (self.run is None) != (self.student is None):
            raise ValueError("'run' (the folder of another run) and 'student' (one of its students) belong together: give both")
        brought = ("model", "revision", "from_scratch", "layout", "thinking", "template_arguments", "chat_template")
        own = [name for name in brought if getattr(self, name) != type(self).model_fields[name].default]
        if self.run is not None and own:
            names = ", ".join(f"'{name}'" for name in own)
            raise ValueError(f"the student of a run brings its own model, layout and template: remove {names}")
        return self

    def hashed_by_content_alone(self) -> Container[str]:
        """See `Section`."""
        return ("model",) if self._of_run else ()

    def with_model_of_run(self, folder: str, **saved: Any) -> Self:
        """The section with the folder of its run's student, and its settings as they were saved."""
        found = self.model_copy(update={"model": folder, **saved})
        found._of_run = True
        return found

    @model_validator(mode="after")
    def _template_is_used(self) -> "LocalModel":
        for name in ("thinking", "template_arguments", "chat_template"):
            given = getattr(self, name) != type(self).model_fields[name].default
            if given and self.layout != "chat":
                raise ValueError(f"'{name}' has no effect with layout '{self.layout}', which uses no template: remove it")
            if given and self.from_scratch is not None:
                raise ValueError(f"'{name}' has no effect on a model from scratch, which has a template of its own: remove it")
        return self


class StudentModel(LocalModel):
    """The start: the student before alignment. With `lora`, `sft` and the students train adapters instead of all weights, at ten
    times the default learning rate.

    Attributes:
        quantize: the frozen weights under the adapters of students, and those of the start itself, in few bits; needs `lora`.
            `nf4` is short for `{kind: nf4}`.
    """

    lora: Lora | None = None
    quantize: Annotated[Quantize | None, BeforeValidator(_kind_alone), HashedIfSet] = None


class OwnStart(StudentModel):
    """The start of one student alone, of another size or family, optionally fine-tuned on demonstrations first."""

    sft: Sft | None = None

    @property
    def sft_trains_adapters(self) -> bool:
        """Whether `sft` trains adapters: a new model is trained whole."""
        return self.sft is not None and self.lora is not None and self.from_scratch is None

    @model_validator(mode="after")
    def _adapter_learning_rate(self) -> "OwnStart":
        if self.sft is not None and self.sft_trains_adapters:
            object.__setattr__(self, "sft", self.sft.for_adapters())
        return self


Concurrency = Literal["auto"] | Annotated[int, Field(gt=0)]
"""Requests in flight; `auto`: as many as raise the throughput."""


class EndpointModel(Section):
    """A model behind an OpenAI-compatible HTTP server. The API key is read only from the environment variable `api_key_env`.

    Attributes:
        base_url: the address; a list for several servers with the same model, which are one model to the cache. Requests go to the
            one with the fewest in flight.
        requests_per_minute, tokens_per_minute: the rate limits, of all servers together; no limit by default.
        tokenizer: the model's tokenizer (a folder or a Hub name), used to count tokens; by default they are estimated. Of a
            teacher that reads token ids (`on_policy_distil`) it is compared with the student's.
        context_tokens: the most tokens of prompt and answer together; by default as the server reports it. Longer requests are not
            sent.
        thinking: whether the model thinks before it answers. `off` switches it off, or fails if the server ignores every known
            switch. `on` leaves it on and adds `thinking_tokens` to every limit. `auto` switches it off where that works, else `on`.
        thinking_tokens: the most tokens of thoughts.
        template_arguments: variables of the chat template, sent as `chat_template_kwargs`.
        body: further fields of every request, as they are; they replace ours.
        omit: fields that the server rejects and that are not sent.
        concurrency: requests in flight. `auto`: more while that raises the throughput, fewer when the server is overloaded.
        limit_field: the field for the most tokens of a reply; some models accept only `max_completion_tokens`.
        licence, outputs_may_train: as of a local model: the terms of the service.
    """

    kind: Literal["endpoint"]
    base_url: ServerUrls
    name: str
    api_key_env: Annotated[KeyVariable | None, NotHashed] = None
    concurrency: Annotated[Concurrency, NotHashed] = "auto"
    timeout_seconds: Annotated[float, NotHashed] = Field(default=120, gt=0)
    max_retries: Annotated[int, NotHashed] = Field(default=5, ge=0)
    requests_per_minute: Annotated[int | None, NotHashed] = Field(default=None, gt=0)
    tokens_per_minute: Annotated[int | None, NotHashed] = Field(default=None, gt=0)
    tokenizer: HomeText | None = None
    context_tokens: int | None = Field(default=None, gt=0)
    thinking: Annotated[Thinking, HashedIfSet] = "auto"
    thinking_tokens: Annotated[int, NotHashed] = Field(default=4096, gt=0)
    template_arguments: Annotated[Mapping[str, Any], HashedIfSet] = Field(default={})
    body: Annotated[Mapping[str, Any], HashedIfSet] = Field(default={})
    omit: Annotated[tuple[Literal["seed", "temperature"], ...], HashedIfSet] = ()
    limit_field: Annotated[Literal["max_tokens", "max_completion_tokens"], HashedIfSet] = "max_tokens"
    licence: Annotated[str | None, NotHashed] = None
    outputs_may_train: Annotated[MayTrain, NotHashed] = "unknown"

    @field_validator("body")
    @classmethod
    def _no_field_of_ours(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in ("model", "messages", "stream"):
            if name in value:
                raise ValueError(f"'{name}' cannot be set here")
        text = json.dumps(value)
        if redact(text) != text:
            raise ValueError("it seems to contain a key, and it is written to files: use 'api_key_env'")
        return value

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs without a slash at the end."""
        return tuple(url.rstrip("/") for url in ([self.base_url] if isinstance(self.base_url, str) else self.base_url))

    @property
    def server(self) -> str:
        """The URLs and the model's name, which identify a server, or several as one."""
        return f"{','.join(self.urls)} {self.name}"

    @property
    def identity(self) -> str:
        """The model and everything else that changes its answers, in cache keys; the same for direct requests and batch files."""
        changed = {
            name: value
            for name in ("thinking", "template_arguments", "body", "omit", "limit_field")
            if (value := getattr(self, name)) != type(self).model_fields[name].default
        }
        return f"endpoint {self.server}" + (f" {json.dumps(changed, sort_keys=True)}" if changed else "")


class FunctionModel(Section):
    """A function of yours that answers: `(messages: list[dict[str, str]], sample: int, seed: int) -> str`.

    Attributes:
        function: gets a conversation's `role` and `content` by turn, the number of the answer among those to this conversation, and
            the run's seed; the same arguments must give the same text.
        licence, outputs_may_train: as of a local model.
    """

    kind: Literal["function"]
    function: PluginName
    licence: Annotated[str | None, NotHashed] = None
    outputs_may_train: Annotated[MayTrain, NotHashed] = "unknown"

    @property
    def code_hash(self) -> str:
        """The SHA-256 of the function's module; empty if there is no such file."""
        file = plugin_file(self.function)
        return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else ""

    @property
    def identity(self) -> str:
        """The function and its module's code, in cache keys."""
        return f"function {self.function} {self.code_hash}"


class Teacher(LocalModel):
    """A local teacher, optionally fine-tuned on demonstrations first."""

    sft: Sft | None = None


def _model_kind(value: Any) -> str:
    kind = value.get("kind", "local") if isinstance(value, dict) else getattr(value, "kind", "local")
    return str(kind)


Model = Annotated[
    Annotated[Teacher, Tag("local")] | Annotated[EndpointModel, Tag("endpoint")] | Annotated[FunctionModel, Tag("function")],
    Discriminator(_model_kind),
]
"""A local model (the default), an endpoint (`kind: endpoint`) or a function (`kind: function`)."""


ModelRef = Annotated[Annotated[str, Tag("name")] | Annotated[Model, Tag("section")], Discriminator(name_or_section), NamesModel]
"""A model given inline, or the name of one: `teacher`, `start`, or a key of `models`."""
