"""Nothing leaves this machine, nothing is written but what was asked for: the whole chain, traced.

Real commands in processes of their own, with a home, a folder for temporary files and a current
folder that are new and must stay empty. Every address they mean and every file they make is
recorded. Libraries that report home hold back in tests and in CI, so nothing here tells them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, SCRIPT, SHARED
from material import tree
from test_occlusion import make_tower
from test_worker import make_photos
from tracing import Shim, Strace, Trace, strace_works
from video_material import film, write_video

import sort_faces as sf

KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
TRACERS = [Strace] * strace_works() + [Shim] * bool(shutil.which("cc") or shutil.which("gcc"))
UNSENT = "192.0.2.1"  # TEST-NET-1, which no network carries
LURES = {  # films by name that ask whoever opens them to fetch something
    "playlist.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://{UNSENT}/a.ts\n",
    "session.mp4": f"v=0\no=- 0 0 IN IP4 {UNSENT}\ns=x\nc=IN IP4 {UNSENT}\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "list.mp4": f"ffconcat version 1.0\nfile http://{UNSENT}/a.mp4\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    f"<BaseURL>http://{UNSENT}/</BaseURL><Period><AdaptationSet><Representation>"
    '<SegmentList><SegmentURL media="a.m4s"/></SegmentList></Representation></AdaptationSet>'
    "</Period></MPD>\n",
}
CODE = [SCRIPT, *(path for path in sorted((ROOT / "work").glob("*.*")) if path.suffix != ".onnx")]
# In $TMPDIR for a moment: the question to a worker what its models are (no photo, no name), and the
# empty file by which Python finds out whether that folder can be written to.
PASSING = re.compile(r"sort_faces-\w{8}(/|$)|\w{8}$")
pytestmark = pytest.mark.skipif(not TRACERS, reason="needs strace or a C compiler for a shim")


class Place:
    """A machine in small: photos, films, a place for results, and a home that must stay empty."""

    def __init__(self, base: Path, tracer: type[Trace]) -> None:
        base.mkdir(exist_ok=True)
        self.base, self.trace = base, tracer(base / "trace")
        self.empty = [base / name for name in ("home", "tmp", "here")]
        self.results = [base / name for name in ("out", "video", "clips", "other", "logs", "dask")]
        for folder in (*self.empty, *self.results):
            folder.mkdir(parents=True)
        self.photos = make_photos(base / "photos", 9, 420)
        self.films = base / "films"
        write_video(self.films / "film.mp4", list(film((("anna", 2.0), ("", 1.0)))))
        for name, text in LURES.items():
            (self.films / name).write_text(text)
        self.tower = base / "tower"
        self.tower.mkdir()
        make_tower(self.tower)
        home, temporary, _ = map(str, self.empty)
        self.env = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.env |= dict.fromkeys(sf.REPORTS_OFF, "0")  # what an operator has set does not count
        self.env |= {"HOME": home, "TMPDIR": temporary, "XDG_CACHE_HOME": f"{home}/.cache"}
        self.env |= {"SORT_FACES_LOGS": str(base / "logs"), "PYTHONDONTWRITEBYTECODE": "1"}
        self.given: dict[Path, dict[str, str]] = {}  # what lay there before

    def start(self, *argv: object) -> subprocess.Popen:
        """A Python of its own that is traced."""
        call = self.trace.wrapped([sys.executable, *map(str, argv)], self.env, self.empty[2])
        call |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(**call, start_new_session=True)

    def tool(self, *argv: object, codes: tuple[int, ...] = (0,)) -> None:
        """Run a command of the tool."""
        process = self.start(SCRIPT, *argv)
        said = process.communicate()[0]
        assert process.returncode in codes, said

    def elsewhere(self) -> list[Path]:
        """What any process made outside the results, gone again or not, but for PASSING."""
        allowed = (*self.results, Path("/dev"))
        return sorted(
            path
            for path in self.trace.made()
            if not any(path.is_relative_to(folder) for folder in allowed)
            if not PASSING.match(os.path.relpath(path, self.base / "tmp"))
        )

    def left(self) -> list[Path]:
        """What lies in the folders that must stay empty."""
        return [path for folder in self.empty for path in folder.rglob("*")]


@functools.cache
def model() -> str:
    """A real pack where it is; the offline engine loads onnxruntime, too."""
    pack = SHARED / "models/mini"
    return str(pack) if pack.is_dir() else "dlib"


@contextlib.contextmanager
def cluster(place: Place) -> Iterator[list[object]]:
    """The option that names a Dask cluster of two processes, which live as long as the chain."""
    if importlib.util.find_spec("distributed") is None:
        yield []
        return
    address = place.base / "dask/scheduler.json"
    here = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0",
            "--scheduler-file", address)  # fmt: skip
    place.env["DASK_TEMPORARY_DIRECTORY"] = str(place.base / "dask")
    scheduler = place.start("-m", "distributed.cli.dask_scheduler", "--port", 0, *here)
    worker = place.start("-m", "distributed.cli.dask_worker", "--nthreads", 1, *here,
                         "--local-directory", place.base / "dask")  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not address.exists():
            assert time.monotonic() < deadline and scheduler.poll() is None, scheduler.communicate()
            time.sleep(0.1)
        yield ["--cluster", json.loads(address.read_text())["address"]]
    finally:
        for process in (worker, scheduler):
            os.killpg(process.pid, signal.SIGINT)  # strace itself takes none
            process.communicate(timeout=60)


def chain(place: Place) -> None:
    """Photos and films to everything the tool makes of them: here, by a worker, by a cluster."""
    base, at = place.base, ("--model", model(), "--threads", 2)
    out, ready, few = base / "out", base / "out/facesets_swap_ready", place.photos / "0 ü"
    with cluster(place) as by_cluster:
        place.tool("doctor", "--model", model(), "--threads", 1, *by_cluster)
        place.tool("embed", few, base / "other/c.npz", *at, *by_cluster)
        place.tool("embed", few, base / "other/w.npz", *at, "--worker", sys.executable)
        place.tool("run", place.photos, out, *at, "--min-faces", 2)
        place.tool("occlusion", "score", ready, "--clip", place.tower)
        place.tool("occlusion", "report", ready)
        place.tool("report", ready)
        place.tool("verify", ready)
        place.tool("optimize", ready)
        place.tool("restore", ready)
        films = (place.films, base / "video", base / "clips")
        place.tool("video", "run", *films, *at, codes=(1,))  # four of them are no films


@pytest.fixture(scope="module")
def checkout() -> dict[str, str]:
    """This checkout before the chain."""
    return checkout_now()


def checkout_now() -> dict[str, str]:
    """What git would see of this checkout and of what it ignores, without what Python compiles."""
    files = [ROOT / "sort_faces.py", *(ROOT / "work").rglob("*"), *(ROOT / "docs").rglob("*")]
    return {str(p): sf.sha256_of_file(p) for p in files if p.is_file() and p.suffix != ".pyc"}


@pytest.fixture(scope="module")
def done(tmp_path_factory, checkout) -> Place:
    """The place after the whole chain."""
    place = Place(tmp_path_factory.mktemp("place"), TRACERS[0])
    place.given = {folder: tree(folder) for folder in (place.photos, place.films, place.tower)}
    chain(place)
    return place


def test_no_connection_and_no_name(done) -> None:
    """Not even by a film that asks for it."""
    assert done.trace.outgoing() == []


def test_no_file_but_the_results(done, checkout) -> None:
    assert done.left() == []
    assert done.elsewhere() == []
    assert {folder: tree(folder) for folder in done.given} == done.given
    assert checkout_now() == checkout


def test_the_pages_fetch_nothing(done) -> None:
    pages = [page for folder in done.results for page in folder.rglob("*.html")]
    assert len(pages) >= 3
    for page in pages:
        assert not re.search(r"(?i)(https?:|url\(|@import|\b(src|href)=.?//)", page.read_text()), (
            page
        )


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_onnxruntime_is_loaded_by_one_function(path: Path) -> None:
    """The one that silences what the environment does not."""
    loads = path.read_text(encoding="utf-8").count("import onnxruntime")
    assert loads == (path == SCRIPT)


LEAK = f"""
import pathlib, socket
pathlib.Path.home().joinpath("ü kept").write_text("x")
pathlib.Path("passing").touch()
pathlib.Path("passing").unlink()
for family, address in (socket.AF_INET, "{UNSENT}"), (socket.AF_INET6, "2001:db8::1"):
    with socket.socket(family, socket.SOCK_DGRAM) as way:
        way.setblocking(False)
        try:
            way.connect((address, 9))
        except OSError:
            pass
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
try:
    socket.getaddrinfo("a.invalid", 80)
except OSError:
    pass
"""


@pytest.mark.parametrize("tracer", TRACERS)
def test_the_trace_would_see_it(tmp_path, tracer: type[Trace]) -> None:
    """Else an empty trace would say nothing."""
    place = Place(tmp_path / "x", tracer)
    process = place.start("-c", LEAK)
    assert process.wait() == 0, process.stdout.read()
    seen = "\n".join(place.trace.outgoing())
    assert UNSENT in seen and "2001:db8::1" in seen and "127.0.0.1" not in seen
    assert "a.invalid" in seen or "resolv.conf" in seen
    assert place.base / "home/ü kept" in place.left()
    if tracer.sees_files:
        assert {place.base / "home/ü kept", place.base / "here/passing"} <= set(place.elsewhere())
