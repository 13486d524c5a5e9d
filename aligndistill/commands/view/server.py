"""The server: routes to pages, live events, downloads and votes, on this machine's loopback address alone."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aligndistill.commands.view.ballots import Ballot
from aligndistill.commands.view.links import Links
from aligndistill.commands.view.pages.compare import compare_page
from aligndistill.commands.view.pages.curves import curves_page
from aligndistill.commands.view.pages.data import data_page
from aligndistill.commands.view.pages.judge import judge_page
from aligndistill.commands.view.pages.runs import live_values, run_page, runs_page
from aligndistill.commands.view.pages.sample import sample_page
from aligndistill.commands.view.pages.samples import exported, samples_page
from aligndistill.commands.view.pages.votes import next_pairs, take_vote, vote_page, votes_page
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.security import Guard
from aligndistill.commands.view.site import Page, Site, UnknownPage
from aligndistill.errors import DataError
from aligndistill.runs.files import EVENTS

STATIC = Path(__file__).parent / "static"
ASSETS = {"view.css": "text/css", "view.js": "text/javascript", "icon.svg": "image/svg+xml"}
LIVE_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
FORMS = {"jsonl": "application/x-ndjson", "csv": "text/csv", "pairs": "application/x-ndjson"}

Handler = Callable[[Request], Response]


class Application:
    """The routes over a site."""

    def __init__(self, site: Site, stopping: Callable[[], bool] = lambda: False) -> None:
        self._site = site
        self._stopping = stopping
        self._live: dict[str, tuple[tuple[float, ...], str]] = {}

    def routes(self) -> Starlette:
        """The application without its guard."""
        of_run: dict[str, Callable[[RunFolder, Request], Page]] = {
            "/r/{run}": lambda run, _: run_page(self._site, run),
            "/r/{run}/samples": lambda run, request: samples_page(self._site, run, request.query_params),
            "/r/{run}/p/{prompt}": lambda run, request: sample_page(
                self._site, run, request.path_params["prompt"], request.query_params
            ),
            "/r/{run}/judge": lambda run, _: judge_page(self._site, run),
            "/r/{run}/curves": lambda run, request: curves_page(self._site, run, request.query_params),
            "/r/{run}/data": lambda run, request: data_page(self._site, run, request.query_params),
            "/r/{run}/votes": lambda run, _: votes_page(self._site, run),
            "/r/{run}/vote": lambda run, request: vote_page(self._site, run, request.query_params),
        }
        routes = [Route(path, self._of_run(page), methods=["GET"]) for path, page in of_run.items()]
        routes += [
            Route("/", self._page(lambda _: runs_page(self._site)), methods=["GET"]),
            Route("/c", self._page(self._compare), methods=["GET"]),
            Route("/static/{name}", self._asset, methods=["GET"]),
            Route("/r/{run}/live", self._events, methods=["GET"]),
            Route("/r/{run}/export/{form}", self._export, methods=["GET"]),
            Route("/r/{run}/pairs", self._pairs, methods=["GET"]),
            Route("/r/{run}/vote", self._vote, methods=["POST"]),
        ]
        handlers: Any = {UnknownPage: self._unknown, 404: self._unknown, DataError: self._unknown}
        return Starlette(routes=routes, exception_handlers=handlers)

    def _page(self, page: Callable[[Request], Page]) -> Handler:
        def handler(request: Request) -> Response:
            return HTMLResponse(self._site.render(page(request), Links()))

        return handler

    def _of_run(self, page: Callable[[RunFolder, Request], Page]) -> Handler:
        return self._page(lambda request: page(self._run(request), request))

    def _run(self, request: Request) -> RunFolder:
        return self._site.run(request.path_params["run"])

    def _compare(self, request: Request) -> Page:
        return compare_page(self._site, request.query_params.getlist("r"), request.query_params)

    def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            raise UnknownPage("There is no such file.")
        return FileResponse(STATIC / name, media_type=ASSETS[name])

    def _unknown(self, request: Request, error: Exception) -> Response:
        text = str(error) if isinstance(error, UnknownPage | DataError) else "There is no such page."
        return HTMLResponse(self._site.render(Page("missing.html", {"text": text}), Links()), status_code=404)

    def _export(self, request: Request) -> Response:
        run, form = self._run(request), request.path_params["form"]
        if form not in FORMS:
            raise UnknownPage("There is no such form.")
        lines = (line.encode("utf-8", "replace") for line in exported(self._site, run, request.query_params, form))
        name = f"{run.id}.{form if form != 'pairs' else 'pairs.jsonl'}".replace('"', "")
        heads = {"content-disposition": f'attachment; filename="{name.encode("ascii", "replace").decode()}"'}
        return StreamingResponse(lines, media_type=FORMS[form], headers=heads)

    # ----------------------------------------------------------------------------------------------------------- votes

    def _pairs(self, request: Request) -> Response:
        pairs = next_pairs(self._site, self._run(request), request.query_params)
        return Response(json.dumps(pairs), media_type="application/json")  # in ASCII: texts may have lone surrogates

    async def _vote(self, request: Request) -> Response:
        if self._site.read_only:
            return JSONResponse({"error": "This viewer is read-only."}, status_code=403)
        run = self._run(request)
        try:
            ballot = Ballot.model_validate_json(await request.body())
            stored = await asyncio.to_thread(take_vote, self._site, run, ballot)
        except ValidationError:
            return JSONResponse({"error": "This is not a vote."}, status_code=400)
        except OSError as error:
            return JSONResponse({"error": f"The vote is not stored: {error.strerror}."}, status_code=507)
        if stored is None:
            return JSONResponse({"error": "There are no such answers."}, status_code=404)
        return JSONResponse({"stored": ballot.id})

    # ------------------------------------------------------------------------------------------------------------ live

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self._changes(self._run(request), request), media_type="text/event-stream")

    async def _changes(self, run: RunFolder, request: Request) -> AsyncIterator[str]:
        """The part of a run's page that changes, whenever it changes; rendered once for all open pages."""
        last, told_at = "", 0.0
        while not self._stopping() and not await request.is_disconnected():
            fragment = await asyncio.to_thread(self.live_part, run)
            if fragment != last:
                yield f"event: live\ndata: {json.dumps(fragment)}\n\n"
                last, told_at = fragment, time.monotonic()
            elif time.monotonic() - told_at > KEEP_ALIVE_SECONDS:
                yield ": still here\n\n"
                told_at = time.monotonic()
            await asyncio.sleep(LIVE_SECONDS)

    def live_part(self, run: RunFolder) -> str:
        """The changing part as HTML; rendered again when the events have changed or ten seconds have passed."""
        state = (*_size_and_time(run.path / EVENTS), time.monotonic() // 10)
        known = self._live.get(run.id)
        if known is None or known[0] != state:
            html = self._site.render(Page("live.html", live_values(run)), Links())
            self._live[run.id] = known = (state, html)
        return known[1]


def _size_and_time(path: Path) -> tuple[float, float]:
    try:
        status = path.stat()
    except OSError:
        return 0.0, 0.0
    return status.st_size, status.st_mtime


class Viewer:
    """A server for a site, on a port of its own. `address` lets a browser in."""

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site = site
        self.socket = _listen(port)
        self.port: int = self.socket.getsockname()[1]
        application = Application(site, lambda: self._server.should_exit)
        self._guard = Guard(application.routes(), self.port)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._guard,
                http="h11",
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,  # addresses have the token
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=16_384,
            )
        )

    @property
    def address(self) -> str:
        """The address with the token."""
        return f"http://127.0.0.1:{self.port}/enter?token={self._guard.token}"

    @property
    def started(self) -> bool:
        """Whether it answers requests."""
        return self._server.started

    def serve(self) -> None:
        """Answer requests until a signal or `stop`; indexes are built in the background."""
        threading.Thread(target=self._build, name="indexes", daemon=True).start()
        with suppress(KeyboardInterrupt):
            self._server.run(sockets=[self.socket])

    def _build(self) -> None:
        with suppress(OSError, KeyError):  # the page that needs the index says what is wrong
            self.site.build_indexes()

    def stop(self) -> None:
        """End `serve`."""
        self._server.should_exit = True

    def close(self) -> None:
        """Free the port."""
        self.socket.close()


def _listen(port: int) -> socket.socket:
    """A socket on the loopback address; there is no option for another.

    Raises:
        DataError: the port is in use.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise DataError(f"--port {port}: {error.strerror}. Leave --port out to use a free one.") from None
    listening.listen(128)
    return listening


def lines_to_print(viewer: Viewer, runs: Iterable[RunFolder], host: str) -> list[str]:
    """What the command says when it is ready."""
    count = len(list(runs))
    return [
        f"{count} {'run' if count == 1 else 'runs'} at {viewer.address}",
        f"From another machine: ssh -L {viewer.port}:127.0.0.1:{viewer.port} {host}, then open this address there.",
        "Ctrl-C stops",
    ]
