"""HTTP requests to a JSON server. API keys are sent only by this module."""

import logging
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from aligndistill.chat.http.keys import read_key
from aligndistill.chat.http.retries import (
    LONGEST_RETRY_AFTER_SECONDS,
    OVERLOADED_STATUS,
    AccessDenied,
    RequestRejected,
    TransientError,
    failure_kind,
    retry_after_seconds,
)

LONGEST_QUOTE = 500  # characters of a server's response quoted in messages
LONGEST_GET_SECONDS = 10.0
LONGEST_SILENT_WAIT_SECONDS = 5.0  # longer waits requested by the server are logged

_log = logging.getLogger(__name__)

KEPT_OPEN_SECONDS = 15.0  # connections without a request


@dataclass
class Connections:
    """Connections to one server.

    Attributes:
        reused: are kept open.
        new: are closed after a request.
        distrusted_until: monotonic. After a failed connection the server may have closed the others that are kept open,
            too; until the last of them is dropped, requests open new ones.
    """

    reused: aiohttp.ClientSession
    new: aiohttp.ClientSession
    distrusted_until: float = 0.0

    @property
    def current(self) -> aiohttp.ClientSession:
        """The connections to use now."""
        return self.new if time.monotonic() < self.distrusted_until else self.reused


class Connection:
    """Requests to one server.

    Args:
        url: any URL of the server; it determines the proxy.
        api_key_env: the environment variable that contains the key, if there is one.
        timeout_seconds: for one attempt, from connecting to the last byte.

    Raises:
        ConfigError: the environment variable of the key is not set, or its value cannot be a key.
    """

    def __init__(self, url: str, api_key_env: str | None, timeout_seconds: float) -> None:
        self._url = url
        self._api_key_env = api_key_env
        self._timeout_seconds = timeout_seconds
        self._key = None if api_key_env is None else read_key(api_key_env)
        self._logged_until = 0.0  # on the monotonic clock: the end of the wait logged last

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connections]:
        """Connections until the block ends. Of the environment, only the key and the proxy are used."""
        reused = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_OPEN_SECONDS)  # the caller limits how many are open
        async with self._open(reused) as kept, self._open(aiohttp.TCPConnector(limit=0, force_close=True)) as new:
            yield Connections(kept, new)

    def _open(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": f"Bearer {self._key}"} if self._key is not None else {},
            proxy=_proxy_of(self._url),
        )

    async def post(self, session: Connections, url: str, body: Mapping[str, Any]) -> bytes:
        """The response body of one attempt.

        Raises:
            TransientError: a retry may succeed.
            RequestRejected: the server rejects this request.
            AccessDenied: the server rejects all requests.
        """
        try:
            async with session.current.post(url, json=body, allow_redirects=False) as response:
                status, retry_after = response.status, response.headers.get("retry-after")
                content = await response.read()
        except TimeoutError:
            raise TransientError(f"no reply within {self._timeout_seconds:g} s", overloaded=True) from None
        except (aiohttp.ClientError, OSError) as error:
            session.distrusted_until = time.monotonic() + KEPT_OPEN_SECONDS
            # These errors contain the request with its headers, so only their message is kept.
            message = self.quote(f"{error or type(error).__name__}")
        else:
            if status == 200:
                return content
            raise self._failure(status, decode(content), retry_after)
        raise TransientError(f"the connection failed: {message}")

    async def get(self, session: Connections, url: str) -> bytes | None:
        """The body of a page; None if the server does not have it, or does not answer. It is never needed."""
        try:
            async with session.current.get(
                url, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=LONGEST_GET_SECONDS)
            ) as response:
                content = await response.read()  # of an error as well: a connection with an unread body is not reused but reset
                return content if response.status == 200 else None
        except (aiohttp.ClientError, OSError):
            return None

    def _failure(self, status: int, text: str, retry_after: str | None) -> Exception:
        message = f"HTTP {status}: {self.quote(text)}"
        match failure_kind(status, text):
            case "transient":
                asked = retry_after_seconds(retry_after)
                if asked is not None and asked > LONGEST_RETRY_AFTER_SECONDS:
                    return AccessDenied(
                        f"{message}; the server asks to wait longer than {LONGEST_RETRY_AFTER_SECONDS / 60:.0f} minutes, the most "
                        f"that a run waits (Retry-After: {self.quote(retry_after or '')[:40]})",
                        status,
                        "Run the same command again after that time to resume.",
                    )
                self._log_wait(message, asked or 0.0)
                return TransientError(message, asked, overloaded=status in OVERLOADED_STATUS, rate_limited=status == 429)
            case "per item":
                return RequestRejected(message)
        return AccessDenied(message, status)

    def _log_wait(self, message: str, seconds: float) -> None:
        """Log once that requests wait, even if the server rejects several of them meanwhile."""
        now = time.monotonic()
        if seconds > LONGEST_SILENT_WAIT_SECONDS and now >= self._logged_until:
            self._logged_until = now + seconds
            _log.warning("%s asks to wait %.0f s (Retry-After; %s): waiting. Ctrl-C stops the run.", self._url, seconds, message)

    def advice(self, status: int) -> str | None:
        """What to do about a status of denied access; None if that depends on the request."""
        if status in (401, 403):
            variable = self._api_key_env
            return (
                f"Check the key in {variable}."
                if variable
                else "Set api_key_env to the environment variable that contains the key."
            )
        return "The account has no credit left." if status in (402, 429) else None

    def quote(self, text: str) -> str:
        """Text of the server for a message, without the key, which some servers repeat in errors."""
        if self._key is not None:
            text = text.replace(self._key, "<key>")
        return text.strip()[:LONGEST_QUOTE]


def decode(content: bytes) -> str:
    """A body as text; invalid UTF-8 is replaced."""
    return content.decode("utf-8", "replace")


def _proxy_of(url: str) -> str | None:
    """The proxy for a URL, from the environment."""
    address = urlsplit(url)
    if address.hostname is None or urllib.request.proxy_bypass(address.hostname):
        return None
    return urllib.request.getproxies().get(address.scheme)
