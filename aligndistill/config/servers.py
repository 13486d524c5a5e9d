"""Addresses of servers, and the names of the variables with their keys."""

import re
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag

from aligndistill.config.secrets import redact


def _without_credentials(value: str) -> str:
    address = urlsplit(value)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError("expected the URL of a server, such as http://localhost:8000/v1")
    if "@" in address.netloc or address.query or address.fragment:
        raise ValueError("a URL must not contain a user, password or query, because it is written to files: use 'api_key_env'")
    return value


def _name_of_a_variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) or redact(value) != value:
        raise ValueError("expected the name of an environment variable, such as OPENAI_API_KEY, not the key itself")
    return value


ServerUrl = Annotated[str, AfterValidator(_without_credentials)]
"""The URL of an OpenAI-compatible server, such as http://localhost:8000/v1. It is written to files and must not hold secrets."""


def _one_or_several(value: Any) -> str:
    return "one" if isinstance(value, str) else "several"


def _in_order(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Several URLs without duplicates, in alphabetical order, so that the order in the config does not matter."""
    if isinstance(value, str):
        return value
    urls = tuple(sorted({url.rstrip("/") for url in value}))
    return urls[0] if len(urls) == 1 else urls


ServerUrls = Annotated[
    Annotated[
        Annotated[ServerUrl, Tag("one")] | Annotated[tuple[ServerUrl, ...], Field(min_length=1), Tag("several")],
        Discriminator(_one_or_several),
    ],
    AfterValidator(_in_order),
]
"""The URL of a server, or those of several servers with the same model."""

KeyVariable = Annotated[str, AfterValidator(_name_of_a_variable)]
"""The name of the environment variable that contains an API key."""


def hosts_of(urls: Iterable[str]) -> str:
    """Host and port of each URL, without its path, which may name a customer."""
    return ", ".join(sorted({urlsplit(url).netloc for url in urls}))
