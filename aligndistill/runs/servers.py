"""The servers of a run: their capabilities, their rate limits, and what was spent on all of them.

`<runs>/<name>/spent.jsonl` has a line for every request, and `servers.json` the capabilities, so that a resumed run neither spends
its budget twice nor tests a server's capabilities again.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from aligndistill.chat.http.adaptive import Limit, limit_of
from aligndistill.chat.http.budget import Account, Spending
from aligndistill.chat.http.capabilities import Capabilities, ServerCapabilities
from aligndistill.chat.http.rate_limit import RateLimiter
from aligndistill.config.budget import Budget
from aligndistill.config.models import EndpointModel
from aligndistill.runs.files import SERVERS, SPENT
from aligndistill.store.append_log import AppendLog

if TYPE_CHECKING:
    from aligndistill.chat.endpoint import EndpointChat

_FOUND = TypeAdapter(dict[str, ServerCapabilities])


class Endpoints:
    """Connects to the servers of the run in `folder`."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._folder = folder
        self._budget = budget
        self._account: Account | None = None
        self._stage = ""
        self._capabilities: dict[str, Capabilities] = {}
        self._limiters: dict[str, RateLimiter] = {}
        self._limits: dict[tuple[str, int | str], Limit] = {}

    def at(self, stage: str) -> None:
        """Log what is spent from now on under this stage."""
        self._stage = stage
        if self._account is not None:
            self._account.stage = stage

    def open(self, config: EndpointModel) -> "EndpointChat":
        """The chat model of a server. All clients of one server share its rate limit and what is known of how many requests it
        can take, and all clients of the run its budget."""
        from aligndistill.chat.endpoint import EndpointChat  # imported here because it imports an HTTP client

        if self._account is None:
            self._account = Account(self._budget, _SpentFile(self._folder / SPENT))
            self._account.stage = self._stage
            known = known_servers(self._folder)
            self._capabilities = {name: Capabilities(found, self._save) for name, found in known.items()}
        capabilities = self._capabilities.setdefault(config.identity, Capabilities(save=self._save))
        limiter = self._limiters.setdefault(config.server, RateLimiter(config.requests_per_minute, config.tokens_per_minute))
        limit = self._limits.setdefault((config.server, config.concurrency), limit_of(config.concurrency))
        return EndpointChat(config, capabilities, limiter, self._account, looks=True, limit=limit)

    def spent(self) -> dict[str, float] | None:
        """Requests, tokens and USD so far; None before the first request."""
        spent = self._account.spent if self._account is not None else Spending()
        return {"requests": spent.requests, "tokens": spent.tokens, "usd": round(spent.usd, 4)} if spent.requests else None

    def spending(self) -> str:
        """What the run has spent so far; empty before the first request."""
        spent = self._account.spent if self._account is not None else Spending()
        if not spent.requests:
            return ""
        cost = f", {spent.usd:.2f} USD" if spent.usd else ""
        return f"{spent.requests:,} requests, {spent.tokens:,} tokens{cost}"

    def _save(self, _: ServerCapabilities) -> None:
        found = {name: one.found.model_dump() for name, one in self._capabilities.items()}
        partial = self._folder / f"{SERVERS}.{os.getpid()}.partial"
        partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        partial.replace(self._folder / SERVERS)


def known_servers(folder: Path) -> dict[str, ServerCapabilities]:
    """The capabilities of a run's servers, by `EndpointModel.identity`; empty if the file cannot be read."""
    try:
        return _FOUND.validate_json((folder / SERVERS).read_bytes())
    except (OSError, ValidationError):
        return {}


def spent_so_far(folder: Path) -> list[Spending]:
    """All requests that a run has paid for."""
    return list(_SpentFile(folder / SPENT).read_new()) if (folder / SPENT).exists() else []


class _SpentFile:
    def __init__(self, path: Path) -> None:
        self._log = AppendLog(path)

    def add(self, entry: Spending) -> None:
        self._log.add(entry.model_dump())

    def read_new(self) -> Iterator[Spending]:
        for entry in self._log.read_new():
            try:
                yield Spending.model_validate(entry)
            except ValidationError:
                continue
