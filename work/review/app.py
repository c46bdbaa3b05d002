"""What the review server answers: every address, what is asked for there, and by whom it is done.

A companion of sort_faces.py. Here stands only HTTP: requests are read into records that refuse
unknown fields, the desk does the work in a thread, its answers go out as JSON. guard.py stands
before all of it.

Contents
    Requests
    Answers
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import sort_faces as sf

guard = sf.companion("review/guard")
thumbs = sf.companion("review/thumbs")
Refused = guard.Refused

HERE = Path(__file__).resolve().parent
STATIC_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
A_YEAR = "private, max-age=31536000, immutable"  # of a picture whose name tells what it shows

FaceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}:[0-9]{1,6}\Z")]
PhotoId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Word = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.-]{1,64}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=1000)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Page = Annotated[int, msgspec.Meta(ge=1, le=5000)]

# ============================================================================
# Requests
# ============================================================================


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What comes with a request. What it does not know it refuses."""


class Trade(Body):
    """The code of the opened address; "" where the page has the token still."""

    code: Text


class Undo(Body, kw_only=True):
    """Take an act back, or do it again; which: else the last of this tab."""

    op: Word
    tab: Word | Literal[""] = ""
    which: Word | None = None


class Box(Body, kw_only=True):
    """A face the operator drew, x1 y1 x2 y2 in pixels; replaces: the face whose box was wrong."""

    op: Word
    base: Count
    tab: Word | Literal[""] = ""
    photo: PhotoId
    box: tuple[float, float, float, float]
    replaces: FaceId | None = None


class Preview(Body):
    """Nothing has to be said to see what would change."""


class Apply(Body):
    """Bring the sets up to date, as the preview showed."""

    preview: Word
    rev: Count


class Cancel(Body):
    """Nothing has to be said to stop."""


class FacesQuery(Body):
    """Which part of a person's faces."""

    start: Count = msgspec.field(default=0, name="from")
    n: Page = 2000


class QuestionsQuery(Body):
    """How many questions of which queue; after: those that are shown already."""

    kind: Literal["same", "whose", "look"] = "same"
    n: Annotated[int, msgspec.Meta(ge=1, le=100)] = 12
    after: str = ""


class HistoryQuery(Body):
    """Acts before a place in the file."""

    before: Count | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class NoQuery(Body):
    """Nothing can be asked for here."""


T = TypeVar("T")


async def body_of(request: Request, kind: type[T]) -> T:
    """The body of a request as a record. Raises Refused."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(422, "fields", text=sf.one_line(error)[:200]) from None


def query_of(request: Request, kind: type[T]) -> T:
    """What stands behind the question mark as a record. Raises Refused."""
    try:
        text = request.scope["query_string"].decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict")
        if len({name for name, _ in pairs}) < len(pairs):
            raise Refused(422, "fields", text="a field is there twice")
        empty_is_none = {name: value for name, value in pairs if value or name == "after"}
        return msgspec.convert(empty_is_none, kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise Refused(422, "fields", text=sf.one_line(error)[:200]) from None


def id_of(request: Request, name: str, kind: Any) -> str:
    """An id in the path. Raises Refused where it looks like none."""
    try:
        return msgspec.convert(request.path_params[name], kind)
    except msgspec.ValidationError:
        raise Refused(404, "unknown") from None


# ============================================================================
# Answers
# ============================================================================


def json_answer(value: Any, status: int = 200, **headers: str) -> Response:
    body = msgspec.json.encode(value, enc_hook=sf.json_default)
    return Response(body, status, headers, "application/json")


def static_files() -> dict[str, tuple[bytes, str]]:
    """{name: bytes and type} of all that the page is made of."""
    found = sorted(path for path in HERE.iterdir() if path.suffix in STATIC_KINDS)
    return {path.name: (path.read_bytes(), STATIC_KINDS[path.suffix]) for path in found}


class Answers:
    """The handlers. desk: see desk.py; its methods block, so each runs in a thread."""

    def __init__(self, desk: Any, session: Any, events: Any) -> None:
        self.desk, self.session, self.events = desk, session, events
        self.files = static_files()

    async def page(self, request: Request) -> Response:
        return self.file("page.html")

    async def static(self, request: Request) -> Response:
        return self.file(request.path_params["name"])

    def file(self, name: str) -> Response:
        if name not in self.files:
            raise Refused(404, "unknown")
        data, kind = self.files[name]
        return Response(data, media_type=kind)

    async def trade(self, request: Request) -> Response:
        """The code for the secrets; a page that has the token still gets its cookie again."""
        asked = await body_of(request, Trade)
        tokens = [value.encode("latin-1") for value in request.headers.getlist("x-review-token")]
        if not (self.session.trade(asked.code) or self.session.may_write(tokens)):
            raise Refused(401, "code")
        cookie = {"set-cookie": self.session.set_cookie()}
        return json_answer({"token": self.session.token}, **cookie)

    async def state(self, request: Request) -> Response:
        query_of(request, NoQuery)
        return json_answer(await run_in_threadpool(self.desk.state))

    async def people(self, request: Request) -> Response:
        query_of(request, NoQuery)
        return json_answer(await run_in_threadpool(self.desk.people))

    async def faces(self, request: Request) -> Response:
        query = query_of(request, FacesQuery)
        pid = id_of(request, "pid", FaceId)
        return json_answer(await run_in_threadpool(self.desk.faces, pid, query.start, query.n))

    async def halves(self, request: Request) -> Response:
        query_of(request, NoQuery)
        pid = id_of(request, "pid", FaceId)
        return json_answer(await run_in_threadpool(self.desk.halves, pid))

    async def photo(self, request: Request) -> Response:
        query_of(request, NoQuery)
        photo = id_of(request, "photo", PhotoId)
        return json_answer(await run_in_threadpool(self.desk.photo, photo))

    async def questions(self, request: Request) -> Response:
        query = query_of(request, QuestionsQuery)
        after = [qid for qid in query.after.split(",") if qid]
        ask = functools.partial(self.desk.questions, query.kind, query.n, after)
        return json_answer(await run_in_threadpool(ask))

    async def history(self, request: Request) -> Response:
        query = query_of(request, HistoryQuery)
        return json_answer(await run_in_threadpool(self.desk.history, query.before, query.n))

    async def decide(self, request: Request) -> Response:
        """An act; what may be in it stands in acts.py."""
        act = await body_of(request, dict[str, Any])
        return json_answer(await run_in_threadpool(self.desk.decide, act), 201)

    async def undo(self, request: Request) -> Response:
        asked = await body_of(request, Undo)
        undo = functools.partial(self.desk.undo, asked.op, asked.tab, asked.which)
        return json_answer(await run_in_threadpool(undo))

    async def redo(self, request: Request) -> Response:
        asked = await body_of(request, Undo)
        redo = functools.partial(self.desk.redo, asked.op, asked.tab, asked.which)
        return json_answer(await run_in_threadpool(redo))

    async def draw(self, request: Request) -> Response:
        asked = await body_of(request, Box)
        return json_answer(await run_in_threadpool(self.desk.draw, asked), 202)

    async def preview(self, request: Request) -> Response:
        await body_of(request, Preview)
        return json_answer(await run_in_threadpool(self.desk.preview), 202)

    async def previewed(self, request: Request) -> Response:
        query_of(request, NoQuery)
        name = id_of(request, "name", Word)
        return json_answer(await run_in_threadpool(self.desk.previewed, name))

    async def apply(self, request: Request) -> Response:
        asked = await body_of(request, Apply)
        return json_answer(await run_in_threadpool(self.desk.apply, asked.preview, asked.rev), 202)

    async def cancel(self, request: Request) -> Response:
        await body_of(request, Cancel)
        name = id_of(request, "name", Word)
        return json_answer(await run_in_threadpool(self.desk.cancel, name), 202)

    async def hear(self, request: Request) -> Response:
        query_of(request, NoQuery)
        stream = self.events.listen(rev=self.desk.rev)
        return StreamingResponse(stream, media_type="text/event-stream")

    async def thumb(self, request: Request) -> Response:
        """The picture of a face."""
        mark, _, size = request.path_params["file"].removesuffix(".jpg").partition("-")
        made = self.desk.thumbs
        if mark not in made.row_of or size not in map(str, thumbs.SIZES):
            raise Refused(404, "unknown")
        return await picture(request, made, (made.row_of[mark], int(size)))

    async def whole(self, request: Request) -> Response:
        """A photo, encoded anew: without EXIF, and never anything but a JPEG."""
        photo, made = request.path_params["file"].removesuffix(".jpg"), self.desk.thumbs
        if photo not in made.row_of_photo:
            raise Refused(404, "unknown")
        return await picture(request, made, (made.row_of_photo[photo], thumbs.PHOTO_SIZE))


async def picture(request: Request, made: Any, key: tuple[int, int]) -> Response:
    """A JPEG, made or found; given up where the page has gone meanwhile. Raises Refused."""
    kept = {"media_type": "image/jpeg", "headers": {"cache-control": A_YEAR}}
    data = await run_in_threadpool(made.ready, key)
    if data is not None:
        return Response(data, **kept)
    coming = made.ask(key)
    waits, gone = asyncio.wrap_future(coming), asyncio.create_task(has_gone(request))
    try:
        await asyncio.wait([waits, gone], return_when=asyncio.FIRST_COMPLETED)
        if waits.done():
            return Response(waits.result(), **kept)
        raise Refused(404, "gone")
    except thumbs.Unseen as error:
        raise Refused(404, str(error)) from None
    finally:
        gone.cancel()
        if not waits.done():
            made.drop(key, coming)
            waits.cancel()


async def has_gone(request: Request) -> None:
    """Returns when whoever asked has closed the line."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def application(desk: Any, session: Any, events: Any, hosts: list[str]) -> Any:
    """The whole of it, the guard outermost. hosts: as the guard wants them."""
    own = Answers(desk, session, events)
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/", own.page),
        ("GET", "/static/{name}", own.static),
        ("POST", "/api/session", own.trade),
        ("GET", "/api/state", own.state),
        ("GET", "/api/people", own.people),
        ("GET", "/api/people/{pid}/faces", own.faces),
        ("GET", "/api/people/{pid}/halves", own.halves),
        ("GET", "/api/photos/{photo}", own.photo),
        ("GET", "/api/questions", own.questions),
        ("GET", "/api/history", own.history),
        ("POST", "/api/decisions", own.decide),
        ("POST", "/api/undo", own.undo),
        ("POST", "/api/redo", own.redo),
        ("POST", "/api/boxes", own.draw),
        ("POST", "/api/preview", own.preview),
        ("GET", "/api/preview/{name}", own.previewed),
        ("POST", "/api/apply", own.apply),
        ("POST", "/api/apply/{name}/cancel", own.cancel),
        ("GET", "/api/events", own.hear),
        ("GET", "/t/{file}", own.thumb),
        ("GET", "/p/{file}", own.whole),
    ]
    routes = [Route(path, handler, methods=[method]) for method, path, handler in table]
    handlers = {404: unknown, 405: unknown, Refused: refuse, Exception: bug}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return guard.Guard(app, hosts, session)


async def unknown(_: Request, error: Exception) -> Response:
    """What the router says of an unknown address or method."""
    status = error.status_code
    return json_answer({"error": "unknown" if status == 404 else "method"}, status)


async def refuse(_: Request, error: Refused) -> Response:
    return json_answer(error.told(), error.status)


async def bug(_: Request, error: Exception) -> Response:
    """Of a bug the page is told that it is one; the guard writes it into the log."""
    return json_answer({"error": "bug"}, 500)
