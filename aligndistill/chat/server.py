"""One HTTP request to an OpenAI-compatible server, and what came of it. The one place where a key is used."""

import json
import os
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic import ValidationError

from aligndistill.chat.completion import Completion
from aligndistill.chat.retries import Refused, Transient, failure_kind, retry_after_seconds
from aligndistill.config import EndpointModel
from aligndistill.errors import ConfigError, JudgeError

LONGEST_QUOTE = 500  # characters of a server's words in our messages

Session = aiohttp.ClientSession


class Server:
    """Posts chat completions to one address for one model.

    Raises:
        ConfigError: the environment variable of the key is not set, or holds what cannot be a key.
    """

    def __init__(self, config: EndpointModel) -> None:
        self._config = config
        self.base_url = config.base_url.rstrip("/")
        self._key = None if config.api_key_env is None else _key_from(config.api_key_env)
        self.identity = config.identity

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connections that are kept open and used again. Nothing of the environment goes in but the key and the proxy."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key is not None else {}
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # how many are open is for the caller to limit
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            proxy=_proxy_of(self.base_url),
        ) as session:
            yield session

    async def complete(self, session: Session, messages: list[dict[str, str]], fields: Mapping[str, Any]) -> Completion:
        """One try.

        Raises:
            Transient: it may work another time.
            Refused: this request is not to the server's liking.
            JudgeError: no request will ever be.
        """
        body = {"model": self._config.name, "messages": messages, **fields}
        try:
            async with session.post(f"{self.base_url}/chat/completions", json=body, allow_redirects=False) as response:
                status, retry_after = response.status, response.headers.get("retry-after")
                content = await response.read()
        except TimeoutError:
            raise Transient(f"no answer within {self._config.timeout_seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            # These errors carry the request with its headers: their words are kept, and they are let go.
            words = self.quote(f"{error or type(error).__name__}")
        else:
            if status != 200:
                raise self._failure(status, content, retry_after)
            try:
                return _completion(content)
            except (ValueError, RecursionError):  # no JSON, or none of this form
                words = f"what it sent is not a chat completion: {self.quote(_text(content))}"
            raise Transient(words)
        raise Transient(f"the connection failed: {words}")

    def _failure(self, status: int, content: bytes, retry_after: str | None) -> Exception:
        text = _text(content)
        words = f"HTTP {status}: {self.quote(text)}"
        match failure_kind(status, text):
            case "transient":
                return Transient(words, retry_after_seconds(retry_after))
            case "per item":
                return Refused(words)
        advice = "Check base_url and the model's name."
        if status in (401, 403):
            variable = self._config.api_key_env
            advice = f"Check the key in {variable}." if variable else "Name the variable that holds the key in api_key_env."
        elif status in (402, 429):
            advice = "The account has no credit left."
        return JudgeError(f"{self.identity} refused: {words}. {advice} What was answered so far is kept.")

    def quote(self, text: str) -> str:
        """Some words of the server, without the key: some servers repeat the one that they refuse."""
        if self._key is not None:
            text = text.replace(self._key, "<key>")
        return text.strip()[:LONGEST_QUOTE]


def _completion(content: bytes) -> Completion:
    """The completion in a body, also in one whose texts hold half a character (a lone surrogate), which is replaced.

    Raises:
        ValidationError: there is none in it.
    """
    try:
        return Completion.model_validate_json(content)
    except ValidationError:
        if b"\\ud" not in content.lower():
            raise
        whole = json.dumps(json.loads(content), ensure_ascii=False)
        return Completion.model_validate_json(whole.encode("utf-8", "replace"))


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for an address."""
    address = urlsplit(url)
    if address.hostname is None or urllib.request.proxy_bypass(address.hostname):
        return None
    return urllib.request.getproxies().get(address.scheme)


def _key_from(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} (api_key_env) is not set: export it, or leave api_key_env out.")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {variable} (api_key_env) holds characters that no key can have.")
    return key
