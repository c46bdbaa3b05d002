"""The review server: who gets in, what it answers, what survives a kill. Real processes, real HTTP.

Requests are written byte by byte where a client library would not send them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import SCRIPT, make_cache, sf
from material import ok, write_photo

thumbs = sf.companion("review/thumbs")
desk = sf.companion("review/desk")
OPENED = re.compile(r"open http://([\d.]+):(\d+)/#(\S+)")


def draw_photos(cache: sf.FaceCache) -> sf.FaceCache:
    """Write a picture for every photo, with a bright square where its face is."""
    shas, facts = [], []
    for row, path in enumerate(cache.file_path.tolist()):
        width, height = cache.file_wh[row].tolist()
        image = np.full((height, width, 3), (row * 7 % 200, 60, 90), np.uint8)
        for box in cache.bbox[cache.face_file == row].astype(int):
            image[box[1] : box[3], box[0] : box[2]] = (40, row * 11 % 256, 230)
        data = cv2.imencode(".jpg", image)[1].tobytes() + b"%d" % row
        shas.append(hashlib.sha256(data).hexdigest())
        facts.append(write_photo(path, data, 1_500_000_000 + row))
    return replace(
        cache,
        file_sha256=np.array(shas),
        file_size=np.array([size for size, _ in facts], np.int64),
        file_mtime_ns=np.array([mtime for _, mtime in facts], np.int64),
    )


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    all_headers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A page of a server: its port and secrets."""

    def __init__(self, port: int, code: str = "") -> None:
        self.port, self.code, self.cookie, self.token = port, code, "", ""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def raw(self, data: bytes, patience: float = 20.0) -> Reply:
        """Send bytes, read until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as line:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                line.sendall(data)
            return read_reply(line)

    def ask(
        self, method: str, target: str, body: Any = None, *, drop: str = "", **headers: str | None
    ) -> Reply:
        """A request as the page sends it; headers: others instead, None for none."""
        data = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        said: dict[str, str | None] = {"host": self.host, "connection": "close"}
        if self.cookie:
            said["cookie"] = self.cookie
        if method != "GET":
            said |= {"origin": f"http://{self.host}", "content-type": "application/json"}
            said |= {"x-review-token": self.token, "content-length": str(len(data))}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in said.items() if value is not None]
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
        return self.raw(head.encode("latin-1") + data)

    def get(self, target: str) -> Any:
        reply = self.ask("GET", target)
        assert reply.status == 200, (target, reply)
        return reply.json

    def post(self, target: str, **body: Any) -> Reply:
        return self.ask("POST", target, body)

    def enter(self) -> Client:
        """Trade the code, as the page does when it is opened."""
        reply = self.post("/api/session", code=self.code)
        assert reply.status == 200, reply
        self.token = reply.json["token"]
        self.cookie = reply.headers["set-cookie"].partition(";")[0]
        return self


def read_reply(line: socket.socket) -> Reply:
    """Everything until the line is closed, as a reply; status 0 where nothing came."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := line.recv(65536):
            data += part
    if not data:
        return Reply(0, {}, b"")
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name.lower(), value) for name, _, value in (text.partition(": ") for text in lines)]
    return Reply(int(first.split()[1]), dict(pairs), body, pairs)


class Served:
    """A server of a cache as a process of its own."""

    def __init__(self, cache: Path, *options: object) -> None:
        self.cache, self.options = cache, options
        self.start()

    def start(self) -> None:
        command = [sys.executable, SCRIPT, "review", self.cache, "--no-browser", *self.options]
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ""
        while not (found := OPENED.search(said)):
            line = self.process.stderr.readline()
            assert line, said + self.process.stdout.read()
            said += line
        self.port, self.code = int(found[2]), found[3]

    def client(self) -> Client:
        """A page that is in; the first one since the start trades the code for it."""
        if self.code:
            self.page = Client(self.port, self.code).enter()
            self.used, self.code = self.code, ""
        client = Client(self.port)
        client.cookie, client.token = self.page.cookie, self.page.token
        return client

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)

    def end(self) -> tuple[int, str, str]:
        """Ctrl-C; (exit code, stdout, stderr)."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def made_library(folder: Path, **made: Any) -> Path:
    """The cache of a small library with real pictures."""
    cache = draw_photos(make_cache(root=str(folder / "photos"), **made))
    sf.save_cache(folder / "lib.npz", cache)
    return folder / "lib.npz"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    server = Served(made_library(tmp_path_factory.mktemp("review"), people=3, photos=6))
    yield server
    if server.process.poll() is None:
        server.end()


@pytest.fixture
def page(served) -> Client:
    return served.client()


# --- who gets in ------------------------------------------------------------

FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1",  # without its port
    "localhost",
    "127.0.0.1:1",
    "127.0.0.1.:{port}",
    "localhost.:{port}",
    "127.0.0.1:{port}@evil.example",
    "127.0.0.1:{port},evil.example",
    "[::1]",
    "[::1]:1",
    "[::2]:{port}",
    "::1:{port}",
    "0.0.0.0:{port}",
    "127.1:{port}",
    "2130706433:{port}",
    "",
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
@pytest.mark.parametrize("target", ["/", "/api/state", "/static/page.html"])
def test_a_foreign_host_is_refused_before_all_else(page, host, target):
    reply = page.ask("GET", target, host=host.format(port=page.port))
    assert reply.status == 421 and reply.json == {"error": "host"}


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"]
)
def test_own_hosts_are_let_in(page, host):
    assert page.ask("GET", "/api/state", host=host.format(port=page.port)).status == 200


def test_two_hosts_or_none_are_refused(page):
    two = f"GET / HTTP/1.1\r\nHost: {page.host}\r\nHost: {page.host}\r\nConnection: close\r\n\r\n"
    none = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    old = "GET / HTTP/1.0\r\n\r\n"
    assert [page.raw(text.encode()).status for text in (two, none, old)] == [400, 400, 421]


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1",
               "http://127.0.0.1:1", "http://localhost:{port}", "http://127.0.0.1:{port}/", ""]
)  # fmt: skip
def test_a_write_needs_its_own_origin(page, origin):
    origin = origin and origin.format(port=page.port)
    reply = page.ask("POST", "/api/undo", {"op": "x"}, origin=origin)
    assert reply.status == 403 and reply.json["error"] == "origin"


def test_a_read_with_a_foreign_origin_is_refused(page):
    assert page.ask("GET", "/api/state", origin="http://evil.example").status == 403
    assert page.ask("GET", "/api/state", origin=f"http://{page.host}").status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "", "same-origin, none"])
def test_only_the_page_itself_may_fetch(page, site):
    assert page.ask("GET", "/api/state", sec_fetch_site=site).status == 403
    assert page.ask("POST", "/api/undo", {"op": "x"}, sec_fetch_site=site).status == 403


def test_the_page_can_be_typed_but_not_linked(page):
    sites = {site: page.ask("GET", "/", sec_fetch_site=site).status
             for site in ("none", "same-origin", "same-site", "cross-site")}  # fmt: skip
    assert sites == {"none": 200, "same-origin": 200, "same-site": 403, "cross-site": 403}
    assert page.ask("GET", "/static/page.html", sec_fetch_site="none").status == 403


READS = ["/api/state", "/api/people", "/api/history", "/api/events", "/t/0-96.jpg", "/p/0.jpg"]


@pytest.mark.parametrize("target", READS)
def test_nothing_is_read_without_the_cookie(page, target):
    name, _, value = page.cookie.partition("=")
    wrong = [None, f"{name}=", f"{name}={value[:-1]}", f"other={value}", f"{name}={page.token}"]
    assert {page.ask("GET", target, cookie=cookie).status for cookie in wrong} == {401}


def test_nothing_is_written_without_the_token(page):
    secret = page.cookie.partition("=")[2]
    for token in (None, "", page.token[:-1], page.token + "x", secret, "ü"):
        reply = page.ask("POST", "/api/undo", {"op": "x"}, x_review_token=token)
        assert reply.status == 401 and reply.json["error"] == "token"
    assert page.ask("POST", "/api/undo", {"op": "x"}, cookie=None).status == 401


def test_the_code_works_once(served, page):
    assert page.post("/api/session", code=served.used).status == 200  # by the token
    page.token = ""
    for code in (served.used, "", "x", served.page.token):
        assert page.post("/api/session", code=code).status == 401


def test_the_cookie_is_for_this_page_alone(page):
    reply = page.post("/api/session", code="")
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    assert cookie.startswith(f"review-{page.port}=") and page.token not in cookie


# --- what may be asked ------------------------------------------------------

PATHS = [
    "/../etc/passwd", "/static/../review.py", "/static/..%2freview.py", "/%2e%2e/etc/passwd",
    "/static/%2e%2e/review.py", "/static/%00", "//evil.example/", "/static//page.html",
    "/static/page.html%00.js", "/static/\\..\\review.py", "http://127.0.0.1:{port}/",
    "http://evil.example/", "*", "/.", "/..", "/./", "/static/", "/static/.hidden", "/api/state/",
    "/p/..%2f..%2fetc%2fpasswd", "/%252e%252e/x", "/api/state;x", "/api/state#x",
]  # fmt: skip


@pytest.mark.parametrize("target", PATHS)
def test_odd_paths_are_refused(page, target):
    reply = page.ask("GET", target.format(port=page.port))
    assert reply.status == 400 and b"passwd" not in reply.body


@pytest.mark.parametrize("target", ["/etc/passwd", "/static/review.py", "/static/app.py", "/x",
                                    "/t/0000000000000000-96.jpg", "/p/0000000000000000.jpg",
                                    "/docs", "/api", "/static/page.html/x"])  # fmt: skip
def test_what_is_not_there_is_unknown(page, target):
    reply = page.ask("GET", target)
    assert reply.status == 404 and reply.json == {"error": "unknown"}


@pytest.mark.parametrize(
    "method", ["OPTIONS", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get"]
)
def test_other_methods_are_refused(page, method):
    reply = page.ask(method, "/api/state")
    assert reply.status in (400, 405)
    assert not any(name.startswith("access-control") for name in reply.headers)


def test_methods_go_by_the_table(page):
    assert page.post("/api/state").status == 405
    assert page.ask("GET", "/api/undo").status == 405


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "",
                                  "multipart/form-data", "application/json; charset=utf-16",
                                  "text/plain, application/json", "application/jsonp"])  # fmt: skip
def test_only_json_is_taken(page, kind):
    assert page.ask("POST", "/api/undo", {"op": "x"}, content_type=kind).status == 415


def test_compressed_bodies_are_refused(page):
    assert page.ask("POST", "/api/undo", {"op": "x"}, content_encoding="gzip").status == 415


def test_a_huge_length_is_refused_at_once(page):
    """Before the body, of which hardly anything comes."""
    reply = page.ask("POST", "/api/undo", {"op": "x"}, content_length=str(2 << 30))
    assert reply.status == 413


def test_a_body_is_counted_while_it_comes(page):
    """Chunked, so that no length tells beforehand; it never ends by itself."""
    head = (
        f"POST /api/undo HTTP/1.1\r\nHost: {page.host}\r\nOrigin: http://{page.host}\r\n"
        f"Cookie: {page.cookie}\r\nX-Review-Token: {page.token}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    chunk = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
    assert page.raw(head + chunk * 5).status == 413


def test_a_body_on_a_read_is_refused(page):
    assert page.ask("GET", "/api/state", content_length="3").status == 400


def test_slow_requests_are_given_up(page):
    """Headers that never end, and a body that never comes; both at once to save time."""
    with contextlib.ExitStack() as lines:
        slow = [
            lines.enter_context(socket.create_connection(("127.0.0.1", page.port), timeout=30))
            for _ in range(3)
        ]
        slow[1].sendall(b"GET / HTTP/1.1\r\nHost: ")
        body = (
            f"POST /api/undo HTTP/1.1\r\nHost: {page.host}\r\nOrigin: http://{page.host}\r\n"
            f"Cookie: {page.cookie}\r\nX-Review-Token: {page.token}\r\nContent-Length: 10\r\n"
            "Content-Type: application/json\r\n\r\n{"
        )
        slow[2].sendall(body.encode())
        started = time.monotonic()
        replies = [read_reply(line).status for line in slow]
        assert replies == [0, 0, 408] and 5 < time.monotonic() - started < 20


def test_too_many_lines_are_refused_and_come_back(page):
    with contextlib.ExitStack() as lines:
        for _ in range(40):
            lines.enter_context(socket.create_connection(("127.0.0.1", page.port), timeout=30))
        assert page.ask("GET", "/api/state").status == 503
    deadline = time.monotonic() + 5
    while page.ask("GET", "/api/state").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_deep_and_broken_json_is_refused(page):
    bodies = [
        b"[" * 100_000,
        b'{"op":' * 5000,
        b'{"op": "x", "items": ' + b"[" * 9 + b"]" * 9 + b"}",
    ]
    assert [page.ask("POST", "/api/undo", body).json["error"] for body in bodies] == ["deep"] * 3
    for body in (b"", b"{", b"nul", b'"x"', b"[]", b'{"op": "\xff"}', b'{"op": 3}', b"{}"):
        assert page.ask("POST", "/api/undo", body).json["error"] == "fields"
    assert (
        page.ask("POST", "/api/undo", b'{"op": "]]]]]]]]]]}}[[[[[[[[[[[["}').json["error"]
        == "fields"
    )


def test_unknown_fields_are_refused(page):
    face = "0123456789abcdef:0"
    best = {"kind": "best", "face": face}
    many = {"kind": "drop", "faces": [face] * 50_001}
    bodies = [
        ("/api/undo", {"op": "x", "more": 1}),
        ("/api/decisions", {"op": "x", "base": 0, "items": [], "tab": ""}),
        ("/api/decisions", {"op": "x", "base": 0, "items": [{"kind": "what"}]}),
        ("/api/decisions", {"op": "x", "base": 0, "items": [{**best, "z": 1}]}),
        ("/api/decisions", {"op": "x", "base": 0, "items": [{**best, "face": "../x"}]}),
        ("/api/decisions", {"op": "x", "base": -1, "items": [best]}),
        ("/api/decisions", {"op": "x/y", "base": 0, "items": [best]}),
        ("/api/decisions", {"op": "x", "base": 0, "items": [best] * 1001}),
        ("/api/decisions", {"op": "x", "base": 0, "items": [many]}),
        ("/api/session", {"code": "x", "token": "x"}),
        ("/api/preview", {"x": 1}),
    ]  # fmt: skip
    assert [(page.ask("POST", target, body).status) for target, body in bodies] in (
        [422] * len(bodies),
        [422] * 8 + [413] + [422] * 2,  # so many ids are more than a body may hold
    )
    for target in ("/api/state?x=1", "/api/questions?kind=what", "/api/questions?n=101",
                   "/api/questions?n=1&n=2", "/api/history?before=-1"):  # fmt: skip
        assert page.ask("GET", target).status == 422, target


def test_every_answer_carries_the_policy(page):
    policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect"
    for target, status in (("/", 200), ("/api/state", 200), ("/nowhere", 404), ("/..", 400)):
        reply = page.ask("GET", target)
        assert reply.status == status
        assert reply.headers["content-security-policy"].startswith(policy)
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in reply.headers and "access-control-allow-origin" not in reply.headers


# --- pictures ---------------------------------------------------------------


def test_a_thumbnail_shows_its_face(served, page):
    cache = sf.load_cache(served.cache)
    mark = thumbs.face_marks(cache)[5]
    for size in thumbs.SIZES:
        reply = page.ask("GET", f"/t/{mark}-{size}.jpg")
        assert reply.status == 200 and "immutable" in reply.headers["cache-control"]
        image = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (size, size, 3)
        middle = image[size // 2, size // 2].astype(int)
        assert np.abs(middle - (40, 55, 230)).max() < 12  # as draw_photos painted it
        corner = image[2, 2].astype(int)
        assert np.abs(corner - (35, 60, 90)).max() < 12
    file = served.cache.with_name("lib.npz.thumbs") / mark[:2] / f"{mark}-192.jpg"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_photo_is_sent_encoded_anew(served, page):
    cache = sf.load_cache(served.cache)
    original = Path(cache.file_path[4]).read_bytes()
    reply = page.ask("GET", f"/p/{cache.file_sha256[4][:16]}.jpg")
    image = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (800, 1000, 3) and reply.body != original


def test_a_photo_that_has_changed_is_not_shown(served, page):
    cache = sf.load_cache(served.cache)
    path = Path(cache.file_path[7])
    data, facts = path.read_bytes(), path.stat()
    write_photo(str(path), data[:-1] + b"!", 1)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # size and time as they were
    reply = page.ask("GET", f"/t/{thumbs.face_marks(cache)[7]}-96.jpg")
    assert reply.status == 404 and reply.json == {"error": "gone"}
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert page.ask("GET", f"/t/{thumbs.face_marks(cache)[7]}-96.jpg").status == 200


# --- one server a cache -----------------------------------------------------


def test_a_second_server_says_who_holds_the_cache(run, served):
    code, out, err = run("review", served.cache, "--no-browser")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"process {served.process.pid}" in err and f"http://127.0.0.1:{served.port}/" in err


def test_it_comes_back_with_its_port_and_token(tmp_path):
    server = Served(made_library(tmp_path, people=2, photos=2))
    client = server.client()
    file = tmp_path / "lib.npz.review.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    code, out, _ = server.end()
    assert code == 0 and str(server.port) in out
    first = server.port
    server.start()
    assert server.port == first and client.get("/api/state")["rev"] == 0
    server.kill()
    server.start()
    assert server.port == first and client.get("/api/state")["rev"] == 0
    server.end()


def test_a_taken_port_is_told(run, tmp_path):
    cache = made_library(tmp_path, people=2, photos=2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, _, err = run("review", cache, "--no-browser", "--port", other.getsockname()[1])
    assert code == 2 and "name another with --port" in err


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "localhost", "nonsense", "192.0.2.1"])
def test_it_listens_only_on_an_address_of_this_machine(run, tmp_path, address):
    cache = made_library(tmp_path, people=2, photos=2)
    code, _, err = run("review", cache, "--no-browser", "--listen", address)
    assert code == 2 and "--listen" in err


def test_open_pages_are_told_that_it_ends(tmp_path):
    server = Served(made_library(tmp_path, people=2, photos=2))
    client = server.client()
    head = f"GET /api/events HTTP/1.1\r\nHost: {client.host}\r\nCookie: {client.cookie}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(head.encode())
        said = b""
        while b"event: hello" not in said:
            said += line.recv(65536)
        started = time.monotonic()
        code, _, _ = server.end()
        while part := line.recv(65536):
            said += part
    assert code == 0 and b"event: bye" in said and time.monotonic() - started < 10


# --- deciding ---------------------------------------------------------------


class Book:
    """A page that decides: numbers its acts, knows the state it saw."""

    def __init__(self, server: Served, tab: str = "one") -> None:
        self.client, self.tab, self.acts = server.client(), tab, 0
        self.base = self.client.get("/api/state")["rev"]

    def act(self, *items: dict[str, Any], op: str = "", base: int | None = None) -> Reply:
        self.acts += 1
        op = op or f"{self.tab}-{self.acts}"
        base = self.base if base is None else base
        reply = self.client.post(
            "/api/decisions", op=op, base=base, tab=self.tab, items=list(items)
        )
        if reply.status == 201:
            self.base = reply.json["rev"]
        return reply

    def people(self) -> dict[str, dict[str, Any]]:
        """{id: what the grid shows of it}."""
        columns = self.client.get("/api/people")["columns"]
        return {
            pid: {name: values[at] for name, values in columns.items()}
            for at, pid in enumerate(columns["id"])
        }


@pytest.fixture
def own(tmp_path) -> Iterator[Served]:
    """A server that a test may change, kill and start again."""
    server = Served(made_library(tmp_path, people=3, photos=6))
    yield server
    if server.process.poll() is None:
        server.end()


def lines_of(server: Served) -> list[dict[str, Any]]:
    path = server.cache.with_name(server.cache.name + ".decisions.jsonl")
    return [value for _, value in sf.json_lines(path)]


def test_an_act_is_on_the_disk_when_it_is_acknowledged(own):
    book = Book(own)
    first, second, third = book.people()
    reply = book.act({"kind": "name", "people": [first], "text": "Anna"})
    assert (reply.status, reply.json["rev"], reply.json["changed"]) == (201, 1, [first])
    assert [line["text"] for line in lines_of(own)] == ["Anna"]
    reply = book.act({"kind": "merge", "people": [first, second]})
    assert reply.json["gone"] == {second: first} and reply.json["effects"]["people"] == 1
    assert {pid: one["faces"] for pid, one in book.people().items()} == {first: 12, third: 6}
    faces = book.client.get(f"/api/people/{second.replace(':', '%3A')}/faces")
    assert (faces["id"], faces["name"], faces["total"]) == (first, "Anna", 12)
    path = own.cache.with_name("lib.npz.decisions.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_repeated_act_is_done_once_and_answered_alike(own):
    book = Book(own)
    pid = next(iter(book.people()))
    item = {"kind": "name", "people": [pid], "text": "Anna"}
    replies = [book.act(item, op="the-same", base=0) for _ in range(3)]
    assert [reply.status for reply in replies] == [201] * 3
    assert replies[0].json == replies[1].json == replies[2].json
    own.kill()
    own.start()
    again = Book(own).act(item, op="the-same", base=0)
    assert again.status == 201 and again.json["rev"] == 1 and len(lines_of(own)) == 1


def test_what_changes_nothing_is_no_success(own):
    book = Book(own)
    pid = next(iter(book.people()))
    book.act({"kind": "name", "people": [pid], "text": "Anna"})
    for item in (
        {"kind": "name", "people": [pid], "text": "Anna"},
        {"kind": "merge", "people": [pid, pid]},
    ):
        reply = book.act(item)
        assert reply.status == 409 and reply.json["error"] == "nothing"
    assert len(lines_of(own)) == 1


def test_undo_and_redo_of_a_tab(own):
    one, two = Book(own, "one"), Book(own, "two")
    first, second, third = one.people()
    one.act({"kind": "merge", "people": [first, second]})
    two.act({"kind": "name", "people": [third], "text": "Cleo"})
    reply = one.client.post("/api/undo", op="u-1", tab="one")
    assert reply.status == 200 and reply.json["undone"] == "one-1"
    assert set(one.people()) == {first, second, third} and one.people()[third]["name"] == "Cleo"
    assert one.client.post("/api/undo", op="u-2", tab="one").json["error"] == "nothing"
    assert one.client.post("/api/redo", op="r-1", tab="one").status == 200
    assert set(one.people()) == {first, third}
    assert one.client.post("/api/undo", op="u-3", tab="one", which="two-1").status == 200
    assert one.people()[third]["name"] == ""
    history = one.client.get("/api/history")
    assert [act["kind"] for act in history["acts"]] == ["undo", "redo", "undo", "name", "same"]


def test_a_page_that_is_behind_does_no_harm(own):
    one, two = Book(own, "one"), Book(own, "two")
    first, second, third = one.people()
    one.act({"kind": "merge", "people": [first, second]})
    reply = two.act({"kind": "name", "people": [second], "text": "Ben"})
    assert reply.status == 409 and reply.json["error"] == "changed" and reply.json["rev"] == 1
    assert [act["op"] for act in reply.json["theirs"]] == ["one-1"] and reply.json["mine"]
    assert two.act({"kind": "name", "people": [third], "text": "Cleo"}).status == 201
    two.base = reply.json["rev"]
    assert two.act({"kind": "name", "people": [second], "text": "Ben"}).status == 201
    assert one.people()[first]["name"] == "Ben"


def test_the_command_line_and_the_page_see_each_other(own):
    book = Book(own)
    first = next(iter(book.people()))
    cache = sf.load_cache(own.cache)
    decisions = sf.companion("decisions")
    other = decisions.Book(own.cache)
    refs = decisions.anchors(cache, np.array([cache.row_of_face[first]]))
    other.append([decisions.act("name", "cli-1", faces=refs, text="Dora")])
    assert book.people()[first]["name"] == "Dora" and book.client.get("/api/state")["rev"] == 1
    assert book.act({"kind": "name", "people": [first], "text": "x"}, base=0).status == 409


def test_acknowledged_acts_survive_a_kill_at_any_moment(own):
    """Many tabs name people at once; the server is killed in the middle, again and again. What was
    acknowledged is in the file once, what was not can be sent again."""
    cache = sf.load_cache(own.cache)
    pids = list(Book(own).people())
    acknowledged: set[str] = set()
    sent: dict[str, dict[str, Any]] = {}

    def answer(tab: int, round_: int, client: Client) -> None:
        with contextlib.suppress(OSError):
            for number in range(200):
                op = f"r{round_}t{tab}n{number}"
                item = {"kind": "name", "people": [pids[tab]], "text": op}
                sent[op] = {"op": op, "base": 1 << 30, "tab": f"tab{tab}", "items": [item]}
                reply = client.post("/api/decisions", **sent[op])
                if reply.status != 201:
                    return
                acknowledged.add(op)

    for round_ in range(6):
        client = own.client()
        threads = [threading.Thread(target=answer, args=(tab, round_, client)) for tab in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05 + 0.07 * round_)
        own.kill()
        for thread in threads:
            thread.join()
        own.start()
        ops = [line["op"] for line in lines_of(own)]
        assert len(ops) == len(set(ops)) and acknowledged <= set(ops) <= set(sent)
    client = own.client()
    for body in sent.values():  # as the outbox does
        assert client.post("/api/decisions", **body).status == 201
    ops = [line["op"] for line in lines_of(own)]
    assert sorted(ops) == sorted(sent) and len(acknowledged) > 10
    assert cache.faces == sum(one["faces"] for one in Book(own).people().values())


def test_hostile_names_come_back_as_text(own):
    book = Book(own)
    pid = next(iter(book.people()))
    for said, kept in (
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("Ju\u0308rgen\x00\x1b[31m\u202e", "Jürgen[31m"),
        ("  a \n b ", "a b"),
    ):
        assert book.act({"kind": "name", "people": [pid], "text": said}).status == 201
        assert book.people()[pid]["name"] == kept
    assert book.act({"kind": "name", "people": [pid], "text": "x" * 201}).status == 422
    reply = book.client.ask("GET", "/api/people")
    assert reply.headers["content-type"] == "application/json"


def test_pages_hear_of_each_other(own):
    book = Book(own, "one")
    head = (
        f"GET /api/events HTTP/1.1\r\nHost: {book.client.host}\r\nCookie: {book.client.cookie}"
        "\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", own.port), timeout=20) as line:
        line.sendall(head.encode())
        said = b""
        while b"event: hello" not in said:
            said += line.recv(65536)
        pid = next(iter(book.people()))
        book.act({"kind": "name", "people": [pid], "text": "Anna"})
        while not (told := re.search(rb"event: rev\ndata: (.*)\n\n", said)):
            said += line.recv(65536)
    assert json.loads(told[1]) == {"rev": 1, "tab": "one", "changed": [pid]}


def test_embeddings_stay_in_the_file_of_the_cache(tmp_path):
    desk = sf.companion("review/desk")
    path = made_library(tmp_path, people=2, photos=3)
    cache = sf.load_cache(path)
    mapped = desk.with_mapped_embeddings(cache, path)
    assert isinstance(mapped.embedding, np.memmap) == (os.name != "nt")
    for name in ("embedding", "unit", "length", "bbox"):
        assert np.array_equal(getattr(mapped, name), getattr(cache, name))
    sf.journal_path(path).write_text("")  # what is there may tell of other faces
    assert desk.with_mapped_embeddings(cache, path) is cache


def test_a_full_disk_is_told_and_nothing_is_lost(own):
    """The file cannot be written: a folder stands in its place."""
    book = Book(own)
    pid = next(iter(book.people()))
    path = own.cache.with_name("lib.npz.decisions.jsonl")
    path.mkdir()
    item = {"kind": "name", "people": [pid], "text": "Anna"}
    reply = book.act(item, op="waits")
    assert reply.status == 503 and reply.json == {"error": "not_saved"}
    path.rmdir()
    assert book.act(item, op="waits").status == 201 and len(lines_of(own)) == 1


def test_a_drawn_box_becomes_a_face(run, tmp_path, group_photo):
    """With a real engine: of a photo of six people, and a corner in which it sees nobody."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/group.jpg").write_bytes(group_photo)
    ok(run, "embed", tmp_path / "photos", tmp_path / "lib.npz", "--model", "dlib")
    server = Served(tmp_path / "lib.npz")
    page = Book(server)
    faces = page.client.get("/api/state")["counts"]["faces"]
    photo = next(iter(page.people())).partition(":")[0]
    asked = {"base": 0, "tab": "one", "photo": photo}
    reply = page.client.post("/api/boxes", op="box-1", box=[4, 6, 90, 110], **asked)
    assert reply.status == 202 and reply.json == {"job": "box-1"}
    deadline = time.monotonic() + 60
    while page.client.get("/api/state")["counts"]["faces"] == faces:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert page.client.post("/api/boxes", op="box-1", box=[4, 6, 90, 110], **asked).status == 202
    told = page.client.get(f"/api/photos/{photo}")["boxes"]
    [drawn] = [box for box in told if box["drawn"]]
    assert drawn["box"] == [4, 6, 90, 110] and len(told) == faces + 1
    assert page.client.ask("GET", f"/t/{drawn['thumb']}-96.jpg").status == 200
    [act] = page.client.get("/api/history")["acts"]
    assert (act["op"], act["kind"]) == ("box-1", "box")
    assert page.client.post("/api/undo", op="u", tab="one").status == 200
    assert page.client.get("/api/state")["counts"]["faces"] == faces
    wrong = page.client.post("/api/boxes", op="b", box=[0, 0, 9, 9], **asked | {"photo": "0" * 16})
    assert wrong.status == 404
    assert server.end()[0] == 0


def test_a_cache_that_has_grown_is_taken_in(own):
    """By another command, while the server runs."""
    page = Book(own)
    cache = draw_photos(make_cache(people=4, photos=6, root=str(own.cache.parent / "photos")))
    sf.save_cache(own.cache, cache)
    deadline = time.monotonic() + 30
    while page.client.get("/api/state")["counts"]["faces"] != cache.faces:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(page.people()) == 4


@pytest.mark.parametrize("error", [KeyError("a bug"), RuntimeError("a bug")])
def test_a_look_that_fails_does_not_end_the_looking(tmp_path, monkeypatch, error):
    path = made_library(tmp_path, people=2, photos=3)
    monkeypatch.setattr(desk, "LOOK_EVERY", 0.01)
    watching, tried = desk.Desk(path, {}, sf.companion("review/events").Events()), []

    def refuse() -> None:
        tried.append(1)
        if len(tried) < 3:
            raise error

    monkeypatch.setattr(watching, "follow_cache", refuse)
    deadline = time.monotonic() + 30
    while len(tried) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watching.close()
