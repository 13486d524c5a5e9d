"""Who may ask the viewer what: this machine's browser, with the token that the command printed, from the viewer's own pages.

A page of another site in the same browser can send requests to this port, so the address alone proves nothing: the host must be
ours (against DNS rebinding), the cookie is never sent across sites, and a vote must come from our own page.
"""

import secrets
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY_BYTES = 4096
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",  # `no-referrer` would make a form's origin `null`
    "cache-control": "no-store",
}


class Guard:
    """Lets through what may be asked, and puts the headers on every response.

    Attributes:
        token: 256 random bits, in the address that the command prints; `/enter` exchanges it for a cookie.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._cookie = f"aligndistill_{port}"  # cookies do not know ports: two viewers would share one
        self._session = secrets.token_urlsafe(32)
        self.token = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return
        request = Request(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *ours]
            await send(message)

        refusal = self._refusal(request)
        if refusal is None and request.method == "POST":
            body = await _body(receive)
            if body is None:
                refusal = _plain(413, f"The request is larger than {MOST_BODY_BYTES} bytes.")
            else:
                receive = _replay(body, receive)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Why a request is not answered; None if it is. The exchange of the token is answered here as well."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _plain(421, "This server answers for 127.0.0.1 and localhost only.")
        if request.method not in ("GET", "HEAD", "POST"):
            return _plain(405, "Only GET, HEAD and POST are allowed.")
        if request.url.path == "/enter" and request.method != "POST":
            return self._enter(request)
        if not self._has_session(request):
            return _plain(403, "Open the address that `aligndistill view` printed: it has the token that lets you in.")
        if request.method == "POST":
            own = f"http://{hosts[0].lower()}"
            same = request.headers.get("sec-fetch-site") == "same-origin"
            if request.headers.getlist("origin") != [own] or not same:
                return _plain(403, "Only the viewer's own pages may send votes.")
        return None

    def _enter(self, request: Request) -> Response:
        given = parse_qs(request.url.query).get("token", [""])[0]
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return _plain(403, "This token is not valid. Open the address that `aligndistill view` printed last.")
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(self._cookie, self._session, httponly=True, samesite="strict", path="/")
        return response

    def _has_session(self, request: Request) -> bool:
        given = _cookies(request.headers.getlist("cookie")).get(self._cookie, "")
        return secrets.compare_digest(given.encode(), self._session.encode())


def _cookies(headers: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for header in headers:
        for part in header.split(";"):
            try:
                parsed = SimpleCookie(part.strip())
            except CookieError:
                continue
            found |= {name: morsel.value for name, morsel in parsed.items()}
    return found


async def _body(receive: Receive) -> bytes | None:
    """The body; None if it is too large, wherever its length is given or not."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message.get("body", b"")
        if len(body) > MOST_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _plain(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status_code=status)
