"""Who may ask the viewer what, over real sockets."""

import socket
from pathlib import Path

import pytest

from aligndistill.commands.view.security import HEADERS, MOST_BODY_BYTES
from aligndistill.commands.view.server import Viewer
from tests.commands.view.fake_run import FakeRun
from tests.commands.view.serving import Client, served

PAGES = (
    "/",
    "/r/fake",
    "/r/fake/samples",
    "/r/fake/judge",
    "/static/view.js",
    "/r/fake/live",
    "/r/fake/pairs",
    "/r/fake/export/csv",
    "/c",
)


def test_it_listens_on_the_loopback_address_alone(client: Client) -> None:
    assert client.viewer.socket.getsockname()[0] == "127.0.0.1"
    outside = socket.gethostbyname(socket.gethostname())
    if not outside.startswith("127."):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((outside, client.port), timeout=5)


@pytest.mark.parametrize("path", PAGES)
def test_without_the_cookie_nothing_is_shown(client: Client, path: str) -> None:
    for cookie in (" ", "x=y", client.cookie[:-1], client.cookie + "a", f"aligndistill_{client.port}="):
        reply = client.send("GET", path, cookie=cookie)
        assert reply.status == 403
        assert "fake" not in reply.text


def test_the_token_becomes_a_cookie_and_leaves_the_address(client: Client) -> None:
    reply = client.send("GET", client.path_with_token, cookie=" ")
    assert (reply.status, reply.headers["location"]) == (303, "/")
    name, _, rest = reply.headers["set-cookie"].partition("=")
    value, *attributes = rest.split("; ")
    assert name == f"aligndistill_{client.port}", "cookies do not know ports"
    assert {one.lower() for one in attributes} == {"httponly", "samesite=strict", "path=/"}
    token = client.path_with_token.partition("=")[2]
    assert len(token) == len(value) == 43, "256 bits in base 64"
    assert value != token


@pytest.mark.parametrize("token", ["", "x", "é", "token"])
def test_another_token_is_refused(client: Client, token: str) -> None:
    path = f"/enter?token={token}".encode().decode("latin-1")
    reply = client.send("GET", path.replace("Ã©", "%C3%A9"), cookie=" ")
    assert reply.status == 403
    assert "set-cookie" not in reply.headers
    assert client.send("GET", "/enter", cookie=" ").status == 403


def test_two_viewers_have_different_tokens(fake: FakeRun, client: Client) -> None:
    viewer = Viewer(client.viewer.site)
    viewer.close()
    assert viewer.address.partition("token=")[2] != client.path_with_token.partition("=")[2]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "localhost", "127.0.0.1:1", "127.0.0.2:{port}", "evil.example:{port}", None]
)
def test_another_host_is_misdirected(client: Client, host: str | None) -> None:
    """A page whose name points to 127.0.0.1 by now (DNS rebinding) sends its own name."""
    named = host.format(port=client.port) if host else None
    for path in ("/", client.path_with_token):
        reply = client.send("GET", path, {"host": named})
        assert reply.status in (400, 421)
        assert "set-cookie" not in reply.headers


def test_two_hosts_are_misdirected(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port)) as sent:
        request = (
            f"GET / HTTP/1.1\r\nhost: {client.host}\r\nhost: evil.example\r\ncookie: {client.cookie}\r\nconnection: close\r\n\r\n"
        )
        sent.sendall(request.encode())
        status = int(sent.makefile("rb").readline().split()[1])
    assert status in (400, 421)


def test_localhost_is_our_name_too(client: Client) -> None:
    assert client.send("GET", "/", {"host": f"localhost:{client.port}"}).status == 200


VOTE_PATH = "/r/fake/vote"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": None},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "https://127.0.0.1:{port}"},
        {"sec-fetch-site": None},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
    ids=str,
)
def test_a_vote_comes_from_our_own_page(client: Client, headers: dict[str, str | None]) -> None:
    filled = {name: value.format(port=client.port) if value else None for name, value in headers.items()}
    reply = client.post(VOTE_PATH, {}, filled)
    assert reply.status == 403
    assert "own pages" in reply.text
    assert client.post(VOTE_PATH, {}).status == 400, "our own page gets as far as the content"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_not_allowed(client: Client, method: str) -> None:
    assert client.send(method, "/").status == 405


def test_pages_take_no_post_and_the_vote_alone_writes(client: Client) -> None:
    for path in ("/", "/r/fake", "/r/fake/samples", "/r/fake/pairs", "/enter", "/r/fake/export/csv"):
        assert client.post(path, {}).status in (404, 405), path


def test_a_body_is_at_most_four_kilobytes_with_and_without_a_length(client: Client) -> None:
    assert client.post(VOTE_PATH, b" " * MOST_BODY_BYTES).status == 400
    assert client.post(VOTE_PATH, b" " * (MOST_BODY_BYTES + 1)).status == 413
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    assert client.post(VOTE_PATH, chunk * 3 + b"0\r\n\r\n", {"transfer-encoding": "chunked"}).status == 413


@pytest.mark.parametrize("path", [*PAGES, "/nothing", "/enter?token=x"])
def test_every_answer_has_the_headers(client: Client, path: str) -> None:
    if path == "/r/fake/live":
        return
    for cookie in (None, " "):
        reply = client.send("GET", path, cookie=cookie)
        assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "server" not in client.send("GET", path).headers


@pytest.mark.parametrize(
    "path",
    [
        "/r/..%2f..%2fetc",
        "/r/fake/p/..%2f..%2fconfig.yaml",
        "/r/fake/p/%2e%2e",
        "/static/..%2fserver.py",
        "/static/%2e%2e%2fserver.py",
        "/static/../server.py",
        "/static//etc/passwd",
        "/r/fake/p/0000000000000000",
        "/r/nope",
        "/r/fake/export/html",
        "/r/fake/export/..%2fcsv",
        "/r/fake/nothing",
        "/c?r=fake&r=..%2f..",
        "/r/fake%00/samples",
    ],
)
def test_routes_take_ids_and_never_paths(client: Client, path: str) -> None:
    reply = client.send("GET", path)
    assert reply.status == 404
    assert "root:" not in reply.text
    assert "import" not in reply.text


def test_looking_changes_no_file_of_a_run(fake: FakeRun, client: Client) -> None:
    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in fake.folder.parent.rglob("*") if path.is_file()}

    before = state()
    prompt = fake.held_out[0].id
    for path in (
        "/",
        "/r/fake",
        "/r/fake/samples?f=worse",
        f"/r/fake/p/{prompt}",
        "/r/fake/judge",
        "/r/fake/curves",
        "/r/fake/data",
    ):
        client.get(path)
    client.get("/r/fake/votes")
    client.get("/r/fake/vote?vote=left")
    client.get("/r/fake/pairs")
    assert state() == before


def test_a_read_only_viewer_takes_no_votes(fake: FakeRun) -> None:
    with served(fake.folder.parent, read_only=True) as client:
        pair = client.send("GET", "/r/fake/pairs").value["pairs"][0]
        reply = client.post(VOTE_PATH, {**ballot(pair), "vote": "left"})
        assert reply.status == 403
        assert "read-only" in client.get("/r/fake/vote")
    assert not (fake.folder / "votes").exists()


def ballot(pair: dict[str, str], number: int = 1) -> dict[str, object]:
    ids = {name: pair[name] for name in ("prompt", "left", "right", "queue")}
    return {**ids, "id": f"{number:032x}", "vote": "left", "milliseconds": 900}


@pytest.mark.parametrize(
    "change",
    [
        {"vote": "best"},
        {"id": "x"},
        {"id": "A" * 32},
        {"prompt": "../../etc/passwd"},
        {"queue": "headline"},
        {"milliseconds": -1},
        {"extra": 1},
        {"note": "x" * 1001},
        {"named": False},
    ],
    ids=str,
)
def test_what_is_no_vote_is_refused(client: Client, fake: FakeRun, change: dict[str, object]) -> None:
    pair = client.send("GET", "/r/fake/pairs").value["pairs"][0]
    assert client.post(VOTE_PATH, {**ballot(pair), **change}).status == 400
    assert not (fake.folder / "votes").exists()


def test_votes_are_about_answers_that_exist(client: Client, fake: FakeRun) -> None:
    first, second = client.send("GET", "/r/fake/pairs").value["pairs"][:2]
    for change in (
        {"left": "0" * 16},
        {"right": first["left"]},
        {"prompt": "0" * 16},
        {"prompt": second["prompt"]},  # its answers, another prompt
    ):
        assert client.post(VOTE_PATH, {**ballot(first), **change}).status == 404
    assert not (fake.folder / "votes").exists()


def test_the_token_is_not_logged(fake: FakeRun, capfd: pytest.CaptureFixture[str]) -> None:
    with served(fake.folder.parent) as client:
        client.get("/")
        client.send("GET", client.path_with_token, cookie=" ")
        client.send("GET", "/r/fake/p/nope")
    printed = capfd.readouterr()
    assert "token" not in printed.out + printed.err


def test_a_page_holds_no_script_or_style_of_its_own(client: Client, fake: FakeRun) -> None:
    prompt = fake.held_out[0].id
    for path in (
        "/",
        "/r/fake",
        "/r/fake/samples",
        f"/r/fake/p/{prompt}",
        "/r/fake/curves",
        "/r/fake/vote",
        "/r/fake/votes",
        "/r/fake/data",
    ):
        page = client.get(path)
        assert page.count("<script") == 1
        assert '<script src="/static/view.js" defer></script>' in page
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick" not in page
    script = Path(__file__).parents[3] / "aligndistill/commands/view/static/view.js"
    assert len(script.read_text().splitlines()) < 300
    assert "http" not in script.read_text()
