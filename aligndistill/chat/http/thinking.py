"""How a model's thinking is switched on and off in a request: servers and model families differ, and ignore other switches."""

from collections.abc import Mapping, Sequence
from typing import Any

from aligndistill.chat.http.capabilities import ServerCapabilities
from aligndistill.config.models import EndpointModel

CLOSED_BLOCK = "<think>\n\n</think>\n\n"
OFF: Mapping[str, Mapping[str, Any]] = {
    # Qwen3, GLM, SmolLM3, Nemotron call the template's variable `enable_thinking`, DeepSeek and Kimi `thinking`.
    "chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    "reasoning_effort": {"reasoning_effort": "none"},
    "thinking": {"thinking": {"type": "disabled"}},
    # For templates without a variable: the answer continues after an empty block of thoughts.
    "prefill": {"continue_final_message": True, "add_generation_prompt": False},
}
"""Fields of a request that switch thinking off, in the order in which they are tried."""

ON: Mapping[str, Mapping[str, Any]] = {
    "chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
    "reasoning_effort": {"reasoning_effort": "medium"},
}
"""Fields of a request that switch it on, where it is off by default."""


def switches(config: EndpointModel) -> Mapping[str, Mapping[str, Any]]:
    """The switches that bring a server to what the config asks for."""
    return ON if config.thinking == "on" else OFF


def thinks(config: EndpointModel, found: ServerCapabilities) -> bool:
    """Whether the model is expected to think before it answers our requests."""
    if config.thinking == "on":
        return found.thinks is not False or found.switch is not None
    return bool(found.thinks) and found.switch is None


def request_body(
    config: EndpointModel, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any], switch: str | None
) -> dict[str, Any]:
    """The body of a request: our fields, the switch, and what the config adds, replaces and omits."""
    body = {"model": config.name, "messages": [*messages], **fields}
    body[config.limit_field] = body.pop("max_tokens")
    for name in config.omit:
        body.pop(name, None)
    if switch is not None:
        body |= switches(config)[switch]
    if switch == "prefill":
        body["messages"].append({"role": "assistant", "content": CLOSED_BLOCK})
    if config.template_arguments:
        body["chat_template_kwargs"] = {**body.get("chat_template_kwargs", {}), **config.template_arguments}
    return {**body, **config.body}
