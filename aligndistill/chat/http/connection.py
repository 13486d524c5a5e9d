"""One HTTP request to a server that speaks JSON, and what came of it. The one place where a key is used."""

import logging
import os
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from aligndistill.chat.http.retries import (
    LONGEST_RETRY_AFTER_SECONDS,
    AccessDenied,
    RequestRejected,
    TransientError,
    failure_kind,
    retry_after_seconds,
)
from aligndistill.errors import ConfigError

LONGEST_QUOTE = 500  # characters of a server's words in our messages
LONGEST_SILENT_WAIT_SECONDS = 5.0  # a longer one that the server asks for is told

_log = logging.getLogger(__name__)

Session = aiohttp.ClientSession


class Connection:
    """Posts JSON to one server.

    Args:
        url: any address of the server; it tells which proxy is the way there.
        api_key_env: the environment variable that holds the key, if there is one.
        timeout_seconds: for one try, from connecting to the last byte.

    Raises:
        ConfigError: the environment variable of the key is not set, or holds what cannot be a key.
    """

    def __init__(self, url: str, api_key_env: str | None, timeout_seconds: float) -> None:
        self._url = url
        self._api_key_env = api_key_env
        self._timeout_seconds = timeout_seconds
        self._key = None if api_key_env is None else _key_from(api_key_env)
        self._told_until = 0.0  # on the monotonic clock: until when a wait was announced

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connections that are kept open and used again. Nothing of the environment goes in but the key and the proxy."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key is not None else {}
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # how many are open is for the caller to limit
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            proxy=_proxy_of(self._url),
        ) as session:
            yield session

    async def post(self, session: Session, url: str, body: Mapping[str, Any]) -> bytes:
        """The body of the answer to one try.

        Raises:
            Transient: it may work another time.
            Refused: this request is not to the server's liking.
            Denied: no such request will ever be.
        """
        try:
            async with session.post(url, json=body, allow_redirects=False) as response:
                status, retry_after = response.status, response.headers.get("retry-after")
                content = await response.read()
        except TimeoutError:
            raise TransientError(f"no answer within {self._timeout_seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            # These errors carry the request with its headers: their words are kept, and they are let go.
            words = self.quote(f"{error or type(error).__name__}")
        else:
            if status == 200:
                return content
            raise self._failure(status, decode(content), retry_after)
        raise TransientError(f"the connection failed: {words}")

    def _failure(self, status: int, text: str, retry_after: str | None) -> Exception:
        words = f"HTTP {status}: {self.quote(text)}"
        match failure_kind(status, text):
            case "transient":
                asked = retry_after_seconds(retry_after)
                if asked is not None and asked > LONGEST_RETRY_AFTER_SECONDS:
                    return AccessDenied(
                        f"{words}; it asks to wait longer than the {LONGEST_RETRY_AFTER_SECONDS / 60:.0f} minutes that a run waits "
                        f"at most (Retry-After: {self.quote(retry_after or '')[:40]})",
                        status,
                        "Give the same command again when that time is over.",
                    )
                self._tell_of_wait(words, asked or 0.0)
                return TransientError(words, asked)
            case "per item":
                return RequestRejected(words)
        return AccessDenied(words, status)

    def _tell_of_wait(self, words: str, seconds: float) -> None:
        """Say once that requests wait, however many of them the server sends back meanwhile."""
        now = time.monotonic()
        if seconds > LONGEST_SILENT_WAIT_SECONDS and now >= self._told_until:
            self._told_until = now + seconds
            _log.warning("%s asks to wait %.0f s (Retry-After; %s): waiting. Ctrl-C stops the run.", self._url, seconds, words)

    def advice(self, status: int) -> str | None:
        """What to do about a status that denies; None where that depends on what was asked for."""
        if status in (401, 403):
            variable = self._api_key_env
            return f"Check the key in {variable}." if variable else "Name the variable that holds the key in api_key_env."
        return "The account has no credit left." if status in (402, 429) else None

    def quote(self, text: str) -> str:
        """Some words of the server, without the key: some servers repeat the one that they refuse."""
        if self._key is not None:
            text = text.replace(self._key, "<key>")
        return text.strip()[:LONGEST_QUOTE]


def decode(content: bytes) -> str:
    """A body as text, whatever is in it."""
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
