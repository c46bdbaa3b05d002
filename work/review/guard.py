"""Who may ask the review server for what: one layer that every request passes first.

A companion of sort_faces.py. Loopback is no boundary: any page the person visits, any local user
and any program's page on another port can send requests here. So a request must name this server
as its host, come from its own page, and carry the secrets that page was given; what comes with it
is small, JSON, and asks for a plain path.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

import sort_faces as sf

MOST_BODY = 1_000_000  # bytes of a request
MOST_QUERY = 8_000  # bytes of what stands behind the question mark
DEEPEST = 8  # brackets within brackets of a request; what is asked for here needs 5
PATIENCE = 10.0  # seconds a request may take to come in, headers and body each
MOST_HEADERS = 32_000  # bytes
TOKEN_BYTES = 32  # 256 bits, of the token and of the code
TOKEN_HEADER = b"x-review-token"

# Plain words between slashes; %3A, as encodeURIComponent writes the colon of a face id.
PLAIN_PATH = re.compile(rb"/|(?:/[A-Za-z0-9_](?:[A-Za-z0-9._:-]|%3[Aa])*)+")
PLAIN_QUERY = re.compile(rb"[A-Za-z0-9=&_.,:%+-]*")
JSON_TYPE = re.compile(rb'application/json(?:; *charset="?utf-8"?)?', re.IGNORECASE)
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
USUAL_HEADERS = {
    b"content-security-policy": CONTENT_POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",  # but what says otherwise
}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A request that is not answered: its status and a word for the page; never a path."""

    def __init__(self, status: int, error: str, **more: Any) -> None:
        super().__init__(error)
        self.status, self.error, self.more = status, error, more

    def told(self) -> dict[str, Any]:
        """What the page is told."""
        return {"error": self.error, **self.more}


class Session:
    """The secrets of one server.

    The address that the browser is opened with carries a code that works once; for it the page gets
    a cookie, which lets it read, and the token, which lets it write. Cookies reach every port of a
    host, so the cookie is made from the token but does not tell it.
    """

    def __init__(self, port: int, token: str) -> None:
        self.token = token
        self.code = new_secret()
        self.cookie_name = f"review-{port}"
        key = token.encode()
        self.cookie = hmac.new(key, self.cookie_name.encode(), hashlib.sha256).hexdigest()

    def trade(self, code: str) -> bool:
        """Whether this is the code; it is used up by that."""
        good = bool(self.code) and same(code, self.code)
        self.code = "" if good else self.code
        return good

    def may_read(self, cookies: Iterable[bytes]) -> bool:
        """Whether one of the Cookie headers holds ours."""
        pairs = (part.strip().partition(b"=") for line in cookies for part in line.split(b";"))
        values = [value for name, _, value in pairs if name == self.cookie_name.encode()]
        return any(same(value.decode("latin-1"), self.cookie) for value in values)

    def may_write(self, tokens: list[bytes]) -> bool:
        return len(tokens) == 1 and same(tokens[0].decode("latin-1"), self.token)

    def set_cookie(self) -> str:
        return f"{self.cookie_name}={self.cookie}; HttpOnly; SameSite=Strict; Path=/"


def new_secret() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def same(said: str, known: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing."""
    return hmac.compare_digest(said.encode(errors="replace"), known.encode())


@dataclass(frozen=True)
class Asked:
    """What a request says of itself."""

    method: str
    path: bytes  # as it came, undecoded
    query: bytes
    headers: dict[bytes, list[bytes]]

    @classmethod
    def of(cls, scope: Scope) -> Asked:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        return cls(scope["method"], scope["raw_path"], scope["query_string"], headers)

    def all(self, name: bytes) -> list[bytes]:
        return self.headers.get(name, [])

    @property
    def writes(self) -> bool:
        return self.method != "GET"


def check_host(asked: Asked, hosts: frozenset[bytes]) -> None:
    """The request names this server and nobody else; after DNS rebinding it would not."""
    found = asked.all(b"host")
    if len(found) != 1 or found[0].lower() not in hosts:
        raise Refused(421, "host")


def check_target(asked: Asked) -> None:
    """A plain path and a short plain query: no `..`, no `//`, no escapes, no foreign scheme."""
    if not PLAIN_PATH.fullmatch(asked.path):
        raise Refused(400, "path")
    if len(asked.query) > MOST_QUERY or not PLAIN_QUERY.fullmatch(asked.query):
        raise Refused(400, "query")
    if asked.method not in ("GET", "POST"):
        raise Refused(405, "method")


def check_sender(asked: Asked) -> None:
    """Our own page sends it: by Origin, without which nothing is changed, and by fetch metadata."""
    own = b"http://" + asked.all(b"host")[0].lower()
    origins = asked.all(b"origin")
    if origins not in ([own], [] if not asked.writes else [own]):
        raise Refused(403, "origin")
    sites = asked.all(b"sec-fetch-site")
    typed = asked.path == b"/" and not asked.writes  # in the address bar
    if sites not in ([], [b"same-origin"], [b"none"] if typed else []):
        raise Refused(403, "site")


def check_secrets(asked: Asked, session: Session) -> None:
    """The cookie to read, the token as well to write; the page and the trade need neither."""
    if asked.path == b"/" or asked.path.startswith(b"/static/"):
        return
    if asked.path == b"/api/session" and asked.writes:
        return
    if not session.may_read(asked.all(b"cookie")):
        raise Refused(401, "session")
    if asked.writes and not session.may_write(asked.all(TOKEN_HEADER)):
        raise Refused(401, "token")


def check_body_facts(asked: Asked) -> None:
    """What the headers say of the body: JSON, plain, not too long; none where none belongs."""
    lengths = asked.all(b"content-length")
    if not asked.writes:
        if asked.all(b"transfer-encoding") or lengths not in ([], [b"0"]):
            raise Refused(400, "body")
        return
    kinds = asked.all(b"content-type")
    if len(kinds) != 1 or not JSON_TYPE.fullmatch(kinds[0].strip()):
        raise Refused(415, "type")
    if asked.all(b"content-encoding"):
        raise Refused(415, "encoding")
    if len(lengths) > 1 or any(not line.isdigit() or len(line) > 15 for line in lengths):
        raise Refused(400, "length")
    if lengths and int(lengths[0]) > MOST_BODY:
        raise Refused(413, "large")


async def whole_body(receive: Receive) -> bytes:
    """The body, counted while it comes in. Raises Refused where it is too long or too slow."""
    parts, size = [], 0

    async def read() -> None:
        nonlocal size
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "gone")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MOST_BODY:
                raise Refused(413, "large")
            if not message.get("more_body"):
                return

    try:
        await asyncio.wait_for(read(), PATIENCE)
    except asyncio.TimeoutError:
        raise Refused(408, "slow") from None
    return b"".join(parts)


def check_depth(body: bytes) -> None:
    """Raises Refused where brackets lie deeper than anything asked for here needs."""
    depth = 0
    for bracket in re.findall(rb"[\[\]{}]", STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            raise Refused(422, "deep")


def again(body: bytes, receive: Receive) -> Receive:
    """A body that has been read, to be read once more; then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> dict[str, Any]:
        return waiting.pop() if waiting else await receive()

    return replay


class Guard:
    """The layer around the application. hosts: `127.0.0.1:8000` and the like, all of them ours."""

    def __init__(self, app: Any, hosts: Iterable[str], session: Session) -> None:
        self.app, self.session = app, session
        self.hosts = frozenset(host.lower().encode() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun = False

        async def guarded(message: dict[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": with_usual(message.get("headers", []))}
            await send(message)

        try:
            await self.app(scope, await self.admitted(scope, receive), guarded)
        except Refused as error:
            await answer(guarded, error)
        except Exception as error:
            told = "".join(traceback.format_tb(error.__traceback__))
            sf.log.error("review: %s in %s", type(error).__name__, scope["method"])
            sf.note(told)
            if begun:
                raise
            await answer(guarded, Refused(500, "bug"))

    async def admitted(self, scope: Scope, receive: Receive) -> Receive:
        """What the application reads the request from. Raises Refused."""
        asked = Asked.of(scope)
        check_host(asked, self.hosts)
        check_target(asked)
        check_sender(asked)
        check_secrets(asked, self.session)
        check_body_facts(asked)
        if not asked.writes:
            return receive
        body = await whole_body(receive)
        check_depth(body)
        return again(body, receive)


def with_usual(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those that every answer has."""
    own = list(headers)
    said = {name.lower() for name, _ in own}
    return own + [(name, value) for name, value in USUAL_HEADERS.items() if name not in said]


async def answer(send: Send, refused: Refused) -> None:
    """Send a refusal as JSON; where the rest of the request may still come, the line is closed."""
    body = msgspec.json.encode(refused.told())
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if refused.status == 405:
        headers.append((b"allow", b"GET, POST"))
    if refused.status in (400, 408, 413, 415):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Impatient(H11Protocol):
    """uvicorn's HTTP, but the headers of a request must be in after PATIENCE seconds."""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self.wait_for_headers()
        else:
            self.stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_waiting()
        super().connection_lost(exc)

    def wait_for_headers(self) -> None:
        if self.deadline is None:
            self.deadline = self.loop.call_later(PATIENCE, self.timeout_keep_alive_handler)

    def stop_waiting(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
