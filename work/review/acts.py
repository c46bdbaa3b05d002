"""What the page does, as lines of the decisions file; and those lines told as sentences.

A companion of sort_faces.py. An act is a list of items, each of one of the kinds below; it becomes
the lines of one op, which are undone together. An item moves exactly the faces it names.

Contents
    Items
    Lines of an act
    Making an act
    History
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

import sort_faces as sf

decisions = sf.companion("decisions")
people = sf.companion("review/people")
Refused = people.Refused

MOST_IDS = 50_000  # of one item
MOST_ITEMS = 1000  # of one act
SHOWN = 8  # faces of an act in the history

# ============================================================================
# Items
# ============================================================================

FaceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}:\d{1,5}\Z")]
PhotoId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=200)]
Some = Annotated[list[FaceId], msgspec.Meta(min_length=1, max_length=MOST_IDS)]


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """One thing that is done; people are named by any of their faces."""


class Merge(Item, tag="merge"):
    people: Some
    name: Text | None = None


class Answer(Item, tag="answer"):
    qid: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    answer: Annotated[str, msgspec.Meta(max_length=64)]  # or the id of a person
    faces: Annotated[list[FaceId], msgspec.Meta(max_length=MOST_IDS)] = []  # answered alike


class Name(Item, tag="name"):
    people: Some
    text: Text


class Ignore(Item, tag="ignore"):
    people: Some
    off: bool = False


class Hide(Item, tag="hide"):
    people: Some
    off: bool = False


class NotFace(Item, tag="not_face"):
    faces: Some
    off: bool = False


class NotBelongs(Item, tag="not_belongs"):
    faces: Some
    person: FaceId


class MoveTo(Item, tag="move"):
    faces: Some
    to: FaceId | None = None
    name: Text | None = None


class Split(Item, tag="split"):
    faces: Some
    name: Text | None = None


class Halves(Item, tag="halves"):
    person: FaceId


class Best(Item, tag="best"):
    face: FaceId
    off: bool = False


class Keep(Item, tag="keep"):
    faces: Some
    off: bool = False


class Drop(Item, tag="drop"):
    faces: Some
    off: bool = False


class Born(Item, tag="born"):
    people: Some
    text: Annotated[str, msgspec.Meta(pattern=r"\A(\d{4})?\Z")]


class Date(Item, tag="date"):
    photos: Annotated[list[PhotoId], msgspec.Meta(min_length=1, max_length=MOST_IDS)]
    text: Annotated[str, msgspec.Meta(max_length=32)]


AnyItem = (
    Merge | Answer | Name | Ignore | Hide | NotFace | NotBelongs | MoveTo | Split | Halves | Best
    | Keep | Drop | Born | Date
)  # fmt: skip
Items = Annotated[list[AnyItem], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]


def items_of(value: Any) -> list[Item]:
    """What a request asks for. Raises Refused where it is not of that shape."""
    try:
        return msgspec.convert(value, Items)
    except msgspec.ValidationError as error:
        raise Refused("unusable", why=str(error)) from None


# ============================================================================
# Lines of an act
# ============================================================================


class Draft:
    """The lines of one act while they are gathered, and the people it touches."""

    def __init__(
        self, model: Any, op: str, tab: str, question_of: Callable[[str], Any] | None = None
    ) -> None:
        """question_of: finds a question by its id."""
        self.model, self.op, self.tab, self.question_of = model, op, tab, question_of
        self.lines: list[Any] = []
        self.labels: set[int] = set()

    def add(self, kind: str, faces: np.ndarray | list[str], **facts: Any) -> None:
        """One line; faces: rows, or refs."""
        if isinstance(faces, np.ndarray):
            faces = decisions.refs(self.model.cache, faces.tolist())
        line = decisions.act(kind, self.op, tab=self.tab, faces=faces, **facts)
        self.lines.append(line)

    def anchors(self, rows: np.ndarray) -> list[str]:
        return decisions.anchors(self.model.cache, rows)

    def person(self, pid: str) -> int:
        """The label of a person that the act touches."""
        label = self.model.label_of(pid)
        self.labels.add(label)
        return label

    def several(self, pids: Sequence[str]) -> list[int]:
        return list(dict.fromkeys(self.person(pid) for pid in pids))

    def rows(self, faces: Sequence[str]) -> np.ndarray:
        """Rows of face ids, rising. Raises Refused where one is not there."""
        missing = [face for face in faces if face not in self.model.cache.row_of_face]
        if missing:
            raise Refused("unknown", face=missing[0])
        rows = np.unique(sf.rows_of_faces(self.model.cache, faces))
        self.labels.update(self.model.view.labels[rows][self.model.view.labels[rows] >= 0].tolist())
        return rows

    def of_people(self, kind: str, labels: Sequence[int], **facts: Any) -> None:
        """A line for each of these people."""
        for label in labels:
            rows = self.model.members(label)
            self.add(kind, self.anchors(rows), sides=(len(rows), 0), **facts)

    def join(self, labels: Sequence[int], text: str | None = None, asked: bool = False) -> None:
        """Make people one; the named one, else the largest, gives name, cover and state."""
        model = self.model
        if len(labels) < 2:
            raise Refused("nothing")
        told = {label: model.told(label) for label in labels}
        heir, *others = sorted(
            labels, key=lambda at: (not told[at].name, told[at].ignored, -model.size[at], at)
        )
        own = model.members(heir)
        for label in others:
            self.clear_state(label, told[heir])
            rows = model.members(label)
            sides = len(own), len(rows)
            self.add("same", self.anchors(own), others=self.anchors(rows), sides=sides,
                     text=people.ASKED if asked else "")  # fmt: skip
        name = told[heir].name if text is None else decisions.plain_name(text)
        if text is not None or {one.name for one in told.values()} - {name, ""}:
            self.of_people("name", [heir], text=name)

    def clear_state(self, label: int, heir: Any) -> None:
        """Take back that a person is ignored or hidden, where the one it becomes is not."""
        told = self.model.told(label)
        if told.ignored and not heir.ignored:
            self.of_people("ignore", [label], off=True)
        if told.hidden and not heir.hidden:
            self.of_people("hide", [label], off=True)

    def leave(self, rows: np.ndarray, heir: Any, text: str = "") -> None:
        """Take faces out of the people they belong to, those that have others left."""
        labels = self.model.view.labels
        for label in np.unique(labels[rows]).tolist():
            if label < 0:
                raise Refused("unknown", why="no face")
            members = self.model.members(label)
            rest = np.setdiff1d(members, rows)
            if len(rest):
                own = rows[labels[rows] == label]
                sides = len(own), len(rest)
                others = self.anchors(rest)
                self.add("not_belongs", own, others=others, sides=sides, text=text)
            else:
                self.clear_state(label, heir)

    def move(self, rows: np.ndarray, to: int, text: str = "") -> None:
        """Give faces to a person; those already there are passed over."""
        rows = rows[self.model.view.labels[rows] != to]
        if not len(rows):
            raise Refused("nothing")
        self.leave(rows, self.model.told(to))
        there = self.model.members(to)
        sides = len(rows), len(there)
        self.add("belongs", rows, others=self.anchors(there), sides=sides, text=text)

    def split(self, rows: np.ndarray, name: str | None = None, text: str = "") -> None:
        """Make faces a person of their own."""
        self.leave(rows, people.NOTHING_TOLD, text)
        self.add("together", rows, sides=(len(rows), 0))
        if name:
            self.add(
                "name", self.anchors(rows), text=decisions.plain_name(name), sides=(len(rows), 0)
            )

    def halve(self, label: int) -> None:
        self.split(people.halves(self.model, label)[1])


def lines_of(draft: Draft, item: Item) -> None:
    """Put what an item says into a draft. Raises Refused."""
    model = draft.model
    match item:
        case Merge():
            draft.join(draft.several(item.people), item.name)
        case Answer():
            answer_lines(draft, item)
        case Name():
            draft.of_people(
                "name", draft.several(item.people), text=decisions.plain_name(item.text)
            )
        case Ignore():
            draft.of_people("ignore", draft.several(item.people), off=item.off)
        case Hide():
            draft.of_people("hide", draft.several(item.people), off=item.off)
        case Born():
            draft.of_people("born", draft.several(item.people), text=item.text)
        case NotFace() | Keep() | Drop():
            rows = draft.rows(item.faces)
            draft.add(KIND[type(item)], rows,
                      off=item.off, sides=(len(rows), 0))  # fmt: skip
        case NotBelongs():
            label, rows = draft.person(item.person), draft.rows(item.faces)
            if (model.view.labels[rows] != label).any():
                raise Refused("changed", person=model.pid(label))
            if len(rows) == model.size[label]:
                raise Refused("nothing")
            draft.leave(rows, people.NOTHING_TOLD)
        case MoveTo(to=None) | Split():
            draft.split(draft.rows(item.faces), item.name)
        case MoveTo():
            draft.move(draft.rows(item.faces), draft.person(item.to))
        case Halves():
            draft.halve(draft.person(item.person))
        case Best():
            draft.person(item.face)
            draft.add("best", draft.rows([item.face]), off=item.off, sides=(1, 0))
        case Date():
            if decisions.seconds_of(item.text) is None:
                raise Refused("unusable", why="no date")
            draft.add("date", list(item.photos), text=item.text)


KIND = {NotFace: "not_face", Keep: "keep", Drop: "drop"}


def answer_lines(draft: Draft, item: Answer) -> None:
    """What an answer to a question says. Raises Refused where the question is not asked any more
    or has no such answer."""
    if draft.question_of is None:
        raise Refused("stale", qid=item.qid)
    question = draft.question_of(item.qid)
    left, right = question.left, question.right
    draft.labels.update(question.labels)
    sides = len(left), len(right)
    if item.answer == "skip":
        text = people.ASKED if question.kind == "whose" else ""
        draft.add("skip", draft.anchors(left), others=draft.anchors(right), sides=sides, text=text)
    elif question.kind == "whose":
        rows = np.union1d(left, draft.rows(item.faces)) if item.faces else left
        if item.answer == "stranger":
            draft.add("ignore", rows, sides=(len(rows), 0))
        elif item.answer == "not_face":
            draft.add("not_face", rows, sides=(len(rows), 0))
        else:
            draft.move(rows, draft.person(item.answer), people.ASKED)
    elif item.answer == "same" and question.kind == "look":
        draft.add("same", draft.anchors(left), others=draft.anchors(right), sides=sides,
                  text=people.VOUCHED)  # fmt: skip
    elif item.answer == "same":
        draft.join(question.labels, asked=True)
    elif item.answer == "different" and question.kind == "look":
        draft.split(right, text=people.VOUCHED)
    elif item.answer == "different":
        draft.add("different", draft.anchors(left), others=draft.anchors(right), sides=sides,
                  text=people.ASKED)  # fmt: skip
    else:
        raise Refused("unusable", why="no such answer")


# ============================================================================
# Making an act
# ============================================================================


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/decisions."""

    op: Annotated[str, msgspec.Meta(pattern=r"\A[\w-]{1,64}\Z")]
    base: Annotated[int, msgspec.Meta(ge=0)]
    tab: Annotated[str, msgspec.Meta(max_length=64)]
    items: list[dict[str, Any]]


def decide(
    model: Any, book: Any, body: dict[str, Any], question_of: Callable[[str], Any] | None = None
) -> dict[str, Any]:
    """Make an act: the lines are on the disk and in the model when this returns.

    book: decisions.Book. The model is first brought to what others wrote. A repeated op changes
    nothing and answers again. Raises Refused, and SortFacesError where the disk takes nothing.
    """
    try:
        request = msgspec.convert(body, Request)
    except msgspec.ValidationError as error:
        raise Refused("unusable", why=str(error)) from None
    follow(model, book)
    known = [line for line in book.lines if line.op == request.op]
    if known:
        return answer(book, len(known), people.Change([], {}))
    draft = Draft(model, request.op, request.tab, question_of)
    for item in items_of(request.items):
        lines_of(draft, item)
    refuse_stale(model, book, draft, request)
    return write(model, book, draft.lines)


def follow(model: Any, book: Any) -> Any:
    """Bring the model to what the file says now; the Change, or None where there was none."""
    book.refresh()
    if len(book.lines) == len(model.lines) and all(
        mine is theirs for mine, theirs in zip(model.lines[-1:], book.lines[-1:], strict=True)
    ):
        return None
    return people.take(model, book.lines)


def write(model: Any, book: Any, lines: Sequence[Any], anyway: bool = False) -> dict[str, Any]:
    """Append lines that change something; what does not is refused and leaves no trace.

    anyway: append them even if nothing changes.
    """
    before = list(book.lines)
    change = people.take(model, [*before, *lines])
    if change.nothing and not anyway:
        people.take(model, before)
        raise Refused("nothing", rev=book.rev)
    try:
        book.append(lines)
    except sf.SortFacesError:
        people.take(model, before)
        raise
    if len(book.lines) == len(before) + len(lines):
        model.adopt(book.lines)
    else:
        people.take(model, book.lines)  # somebody wrote between
    return answer(book, len(lines), change)


def answer(book: Any, lines: int, change: Any) -> dict[str, Any]:
    """What POST /api/decisions answers; `change` itself is for the queues and is taken out."""
    return {
        "rev": book.rev,
        "lines": lines,
        "effects": change.effects,
        "changed": change.changed,
        "gone": change.gone,
        "dropped_questions": [],
        "change": change,
    }


def refuse_stale(model: Any, book: Any, draft: Draft, request: Request) -> None:
    """Raise Refused where another page has changed a touched person since `base`."""
    theirs: dict[str, set[int]] = {}
    for line in people.news(book.lines[: request.base], book.lines):
        labels = set(model.view.labels[model.rows_of_line(line)].tolist())
        if line.tab != request.tab and labels & draft.labels and line.kind != "skip":
            theirs.setdefault(line.op, set()).update(labels & draft.labels)
    if theirs:
        acts = [one_act(model, book, op) for op in theirs]
        touched = sorted({label for labels in theirs.values() for label in labels})
        mine = [people.person_brief(model, label) for label in touched]
        raise Refused("changed", rev=book.rev, mine=mine, theirs=acts)


def undo(model: Any, book: Any, op: str, tab: str, which: str | None = None) -> dict[str, Any]:
    """Take an act back, by default this tab's last; see decide. Raises Refused("nothing")."""
    follow(model, book)
    which = which or book.last_op(tab)
    return revoke(model, book, op, tab, which)


def redo(model: Any, book: Any, op: str, tab: str, which: str | None = None) -> dict[str, Any]:
    """Take an undo back, by default this tab's last; which: the act that was undone."""
    follow(model, book)
    if which is None:
        return revoke(model, book, op, tab, book.last_undone(tab))
    revoked = decisions.revocations(book.lines)
    undone = {
        line.text: line.op
        for line in book.lines
        if line.kind == "revoke" and line.op not in revoked
    }
    return revoke(model, book, op, tab, undone.get(which))


def revoke(model: Any, book: Any, op: str, tab: str, which: str | None) -> dict[str, Any]:
    """Write that an act is taken back, and tell it."""
    known = [line for line in book.lines if line.op == op]
    if known:
        result, which = answer(book, len(known), people.Change([], {})), known[0].text
    elif which in decisions.revocations(book.lines) or all(line.op != which for line in book.lines):
        raise Refused("nothing", rev=book.rev)
    else:
        result = write(model, book, [decisions.act("revoke", op, tab=tab, text=which)], True)
    return result | {"undone": which, "act": one_act(model, book, which)}


# ============================================================================
# History
# ============================================================================


def history(model: Any, book: Any, before: int | None = None, most: int = 100) -> dict[str, Any]:
    """Acts told as sentences, newest first, for GET /api/history; before: a rev."""
    found: dict[str, int] = {}  # {op: number of its last line}
    for rev in range(len(book.lines), 0, -1):
        found.setdefault(book.lines[rev - 1].op, rev)
    wanted = [(op, rev) for op, rev in found.items() if before is None or rev < before]
    return {
        "rev": book.rev,
        "acts": told_acts(model, book, dict(wanted[:most])),
        "conflicts": [told_conflict(model, one) for one in model.view.resolved.conflicts],
    }


def one_act(model: Any, book: Any, op: str) -> dict[str, Any]:
    """One act as the history tells it."""
    revs = [rev for rev, line in enumerate(book.lines, 1) if line.op == op]
    return told_acts(model, book, {op: revs[-1]})[0]


def told_acts(model: Any, book: Any, wanted: dict[str, int]) -> list[dict[str, Any]]:
    """These acts, {op: number of its last line}, in that order."""
    lines: dict[str, list[Any]] = {op: [] for op in wanted}
    kinds, revoked_by = {}, {}
    revoked = decisions.revocations(book.lines)
    for line in book.lines:
        kinds.setdefault(line.op, line.kind)
        if line.op in lines:
            lines[line.op].append(line)
        if line.kind == "revoke" and line.op not in revoked:
            revoked_by[line.text] = line.op
    return [
        told_act(model, lines[op], rev, kinds)
        | {"revoked": op in revoked, "by": revoked_by.get(op, "")}
        for op, rev in wanted.items()
    ]


def told_act(model: Any, lines: Sequence[Any], rev: int, kinds: dict[str, str]) -> dict[str, Any]:
    """One act as the history shows it."""
    first = lines[0]
    rows = model.finder.rows(
        [ref for line in lines if line.kind != "date" for ref in (*line.faces, *line.others)]
    )
    key = sentence_key(lines)
    if key == "revoke":
        key = "redo" if kinds.get(first.text) == "revoke" else "undo"
    return {
        "op": first.op,
        "time": first.time,
        "author": first.author,
        "tab": first.tab,
        "kind": key,
        "sentence": {"key": key, "values": sentence_values(model, lines)},
        "faces": [people.face_brief(model, row) for row in rows[:SHOWN]],
        "count": len(rows),
        "rev": rev,
    }


def sentence_key(lines: Sequence[Any]) -> str:
    """Which sentence tells an act: a kind of line, `_off` where it takes back, or what several
    lines mean together: merge, move, split, look_same."""
    kinds = [line.kind for line in lines]
    if "belongs" in kinds:
        return "move"
    if "together" in kinds:
        return "split"
    if "same" in kinds:
        if people.is_vouching(lines[kinds.index("same")]):
            return "look_same"
        return "merge" if kinds.count("same") > 1 else "same"
    return kinds[-1] + "_off" * lines[-1].off


def sentence_values(model: Any, lines: Sequence[Any]) -> dict[str, Any]:
    """What goes into the sentence: who it was about, as they are called now, and how many."""
    line = next((one for one in lines if one.kind in ("belongs", "together", "same")), lines[-1])
    left, right = (whose(model, refs) for refs in (line.faces, line.others))
    name = next((one.text for one in lines if one.kind == "name"), "")
    return {
        "left": left,
        "right": right,
        "left_faces": line.sides[0] or len(line.faces),
        "right_faces": line.sides[1] or len(line.others),
        "people": len({one.faces[0] for one in lines if one.faces}),
        "name": name,
        "text": "" if line.kind == "revoke" else line.text,
    }


def whose(model: Any, refs: Sequence[str]) -> str:
    """The name of the person that refs point at; "" where it has none."""
    rows = model.finder.rows([ref for ref in refs if "@" in ref or ":" in ref])
    labels = model.view.labels[rows]
    labels = labels[labels >= 0]
    return model.told(int(np.bincount(labels).argmax())).name if len(labels) else ""


def told_conflict(model: Any, conflict: Any) -> dict[str, Any]:
    """Answers that cannot all be true: the one that does not count, and those against it."""
    line = conflict.line
    rows = model.finder.rows([*line.faces, *line.others])
    return {
        "op": line.op,
        "by": list(dict.fromkeys(one.op for one in conflict.by)),
        "key": sentence_key([line]),
        "values": sentence_values(model, [line]),
        "faces": [people.face_brief(model, row) for row in rows[:SHOWN]],
    }
