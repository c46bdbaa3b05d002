#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK: `python sort_faces.py <TAB>`, see docs/run.md
"""Sort a photo library by person and export ranked, swap-ready face sets.

    python sort_faces.py demo                            # the whole chain on built-in photos
    python sort_faces.py run ~/Photos ~/FaceSets         # the whole chain on your photos

or step by step over one shared cache, each step safe to repeat:

    python sort_faces.py embed ~/Photos work/cache/lib.npz
    python sort_faces.py cluster work/cache/lib.npz out/raw_full
    python sort_faces.py refine work/cache/lib.npz out/facesets_full
    python sort_faces.py dedup work/cache/lib.npz
    python sort_faces.py enrich work/cache/lib.npz
    python sort_faces.py export-swap work/cache/lib.npz \\
        out/facesets_full/refine_manifest.json out/facesets_swap_ready

The sets are kept in order by occlusion, consolidate, era, optimize and verify, each undone by
restore; target videos are cut into clips by

    python sort_faces.py video run ~/Videos work/videos ~/Clips

Photos go in read-only; every write is atomic; every step can be killed and run again.

Contents
    Constants
    Errors and exit codes
    Companions
    Options
    Data types
    Core: vectors and grouping
    Core: average linkage
    Core: identity linkage
    Core: near-duplicates
    The face cache
    Core: the operator's word
    Core: identities
    Core: quality
    Core: crop geometry
    Core: tracks and segments
    Core: keeping face sets clean
    Core: names
    Files and locks
    Progress
    Photos
    Videos
    Cache I/O
    Engines
    Analysing one photo
    Work queue
    Crew
    Runs
    Output trees
    Corpus
    Maintenance runs
    Looking at exported faces
    Reporting
    Shared options
    Command: enrich
    Command: embed
    Command: cluster
    Command: refine
    Command: dedup
    Command: extend
    Command: export-swap
    Command: bundle
    Command: occlusion
    Command: consolidate
    Command: era
    Command: optimize
    Command: arrange
    Command: verify
    Command: restore
    Command: forget
    Command: report
    Command: review
    Command: decisions
    Command: video
    Command: run
    Command: demo
    Command: status
    Command: doctor
    Entry point
"""

from __future__ import annotations

import operator
import os
import signal
import sys


def stop_at_once(number: int, _frame: Any) -> None:
    """End the process with one line, whatever it is at."""
    try:
        terminal = sys.stderr.fileno()  # 2 may be a file just now, see work/hush.py
    except Exception:
        terminal = 2
    os.write(terminal, b"sort_faces: interrupted; run the same command again to go on\n")
    os._exit(128 + number)


# Before the imports, which take longest; the installed command imports this file.
STARTED_BY = {"sort-faces", "sort-faces.exe"}  # the command that an installed copy gives
AS_COMMAND = __name__ == "__main__" or os.path.basename(sys.argv[0]) in STARTED_BY
if AS_COMMAND:
    signal.signal(signal.SIGINT, stop_at_once)
    signal.signal(signal.SIGTERM, stop_at_once)

import argparse
import base64
import bisect
import contextlib
import errno
import fnmatch
import functools
import glob
import hashlib
import importlib.util
import io
import itertools
import json
import logging
import math
import re
import shlex
import shutil
import stat
import struct
import tempfile
import threading
import time
import unicodedata
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar, Literal, TypeVar

COMMAND = "sort-faces"  # an installed copy is called so; its work/ has a name that is not common
INSTALLED_WORK = "sort_faces_work"  # as in pyproject.toml
INSTALLED = (Path(__file__).resolve().parent / INSTALLED_WORK).is_dir()


def package_hint(error: ImportError) -> str:
    """What is missing in which Python, and what to do: mostly another Python has the packages."""
    here = Path(__file__).resolve().parent
    advice = f"{sys.executable} -m pip install -r {here / 'requirements.txt'}"
    if INSTALLED:
        advice = f"install {COMMAND} again"
    for python in (here / ".venv/bin/python", here / ".venv/Scripts/python.exe"):
        if python.exists() and Path(sys.prefix) != python.parents[1]:
            advice = f"run {python} {Path(__file__).resolve()}"
    return f"{error} in {sys.executable}; {advice}"


def imported_late(name: str) -> Any:
    """A package that loads when something is first asked of it; `--help` does without numpy.

    Only for a command, which asks before it goes on: compiled packages that are imported meanwhile
    do not stand one that is there in name alone.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or name in sys.modules or not AS_COMMAND:
        return importlib.import_module(name)  # raises ImportError where it is not there
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


try:
    import msgspec

    np = imported_late("numpy")
except ImportError as error:
    sys.stderr.write(f"sort_faces: {package_hint(error)}\n")
    raise SystemExit(2) from None

if TYPE_CHECKING:
    import numpy as np

# ============================================================================
# Constants
# ============================================================================

TOOL = "sort_faces"
VERSION = "0.2.0"

# Nothing leaves this machine. Libraries read these when they are loaded, in this process and in all
# it starts; whatever the operator has set, ours count. tests/test_nothing_leaves.py looks.
REPORTS_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: device, path of Python, model graphs; Privacy.md
    "NO_ALBUMENTATIONS_UPDATE": "1",  # albumentations, which insightface 1.0 loads: asks PyPI
    "ALBUMENTATIONS_NO_TELEMETRY": "1",  # its successor, under the same name: Mixpanel
    "ALBUMENTATIONS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, where open_clip gets its weights
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",  # whoever else keeps to consoledonottrack.com
}
os.environ.update(REPORTS_OFF)

CACHE_SCHEMA = 1  # raised when an array changes meaning; older tools refuse newer caches
RECORD_SCHEMA = 2  # of one line of a JSONL file; those of 1 had no checksum

# Photos. Suffixes are only a filter for the scan; the decoder looks at the bytes.
PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
    | {".heic", ".heif", ".hif", ".avif", ".mpo", ".jps", ".insp", ".jpg_large", ".jpg_orig"}
    | {".jpg_original", ".jpeg_large", ".jpeg_original", ".jp2", ".j2k", ".jpf", ".jpx", ".apng"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts"}
    | {".mts", ".m2ts", ".vob", ".3gp", ".ogv"}
)
CLIP_SUFFIXES = VIDEO_SUFFIXES | {".mp", ".mv"}  # these two beside photos of Pixel phones
SKIPPED_FOLDERS = frozenset(  # thumbnails and bins that NAS and desktop systems leave behind
    {"@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"}
)
MAX_PIXELS = 500_000_000  # refuse larger pictures: a decompression bomb, not a photo
STATUS_FACES, STATUS_NO_FACE, STATUS_UNREADABLE = 0, 1, 2  # file_status in the cache

# Detection. 640 and 0.5 are what roop-unleashed's FaceAnalysis uses (face_util.py).
DET_SIZE = 640  # px; side of the square the detector sees
# Where ArcFace wants the eyes, the nose and the corners of the mouth; insightface arcface_dst.
ARCFACE_X = (38.2946, 73.5318, 56.0252, 41.5493, 70.7299)  # px of 112
ARCFACE_Y = (51.6963, 51.5014, 71.7366, 92.3655, 92.2041)  # px of 112
CONSUMER_DET_SIZES = (640, 320)  # px; both settings the consumers offer
CONSUMER_DET_THRESHOLD = 0.5  # whatever the cache was made with
DLIB_DET_SIZE = 1600  # px; longer edge at which HOG looks for faces of 80 px and more
NMS_IOU = 0.4  # insightface SCRFD.nms_thresh
TILE_SCALE = 2  # a tile covers det_size x this many photo pixels
TILE_OVERLAP = 0.25  # of a tile; a face up to a quarter tile is whole in one of them
TILE_NESTED = 0.6  # share of a small box inside a larger one that makes it the same face
LEAST_REDUCED = 112  # px; shorter edge of a face that is cut from a reduced photo: ArcFace's input
LONGEST_PHOTO = 32  # times its width; what is longer holds no face
PAD_LONGEST = 5000  # px; longer edge from 10,000 on is halved before that, and so on
PAD_RETRY = 0.5  # border added on every side, as a share of the longer edge

PROVIDERS = {  # --provider -> onnxruntime names, best first; `auto` takes the first that is there
    "cuda": ("CUDAExecutionProvider",),
    "rocm": ("MIGraphXExecutionProvider", "ROCMExecutionProvider"),
    "directml": ("DmlExecutionProvider",),
    "coreml": ("CoreMLExecutionProvider",),
    "openvino": ("OpenVINOExecutionProvider",),
    "cpu": ("CPUExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider",),  # compiles for minutes, so only where it is named
}

# Grouping; the reference readme's table "Key defaults".
OUTLIER_MIN_CLUSTER = 4  # smaller clusters have no centroid worth measuring against
MAD_SIGMA = 1.4826  # standard deviations in a median absolute deviation, if normal
SPREAD_FACES = 60  # faces a set needs for its own spread to count as much as the library's
LEAST_SPREAD = 0.02  # cosine; a burst of one moment must not make every other photo an outlier
DUPLICATE_SIZE_TOLERANCE = 0.10  # relative difference of box width and height

# export-swap; same table.
CROP_FACE_IOU = 0.3  # the face found in a crop against where it must be
CROP_VARIANTS = (  # (share of --pad-ratio, border of the own face left free of paint), in turn
    (1.0, None),  # nothing painted over
    (0.7, None),
    (1.0, 0.15),  # neighbours painted over, but not nearer than 15 % of the face
    (0.7, 0.15),
    (1.0, 0.0),
    (0.4, 0.0),
)
PAINT_MARGIN = 0.15  # of a neighbour's box; painted over with it
PAINT_SIZE = 128  # px that it is done at
PAINTED_COST = 0.1  # of quality, when ranks are given: a face that needs no paint comes first
CORE_FLOOR = 0.2  # share of the shortest embeddings no core holds; docs/analysis/accuracy.md
HERD_ROUNDS = 3  # of exchanges; more gains nothing: docs/analysis/accuracy.md
HELD_OUT_FROM = 20  # photos a set needs to be judged by halves
GRID_COLUMNS, GRID_ROWS, GRID_CELL = 5, 4, 192  # top_20_grid.jpg

# Maintenance of an exported corpus; the reference's clip-occlusion-filter and its commit summary.
ALMOST_MARGIN = 0.15  # cosine below the edge down to which pairs are shown to the operator
ALMOST_PAIRS = 50  # most pairs shown
APART = 9.0  # a distance no linkage reaches: cosine distances end at 2

# Quality terms; how each measured value is brought to [0, 1].
FULL_SIZE_SHORT = 256.0  # px; a face this large fills its half of a 512 px crop unscaled
HALF_SHARP_BLUR = 60.0  # median blur of the reference library, which so scores 0.5

# Average linkage.
LINK_BLOCK = 2048  # rows per matrix product: 16 MB of float32
LISTED_PAIRS = 32  # close pairs of a block, for each row and column, that are listed one by one
HELD_PAIRS = 1 << 20  # close pairs held until they are joined: 16 MB
WORTH_LEAVING = 0.3  # share of a block's pairs known to be of one group: copying the rest pays
GPU_FACES = 40_000  # from here a GPU is asked for; loading torch takes seconds
LINK_SLACK = 1e-5  # components are found this much too wide, so that rounding cannot split one
DENSE_COMPONENT = 3000  # rows up to which a component's distances are held at once (36 MB)
DUPLICATE_SLACK = 1e-6  # rounding: a row's product with itself may be 0.9999999

# Identity linkage: in shares of Figures.reach where not said otherwise; docs/analysis/accuracy.md.
SPREADS_NEEDED = 0.8  # times the strangers' spread: the centroids' cosine two groups need, plus
REACH_NEEDED = 0.68  # this: .52 with the pack `mini`, .62 with dlib
SIZE_COST = 0.065  # for each doubling of the smaller group: averages of many lie closer
FULL_SIZE_GROUP = 16  # faces from which an average hardly changes any more
CROWDING_COST = 0.5  # of what strangers are nearer than USUAL_CROWDING, a cosine
USUAL_CROWDING = 0.56  # mean of a library of 8,000 faces
WEAKNESS_CREDIT = 0.16  # for the share by which the shorter mean embedding is below normal
WEAK_PAIR_COST = 3.0  # times that credit for the longer one: weak faces are alike, whosever
EMPTIEST = 0.25  # below that: where few people are, nobody is near, and that proves little
CROWD = 10  # nearest strangers that make a direction crowded
LIKENESS_FACES = 64  # of a group, that its mean cosine is taken of
LEAST_SEPARATION = 3.4  # reach over spread; mini 6.0, dlib 3.9; at 3.3 average linkage is as good
OWN_FIGURES = 30  # groups that say more of a library than what is stored of its recogniser
FEWEST_FIGURES = 10  # groups without which a recogniser nothing is stored of is not known

# Writing.
LOCK_NAME = ".sort_faces.lock"
PART_PREFIX = ".sort_faces-part-"  # unfinished writes; removed by the next run
REMOVED_FOLDER = "_removed"  # what a re-run no longer wants but cannot make again
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the zip epoch: same faces, same bytes

EXPORT_KINDS = (  # for other programs; work/consumers.py knows what each is
    *("fsz2", "rope", "visomaster", "reactor", "facefusion", "faceswap", "dfl", "xmp"),
    *("folder", "embeddings", "lora", "poses", "glasses", "eras"),
)

# Occlusion.
ATTRIBUTES = ("mask", "sunglasses")  # what may hide a face, in the order of their scores
CLIP_MODEL = "ViT-L-14/dfn2b_s39b"  # open_clip name and weights; the reference's choice

LOG_INTERVAL = 15.0  # seconds between progress lines where stderr is no terminal
log = logging.getLogger(TOOL)

# ============================================================================
# Errors and exit codes
# ============================================================================

EXIT_OK, EXIT_FOUND_WRONG, EXIT_USAGE, EXIT_BUG = 0, 1, 2, 70  # docs: README
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143  # as shells say it: 128 and the signal


class SortFacesError(Exception):
    """Bad input or environment: one line `what: why; what to do`, exit code 2."""


class PhotoError(Exception):
    """One photo cannot be used; the run goes on without it."""


class VideoError(Exception):
    """One video cannot be used, or not further; the run goes on without it."""


class PhotoGone(PhotoError):
    """A photo cannot be reached now, or is no longer the same; another run may find it."""


class Terminated(KeyboardInterrupt):
    """A polite kill (SIGTERM), which ends like Ctrl-C."""


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# ============================================================================
# Companions
# ============================================================================
# What is not Python and what the first commands never touch lies in work/, one file a subject: it
# builds on this file, never the other way round, and is loaded when its command or option is used.

WORK_FOLDER = Path(__file__).resolve().parent / (INSTALLED_WORK if INSTALLED else "work")
LOADING = threading.RLock()  # nobody gets a companion that is half loaded


def part_of_work(name: str) -> Path:
    """work/NAME. Raises SortFacesError where this script was copied alone."""
    path = WORK_FOLDER / name
    if not path.exists():
        beside = f"keep the folder {WORK_FOLDER.name}/ beside {TOOL}.py"
        raise SortFacesError(f"{path}: not there; {beside}")
    return path


def companion(name: str) -> Any:
    """The module work/NAME.py."""
    path, module_name = part_of_work(f"{name}.py"), f"{TOOL}_{name}".replace("/", "_")
    sys.modules.setdefault(TOOL, sys.modules[__name__])  # run as a script it stays one module
    with LOADING:
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, path)
            module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[module_name]  # the next one who asks is told why, too
                raise
        return sys.modules[module_name]


# ============================================================================
# Options
# ============================================================================
# An option is a field of the frozen dataclass that carries it: type, default, unit and help stand
# there and nowhere else. add_fields makes options of fields, of_args fields of arguments.


@dataclass(frozen=True)
class Number:
    """An argparse type: a finite number in [low, high], and what help calls it."""

    kind: type
    low: float
    high: float
    what: str
    metavar: str

    def __call__(self, text: str) -> Any:
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {self.what}")
        return value


@dataclass(frozen=True)
class KeyValue:
    """An argparse type: two texts with an equals sign between them, written as `metavar`."""

    metavar: str

    def __call__(self, text: str) -> tuple[str, str]:
        left, equals, right = text.partition("=")
        if not (left and equals and right):
            raise argparse.ArgumentTypeError(f"{text!r} is not {self.metavar}")
        return left, right


@dataclass(frozen=True)
class Names:
    """An argparse type: words with commas between them, written as `metavar`."""

    metavar: str
    known: tuple[str, ...]

    def __call__(self, text: str) -> list[str]:
        words = [word.strip() for word in text.split(",")]
        unknown = [word for word in words if word not in self.known]
        if unknown:
            known = ", ".join(self.known)
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {known}")
        return words


COSINE = Number(float, 0.0, 2.0, "a cosine distance from 0 to 2", "COS")
SHARE = Number(float, 0.0, 1.0, "a number from 0 to 1", "SHARE")
SCORE = Number(float, 1e-9, 1.0 - 1e-9, "a number between 0 and 1", "SCORE")
AT_LEAST_0 = Number(float, 0.0, 1e9, "a number of 0 or more", "N")
COUNT = Number(int, 1, 1_000_000, "a whole number of 1 or more", "N")
ANY_COUNT = Number(int, 0, 1_000_000, "a whole number of 0 or more", "N")
PIXELS = Number(int, 32, 8192, "a size from 32 to 8192 pixels", "PX")
DEGREES = Number(float, 0.0, 180.0, "an angle from 0 to 180 degrees", "DEG")
PER_SECOND = Number(float, 0.01, 240.0, "a rate from 0.01 to 240 per second", "FPS")

DLIB_MODEL = "dlib"


@dataclass(frozen=True)
class Thresholds:
    """Cosine distances (0 same direction, 1 orthogonal) that suit one recogniser.

    The defaults are for ArcFace models: the reference readme's table "Key defaults".
    """

    cluster: float = 0.55  # average linkage stops here
    merge: float = 0.40  # centroids this close are one person
    outlier: float = 0.55  # farthest a face may lie from its centroid
    export_outlier: float = 0.45  # tighter than refine: trims what would blur the average
    candidate: float = 0.55  # singleton to centroid
    duplicate: float = 0.03  # re-encoded or resized copies of one picture
    copy: float = 0.20  # two faces of one photo this close are a mirror image or a collage
    same_face: float = 0.40  # crop against cache: the merge threshold, one person for certain
    consolidate: float = 0.45  # between the centroids of two face sets of one person


DLIB_THRESHOLDS = Thresholds(  # measured: docs/analysis/dlib.md
    cluster=0.40,
    merge=0.25,
    outlier=0.40,
    export_outlier=0.35,
    candidate=0.40,
    duplicate=0.05,
    copy=0.15,
    same_face=0.30,
    consolidate=0.25,
)


def thresholds_for(model: str) -> Thresholds:
    """The distances at which a model's embeddings separate people best."""
    return DLIB_THRESHOLDS if model == DLIB_MODEL else Thresholds()


def option(
    kind: Any, text: str, default: Any = None, *, unit: str = "", group: str = "", name: str = ""
) -> Any:
    """A dataclass field that is an option as well.

    kind: an argparse type; bool makes a switch, a tuple of words a choice. A default that is a
    tuple makes the option repeatable. text: the help, to which the default is added unless it
    speaks of one. unit: metavar. group: heading in the help. name: where the field's will not do.
    """
    said = {"kind": kind, "text": text, "unit": unit, "group": group, "name": name}
    return field(default=default, metadata={"option": said})


def out_of_repr(made: Any) -> Any:
    """The same field, left out of the repr: queues are named by that of EngineSpec since 0.1.0."""
    return field(default=made.default, repr=False, metadata=made.metadata)


def model_distance(limit: str, text: str = "", group: str = "", name: str = "") -> Any:
    """A field that holds a cosine distance; with a help text it is an option.

    limit: the field of Thresholds its default comes from, once for_model knows the recogniser.
    """
    usual, dlib = getattr(Thresholds(), limit), getattr(DLIB_THRESHOLDS, limit)
    made = option(COSINE, f"{text} (default: {usual}; dlib: {dlib})", usual, group=group, name=name)
    about = {**made.metadata, "own": limit} if text else {"own": limit}
    return field(default=usual, metadata=about)


def nested(kind: type) -> Any:
    """A field that is itself a dataclass of options."""
    return field(default=kind(), metadata={"nested": kind})


def add_fields(p: Any, kind: type, skip: Sequence[str] = (), **names: str) -> None:
    """Make options of the fields of a dataclass, under the heading GROUP where it has one.

    skip: fields that get no option here, only their default; names: {field: another name}.
    """
    groups: dict[str, Any] = {"": p}
    for item, group in option_fields(kind):
        said = item.metadata["option"]
        name = names.get(item.name) or said["name"] or item.name
        if item.name in skip:
            p.set_defaults(**{name: item.default})
            continue
        if group not in groups:
            groups[group] = p.add_argument_group(group)
        add_option(groups[group], name, item)


def add_option(group: Any, name: str, item: Any) -> None:
    """Make one option of a dataclass field."""
    said, flag = item.metadata["option"], "--" + name.replace("_", "-")
    kind, text, default = said["kind"], said["text"], item.default
    if kind is bool:
        group.add_argument(flag, action="store_true", help=text)
        return
    more: dict[str, Any] = {"default": None if "own" in item.metadata else default}
    if isinstance(default, tuple):
        more |= {"action": Repeated, "default": []}
    elif "default" not in text and default not in (None, ""):
        text += " (default: %(default)s)"
    if isinstance(kind, tuple):
        more["choices"] = kind
    else:
        more |= {"type": kind, "metavar": said["unit"] or kind.metavar}
    group.add_argument(flag, help=text, **more)


class Repeated(argparse.Action):
    """Collects what a repeated option says; the first time in place of the default."""

    def __call__(self, parser: Any, namespace: Any, value: Any, flag: str | None = None) -> None:
        so_far = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [value] if so_far is self.default else [*so_far, value])


def option_fields(kind: type) -> Iterator[tuple[Any, str]]:
    """(field, its heading) of the fields of a dataclass that are options, nested ones included."""
    for item in fields(kind):
        if "nested" in item.metadata:
            yield from option_fields(item.metadata["nested"])
        elif "option" in item.metadata:
            yield item, item.metadata["option"]["group"] or getattr(kind, "GROUP", "")


def of_args(kind: type, args: argparse.Namespace, **names: str) -> Any:
    """A dataclass from the options add_fields made of it; a distance not given is None."""
    values: dict[str, Any] = {}
    for item in fields(kind):
        said = item.metadata.get("option")
        if "nested" in item.metadata:
            values[item.name] = of_args(item.metadata["nested"], args)
        elif said is not None:
            value = getattr(args, names.get(item.name) or said["name"] or item.name)
            if isinstance(said["kind"], Names):
                value = itertools.chain.from_iterable(value)
            values[item.name] = tuple(value) if isinstance(item.default, tuple) else value
        elif "own" in item.metadata:
            values[item.name] = None
    return kind(**values)


def for_model(params: Any, model: str) -> Any:
    """A dataclass of options with the model's own distances in place of those not given."""
    own = {item.name: item.metadata["own"] for item in fields(params) if "own" in item.metadata}
    limits = thresholds_for(model)
    missing = [name for name in own if getattr(params, name) is None]
    return replace(params, **{name: getattr(limits, own[name]) for name in missing})


# ============================================================================
# Data types
# ============================================================================


@dataclass(frozen=True)
class Detections:
    """Faces the detector found in one picture, best score first."""

    bbox: np.ndarray  # (n, 4) float32 pixels x1 y1 x2 y2; may reach past the border
    score: np.ndarray  # (n,) float32 in [0, 1]
    kps: np.ndarray  # (n, 5, 2) float32 pixels: left eye, right eye, nose, mouth corners

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: Sequence[int] | np.ndarray) -> Detections:
        rows = np.asarray(rows, dtype=np.intp)
        return Detections(self.bbox[rows], self.score[rows], self.kps[rows])


@functools.cache
def no_detections() -> Detections:
    """Of a picture without a face."""
    shapes = ((0, 4), (0,), (0, 5, 2))
    return Detections(*(np.zeros(shape, np.float32) for shape in shapes))


LINKAGES = ("identity", "average")
STRICTNESS = Number(float, -1.0, 1.0, "a cosine from -1 to 1", "COS")


@dataclass(frozen=True)
class Linkage:
    """How faces are grouped, in cosine distances of the recogniser."""

    kind: str  # of LINKAGES
    rough: float  # average linkage stops here
    tight: float  # closer groups are one person for certain
    copy: float  # two faces of one photo this close may be one person
    strictness: float
    reunite: bool = False  # average linkage: merge groups whose centroids lie within `tight`


def linkage_option() -> Any:
    """The field that says how to group; "" in manifests from before there was a choice."""
    text = (
        "how faces are grouped (default: identity, unless a distance of average linkage is given)"
    )
    return option(LINKAGES, text, "")


def strictness_option() -> Any:
    text = "added to the cosine that identity linkage needs: above 0 splits more, below joins more"
    return option(STRICTNESS, text, 0.0)


def with_linkage(params: Any, *distances: str) -> Any:
    """A dataclass of options with the linkage it asks for where it does not name one."""
    given = any(getattr(params, name) is not None for name in distances)
    return replace(params, linkage=params.linkage or LINKAGES[given])


gate_option = functools.partial(option, group="quality gates")
OUTLIER_HELP = "spreads a face may lie farther from its set than the middle one; 0: no such gate"


@dataclass(frozen=True)
class RefineParams:
    """What `refine` (and later `extend`) decides by; stored in refine_manifest.json."""

    initial_threshold: float = model_distance("cluster", "first clustering stops here")
    merge_threshold: float = model_distance("merge", "centroids this close are one person")
    outlier_threshold: float = model_distance(
        "outlier", f"farthest from the centroid, in clusters of {OUTLIER_MIN_CLUSTER} and more"
    )
    outlier_spreads: float = option(AT_LEAST_0, OUTLIER_HELP, 5.5)
    copy_threshold: float = model_distance("copy")
    linkage: str = linkage_option()
    strictness: float = strictness_option()
    min_faces: int = gate_option(
        COUNT, "different pictures a face set needs; of near-duplicates one counts", 15
    )
    min_short: float = gate_option(AT_LEAST_0, "short edge of the face box", 60.0, unit="PX")
    min_blur: float = gate_option(
        AT_LEAST_0, "variance of the Laplacian; lower is softer", 40.0, unit="VAR"
    )
    min_det_score: float = gate_option(SHARE, "detector score", 0.6, unit="SCORE")
    min_length: float = gate_option(
        SHARE, "length of the embedding, of what is usual with this recogniser; 0: any", 0.7
    )

    @property
    def grouping(self) -> Linkage:
        return Linkage(
            self.linkage or "average",
            self.initial_threshold,
            self.merge_threshold,
            self.copy_threshold,
            self.strictness,
            reunite=True,
        )


@dataclass(frozen=True)
class Usual:
    """What is normal in a library, as its refine manifest keeps it; 0 where that is not known."""

    strangers: float = 0.0  # mean cosine of two people's faces
    stranger_spread: float = 0.0  # its standard deviation
    same: float = 0.0  # mean cosine of two faces of one person
    length: float = 0.0  # mean, of embeddings
    spread: float = 0.0  # of the faces' distances to their own set, see spread_of


@dataclass(frozen=True)
class Purity:
    """How sure it is that a face set shows one person, without any truth; docs/identities.md."""

    verdict: str = ""  # clean, look or doubtful; "" if too few faces
    why: list[str] = field(default_factory=list)  # in words, the gravest first
    together: float | None = None  # mean likeness of its faces: 1 usual for one person, 0 strangers
    parts: float | None = None  # likeness of the two parts it falls into, and
    part: float | None = None  # the share of the smaller one
    rival: str = ""  # the nearest other group, and
    rival_cosine: float | None = None  # the cosine of both centroids
    length: float | None = None  # median of its embeddings, 1 is usual
    doubles: int = 0  # faces that stood in one photo with another of them
    outliers: int = 0  # faces taken out as such


@dataclass(frozen=True)
class EraParams:
    """What `era` decides by; the reference's anchor-fragment rule."""

    distance: float = option(COSINE, "an era's faces lie this near its anchor", 0.40)
    years: float = option(AT_LEAST_0, "and this near in time", 5.0, unit="YEARS")
    fragment: float = option(COSINE, "average linkage of the fragments", 0.40)
    min_faces: int = option(COUNT, "an era with fewer goes to _thin", 5)


def weight_option(term: str, default: float) -> Any:
    """A field of QualityWeights."""
    name, text = f"weight_{term.replace(' ', '_')}", f"weight of {term} in the quality"
    return option(AT_LEAST_0, text, default, unit="W", name=name)


@dataclass(frozen=True)
class QualityWeights:
    """Share of each term in the composite score; the reference readme's weighting.

    The last two are relative to the library and count only where a weight is given.
    """

    GROUP: ClassVar[str] = "export"

    frontality: float = weight_option("frontality", 0.30)
    det_score: float = weight_option("det score", 0.20)
    landmark_symmetry: float = weight_option("landmark symmetry", 0.20)
    face_size: float = weight_option("face size", 0.15)
    sharpness: float = weight_option("sharpness", 0.15)
    embedding_length: float = weight_option("embedding length", 0.0)
    learned_quality: float = weight_option("learned quality", 0.0)

    def as_array(self) -> np.ndarray:
        return np.array([getattr(self, item.name) for item in fields(self)], dtype=np.float64)


QUALITY_TERMS = tuple(item.name for item in fields(QualityWeights))


@dataclass(frozen=True)
class ReferenceOptions:
    """Whose faces are wanted, and whose are not, told by pictures; work/reference_filter.py."""

    GROUP: ClassVar[str] = "filters"

    filter: tuple[str, ...] = option(
        str, "only faces like these: a folder, a file, a face set; repeatable", (), unit="PATH"
    )
    nfilter: tuple[str, ...] = option(
        str, "no faces like these, likewise; repeatable", (), unit="PATH"
    )
    ref_threshold: float = option(
        SHARE,
        "how like a reference is a match, higher is stricter: 0 as strangers are, 1 as faces of "
        "one person are on average",
        0.7,
    )


@dataclass(frozen=True)
class LandmarkLimits:
    """What is taken for a false positive of the detector; work/landmark_filter.py."""

    GROUP: ClassVar[str] = "filters"

    false_positives: str = option(
        ("off", "warn", "drop"), "what is done with a face whose points look wrong", "off"
    )
    min_scale: float = option(
        AT_LEAST_0, "smallest face box, in shares of the photo's shorter side; 0: any", 0.0
    )
    max_scale: float = option(AT_LEAST_0, "largest face box, likewise; 0: any", 2.0)
    max_mean_distance: float = option(
        AT_LEAST_0, "percent the points lie off the mean face; 0: any", 14.0, unit="PERCENT"
    )
    max_points_roll: float = option(
        DEGREES, "that the eyes are off the level when the points lie upright; 0: any", 45.0
    )


@dataclass(frozen=True)
class ExportParams:
    """What `export-swap` decides by; stored in every manifest it writes."""

    GROUP: ClassVar[str] = "export"

    outlier_threshold: float = model_distance(
        "export_outlier", "farthest from the centroid; tighter than refine"
    )
    outlier_spreads: float = option(
        AT_LEAST_0, "spreads farther from its set than the middle face, as in refine", 5.5
    )
    duplicate_threshold: float = model_distance("duplicate")
    same_face_threshold: float = model_distance("same_face")
    top_n: int = option(COUNT, "faces in the top bundle, chosen so that they average like all", 30)
    min_survivors: int = option(
        COUNT, "a set with fewer faces left goes to _thin, unless --min-faces of refine is less", 5
    )
    core_n: int = option(COUNT, "faces in the core bundle, the fewest that average like all", 8)
    pad_ratio: float = option(  # roop wants this headroom
        Number(float, 0.0, 3.0, "a number from 0 to 3", "SHARE"),
        "border around the face box, of its longer edge",
        0.5,
    )
    out_size: int = option(PIXELS, "edge of the square PNGs", 512)
    min_face_short: float | None = option(  # None: as refine had it
        AT_LEAST_0, "short edge an export needs (default: the --min-short of refine)", unit="PX"
    )
    candidate_min_score: float = option(SHARE, "quality a candidate needs", 0.40, unit="SCORE")
    candidates: bool = option(bool, "put matching singletons into _candidates/ for review", False)
    candidate_match_threshold: float = model_distance(
        "candidate", "singletons match a centroid this close"
    )
    weights: QualityWeights = nested(QualityWeights)
    references: ReferenceOptions = nested(ReferenceOptions)
    landmarks: LandmarkLimits = nested(LandmarkLimits)

    def __post_init__(self) -> None:
        if not self.weights.as_array().sum():
            raise SortFacesError("--weight-*: all are 0; leave at least one above")


@dataclass(frozen=True)
class ToOptions:
    """For which other programs a corpus is written as well; each option is one of a kind's."""

    GROUP: ClassVar[str] = "exports for other programs"

    to: tuple[str, ...] = option(
        Names("KIND[,KIND...]", EXPORT_KINDS),
        "also write face sets in these forms: "
        + ", ".join(EXPORT_KINDS)
        + "; docs/consumers.md says what each is. They follow every change from then on",
        (),
    )
    clips: Path | None = option(
        Path, "facefusion: plan.json of `video`; a job with a step for each clip", unit="PLAN"
    )
    genderage: Path | None = option(
        Path,
        "reactor: the model that tells gender and age (default: genderage.onnx of the pack, where "
        "it lies in ~/.insightface)",
        unit="ONNX",
    )
    faceswap_size: int | None = option(PIXELS, "faceswap: edge of its pictures (default: 512)")
    dfl_face: str | None = option(
        ("whole_face", "full_face", "head"),
        "dfl: how much its pictures show (default: whole_face)",
    )
    dfl_size: int | None = option(PIXELS, "dfl: edge of its pictures (default: 512; head: 768)")
    refeed: int | None = option(
        Number(int, 0, 100, "a whole number from 0 to 100", "N"),
        "faceswap, dfl: find the landmarks in N more boxes around each face, a little moved, and "
        "average them (default: 0)",
    )
    xmp_beside: str | None = option(
        ("yes", "no"),
        "xmp: write the sidecars beside the photos as well; no takes them away again (default: "
        "neither)",
    )


MODEL_HELP = "InsightFace pack, a folder of .onnx files, or dlib"


@dataclass(frozen=True)
class EngineSpec:
    """Which models to load and how; everything a worker needs to build the same engine."""

    model: str = option(str, MODEL_HELP, "buffalo_l", unit="PACK")
    model_root: str = option(str, "where packs lie, in models/PACK", "~/.insightface", unit="DIR")
    provider: str = option(("auto", *PROVIDERS), "what onnxruntime computes on", "auto")
    require_gpu: bool = option(bool, "fail rather than compute on the CPU", False)
    provider_option: tuple[tuple[str, str], ...] = out_of_repr(
        option(KeyValue("KEY=VALUE"), "told to the provider, as device_id=1; repeatable", ())
    )
    fp16: bool = out_of_repr(
        option(bool, "recognise in half precision on a GPU, if the embeddings stay the same", False)
    )
    det_size: int = option(  # 0: the engine's own default
        PIXELS, f"detector input (default: {DET_SIZE}; dlib: {DLIB_DET_SIZE})", 0
    )
    det_threshold: float = option(  # insightface's and roop's default
        SCORE, "detections below this score are no faces", 0.5
    )
    landmarks: bool = False
    clip: str = ""  # load a CLIP scorer in place of an engine: a folder, or open_clip NAME/WEIGHTS
    # Load a face quality model in place of an engine: path of its .onnx. Its items name the model.
    quality: str = field(default="", repr=False)


def model_label(model: str) -> str:
    """Name of a model as caches store it: the pack's name, or the folder's."""
    return Path(model).name if Path(model).expanduser().is_dir() else model


def model_source(model: str) -> str:
    """What --model has to say to name the same models from any folder."""
    folder = Path(model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model


@dataclass(frozen=True)
class Passes:
    """Optional detection passes beside the plain one."""

    GROUP: ClassVar[str] = "photos"

    tiles: bool = option(
        bool, "look at large photos in tiles too, for small faces in big groups", False
    )
    pad_retry: bool = option(
        bool,
        "look again with a border where no face was found, for faces that fill the picture",
        False,
    )
    decode: str = option(
        ("full", "reduced", "nvjpeg"),
        "reduced: find faces in JPEGs at a half to an eighth of their size, and read a photo whole "
        "only for small faces; nvjpeg: on an NVIDIA GPU",
        "full",
    )


# ============================================================================
# Core: vectors and grouping
# ============================================================================


def blocks(rows: int) -> Iterator[slice]:
    """Slices of LINK_BLOCK of so many rows."""
    return (slice(start, start + LINK_BLOCK) for start in range(0, rows, LINK_BLOCK))


def squared_lengths(vectors: np.ndarray) -> np.ndarray:
    """(n,) of rows (n, d), without a second array of their size."""
    squares = [np.square(vectors[block]).sum(axis=1) for block in blocks(len(vectors))]
    return np.concatenate([np.zeros(0, vectors.dtype), *squares])


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale each row of (n, d) to length 1, as float32; zero rows stay zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    length = np.sqrt(squared_lengths(vectors))[:, None]
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def centroid(unit: np.ndarray) -> np.ndarray:
    """Direction of the mean of unit rows (n, d): (d,) float32 of length 1."""
    return unit_rows(unit.mean(axis=0, dtype=np.float64)[None])[0]


def nearest(
    unit: np.ndarray, centres: np.ndarray, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centre of each row: ((n,) int index, (n,) float32 cosine distance).

    own: (n,) index of a centre that is out of the question for each row. Without centres every
    index is -1 and every distance infinite.
    """
    index = np.full(len(unit), -1, dtype=np.intp)
    distance = np.full(len(unit), np.inf, dtype=np.float32)
    if not len(centres):
        return index, distance
    for block in blocks(len(unit)):
        cosine = unit[block] @ centres.T  # (b, c)
        if own is not None:
            cosine[np.arange(len(cosine)), own[block]] = -np.inf
        index[block] = cosine.argmax(axis=1)
        distance[block] = 1.0 - cosine.max(axis=1)
    return index, distance


def groups_of(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of each label, largest group first, ties by the first row they hold."""
    if not len(labels):
        return []
    order = np.argsort(labels, kind="stable")
    edges = np.flatnonzero(np.diff(labels[order])) + 1
    return sorted(np.split(order, edges), key=lambda rows: (-len(rows), rows[0]))


def first_of_each(labels: np.ndarray) -> np.ndarray:
    """Index of the first row with the same label, (n,) int."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse]


def join_labels(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Unite the groups of labels[left[k]] and labels[right[k]] for every k.

    labels: (n,) int in [0, n). Returns new labels in the same range.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.stack([labels[left], labels[right]])
    ends = ends[:, ends[0] != ends[1]]
    if not ends.size:
        return labels
    names, at = np.unique(ends, return_inverse=True)  # a graph of these alone, not of all labels
    row, column = at.reshape(2, -1)
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(len(names), len(names)))
    moved = np.arange(len(labels))
    moved[names] = names[first_of_each(connected_components(graph, directed=False)[1])]
    return moved[labels]


def threshold_components(
    unit: np.ndarray, min_cosine: float, boxes: np.ndarray | None = None
) -> np.ndarray:
    """Connected components of the graph "cosine >= min_cosine" over unit rows (n, d).

    boxes: (n, 4); where given, only rows whose boxes are of one size are linked. Streams blocks
    of the product, so memory stays linear in n; what cannot join groups any more is left out.
    Returns (n,) int labels in [0, n).
    """
    labels = np.arange(len(unit))
    is_close = closeness(unit, min_cosine)
    for start in range(0, len(unit), LINK_BLOCK):
        held, count = [np.zeros((2, 0), np.intp)], 0
        for rows, columns in open_pairs(labels, start):
            close = is_close(rows, columns, labels)
            if np.count_nonzero(close) > LISTED_PAIRS * sum(close.shape):
                large = companion("large_components")
                row, column = large.spanning_pairs(close, rows, columns, labels, boxes)
            else:
                row, column = np.divmod(np.flatnonzero(close), len(columns))
            pairs = np.stack([rows[row], columns[column]])
            pairs = pairs[:, labels[pairs[0]] != labels[pairs[1]]]
            if boxes is not None:
                pairs = pairs[:, same_box_size(*boxes[pairs])]
            held.append(pairs)
            count += pairs.shape[1]
            if count > HELD_PAIRS:
                labels = join_labels(labels, *np.concatenate(held, axis=1))
                held, count = held[:1], 0
        labels = join_labels(labels, *np.concatenate(held, axis=1))
    return labels


def closeness(unit: np.ndarray, min_cosine: float) -> Callable[..., np.ndarray]:
    """A function of rows (r,), columns (c,) and all labels (n,): (r, c) bool, cosine >= min_cosine.

    Where the faces are so many that it pays, a GPU computes it; the same comes out.
    """

    def on_cpu(rows: np.ndarray, columns: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return rows_of(unit, rows) @ rows_of(unit, columns).T >= min_cosine

    if len(unit) < GPU_FACES:
        return on_cpu
    return companion("gpu_products").closeness(unit, min_cosine, on_cpu)


def rows_of(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """values[rows] for rows (r,), without a copy where they are a range."""
    in_order = len(rows) and (rows[1:] - rows[:-1] == 1).all()
    return values[rows[0] : rows[-1] + 1] if in_order else values[rows]


def open_pairs(labels: np.ndarray, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks (rows, columns) of the pairs of LINK_BLOCK rows from `start` with all from there on.

    Pairs within the largest group are left out where they are the most of a block.
    """
    largest = labels == np.bincount(labels).argmax()
    rows = np.arange(start, min(start + LINK_BLOCK, len(labels)))
    for first in range(start, len(labels), LINK_BLOCK):
        columns = np.arange(first, min(first + LINK_BLOCK, len(labels)))
        of_rows, of_columns = largest[rows], largest[columns]
        parts = [(rows, columns)]
        if of_rows.mean() * of_columns.mean() > WORTH_LEAVING:
            parts = [(rows[~of_rows], columns), (rows[of_rows], columns[~of_columns])]
        yield from ((some, others) for some, others in parts if len(some) and len(others))


def same_box_size(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) whose widths and heights agree within the tolerance: (...) bool."""
    fits = np.True_
    for first, last in ((0, 2), (1, 3)):
        a, b = left[..., last] - left[..., first], right[..., last] - right[..., first]
        fits = fits & (np.abs(a - b) <= DUPLICATE_SIZE_TOLERANCE * np.maximum(a, b))
    return fits


# ============================================================================
# Core: average linkage
# ============================================================================
# d(A, B) = 1 - mean(A).mean(B) for unit vectors, so clusters are kept as sums. A merge below t
# needs a pair with cosine > 1 - t: no merge crosses a component of that graph (docs/design.md).


def average_linkage(unit: np.ndarray, threshold: float) -> np.ndarray:
    """Average-linkage clusters of unit rows (n, d), cut at cosine distance `threshold`.

    The labels equal scikit-learn's AgglomerativeClustering(metric="cosine", linkage="average",
    distance_threshold=threshold) up to renaming; memory is linear in n. Empty input gives ().
    """
    labels = np.full(len(unit), -1, dtype=np.intp)
    used = 0
    for rows in groups_of(threshold_components(unit, 1.0 - threshold - LINK_SLACK)):
        if len(rows) == 1:
            inside = np.zeros(1, dtype=np.intp)
        elif len(rows) <= DENSE_COMPONENT:
            inside = dense_average_linkage(unit[rows], threshold)
        else:
            inside = companion("large_components").average_linkage(unit[rows], threshold)
        labels[rows] = inside + used
        used += int(inside.max()) + 1
    return labels


def dense_average_linkage(unit: np.ndarray, threshold: float) -> np.ndarray:
    """Average linkage of unit rows (m, d) through all m*m distances, by scipy."""
    from scipy.cluster.hierarchy import fcluster, linkage

    exact = unit.astype(np.float64)
    above = np.triu_indices(len(unit), k=1)
    distance = np.maximum(1.0 - (exact @ exact.T)[above], 0.0)
    merges = linkage(distance, method="average")
    below = np.nextafter(threshold, -np.inf)  # scikit-learn cuts merges at d >= threshold
    return fcluster(merges, below, criterion="distance") - 1


def reciprocal_pairs(
    active: np.ndarray, neighbour: np.ndarray, distance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (keep, gone) of active clusters that are each other's nearest neighbour.

    Rounding can make d(a, b) and d(b, a) differ and leave a cycle without such a pair; then the
    closest pair of all is returned alone, which is always a legal merge.
    """
    mutual = active[(neighbour[neighbour[active]] == active) & (active < neighbour[active])]
    if not len(mutual) and len(active):
        mutual = active[[distance[active].argmin()]]
    return mutual, neighbour[mutual]


# ============================================================================
# Core: identity linkage
# ============================================================================
# Average linkage asks one cosine of all pairs. Here a pair of groups must be the dearer the more
# faces both have, the more strangers look like them, and the cheaper the weaker their faces are.
# Everything is counted in what is normal for the recogniser, so that constants chosen on one serve
# another; which, why and on what: docs/analysis/accuracy.md.


@dataclass(frozen=True)
class Figures:
    """What is normal for a recogniser: cosines of pairs of faces, lengths of embeddings."""

    strangers: float  # mean cosine of two people's faces
    spread: float  # its standard deviation
    same: float  # mean cosine of two faces of one person, no copies; a person weighs its faces
    length: float  # mean, of embeddings as the model gives them
    groups: int = 0  # of two and more faces they were measured on; 0: stored

    @property
    def reach(self) -> float:
        """From a stranger to the same person, as a cosine: the unit of the constants."""
        return self.same - self.strangers

    @property
    def separates(self) -> bool:
        """Whether the recogniser tells people apart as those do that the constants serve."""
        return self.reach > LEAST_SEPARATION * self.spread > 0


KNOWN_FIGURES = {  # by recogniser; measured: docs/analysis/accuracy.md
    "0c845ee43af10c1e": Figures(0.010, 0.103, 0.637, 17.15),  # the MobileFaceNet of `mini`
    "dlib-resnet-v1": Figures(0.011, 0.178, 0.717, 0.586),
}


def figures_of(
    unit: np.ndarray, length: np.ndarray, labels: np.ndarray, copy: float = Thresholds.copy
) -> Figures:
    """Figures of a library whose faces are roughly grouped.

    unit: (n, d) float32 of length 1; length: (n,) of the embeddings; labels: (n,) int; copy: cosine
    distance of two faces that say nothing of a person, as they are one moment: bursts, copies.
    """
    groups = [rows for rows in groups_of(labels) if len(rows) > 1]
    same = [cosine_within(unit[rows], copy) for rows in groups]
    sizes = np.array([len(rows) for rows in groups])[np.isfinite(same)]
    sums = np.array([pair_sums(unit[rows]) for rows in groups]).reshape(-1, 2).sum(axis=0)
    lone = np.ones(len(unit), bool)
    lone[np.concatenate([[], *groups]).astype(int)] = False
    alone = squared_lengths(unit)[lone]
    apart = pair_sums(unit) - sums - [alone.sum(), np.square(alone).sum()]
    pairs = len(unit) ** 2 - sum(len(rows) ** 2 for rows in groups) - len(alone)
    if not len(sizes) or not pairs:
        return Figures(0.0, 0.0, 0.0, 0.0)
    strangers, square = apart / pairs
    people = float(np.average(np.array(same)[np.isfinite(same)], weights=sizes))
    spread = math.sqrt(max(square - strangers**2, 0.0))
    return Figures(float(strangers), spread, people, float(length.mean()), len(sizes))


def cosine_within(unit: np.ndarray, copy: float) -> float:
    """Mean cosine of unit rows (n, d) of one person, copies left out; NaN if all are copies."""
    some = unit[:: -(-len(unit) // LIKENESS_FACES)]
    cosine = (some @ some.T)[np.triu_indices(len(some), 1)]
    cosine = cosine[cosine < 1.0 - copy]
    return float(cosine.mean()) if len(cosine) else math.nan


def pair_sums(unit: np.ndarray) -> np.ndarray:
    """(2,) float64: sums of the cosines and of their squares over all n*n pairs of rows (n, d);
    of u.v it is (sum u)^2, of (u.v)^2 the squares of the numbers in sum u u'."""
    products = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit  # of equal norm
    return np.array(
        [
            np.square(unit.sum(axis=0, dtype=np.float64)).sum(),
            np.square(products.astype(np.float64)).sum(),
        ]
    )


def known_or_measured(
    recognizer: str, unit: np.ndarray, length: np.ndarray, labels: np.ndarray
) -> Figures:
    """What is stored of a recogniser, else figures_of these faces."""
    return KNOWN_FIGURES.get(recognizer) or figures_of(unit, length, labels)


def fitting_figures(measured: Figures, recognizer: str) -> tuple[Figures | None, str]:
    """The figures to group a library by, or None and why there are none that can be trusted.

    A library with few groups says little of its recogniser: then what is stored of it counts.
    """
    known = KNOWN_FIGURES.get(recognizer)
    if measured.groups < (OWN_FIGURES if known else FEWEST_FIGURES):
        few = f"only {measured.groups} people with several photos to learn this recogniser from"
        return (known, "") if known else (None, few)
    if not measured.separates:
        return None, "this recogniser's people and strangers lie closer than those it was made for"
    return measured, ""


def one_photo_pairs(unit: np.ndarray, photos: np.ndarray, copy: float) -> np.ndarray:
    """Pairs (p, 2) of rows that show different people: two faces of one photo, and no copies.

    photos: (n,) label of each row's photo; copy: cosine distance up to which they are a mirror
    image, a collage or a photo in the photo.
    """
    pairs = [np.zeros((0, 2), np.intp)]
    for rows in groups_of(photos):
        if len(rows) == 1:
            break  # groups come largest first
        left, right = np.nonzero(np.triu(unit[rows] @ unit[rows].T < 1.0 - copy, 1))
        pairs.append(np.stack([rows[left], rows[right]], axis=1))
    return np.concatenate(pairs)


def direction_sums(unit: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(g, d) float32 sums of the unit rows (n, d) of each label; labels: (n,) int in [0, g)."""
    sums = np.zeros((int(labels.max(initial=-1)) + 1, unit.shape[1]), np.float32)
    np.add.at(sums, labels, unit)
    return sums


def crowding(unit: np.ndarray, labels: np.ndarray, rough: np.ndarray) -> np.ndarray:
    """How crowded the directions of groups are: (g,) mean cosine of the faces of each label to the
    centroids of the CROWD nearest rough groups that are not its own.

    Score normalisation against a cohort of strangers: Auckenthaler, Carey, Lloyd-Thomas 2000,
    "Score normalization for text-independent speaker verification systems" (T-norm), with its
    nearest part alone as in adaptive s-norm. labels, rough: (n,) int from 0; a label lies in one
    rough group.
    """
    means = direction_sums(unit, labels) / np.bincount(labels)[:, None].astype(np.float32)
    cohort = unit_rows(direction_sums(unit, rough))
    home = np.zeros(len(means), np.intp)
    home[labels] = rough
    count = min(CROWD, len(cohort) - 1)
    result = np.zeros(len(means), np.float32)
    for block in blocks(len(means)) if count else ():
        few = []
        for part in blocks(len(cohort)):
            cosine = means[block] @ cohort[part].T  # (b, p)
            own = home[block] - part.start
            at_home = np.flatnonzero((own >= 0) & (own < cosine.shape[1]))
            cosine[at_home, own[at_home]] = -np.inf
            few.append(np.partition(cosine, -min(count, cosine.shape[1]), axis=1)[:, -count:])
        result[block] = np.partition(np.concatenate(few, 1), -count, axis=1)[:, -count:].mean(1)
    return result


@dataclass(frozen=True)
class Start:
    """Labels (n,) int from 0 that the identity linkage starts from."""

    rough: np.ndarray  # who may be one person: crowding is measured against the others
    tight: np.ndarray  # who is one person for certain; a group lies in one rough group
    fixed: np.ndarray  # (n,) bool: rows whose tight groups stand as they are
    owner: np.ndarray  # (n,) int: whose face it is known to be, -1 nobody's; two stay apart
    share: np.ndarray  # (n,) float32 of a moment: 1 / the faces of its burst


def identity_linkage(
    unit: np.ndarray,
    length: np.ndarray,
    start: Start,
    apart: np.ndarray,
    figures: Figures,
    strictness: float = 0.0,
) -> np.ndarray:
    """Groups of faces by greedy agglomeration that knows size, crowding and weakness.

    unit: (n, d) float32 of length 1; length: (n,) of the embeddings; apart: (p, 2) rows that are
    never put together; strictness: added to the cosine a merge needs. Returns (n,) int labels.
    Memory is linear in n; the same input gives the same labels.
    """
    tight = without_rivals(start, apart)
    size = np.bincount(tight).astype(np.float32)
    owner = np.full(len(size), -1)
    np.maximum.at(owner, tight, start.owner)
    least = SPREADS_NEEDED * figures.spread + REACH_NEEDED * figures.reach
    state = Agglomeration(
        figures=figures,
        least=figures.strangers + least + strictness,
        sums=direction_sums(unit, tight),
        size=size,
        moments=np.bincount(tight, start.share).astype(np.float32),
        crowded=crowding(unit, tight, start.rough) * size,
        length=np.bincount(tight, length).astype(np.float32),
        rivals=tight[apart],
        owner=owner,
    )
    return agglomerate(state)[tight]


def without_rivals(start: Start, apart: np.ndarray) -> np.ndarray:
    """The tight labels, but groups that hold two faces of `apart` begin as single faces."""
    left, right = start.tight[apart[:, 0]], start.tight[apart[:, 1]]
    owned = np.unique(np.stack([start.tight, start.owner])[:, start.owner >= 0], axis=1)
    shared = owned[0][:-1][owned[0][:-1] == owned[0][1:]]  # groups of two owners
    broken = np.isin(start.tight, [*left[left == right], *shared]) & ~start.fixed
    labels = start.tight.copy()
    labels[broken] = len(labels) + np.flatnonzero(broken)
    return np.unique(labels, return_inverse=True)[1]


@dataclass
class Agglomeration:
    """Groups while they are merged; a merged group keeps the lower number of the two."""

    figures: Figures
    least: float  # what a merge must be worth
    sums: np.ndarray  # (g, d) float32 of unit rows
    size: np.ndarray  # (g,) float32 faces
    moments: np.ndarray  # (g,) float32 faces, a burst counted once
    crowded: np.ndarray  # (g,) float32 sum of the faces' crowding
    length: np.ndarray  # (g,) float32 sum of the embeddings' lengths
    rivals: np.ndarray  # (p, 2) groups that may not become one
    owner: np.ndarray  # (g,) int: whose they are, -1 nobody's; those of two never become one

    def __post_init__(self) -> None:
        self.centres = unit_rows(self.sums)
        self.rivals = np.concatenate([self.rivals, self.rivals[:, ::-1]])
        self.settle_rivals(np.arange(len(self.size)))

    def settle_rivals(self, moved: np.ndarray) -> None:
        """Name the groups in `rivals` as they are called now, and sort them for `barred`."""
        left, right = moved[self.rivals].T
        self.pairs = np.unique(left * len(moved) + right)
        self.rivals = np.stack(np.divmod(self.pairs, len(moved)), axis=1)

    def merge(self, keep: np.ndarray, gone: np.ndarray) -> np.ndarray:
        """Put each gone[k] into keep[k]; returns where every group now is, (g,)."""
        for values in (self.sums, self.size, self.moments, self.crowded, self.length):
            values[keep] += values[gone]
        self.owner[keep] = np.maximum(self.owner[keep], self.owner[gone])
        self.centres[keep] = unit_rows(self.sums[keep])
        moved = np.arange(len(self.size))
        moved[gone] = keep
        self.settle_rivals(moved)
        return moved

    def best(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of `rows` the partner among `columns` whose merge is worth most, and how much,
        as a cosine; itself and -inf where none is worth `least`."""
        usual = self.figures.strangers + USUAL_CROWDING * self.figures.reach
        crowded = np.maximum(self.crowded / self.size - usual, -EMPTIEST * self.figures.reach)
        crowd = CROWDING_COST / 2.0 * crowded
        shortness = 1.0 - self.length / (self.size * self.figures.length)
        excuse = WEAKNESS_CREDIT * self.figures.reach * shortness
        doublings = np.log2(np.clip(self.moments, 1.0, FULL_SIZE_GROUP))
        size_cost = SIZE_COST * self.figures.reach * doublings
        floor = self.least + crowd - excuse.max()
        partner, value = rows.copy(), np.full(len(rows), -np.inf, np.float32)
        for block in blocks(len(rows) if len(columns) else 0):
            near, right, worth = self.near(rows[block], columns, crowd, floor)
            left = rows[block][near]
            worth -= crowd[left]
            worth -= np.minimum(size_cost[left], size_cost[right])
            worth += np.maximum(excuse[left], excuse[right])
            both_weak = np.maximum(np.minimum(excuse[left], excuse[right]), 0.0)
            worth -= WEAK_PAIR_COST * both_weak
            worth[self.barred(left, right)] = -np.inf
            order = np.lexsort((right, -worth, near))  # the lower number of two as good
            order = order[worth[order] >= self.least]
            own, first = np.unique(near[order], return_index=True)
            partner[block][own], value[block][own] = right[order[first]], worth[order[first]]
        return partner, value

    def near(
        self, rows: np.ndarray, columns: np.ndarray, crowd: np.ndarray, floor: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs whose cosine less the crowd (g,) of the second reaches the floor (g,) of the first:
        positions in `rows`, groups of `columns`, and that cosine, (k,) each."""
        found = []
        for part in blocks(len(columns)):
            cosine = self.centres[rows] @ self.centres[columns[part]].T
            least = floor[rows] + (crowd[columns[part]].min() - LINK_SLACK)
            row, column = np.divmod(np.flatnonzero(cosine >= least[:, None]), cosine.shape[1])
            other = columns[part][column]
            worth = cosine[row, column] - crowd[other]
            keep = worth >= floor[rows[row]]
            found.append((row[keep], other[keep], worth[keep]))
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))

    def barred(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(k,) bool: pairs of groups that may not become one."""
        least = np.minimum(self.owner[left], self.owner[right])
        result = (left == right) | ((least >= 0) & (self.owner[left] != self.owner[right]))
        pair = left * len(self.size) + right
        at = np.searchsorted(self.pairs, pair)
        at[at == len(self.pairs)] = 0
        return result | (self.pairs[at] == pair) if len(self.pairs) else result


def agglomerate(state: Agglomeration) -> np.ndarray:
    """Merge reciprocal best partners, round by round; returns where every group ends, (g,).

    A merge is worth the centroids' cosine, less what size and crowding cost, plus what the weakness
    of one excuses, less what the weakness of both makes alike. A best partner stays best until it
    is merged or a merged group is better: only then is a group asked again.
    """
    count = len(state.size)
    owner, partner = np.arange(count), np.arange(count)
    value = np.full(count, -np.inf, dtype=np.float32)
    active = stale = np.arange(count)
    merged = active[:0]
    while len(stale):
        rest = np.setdiff1d(active, stale)
        other, better = state.best(rest, merged)
        gain = better > value[rest]
        partner[rest[gain]], value[rest[gain]] = other[gain], better[gain]
        partner[stale], value[stale] = state.best(stale, active)
        able = active[np.isfinite(value[active])]
        merged, gone = reciprocal_pairs(able, partner, -value)
        moved = state.merge(merged, gone)
        owner = moved[owner]
        changed = np.zeros(count, dtype=bool)
        changed[merged] = changed[gone] = True
        active = active[moved[active] == active]
        stale = active[changed[active] | changed[partner[active]]]
    return owner


# ============================================================================
# Core: near-duplicates
# ============================================================================


def near_duplicate_labels(
    unit: np.ndarray, max_distance: float, boxes: np.ndarray | None = None
) -> np.ndarray:
    """Label faces so that near-duplicates share one label, in chains, too.

    unit: (n, d) float32 of length 1. Two faces are near-duplicates when their cosine distance is
    at most max_distance and, where boxes (n, 4) are given, their boxes agree in width and height
    within DUPLICATE_SIZE_TOLERANCE.
    """
    return threshold_components(unit, 1.0 - max_distance - DUPLICATE_SLACK, boxes)


def nearest_keeper(unit: np.ndarray, max_distance: float) -> np.ndarray:
    """For unit rows (n, d) in order of preference: which earlier row stands for each, (n,) int.

    A row stays (and stands for itself) unless one that stays lies within max_distance; unlike
    with groups, a chain of small steps does not collapse into one.
    """
    keeper = np.arange(len(unit))
    for rows in groups_of(near_duplicate_labels(unit, max_distance)):
        if len(rows) == 1:
            break  # groups come largest first
        kept = np.empty((len(rows), unit.shape[1]), np.float32)
        owner: list[int] = []
        for row in rows.tolist():
            cosine = kept[: len(owner)] @ unit[row]
            if len(owner) and cosine.max() >= 1.0 - max_distance - DUPLICATE_SLACK:
                keeper[row] = owner[int(cosine.argmax())]
            else:
                kept[len(owner)] = unit[row]
                owner.append(row)
    return keeper


# ============================================================================
# The face cache
# ============================================================================


@dataclass(frozen=True)
class Column:
    """One array of a cache: what a row stands for, the type and shape of a row, its meaning."""

    rows: str  # "f": a photo, "a": a further path of one, "n": a face
    dtype: Any  # by name: what makes the tables does not need numpy
    text: str
    shape: tuple[int | str, ...] = ()  # "d": the numbers of one embedding
    fill: float | str = 0  # NaN: `enrich` brings the values later; "": older caches lack it

    def filled(self, count: int, dim: int) -> np.ndarray:
        """An array of `count` rows that hold nothing yet; dim: numbers of an embedding."""
        shape = [dim if size == "d" else size for size in self.shape]
        return np.full((count, *shape), self.fill, self.dtype)

    def absent(self, count: int, dim: int) -> np.ndarray:
        """The same to be looked at only; whatever the count, it takes no room."""
        row = self.filled(1, dim)
        return np.broadcast_to(row, (count, *row.shape[1:]))


def is_absent(array: np.ndarray) -> bool:
    """Whether an array of a cache is one of Column.absent."""
    return len(array) > 1 and array.strides[0] == 0


def column(*facts: Any, **more: Any) -> Any:
    """A field of FaceCache, declared by the facts of a Column."""
    return field(metadata={"column": Column(*facts, **more)})


of_file, of_alias = functools.partial(column, "f"), functools.partial(column, "a")


def of_text(text: str, kind: type = str) -> Any:
    """A column of photos that caches of older versions lack; without one it is empty."""
    about = Column("f", kind, text, fill="")
    return field(default=None, kw_only=True, metadata={"column": about})


of_face = functools.partial(column, "n")
of_face_later = functools.partial(of_face, "float32", fill=math.nan)
BOX = "box x1 y1 x2 y2, pixels; may reach past the border"
FIVE_POINTS = (
    "left eye, right eye, nose, left and right mouth corner as seen in the picture, pixels"
)
CAPTURE_TIME = "capture time, seconds since 1970, local clock read as UTC; NaN unknown"
FILE_TIME = "modification time, nanoseconds since 1970"
DAMAGED = ("incomplete", "damaged")  # begin notes on photos that lack a part or are wrong
LATER_TIMES = (  # kinds of dates that do not tell when a photo was taken; work/capture_time.py
    *("scan", "exif_modify", "sidecar_create", "xmp_create", "sidecar_modify", "xmp_modify"),
    *("png_modify", "file_time"),
)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class FaceCache:
    """Everything known about a library; docs/cache.md shows the columns as a table."""

    meta: CacheMeta
    file_path: np.ndarray = of_file(str, "absolute path of the canonical copy")
    file_sha256: np.ndarray = of_file(str, "of the file's bytes, 64 hex digits")
    file_size: np.ndarray = of_file("int64", "bytes")
    file_mtime_ns: np.ndarray = of_file("int64", FILE_TIME)
    file_wh: np.ndarray = of_file("int32", "width and height, pixels; 0 0 if unreadable", (2,))
    file_taken: np.ndarray = of_file("float64", CAPTURE_TIME)
    file_taken_kind: np.ndarray = of_text("which date that is, docs/dates.md; empty if not known")
    file_taken_precision: np.ndarray = of_text("`year`, `month`, `day`, `minute` or `second` of it")
    file_dates: np.ndarray = of_text("dates and camera that the file tells, JSON", bytes)
    file_status: np.ndarray = of_file("uint8", "0 faces, 1 no face, 2 unreadable")
    file_error: np.ndarray = of_file(str, "why it is unreadable, else empty")
    file_passes: np.ndarray = of_file(str, "detection settings, `640@0.5+tiles+pad`")
    file_note: np.ndarray = of_text(
        "what is wrong with a photo that was read, `incomplete: ...`; else empty"
    )
    alias_path: np.ndarray = of_alias(
        str, "absolute path of a further copy, or of the RAW of the same photo"
    )
    alias_file: np.ndarray = of_alias("int32", "row of its photo in `file_*`")
    alias_size: np.ndarray = of_alias("int64", "bytes")
    alias_mtime_ns: np.ndarray = of_alias("int64", FILE_TIME)
    face_file: np.ndarray = of_face("int32", "row of its photo in `file_*`")
    face_index: np.ndarray = of_face("int16", "position in that photo, from 0")
    bbox: np.ndarray = of_face("float32", BOX, (4,))
    det_score: np.ndarray = of_face("float32", "detector score, 0 to 1")
    kps: np.ndarray = of_face("float32", FIVE_POINTS, (5, 2))
    face_short: np.ndarray = of_face("float32", "shorter edge of the box, pixels")
    blur: np.ndarray = of_face(
        "float32", "variance of the Laplacian of the grey face at its own size"
    )
    embedding: np.ndarray = of_face(
        "float32", "as the model gave it, not scaled to length 1", ("d",)
    )
    landmark_2d_106: np.ndarray = of_face_later(
        "pixels; NaN before `enrich`, and with dlib", (106, 2)
    )
    landmark_3d_68: np.ndarray = of_face_later(
        "pixels, depth in pixels (0 with dlib); NaN before `enrich`", (68, 3)
    )
    pose: np.ndarray = of_face_later("pitch, yaw, roll in degrees; NaN before `enrich`", (3,))
    learned_quality: np.ndarray = of_face_later(
        "as `enrich --quality-model` scored it, higher is better; NaN before"
    )

    def __post_init__(self) -> None:
        for name in TEXT_COLUMNS:
            if getattr(self, name) is None:
                object.__setattr__(self, name, COLUMNS[name].absent(self.files, 0))
        counts = {"f": self.files, "a": len(self.alias_path), "n": self.faces}
        for name, about in COLUMNS.items():
            if len(getattr(self, name)) != counts[about.rows]:
                raise SortFacesError(f"cache: {name} has the wrong length; it is damaged")
        for name in ("face_file", "alias_file"):
            rows = getattr(self, name)
            if len(rows) and (rows.min() < 0 or rows.max() >= self.files):
                raise SortFacesError(f"cache: {name} points outside the files; it is damaged")

    @property
    def files(self) -> int:
        return len(self.file_path)

    @property
    def faces(self) -> int:
        return len(self.face_file)

    @functools.cached_property
    def unit(self) -> np.ndarray:
        """(n, d) float32 embeddings of length 1 (zero rows stay zero)."""
        return unit_rows(self.embedding)

    @functools.cached_property
    def length(self) -> np.ndarray:
        """(n,) float32 lengths of the embeddings."""
        return np.sqrt(squared_lengths(self.embedding))

    @functools.cached_property
    def face_ids(self) -> list[str]:
        """Stable name of every face: `<first 16 hex of the photo's sha256>:<face index>`."""
        short = [sha[:16] for sha in self.file_sha256.tolist()]
        pairs = zip(self.face_file.tolist(), self.face_index.tolist(), strict=True)
        return [f"{short[row]}:{index}" for row, index in pairs]

    @functools.cached_property
    def row_of_face(self) -> dict[str, int]:
        return {face: row for row, face in enumerate(self.face_ids)}

    @functools.cached_property
    def taken(self) -> np.ndarray:
        """(f,) file_taken, NaN also where that is only the time of a scan, a change or a copy."""
        return np.where(np.isin(self.file_taken_kind, LATER_TIMES), math.nan, self.file_taken)

    @functools.cached_property
    def paths(self) -> list[list[str]]:
        """Every known path of each photo, the canonical one first."""
        known = [[path] for path in self.file_path.tolist()]
        for path, row in zip(self.alias_path.tolist(), self.alias_file.tolist(), strict=True):
            known[row].append(path)
        return known

    @functools.cached_property
    def copies(self) -> list[list[str]]:
        """As `paths`, but only those that hold the photo's very bytes."""
        raws = set(self.alias_path[~self.is_copy].tolist())
        return [[path for path in paths if path not in raws] for paths in self.paths]

    @property
    def is_copy(self) -> np.ndarray:
        """(a,) bool: which aliases hold the very bytes; the others are RAWs of the same photo."""
        return self.alias_size == self.file_size[self.alias_file]

    @property
    def damaged(self) -> np.ndarray:
        """Rows of the photos of which a part is missing or wrong."""
        return np.flatnonzero([note.startswith(DAMAGED) for note in self.file_note.tolist()])

    @property
    def enriched(self) -> np.ndarray:
        """(n,) bool: which faces have a pose."""
        return np.isfinite(self.pose).all(axis=1)


COLUMNS: dict[str, Column] = {
    item.name: item.metadata["column"] for item in fields(FaceCache) if item.metadata
}
LATER_COLUMNS = [name for name, about in COLUMNS.items() if about.fill != about.fill]  # NaN
TEXT_COLUMNS = [name for name, about in COLUMNS.items() if about.fill == ""]
LANDMARK_SHAPES = {  # what `enrich` brings in any case
    name: COLUMNS[name].shape for name in LATER_COLUMNS if name != "learned_quality"
}


# ============================================================================
# Core: the operator's word
# ============================================================================
# What a person has set right by hand (docs/decisions.md), as constraints on rows of a cache. They
# are made of his decisions in work/decisions.py; work/constraints.py brings a grouping under them.


@dataclass(frozen=True)
class Word:
    """What the operator has said of a library. Nothing in it contradicts anything else in it."""

    person: np.ndarray  # (n,) int: rows of one number are one person for certain; -1: nothing said
    apart: np.ndarray  # (p, 2) rows of different people
    no_face: np.ndarray  # (n,) bool
    keep: np.ndarray  # (n,) int8: 1 is exported whatever the gates say, -1 is not
    best: np.ndarray  # (n,) int: 0, or the picture of its person; of several the highest
    carried: list[np.ndarray] = field(default_factory=list)  # rows that stood for a whole group
    names: dict[int, str] = field(default_factory=dict)  # of numbers in `person`
    ignored: frozenset[int] = frozenset()  # strangers, likewise
    hidden: frozenset[int] = frozenset()
    born: dict[int, int] = field(default_factory=dict)  # year
    numbers: dict[int, dict[str, str]] = field(default_factory=dict)  # "person", "faceset": folder
    taken: dict[int, float] = field(default_factory=dict)  # file row: seconds, as file_taken

    @functools.cached_property
    def is_silent(self) -> bool:
        """Whether it leaves every grouping as it is."""
        return not len(self.apart) and not (self.person >= 0).any()

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """(n,) int: whose a row is; people of different names stay apart, and from strangers."""
        count = max(int(self.person.max(initial=-1)), *self.names, *self.ignored, -1) + 1
        owners = np.full(count + 1, -1)  # the last: of rows of which nothing was said
        owners[[*self.names]], owners[[*self.ignored]] = [*self.names], count
        return owners[self.person]

    @functools.cached_property
    def vouched(self) -> np.ndarray:
        """(n,) bool: rows that he said are whose they are."""
        return (self.person >= 0) | (self.keep > 0)

    @property
    def faces(self) -> np.ndarray:
        """Rows that are faces."""
        return np.flatnonzero(~self.no_face)

    def of_rows(self, rows: np.ndarray) -> Word:
        """The same of these rows alone, by their position."""
        at = np.full(len(self.person), -1)
        at[rows] = np.arange(len(rows))
        apart = at[self.apart]
        carried = [at[some][at[some] >= 0] for some in self.carried]
        values = {name: getattr(self, name)[rows] for name in ("person", "no_face", "keep", "best")}
        return replace(
            self,
            apart=apart[(apart >= 0).all(axis=1)],
            carried=[some for some in carried if len(some)],
            **values,
        )

    def with_photos(self, pairs: np.ndarray) -> np.ndarray:
        """Rows (p, 2) that stay apart: what he said, and of pairs of one photo (q, 2) those that he
        did not say are one person."""
        one = (self.person[pairs[:, 0]] == self.person[pairs[:, 1]]) & (
            self.person[pairs[:, 0]] >= 0
        )
        return np.concatenate([self.apart, pairs[~one]])

    def of_group(self, rows: np.ndarray) -> int:
        """The number of the person a settled group is by name, else by being ignored, else by its
        folder or any other word; -1: none."""
        if self.is_silent:
            return -1
        told = [int(number) for number in np.unique(self.person[rows]) if number >= 0]
        order = (self.names, self.ignored, self.numbers, told)
        return next((n for known in order for n in told if n in known), -1)

    def is_ignored(self, rows: np.ndarray) -> bool:
        """Whether a settled group is one of strangers."""
        return self.of_group(rows) in self.ignored


def no_word(count: int) -> Word:
    """Of a library of `count` faces nothing was said."""
    none = np.zeros(count, bool)
    pairs = np.zeros((0, 2), np.intp)
    return Word(np.full(count, -1), pairs, none, none.astype(np.int8), none.astype(np.int32))


def settle(unit: np.ndarray, labels: np.ndarray, word: Word) -> np.ndarray:
    """A grouping, labels (n,) of unit rows (n, d), brought under the word: (n,) int labels.

    What is one person is joined, what is not is parted, all else stays as it stands.
    """
    return labels if word.is_silent else companion("constraints").settled(unit, labels, word)


def obeyed(
    unit: np.ndarray, groups: dict[str, np.ndarray], word: Word
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Groups that stand, {folder: rows of `unit` (n, d)}, brought under the word: (the same, and
    groups that were split off).

    A person keeps the folder that his decisions know, else the one most of his faces have; groups
    that are one person now are in one of them. Rows that are no faces go.
    """
    if word.is_silent and not word.no_face.any():
        return groups, []
    rows = np.concatenate([np.zeros(0, np.intp), *groups.values()])
    home = np.repeat(np.arange(len(groups)), [len(some) for some in groups.values()])
    rows, home = rows[~word.no_face[rows]], home[~word.no_face[rows]]
    names, found = list(groups), dict.fromkeys(groups, rows[:0])
    settled, parts = settle(unit[rows], home, word.of_rows(rows)), []
    for members in groups_of(settled):
        votes = Counter(names[at] for at in home[members].tolist())
        known = word.numbers.get(word.of_group(rows[members]), {}).values()
        wanted = next((name for name in known if name in found), votes.most_common(1)[0][0])
        first, second = rows[members], found[wanted]
        if len(second) and wanted not in known:
            first, second = second, first
        found[wanted] = first
        parts += [second] if len(second) else []
    return {name: some for name, some in found.items() if len(some)}, parts


# ============================================================================
# Core: identities
# ============================================================================


@dataclass(frozen=True)
class Refined:
    """Outcome of refine_identities: rows per identity, largest first, and what each gate took."""

    identities: list[np.ndarray]
    dropped: dict[str, int]
    lost: list[Counter[str]]  # what each identity lost that could be another person
    usual: Usual
    grouped: Grouped


@dataclass(frozen=True)
class Grouped:
    """Outcome of group_faces."""

    labels: np.ndarray  # (m,) int, one for each row
    linkage: str  # of LINKAGES: what was used
    why: str = ""  # it was not the one asked for

    def facts(self) -> dict[str, str]:
        """What results say of it."""
        return {"linkage": self.linkage} | ({"because": self.why} if self.why else {})


def group_faces(
    cache: FaceCache, rows: np.ndarray, how: Linkage, word: Word | None = None
) -> Grouped:
    """Group faces by person under the operator's word; a library that identity linkage does not
    suit by average linkage.

    rows: (m,) cache rows. Nobody is put together with himself: two faces of one photo are two
    people, unless they are copies or the operator says otherwise.
    """
    word = (word or no_word(cache.faces)).of_rows(rows)
    labels, kind, why = None, "average", ""
    if how.kind == "identity":
        labels, why = identity_labels(cache, rows, how, word)
    if labels is not None:
        kind = how.kind
    else:
        labels = average_labels(cache, rows, how, word)
    return Grouped(settle(rows_of(cache.unit, rows), labels, word), kind, why)


def average_labels(cache: FaceCache, rows: np.ndarray, how: Linkage, word: Word) -> np.ndarray:
    """Labels (m,) by average linkage, but nobody is put together with himself or with whom the
    word, of these rows, says he is not."""
    unit = rows_of(cache.unit, rows)
    labels = average_linkage(unit, how.rough)
    if how.reunite:
        labels = merge_by_centroid(unit, labels, how.tight)
    if not word.is_silent:
        labels = companion("constraints").parted(unit, labels, word, how.rough)
    pairs = word.with_photos(one_photo_pairs(unit, cache.face_file[rows], how.copy))
    while (labels[pairs[:, 0]] == labels[pairs[:, 1]]).any():
        labels = companion("constraints").one_each(unit, labels, pairs, how.rough)
    return labels


def identity_labels(
    cache: FaceCache,
    rows: np.ndarray,
    how: Linkage,
    word: Word,
    persons: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray | None, str]:
    """Labels (m,) by identity linkage; or None and why the library does not suit it.

    word: of these rows; persons: positions in `rows` of groups that stand as they are and stay
    apart.
    """
    unit, length = rows_of(cache.unit, rows), cache.length[rows]
    start = start_of(unit, how, persons, word.owner)
    measured = figures_of(unit, length, start.rough, how.copy)
    figures, why = fitting_figures(measured, cache.meta.recognizer)
    if figures is None:
        return None, why
    apart = word.with_photos(one_photo_pairs(unit, cache.face_file[rows], how.copy))
    return identity_linkage(unit, length, start, apart, figures, how.strictness), ""


def start_of(
    unit: np.ndarray,
    how: Linkage,
    persons: Sequence[np.ndarray],
    known: np.ndarray | None = None,
) -> Start:
    """The groups identity linkage starts from: `persons`, and average linkage of all others.

    known: (n,) int, whose face it is known to be without being one of `persons`; -1 nobody's.
    """
    rough, fixed = np.zeros(len(unit), np.intp), np.zeros(len(unit), bool)
    owner = (
        np.full(len(unit), -1) if known is None else np.where(known < 0, -1, known + len(persons))
    )
    for number, members in enumerate(persons):
        rough[members], fixed[members], owner[members] = number, True, number
    free = np.flatnonzero(~fixed)
    rough[free] = average_linkage(rows_of(unit, free), how.rough) + len(persons)
    tight = np.where(fixed, rough, len(persons) + np.arange(len(unit)))
    share = np.ones(len(unit), np.float32)
    for members in groups_of(rough):
        if len(members) == 1:
            break  # groups come largest first
        burst = average_linkage(unit[members], how.copy)  # the same tree, cut lower
        share[members] /= np.bincount(burst)[burst]
        if not fixed[members[0]]:
            inside = average_linkage(unit[members], how.tight)
            tight[members] = len(persons) + members[first_of_each(inside)]
    return Start(rough, tight, fixed, owner, share)


def usual_length(cache: FaceCache, rows: np.ndarray) -> float:
    """How long embeddings (m,) usually are.

    What is stored of the recogniser counts rather than what a library shows: in one of bad photos
    short embeddings are the rule, and yet not good.
    """
    known = KNOWN_FIGURES.get(cache.meta.recognizer)
    return known.length if known else float(cache.length[rows].mean()) if len(rows) else 0.0


def usual_of(cache: FaceCache, rows: np.ndarray, labels: np.ndarray) -> Usual:
    """What is normal in a library whose faces (m,) are grouped (m,)."""
    unit, length = cache.unit[rows], usual_length(cache, rows)
    figures = known_or_measured(cache.meta.recognizer, unit, cache.length[rows], labels)
    spread = spread_of([own_distances(unit[group]) for group in groups_of(labels)])
    return Usual(figures.strangers, figures.spread, figures.same, length, spread)


def refine_identities(
    cache: FaceCache,
    rows: np.ndarray,
    params: RefineParams,
    usual: Usual | None = None,
    word: Word | None = None,
) -> Refined:
    """Turn faces into clean identities: cluster, merge, gate, trim, one face per photo, size.

    rows: (m,) cache rows to consider; usual: of the library, where they are not all of it; word:
    the operator's. Every row ends in one identity or in one count of `dropped`.
    """
    word = word or no_word(cache.faces)
    grouped = group_faces(cache, rows, params.grouping, word)
    usual = usual or usual_of(cache, rows, grouped.labels)
    dropped: Counter[str] = Counter()
    groups, trimmed = [], []
    for members in groups_of(grouped.labels):
        if word.is_ignored(rows[members]):
            dropped["ignored"] += len(members)
            continue
        good, failed = gate_faces(cache, rows[members], params, usual.length, word)
        if failed["weak"] > len(good):  # profiles and covered faces of many, see docs/identities.md
            failed["weak_set"], good = len(good), good[:0]
        dropped.update(failed)
        near = trim_outliers(cache.unit, good, params.outlier_threshold)
        groups.append(good[np.isin(good, near) | word.vouched[good]])
        trimmed.append(len(good) - len(groups[-1]))
    stray = strays(cache.unit, groups, params.outlier_spreads, usual.spread)
    stray = [out & ~word.vouched[some] for out, some in zip(stray, groups, strict=True)]
    identities = []
    for members, out, far in zip(groups, stray, trimmed, strict=True):
        inside = members[~out]
        single = one_face_per_photo(cache, inside, params.copy_threshold)
        outliers = far + len(members) - len(inside)
        lost = Counter(outlier=outliers, same_photo=len(inside) - len(single))
        dropped.update(lost)
        if distinct_pictures(cache, single) < max(params.min_faces, 1):
            dropped["too_few_images"] += len(single)
            continue
        identities.append((single, lost))
    identities.sort(key=lambda one: (-len(np.unique(cache.face_file[one[0]])), one[0][0]))
    kept, lost = [rows for rows, _ in identities], [counts for _, counts in identities]
    return Refined(kept, dict(dropped), lost, usual, grouped)


def distinct_pictures(cache: FaceCache, rows: np.ndarray) -> int:
    """How many different pictures faces (m,) of one person come from.

    One photo, resent in sixteen sizes or hung up behind sixteen people, is one picture.
    """
    if not len(rows):
        return 0
    near = nearest_keeper(rows_of(cache.unit, rows), thresholds_for(cache.meta.model).duplicate)
    return min(len(np.unique(cache.face_file[rows])), len(np.unique(near)))


def merge_by_centroid(unit: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """Reunite over-split clusters whose centroids lie within `threshold` of each other."""
    groups = groups_of(labels)
    if len(groups) < 2:
        return labels
    merged = average_linkage(np.stack([centroid(unit[rows]) for rows in groups]), threshold)
    result = np.empty_like(labels)
    for rows, label in zip(groups, merged, strict=True):
        result[rows] = label
    return result


def gate_faces(
    cache: FaceCache,
    rows: np.ndarray,
    gates: RefineParams,
    usual_length: float,
    word: Word | None = None,
) -> tuple[np.ndarray, Counter[str]]:
    """Split rows into those that pass and a count of failures by the first gate that failed.

    usual_length: of an embedding; blurred, covered and turned faces have short ones (Meng et al.
    2021, "MagFace"; Kim et al. 2022, "AdaFace"). word: lets pass what the operator keeps.
    """
    failed: Counter[str] = Counter()
    word = word or no_word(cache.faces)
    for name, values, least in (
        ("small", cache.face_short, gates.min_short),
        ("blurred", cache.blur, gates.min_blur),
        ("low_score", cache.det_score, gates.min_det_score),
        ("weak", cache.length, gates.min_length * usual_length),
    ):
        good = (values[rows] >= least) | (word.keep[rows] > 0)
        failed[name] += int(np.count_nonzero(~good))
        rows = rows[good]
    return rows, failed


def trim_outliers(unit: np.ndarray, rows: np.ndarray, threshold: float) -> np.ndarray:
    """Rows within `threshold` of their centroid; small clusters are left alone."""
    if len(rows) < OUTLIER_MIN_CLUSTER:
        return rows
    return rows[1.0 - unit[rows] @ centroid(unit[rows]) <= threshold]


def own_distances(unit: np.ndarray) -> np.ndarray:
    """Cosine distance of each unit row (n, d) to the centroid of all the others, (n,) float32."""
    others = unit_rows(unit.sum(axis=0, dtype=np.float64) - unit)
    return 1.0 - np.einsum("nd,nd->n", unit, others)


def spread_of(distances: Sequence[np.ndarray]) -> float:
    """How far faces lie from the middle face of their set, seen over all sets: a cosine.

    distances: of each set's faces by own_distances; sets of fewer than OUTLIER_MIN_CLUSTER do not
    count, and without any other it is 0. The spread is 1.48 times the median absolute deviation
    (Hampel 1974, "The influence curve and its role in robust estimation").
    """
    off = [np.abs(own - np.median(own)) for own in distances if len(own) >= OUTLIER_MIN_CLUSTER]
    return MAD_SIGMA * float(np.median(np.concatenate(off))) if off else 0.0


def outlier_limits(
    distances: Sequence[np.ndarray], spreads: float, usual_spread: float
) -> np.ndarray:
    """How far from its set a face may lie, (g,) cosine distances; infinite for a small set.

    The limit is the set's median and `spreads` times its spread. A few faces say little of their
    spread, so the library's counts beside it, like SPREAD_FACES more of them (Efron and Morris
    1975, "Data analysis using Stein's estimator"). Where either is 0 there is no limit.
    """
    limits = np.full(len(distances), np.inf)
    if not (spreads and usual_spread):
        return limits
    for at, own in enumerate(distances):
        if len(own) >= OUTLIER_MIN_CLUSTER:
            count = len(own)
            both = count * spread_of([own]) ** 2 + SPREAD_FACES * usual_spread**2
            spread = max(math.sqrt(both / (count + SPREAD_FACES)), LEAST_SPREAD)
            limits[at] = float(np.median(own)) + spreads * spread
    return limits


def set_limits(
    unit: np.ndarray, groups: Iterable[np.ndarray], params: Any, usual: Usual
) -> np.ndarray:
    """How far from its set a face may lie by both outlier options, (g,) cosine distances.

    groups: rows of `unit` (n, d) by set; params: of refine or export.
    """
    distances = [own_distances(unit[rows]) for rows in groups]
    limits = outlier_limits(distances, params.outlier_spreads, usual.spread)
    return np.minimum(limits, params.outlier_threshold)


def strays(
    unit: np.ndarray, groups: Sequence[np.ndarray], spreads: float, usual_spread: float
) -> list[np.ndarray]:
    """Which rows of each group lie beyond its limit or nearer to another group: bool arrays.

    groups: rows of `unit` (n, d) by person. Another group is one of two faces and more. Groups
    without a limit are left alone.
    """
    distances = [own_distances(unit[rows]) for rows in groups]
    limits = outlier_limits(distances, spreads, usual_spread)
    found = [own > limit for own, limit in zip(distances, limits, strict=True)]
    asked = np.flatnonzero(np.isfinite(limits))
    if not len(asked):
        return found
    several = [at for at, rows in enumerate(groups) if len(rows) > 1]
    place = dict(zip(several, range(len(several)), strict=True))
    centres = np.stack([centroid(unit[groups[at]]) for at in several])
    own = np.concatenate([np.full(len(groups[at]), place[at]) for at in asked])
    _, other = nearest(unit[np.concatenate([groups[at] for at in asked])], centres, own)
    sizes = np.cumsum([len(groups[at]) for at in asked])[:-1]
    for at, away in zip(asked, np.split(other, sizes), strict=True):
        found[at] |= away < distances[at]
    return found


def one_face_per_photo(
    cache: FaceCache, rows: np.ndarray, copy_threshold: float, centre: np.ndarray | None = None
) -> np.ndarray:
    """The rows an identity keeps when it may own one face of a photo.

    A person stands in a photo once, so of two faces the one nearest the identity's centroid (by
    default that of the rows) stays; a mirror image or collage copy of it (within copy_threshold)
    may stay beside it.
    """
    if not len(rows):
        return rows
    centre = centroid(cache.unit[rows]) if centre is None else centre
    distance = 1.0 - cache.unit[rows] @ centre
    order = np.lexsort((distance, cache.face_file[rows]))
    keep = np.zeros(len(rows), dtype=bool)
    owner = -1
    for at in order:
        if owner < 0 or cache.face_file[rows[at]] != cache.face_file[rows[owner]]:
            owner, keep[at] = at, True
        else:
            likeness = float(cache.unit[rows[at]] @ cache.unit[rows[owner]])
            keep[at] = 1.0 - likeness <= copy_threshold
    return rows[keep]


OUTLIER, BY_OPERATOR = "outlier", "dropped by the operator"  # reasons


@dataclass(frozen=True)
class Chosen:
    """What becomes of faces that may be one person's; row i is one face."""

    reason: list[str]  # why it is left out, "" if it stays
    because: list[str]  # why it stays where others do not, "" if for nothing special
    distance: np.ndarray  # (n,) cosine distance to the centroid


def choose_faces(unit: np.ndarray, photos: np.ndarray, outlier: float, duplicate: float) -> Chosen:
    """Of the faces of one person, best first, those that stay: nobody far off (outlier, cosine
    distance to the centroid), one a photo, and of near-duplicates (duplicate) the best.

    unit: (n, d) float32 of length 1, zero where the embedding is not known; photos: (n,) labels.
    """
    known = unit.any(axis=1)
    centre = centroid(unit[known]) if known.any() else np.zeros(unit.shape[1], np.float32)
    away = 1.0 - unit @ centre
    reason, because = [""] * len(unit), [""] * len(unit)
    far = known & (away > outlier) & (len(unit) >= OUTLIER_MIN_CLUSTER)
    for row in np.flatnonzero(far):
        reason[row] = OUTLIER
    left = np.flatnonzero(~far)
    for what, stands_for in (
        ("faces in its photo", lambda rows: first_of_each(photos[rows])),
        ("near-duplicates", lambda rows: nearest_keeper(unit[rows], duplicate)),
    ):
        keeper = stands_for(left)  # (m,) index of the face that stands for each
        gone = keeper != np.arange(len(left))
        for at, others in Counter(keeper[gone].tolist()).items():
            because[left[at]] = f"best of {others + 1} {what}"
        for row in left[gone]:
            reason[row] = f"not the best of the {what}"
        left = left[~gone]
    return Chosen(reason, because, away)


def join_centroids(
    cache: FaceCache, rows: np.ndarray, groups: dict[str, np.ndarray], limit: float | np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Give each row to the nearest group centroid within its limit: (rows per group, the rest).

    limit: cosine distance, one for all groups or (g,) one for each.
    """
    names = [name for name, members in groups.items() if len(members)]
    limits = np.broadcast_to(limit, len(groups))[[len(rows) > 0 for rows in groups.values()]]
    centres = [centroid(cache.unit[groups[name]]) for name in names]
    width = cache.unit.shape[1]
    index, distance = nearest(
        cache.unit[rows], np.array(centres, np.float32).reshape(len(names), width)
    )
    near = distance <= limits[index] if len(names) else np.zeros(len(rows), bool)
    return {name: rows[near & (index == at)] for at, name in enumerate(names)}, rows[~near]


# ============================================================================
# Core: quality
# ============================================================================


def quality_terms(
    pose: np.ndarray,
    det_score: np.ndarray,
    symmetry: np.ndarray,
    face_short: np.ndarray,
    blur: np.ndarray,
) -> np.ndarray:
    """The first five of QUALITY_TERMS, which need nothing but the face: (n, 5) float64 in [0, 1].

    pose (n, 3) degrees pitch yaw roll; det_score (n,); symmetry (n,) by landmark_symmetry;
    face_short (n,) px; blur (n,) variance of the Laplacian.
    """
    terms = np.stack(
        [
            frontality(pose),
            det_score.astype(np.float64),
            symmetry,
            face_short / FULL_SIZE_SHORT,
            blur / (blur + HALF_SHARP_BLUR),
        ],
        axis=1,
    )
    return np.clip(np.nan_to_num(terms), 0.0, 1.0)


def frontality(pose: np.ndarray) -> np.ndarray:
    """1 for a face looking into the lens, falling linearly to 0 at 90 degrees yaw or pitch."""
    pitch, yaw = np.abs(pose[:, 0]), np.abs(pose[:, 1])
    return np.clip(1.0 - yaw / 90.0, 0.0, 1.0) * np.clip(1.0 - pitch / 90.0, 0.0, 1.0)


def landmark_symmetry(outline: np.ndarray, kps: np.ndarray) -> np.ndarray:
    """How evenly landmarks (n, k, 2) lie on both sides of the face's axis: (n,) in [0, 1].

    The axis runs from the middle of the eyes to the middle of the mouth (kps (n, 5, 2)); the
    measure is the smaller over the larger mean distance of the two sides, so it needs no table
    of which landmark mirrors which and works for 106, 68 or 5 points.
    """
    eyes = kps[:, 0:2].mean(axis=1)
    axis = kps[:, 3:5].mean(axis=1) - eyes  # (n, 2)
    axis = axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-6)
    offset = outline - eyes[:, None]
    side = offset[..., 0] * axis[:, None, 1] - offset[..., 1] * axis[:, None, 0]  # (n, k)
    left, right = np.maximum(side, 0).sum(axis=1), np.maximum(-side, 0).sum(axis=1)
    return np.minimum(left, right) / np.maximum(np.maximum(left, right), 1e-6)


def length_term(embedding: np.ndarray) -> np.ndarray:
    """How long each embedding (n, d) is for this library and recogniser: (n,) float64 in [0, 1].

    length / median length - 0.5: the usual face has 0.5, one half as long 0, one half longer 1.
    What a recogniser is sure of it embeds longer; norm as quality: Meng et al., MagFace, CVPR
    2021; Kim et al., AdaFace, CVPR 2022. Measured: docs/analysis/quality.md.
    """
    length = np.linalg.norm(embedding, axis=1)
    usual = float(np.median(length)) if len(length) else 0.0
    return np.clip(length.astype(np.float64) / (usual or 1.0) - 0.5, 0.0, 1.0)


def rank_term(scores: np.ndarray) -> np.ndarray:
    """Share of the library's scored faces that are worse: (n,) float64 in [0, 1]; 0 where NaN.

    scores (n,): of one model, higher is better. Equals count half. By rank and not by range: each
    model has a unit and a spread of its own, and a cut at a percentile would make the best equal.
    """
    have = np.isfinite(scores)
    known = np.sort(scores[have])
    places = [np.searchsorted(known, scores[have], side) for side in ("left", "right")]
    term = np.zeros(len(scores))
    term[have] = (places[0] + places[1]) / (2.0 * max(len(known), 1))
    return term


def composite_quality(terms: np.ndarray, weights: QualityWeights) -> np.ndarray:
    """Weighted mean of the terms (n, 7): (n,) float64 in [0, 1].

    Terms without weight are left out, not multiplied by 0: so no new term changes a bit of it.
    """
    shares = weights.as_array()
    used = np.flatnonzero(shares)
    return np.ascontiguousarray(terms[:, used]) @ (shares[used] / shares[used].sum())


def told_terms(terms: np.ndarray, weights: QualityWeights) -> dict[str, float]:
    """The terms (7,) of a face by name; those beside the usual five only where they count."""
    names = [
        name for name in QUALITY_TERMS if getattr(QualityWeights, name) + getattr(weights, name)
    ]
    values = dict(zip(QUALITY_TERMS, terms.tolist(), strict=True))
    return {name: values[name] for name in names}


def herd(
    embedding: np.ndarray, number: int, first: Sequence[int] = (), among: np.ndarray | None = None
) -> np.ndarray:
    """Rows whose average stands for that of all: (m,) int in the order chosen, m <= number.

    Each next row brings the mean of those chosen nearest (cosine) to the mean of all: herding, as
    in Welling, ICML 2009, and for exemplars in Rebuffi et al., iCaRL, CVPR 2017, algorithm 4. Then
    each in turn is exchanged for a better one, while that helps.
    embedding: (n, d) as the recogniser gave it, not of length 1, because consumers average it so;
    rows of zeros are not known and come last. first: rows chosen before; among: (n,) bool, where
    to choose from.
    """
    vectors = embedding.astype(np.float64)
    wanted = unit_rows(vectors.sum(axis=0)[None])[0].astype(np.float64)
    along, squares = vectors @ wanted, (vectors**2).sum(axis=1)
    worst = np.where(squares > 0, 0.0, -3.0)  # below every cosine
    worst -= 0.0 if among is None else np.where(among, 0.0, np.inf)

    def best_beside(rows: list[int]) -> int:
        total = vectors[rows].sum(axis=0)
        length = np.sqrt(np.maximum(total @ total + 2.0 * (vectors @ total) + squares, 1e-12))
        cosine = (total @ wanted + along) / length + worst
        cosine[rows] = -np.inf
        return int(cosine.argmax())

    chosen = list(first)
    for _ in range(len(chosen), min(number, int(np.isfinite(worst).sum()))):
        chosen.append(best_beside(chosen))
    for _ in range(HERD_ROUNDS):
        before = list(chosen)
        for at in range(len(first), len(chosen)):
            chosen[at] = best_beside(chosen[:at] + chosen[at + 1 :])
        if chosen == before:
            break
    return np.array(chosen[:number], dtype=np.intp)


def top_faces(embedding: np.ndarray, number: int) -> np.ndarray:
    """Rows, rising, of the first and those that with it average like all; see herd."""
    if len(embedding) <= number:
        return np.arange(len(embedding))
    return np.sort(herd(embedding, number, [0]))


def core_faces(embedding: np.ndarray, number: int, floor: float = CORE_FLOOR) -> np.ndarray:
    """Rows, rising, of the few known faces that average like all; none where all are that few.

    floor: share of the shortest embeddings to pass over, as the recogniser is least sure of those.
    """
    length = np.linalg.norm(embedding, axis=1)
    known = length > 0
    if np.count_nonzero(known) <= number:
        return np.zeros(0, dtype=np.intp)
    strong = known & (length >= np.quantile(length[known], floor))
    strong = strong if np.count_nonzero(strong) >= number else known
    return np.sort(herd(embedding, number, among=strong))


def average_cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Cosine between the means of two sets of raw embeddings, (n, d) and (m, d)."""
    a, b = unit_rows(np.stack([left.mean(axis=0), right.mean(axis=0)]))
    return float(a @ b)


def held_out_cosine(
    embedding: np.ndarray, half: np.ndarray, choose: Callable[[np.ndarray], np.ndarray]
) -> float:
    """What faces chosen in one half are worth for the other: the cosine of the two averages.

    embedding: (n, d), best first; half: (n,) bool. Each half is chosen from once; the mean of both.
    """
    halves = embedding[half], embedding[~half]
    both = []
    for own, other in (halves, halves[::-1]):
        rows = choose(own)
        both.append(average_cosine(own[rows] if len(rows) else own, other))
    return sum(both) / 2


# ============================================================================
# Core: crop geometry
# ============================================================================


def crop_square(bbox: np.ndarray, wh: tuple[int, int], pad: float) -> tuple[int, int, int]:
    """Square (x, y, side) in pixels around a face box with `pad` x its longer edge on each side.

    Where the square would leave the picture it is shifted back in as far as the picture allows;
    what still sticks out is for the caller to fill.
    """
    x1, y1, x2, y2 = (float(value) for value in bbox)
    side = max(1, round(max(x2 - x1, y2 - y1) * (1.0 + 2.0 * pad)))
    corner = []
    for middle, length in (((x1 + x2) / 2, wh[0]), ((y1 + y2) / 2, wh[1])):
        start = round(middle - side / 2)
        if side <= length:
            start = min(max(start, 0), length - side)
        else:
            start = min(max(start, length - side), 0)
        corner.append(start)
    return corner[0], corner[1], side


def arcface_places(kps: np.ndarray, side: int) -> np.ndarray:
    """(n, 2, 3) float64: where ArcFace wants faces with key points (n, 5, 2) in (side, side) crops.

    side as in insightface's estimate_norm, a multiple of 112, or of 128 with eight columns on
    either side.
    """
    wide = side % 112 != 0
    template = np.add(np.array([ARCFACE_X, ARCFACE_Y]).T, (8.0 * wide, 0.0))  # (5, 2)
    return similarities(kps, template * (side / (128 if wide else 112)))


def similarities(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n, 2, 3) float64: the maps that turn, scale and move points (n, k, 2) onto target (k, 2).

    The nearest by least squares, complex numbers standing for points.
    """
    own, wanted = (some[..., 0] + 1j * some[..., 1] for some in (points.astype(float), target))
    middle = own.mean(axis=1, keepdims=True)  # (n, 1)
    spread = (np.abs(own - middle) ** 2).sum(axis=1)
    turn = (np.conj(own - middle) * (wanted - wanted.mean())).sum(axis=1)
    turn = np.divide(turn, spread, out=np.zeros_like(turn), where=spread > 0)  # all in one place
    move = wanted.mean() - turn * middle[:, 0]
    rows = [(turn.real, -turn.imag, move.real), (turn.imag, turn.real, move.imag)]
    return np.moveaxis(np.array(rows), 2, 0)


def box_iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with boxes (n, 4): (n,) in [0, 1]."""
    inter = box_overlap(box, others)
    return inter / np.maximum(box_area(box[None]) + box_area(others) - inter, 1e-6)


def box_overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area shared by one box (4,) with boxes (n, 4): (n,) square pixels."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    return np.prod(np.maximum(high - low, 0.0), axis=1)


def box_area(boxes: np.ndarray) -> np.ndarray:
    """(n,) area of boxes (n, 4)."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)


def distinct_faces(found: Detections) -> Detections:
    """Drop weaker detections of a face another detection already covers (NMS, and nesting)."""
    order = np.argsort(-found.score, kind="stable")
    kept: list[int] = []
    for row in order:
        others = found.bbox[kept]
        inside = box_overlap(found.bbox[row], others) / np.maximum(
            np.minimum(box_area(found.bbox[row][None]), box_area(others)), 1e-6
        )
        if not len(others) or (
            box_iou(found.bbox[row], others).max() <= NMS_IOU and inside.max() <= TILE_NESTED
        ):
            kept.append(int(row))
    return found.take(kept)


def tile_windows(width: int, height: int, side: int) -> list[tuple[int, int, int, int]]:
    """Overlapping windows x1 y1 x2 y2 of at most `side` px that cover a picture."""

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = math.ceil((length - side) / (side * (1.0 - TILE_OVERLAP))) + 1
        return [round(step * (length - side) / (count - 1)) for step in range(count)]

    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in starts(height)
        for x in starts(width)
    ]


# ============================================================================
# Core: tracks and segments
# ============================================================================
# A scene lies between two cuts; a track is one face through sampled frames of a scene; a segment
# is a stretch of a scene in which a face is usable, and becomes one clip. Times are seconds since
# the first frame of the video.

Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # finite, as read from a file
PositiveAmount = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


@dataclass(frozen=True)
class Gates:
    """When a face is usable, and what makes a segment; defaults of the reference's section 3."""

    GROUP: ClassVar[str] = "usable faces"

    max_yaw: float = option(DEGREES, "head turned to a side at most so far", 75.0)
    max_pitch: float = option(DEGREES, "head up or down at most so far", 45.0)
    min_face_short: float = option(AT_LEAST_0, "short edge of the face box", 80.0, unit="PX")
    min_det: float = option(SHARE, "detector score of a usable face", 0.5, unit="SCORE")
    min_good: float = option(SHARE, "of a track's frames that must be usable", 0.7)
    min_dur: float = option(AT_LEAST_0, "shortest clip", 1.0, unit="SECONDS")
    max_dur: float = option(AT_LEAST_0, "longest clip", 120.0, unit="SECONDS")
    bridge_gap: float = option(AT_LEAST_0, "unusable time within a track", 3.0, unit="SECONDS")
    merge_gap: float = option(AT_LEAST_0, "between segments of a scene", 2.0, unit="SECONDS")

    def __post_init__(self) -> None:
        if self.min_dur > self.max_dur:
            raise SortFacesError(
                f"--min-dur {self.min_dur:g}: is more than --max-dur {self.max_dur:g}; swap them"
            )


@dataclass(frozen=True)
class Reach:
    """How alike two sightings must be to belong to one track."""

    GROUP: ClassVar[str] = "tracks"

    gap: float = option(
        AT_LEAST_0, "longest time a face is out of sight", 3.0, unit="SECONDS", name="track_gap"
    )
    iou: float = option(
        SHARE, "overlap at which a track takes a look alike", 0.3, unit="IOU", name="track_iou"
    )
    loose: float = option(COSINE, "how unlike that one may be", 0.8, name="track_loose")
    strict: float = model_distance(
        "candidate", "joins a track wherever the face is", name="track_strict"
    )


@dataclass(frozen=True)
class Track:
    """One face through the sampled frames of a scene; row i of each array is one frame."""

    name: str
    video: str
    scene: tuple[Amount, Amount]  # s
    sampled: tuple[Amount, Amount]  # s; first and last frame of the scene that was looked at
    time: np.ndarray  # (n,) float64 s, rising
    bbox: np.ndarray  # (n, 4) float32 upright pixels
    det: np.ndarray  # (n,) float32 in [0, 1]
    pose: np.ndarray  # (n, 3) float32 degrees pitch yaw roll; NaN unknown
    centre: np.ndarray  # (d,) float32 of length 1; mean direction of the embeddings
    look: np.ndarray | None = None  # (n, 2) light and sharpness (clip_ranking.py); NaN unknown
    length: float = 0.0  # mean length of the embeddings; 0 unknown

    def __post_init__(self) -> None:
        n = len(self.time)
        if self.look is None:
            object.__setattr__(self, "look", np.full((n, 2), np.nan))
        arrays = self.time, self.bbox, self.det, self.pose, self.look
        if not n or [array.shape for array in arrays] != [(n,), (n, 4), (n,), (n, 3), (n, 2)]:
            raise ValueError("its arrays do not fit together")
        if not all(np.isfinite(array).all() for array in arrays[:3]):
            raise ValueError("its times, boxes and scores are no numbers")

    @property
    def short(self) -> np.ndarray:
        """(n,) short edge of the box, px."""
        return np.min(self.bbox[:, 2:] - self.bbox[:, :2], axis=1)


@dataclass(frozen=True)
class Segment:
    """A stretch of one scene that becomes a clip."""

    video: str
    start: float  # s
    end: float  # s; the first moment that is no longer in it
    tracks: tuple[Track, ...]
    reason: str = ""  # why it is left out

    def seen(self, name: str) -> np.ndarray:
        """An array of its tracks (`time`, `pose`, ...): the frames of them all that lie in it."""
        inside = [(t.time >= self.start) & (t.time < self.end) for t in self.tracks]
        pairs = zip(self.tracks, inside, strict=True)
        return np.concatenate([getattr(track, name)[rows] for track, rows in pairs])


def sample_times(pts: np.ndarray, period: float) -> np.ndarray:
    """Of rising times (n,) the first at or after every multiple of `period` from the first one."""
    slot = np.floor((pts - pts[:1]) / period + 1e-6)
    return np.concatenate([pts[:1], pts[1:][np.diff(slot) > 0]])


def stitch_tracks(time: np.ndarray, bbox: np.ndarray, unit: np.ndarray, reach: Reach) -> np.ndarray:
    """Track number of every face of one scene: (n,) int, numbered by first sighting.

    time (n,) s, rising, equal within a frame; bbox (n, 4) px; unit (n, d). Frame by frame the
    pairs of a live track and a face are joined, best sum of cosine and half the IoU first: who it
    is counts more than where. Empty gives ().
    """
    label = np.full(len(time), -1, dtype=np.intp)
    last = np.zeros(0, dtype=np.intp)  # (t,) newest face of each track
    sums = np.zeros((0, unit.shape[1]), np.float32)  # (t, d)
    for rows in np.split(np.arange(len(time)), np.flatnonzero(np.diff(time)) + 1):
        if not len(rows):
            break
        live = np.flatnonzero(time[last] >= time[rows[0]] - reach.gap)
        cosine = unit_rows(sums[live]) @ unit[rows].T  # (t, f)
        iou = np.array([box_iou(bbox[last[track]], bbox[rows]) for track in live])
        iou = iou.reshape(cosine.shape)
        far = 1.0 - cosine
        fits = (far <= reach.strict) | ((iou >= reach.iou) & (far <= reach.loose))
        for at in np.argsort(-(cosine + iou / 2), axis=None, kind="stable"):
            track, face = divmod(int(at), len(rows))
            if fits[track, face]:
                label[rows[face]] = live[track]
                fits[track], fits[:, face] = False, False
        new = rows[label[rows] < 0]
        label[new] = len(last) + np.arange(len(new))
        last = np.concatenate([last, new])
        sums = np.concatenate([sums, np.zeros((len(new), unit.shape[1]), np.float32)])
        last[label[rows]] = rows
        sums[label[rows]] += unit[rows]
    return label


def frame_faults(track: Track, gates: Gates) -> dict[str, np.ndarray]:
    """Which frames of a track fail which gate: {gate: (n,) bool}; an unknown pose fails."""
    pitch, yaw, _ = np.abs(track.pose).T
    return {
        "yaw": ~(yaw <= gates.max_yaw),
        "pitch": ~(pitch <= gates.max_pitch),
        "small": track.short < gates.min_face_short,
        "score": track.det < gates.min_det,
    }


def usable_frames(track: Track, gates: Gates) -> np.ndarray:
    """(n,) bool: frames of a track that pass every gate."""
    return ~np.any(list(frame_faults(track, gates).values()), axis=0)


def track_fault(track: Track, gates: Gates) -> str:
    """Why a track is left out, "" if it passes."""
    faults = frame_faults(track, gates)
    good = usable_frames(track, gates).mean()
    if good >= gates.min_good and good > 0:
        return ""
    told = ", ".join(f"{name} {bad.sum()}" for name, bad in faults.items() if bad.any())
    return (
        f"{good:.0%} of {len(track.time)} frames usable, {gates.min_good:.0%} needed "
        f"(failing: {told})"
    )


def track_segments(track: Track, gates: Gates, period: float) -> list[Segment]:
    """Stretches in which a track's face is usable, short failures bridged.

    A stretch reaches half a period beyond its samples, and to the end of the scene where that has
    no further sample.
    """
    good = track.time[usable_frames(track, gates)]
    breaks = np.flatnonzero(np.diff(good) > gates.bridge_gap + 1.5 * period) + 1
    (low, high), (first, last) = track.scene, track.sampled
    segments = []
    for run in np.split(good, breaks):
        if len(run):
            start, end = float(run[0]), float(run[-1])
            start = low if start <= first else max(low, start - period / 2)
            end = high if end >= last else min(high, end + period / 2)
            segments.append(Segment(track.video, start, end, (track,)))
    return segments


def merge_segments(segments: Iterable[Segment], gates: Gates) -> list[Segment]:
    """Fuse the segments of one scene that overlap or lie close; never beyond the longest clip.

    Where two that overlap would be too long together, the second begins where the first ends.
    """
    merged: list[Segment] = []
    for new in sorted(segments, key=lambda segment: (segment.start, segment.end)):
        old = merged[-1] if merged else None
        if old is None or new.start - old.end > gates.merge_gap:
            merged.append(new)
            continue
        end = max(old.end, new.end)
        apart = max(old.end - old.start, new.end - new.start) <= gates.max_dur
        if end - old.start <= gates.max_dur or (new.start < old.end and not apart):
            tracks = old.tracks + tuple(track for track in new.tracks if track not in old.tracks)
            merged[-1] = replace(old, end=end, tracks=tracks)
        elif new.end > old.end:
            merged.append(replace(new, start=max(new.start, old.end)))
    return [replace(segment, reason=segment_fault(segment, gates)) for segment in merged]


def segment_fault(segment: Segment, gates: Gates) -> str:
    """Why a segment is left out, "" if its length is right."""
    length = segment.end - segment.start
    if length < gates.min_dur - 1e-6:
        return f"{length:.1f} s, shorter than {gates.min_dur:g} s"
    if length > gates.max_dur + 1e-6:
        return f"{length:.1f} s, longer than {gates.max_dur:g} s"
    if segment.tracks and not len(segment.seen("time")):
        return "no frame looked at lies in it"
    return ""


def scenes_between(
    first: int, end: int, cuts: Sequence[int], jumps: Sequence[int], near: float
) -> list[list[int]]:
    """Scenes [first frame, frame after the last) in pts from cuts and jumps.

    The detector makes one cut of what follows within `near`, such as a black frame between two
    shots; the frames between the first and the last of those jumps belong to neither scene.
    """
    edges = [(bisect.bisect(jumps, c - near), bisect.bisect_left(jumps, c + near)) for c in cuts]
    together = [[cut, *jumps[slice(*own)]] for cut, own in zip(cuts, edges, strict=True)]
    starts = [first, *(max(some) for some in together)]
    ends = [*(min(some) for some in together), end]
    return [[low, high] for low, high in zip(starts, ends, strict=True) if low < high]


def scenes_beside(
    scenes: Sequence[Sequence[int]], gaps: Sequence[tuple[int, int]], near: float
) -> list[list[int]]:
    """Scenes without what lies in gaps, and without what is left beside one and under `near`."""
    for gap in gaps:
        parts = []
        for low, high in scenes:
            if high <= gap[0] or gap[1] <= low:
                parts.append([low, high])
                continue
            left = [[low, min(high, gap[0])], [max(low, gap[1]), high]]
            parts += [part for part in left if part[1] - part[0] >= near]
        scenes = parts
    return [[*scene] for scene in scenes]


# ============================================================================
# Core: keeping face sets clean
# ============================================================================
# What the maintenance commands decide, from numbers alone.


def complete_linkage_groups(
    cosine: np.ndarray, edge: float, together: np.ndarray, apart: np.ndarray
) -> list[np.ndarray]:
    """Groups of rows in which every pair has cosine >= edge; singles are left out.

    cosine, together, apart: (n, n), symmetric. `together` (bool) pairs count as identical, `apart`
    pairs never share a group. Complete linkage, because single linkage chains: the reference saw
    groups of 60 identities whose least similarity was below 0.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import squareform

    if len(cosine) < 2:
        return []
    distance = np.clip(1.0 - cosine.astype(np.float64), 0.0, 2.0)
    _, united = connected_components(together, directed=False)  # a yes to a-b and b-c is one to a-c
    distance[united[:, None] == united] = 0.0
    distance[apart] = APART
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="complete")
    labels = fcluster(tree, 1.0 - edge + DUPLICATE_SLACK, criterion="distance")
    return [rows for rows in groups_of(labels) if len(rows) > 1]


def occlusion_verdict(
    flagged: np.ndarray, dominance: float, min_survivors: int
) -> tuple[str, np.ndarray]:
    """What becomes of a face set, from which faces show which attribute: flagged (n, k) bool.

    ("masked", the attributes (k,) bool that dominate), ("thin", faces (n,) bool to prune) when
    too few would survive, ("prune", faces (n,) bool) or ("keep", ...). A set that loses nothing
    is never thin, however small it is.
    """
    occluded = flagged.any(axis=1)
    if not occluded.any():
        return "keep", occluded
    dominant = flagged.mean(axis=0) >= dominance
    if dominant.any():
        return "masked", dominant
    survivors = int(np.count_nonzero(~occluded))
    return ("thin" if survivors < min_survivors else "prune"), occluded


def year_of(taken: float | None) -> float:
    """Calendar year of a capture time in seconds; NaN if unknown."""
    if taken is None or not math.isfinite(taken):
        return math.nan
    try:
        return float((EPOCH + timedelta(seconds=taken)).year)  # Windows has no times before 1970
    except OverflowError:  # beyond the calendar
        return math.nan


# ============================================================================
# Core: names
# ============================================================================

SUFFIX_LIMIT = 20  # bytes
NAME_LIMIT = 200  # bytes of UTF-8; every file system we meet allows 255, and NTFS counts apart
WINDOWS_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')


FRAME_PATH = re.compile(r"(.+)#pts=(-?\d+)@(\d+\.\d+)s", re.DOTALL)  # work/film_source.py


def film_of(path: str) -> str:
    """The film that a path of a cache names a frame of, "" where it is a photo's own path."""
    found = FRAME_PATH.fullmatch(path) if "#pts=" in path else None
    return found[1] if found else ""


def file_of(path: str) -> str:
    """The file on the disk that a path of a cache stands for."""
    return film_of(path) or path


def safe_dst_name(path: str) -> str:
    """File name that stands for an absolute path: `/a/b/c.jpg` -> `a__b__c.jpg`.

    Depends on the path alone, so it stays the same across runs and sources. Where flattening is
    ambiguous or loses anything (underscores next to a separator, a character NTFS forbids, bytes
    that are no UTF-8, a name too long) eight hex digits of the path's hash keep names apart.
    A frame of a film is a JPEG there.
    """
    path = f"{path}.jpg" if film_of(path) else path
    whole = path.replace(os.sep, "/").strip("/")
    flat = whole.replace("/", "__")
    text = flat.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = WINDOWS_FORBIDDEN.sub("_", text.replace("\ufffd", "_"))
    stem, suffix = os.path.splitext(text)
    if len(suffix.encode()) > SUFFIX_LIMIT:
        stem, suffix = text, ""  # a full stop in a sentence
    stem, suffix = stem.strip(" ."), suffix.rstrip(" .")  # no hidden files, nothing NTFS drops
    ambiguous = any(part in whole for part in ("__", "_/", "/_"))
    if stem + suffix == flat and not ambiguous and len(flat.encode()) <= NAME_LIMIT:
        return flat
    mark = "-" + path_mark(path)
    room = NAME_LIMIT - len(mark) - len(suffix.encode())
    while len(stem.encode()) > room:
        stem = stem[max(1, (len(stem.encode()) - room) // 4) :]  # the end of a path tells most
    return stem.lstrip(" .") + mark + suffix


def path_mark(path: str) -> str:
    """Eight hex digits that tell a path from others that flatten alike."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def numbered(prefix: str, number: int) -> str:
    """`person_007`: three digits, more when needed."""
    return f"{prefix}_{number:03d}"


# ============================================================================
# Files and locks
# ============================================================================


NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # raised by writes, which name no file


@contextlib.contextmanager
def writing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Write a file so that a reader sees the old one or the whole new one, never a part.

    Yields a temporary path in the same folder; on leaving it is moved into place, with `sync`
    only after its bytes are on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f"{PART_PREFIX}{os.getpid()}-{threading.get_ident()}-{path.name[-60:]}"
    try:
        yield part
        if sync:
            with open(part, "r+b") as stream:  # Windows syncs only what is open for writing
                os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.filename is not None or error.errno not in NO_SPACE:
            raise
        raise SortFacesError(f"{path}: {error.strerror or error}; free some space") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()  # there still after an error, or where both names were one hard link


def write_bytes(path: Path, data: bytes) -> None:
    with writing(path) as part:
        part.write_bytes(data)


def write_part(path: Path, data: bytes) -> None:
    """Write a file of a folder that nobody reads yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, json_text(value))


def json_text(value: Any) -> bytes:
    return (json.dumps(value, indent=1, default=json_default) + "\n").encode()


def json_default(value: Any) -> Any:
    """Let json write numpy scalars, arrays and paths."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object of ours. Reading one checks every field; unknown ones are passed over."""


class OwnFile(Record, tag_field="kind", kw_only=True):
    """A JSON file of ours; the tag of a subclass is the "kind" in the file."""

    tool: Literal["sort_faces"] = TOOL
    version: str = VERSION


R = TypeVar("R", bound=Record)


# Names from our files that become paths: none leads out of its folder (place_in looks at links).
UNSAFE = r"\x00\ud800-\udc7f\udd00-\udfff" + r"\\:" * (os.name == "nt")  # in no file name
PART = rf"(?!\.{{1,2}}(?:/|\Z))[^/{UNSAFE}]+"
PlainName = Annotated[str, msgspec.Meta(pattern=rf"\A{PART}\Z")]
Inside = Annotated[str, msgspec.Meta(pattern=rf"\A{PART}(?:/{PART})*\Z")]  # a path below a folder


def place_in(root: Path, place: str) -> Path:
    """A place below a folder. Raises SortFacesError where a link on the way leads elsewhere."""
    for parent in list(PurePosixPath(place).parents)[:-1]:
        if (root / parent).is_symlink():
            raise SortFacesError(
                f"{root / parent}: is a link, and nothing is changed through one; "
                "put the folder itself there"
            )
    return root / place


def tag_of(kind: type[OwnFile]) -> str:
    """The "kind" in files of a type."""
    return kind.__struct_config__.tag


def as_record(kind: type[R], value: Any) -> R:
    """A JSON value as a record. Raises msgspec.ValidationError, which names the place."""
    try:
        return msgspec.convert(value, kind, dec_hook=array_of_json)
    except UnicodeError as error:  # half a character where a known word must stand
        raise msgspec.ValidationError(one_line(error)) from None


def array_of_json(kind: type, value: Any) -> np.ndarray:
    """Let a record hold an array: of lists of numbers, null for NaN, or of packed float32."""
    if kind is not np.ndarray:
        raise NotImplementedError(kind)
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
    return np.array(value, np.float64)


def as_json(record: Any) -> Any:
    """A record, or whatever holds records, numpy values and paths, as JSON values."""
    return msgspec.to_builtins(record, enc_hook=json_default)


def read_file(path: Path, kind: type[R]) -> R:
    """Load one of our own JSON files. Raises SortFacesError for anything but a whole one.

    The text goes through Python's json: it keeps names that are no UTF-8, and numbers like NaN.
    """
    name = tag_of(kind)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and value.get("tool") == TOOL and value.get("kind") == name:
            return as_record(kind, value)
        why = f"is no {name} file of {TOOL}; name the right file"
    except FileNotFoundError:
        why = f"not found; name the {name} file of an earlier step"
    except IsADirectoryError:
        why = f"is a folder; name the {name} file inside it"
    except msgspec.ValidationError as error:
        why = f"parts of it are missing or wrong ({error}); run the step that writes it again"
    except (ValueError, RecursionError) as error:
        why = f"is no JSON ({one_line(error)}); run the step that writes it again"
    raise SortFacesError(f"{path}: {why}")


def read_if_sound(path: Path, kind: type[R]) -> R | None:
    """One of our own JSON files, None where there is none that could be used."""
    with contextlib.suppress(SortFacesError, OSError):
        return read_file(path, kind)
    return None


def write_file(path: Path, record: OwnFile) -> None:
    write_bytes(path, text_of_file(record))


def text_of_file(record: OwnFile) -> bytes:
    return json_text({"tool": TOOL, **as_json(record)})


def checked_line(record: dict[str, Any]) -> bytes:
    """A line of a JSONL file. Its last key is the CRC-32 of the text before that key."""
    text = json.dumps({**record, "schema": RECORD_SCHEMA}, default=json_default).encode()[:-1]
    return text + checksum(text)


def checksum(text: bytes) -> bytes:
    """How a line that begins with this text ends."""
    return b', "crc32": "%08x"}\n' % zlib.crc32(text)


def object_of(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, None where it is damaged; without its checksum."""
    text = line[: -len(checksum(b""))]
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    checked = "crc32" in value or value.get("schema") == RECORD_SCHEMA
    if checked and line != text + checksum(text):
        return None
    return {key: part for key, part in value.items() if key != "crc32"}


def json_lines(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The lines of a JSONL file from byte `start` on: (offset behind it, its object).

    None is the object of a damaged line: the caller knows what that costs. An unfinished last line,
    of a writer at work or of a kill, is not looked at. A file that is not there has no lines.
    """
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
        stream.seek(start)
        for line in stream:
            if line.endswith(b"\n"):
                start += len(line)
                yield start, object_of(line)


def sound_lines(
    path: Path, read: Callable[[dict[str, Any]], Any], cost: str, without_first: str = ""
) -> Iterator[Any]:
    """What `read` makes of the lines of a JSONL file of ours; a damaged line costs that one.

    read: raises msgspec.ValidationError for what is not as it must be. cost: what is then lost.
    without_first: what to do where the others mean nothing without the first; SortFacesError then.
    """
    for number, (_, value) in enumerate(json_lines(path), 1):
        try:
            if value is None:
                raise msgspec.ValidationError("no whole line of JSON")
            yield read(value)
        except msgspec.ValidationError as error:
            if number == 1 and without_first:
                raise SortFacesError(
                    f"{path}: line 1: {one_line(error)}; {without_first}"
                ) from None
            log.warning("%s: line %d is damaged (%s); %s", path, number, one_line(error), cost)


class AppendOnly:
    """A JSONL file that grows by whole lines; an append costs what is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: io.BufferedRandom | None = None

    def append(self, record: dict[str, Any]) -> None:
        """Write one line and hand it to the operating system; it survives a kill of us."""
        try:
            self.open().write(checked_line(record))
            self.stream.flush()
        except OSError as error:
            self.close()
            what = "free some space" if error.errno in NO_SPACE else "mend that"
            raise SortFacesError(
                f"{self.path}: {error.strerror}; {what} and run again, "
                "everything up to here is kept"
            ) from None

    def open(self) -> io.BufferedRandom:
        if self.stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = open(self.path, "a+b")  # noqa: SIM115 - lives as long as the run
            self.cut_torn_line()
        return self.stream

    def cut_torn_line(self) -> None:
        """Remove the unfinished last line of a killed run, so that the next one starts clean."""
        size = at = self.stream.seek(0, os.SEEK_END)
        while at > 0:
            start = max(0, at - 65536)
            self.stream.seek(start)
            newline = self.stream.read(at - start).rfind(b"\n")
            if newline >= 0:
                at = start + newline + 1
                break
            at = start
        if at < size:
            self.stream.truncate(at)
        self.stream.seek(0, os.SEEK_END)

    def is_new(self) -> bool:
        """Whether nothing has ever been written."""
        return self.stream is None and self.open().tell() == 0

    def close(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError):  # what could not be written has been told already
                stream.close()


def first_free(name: str, is_taken: Callable[[str], bool], mark: str, second: int) -> str:
    """A name that is not taken: itself, or with a mark and the first free number from `second`."""
    others = (f"{name}{mark}{number}" for number in itertools.count(second))
    return next(name for name in itertools.chain([name], others) if not is_taken(name))


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file while writing; a second writer is told who holds it.

    A folder, a link or a pipe under that name is none of ours and is moved aside.
    """
    from socket import gethostname

    from filelock import FileLock, Timeout

    holder = path.with_name(path.name + ".holder")
    for file in (path, holder):
        if os.path.lexists(file) and not stat.S_ISREG(os.lstat(file).st_mode):
            aside = first_free(f"{file}.aside", os.path.lexists, "-", 2)
            log.warning("%s: is no file of a lock; moved to %s", file, aside)
            os.rename(file, aside)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        with contextlib.suppress(OSError):
            what = f"{what} is being written by {holder.read_text('utf-8', 'replace').strip()}"
        raise SortFacesError(f"{what}; wait for it or stop it ({path})") from None
    try:
        me = f"process {os.getpid()} on {gethostname()} ({' '.join(sys.argv[:2])[-80:]})"
        with contextlib.suppress(OSError):  # a full disk: some commands need no room
            holder.write_text(me, encoding="utf-8", errors="backslashreplace")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()  # the file stays: removing it would let two writers hold two locks


def remove_unfinished(folder: Path) -> None:
    """Delete what writes cut short by a kill left in a folder tree."""
    for part in list(folder.rglob(PART_PREFIX + "*")):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                part.unlink()


def remove_unfinished_file(path: Path, alone: bool = False) -> None:
    """Delete what a killed run left of a file it was writing, or of one named after it (x.npz.y).

    alone: nobody else can be writing the file now; else parts of running processes stay.
    """
    own = re.escape(PART_PREFIX) + r"(\d+)-\d+-" + re.escape(path.name[-60:])
    pattern = re.compile(own + r"(\..+)?")
    for part in path.parent.iterdir() if path.parent.is_dir() else ():
        found = pattern.fullmatch(part.name)
        if found and ((alone and not found[2]) or not is_running(int(found[1]))):
            part.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether another process has this number; where that cannot be asked, yes."""
    if pid == os.getpid():
        return False
    if os.name == "nt":  # where this call would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def sha256_of_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_own_output(folder: str) -> bool:
    """Whether a folder was written by this tool, by its lock or the first bytes of a manifest."""
    if os.path.lexists(os.path.join(folder, LOCK_NAME)):
        return True
    for name in ("manifest.json", "refine_manifest.json"):
        with contextlib.suppress(OSError), open(os.path.join(folder, name), "rb") as stream:
            if f'"tool": "{TOOL}"'.encode() in stream.read(64):
                return True
    return False


def facts_of(facts: os.stat_result) -> tuple[int, int]:
    """(size in bytes, modification time in ns) of a file, as far as 64 bits reach.

    File systems hold times beyond the year 2262; the end of the range stands for them all.
    """
    return facts.st_size, max(-(2**63), min(facts.st_mtime_ns, 2**63 - 1))


class FoundFile(msgspec.Struct, frozen=True, gc=False):
    """One photo file as the scan saw it; there may be a million."""

    path: str
    size: int  # bytes
    mtime_ns: int


@dataclass
class ScanReport:
    """What a scan found below its roots, and what it passed over."""

    roots: Sequence[Path] = ()
    files: list[FoundFile] = field(default_factory=list)  # in path order
    films: list[FoundFile] = field(default_factory=list)  # likewise; see work/film_source.py
    folders: set[str] = field(default_factory=set)  # whose files could be listed
    sidecars: list[str] = field(default_factory=list)  # files, named as a photo and .xmp
    others: Counter[str] = field(default_factory=Counter)  # by kind, see work/kinds.py
    examples: dict[str, str] = field(default_factory=dict)  # the first file of some kinds
    unreadable: list[str] = field(default_factory=list)
    skipped_outputs: list[str] = field(default_factory=list)

    def pass_over(self, kind: str, path: str) -> None:
        self.others[kind] += 1
        self.examples.setdefault(kind, path)


def scan_photos(
    roots: Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> ScanReport:
    """All photo files below the roots; those whose bytes are not on this disk are passed over.

    Follows symbolic links once per real folder, so loops end. Skips hidden and system folders
    and this tool's own outputs. Globs match the path relative to its root or the bare name.
    """
    report = ScanReport(roots)
    found: list[FoundFile] = []
    films: list[FoundFile] = []
    seen: set[tuple[int, int | str]] = set()
    kinds = companion("kinds")
    suffixes = kinds.read_suffixes()
    for root in roots:
        for path, name in walk_files(str(root), seen, report):
            suffix = os.path.splitext(name)[1].lower()
            clip = suffix in CLIP_SUFFIXES
            if suffix not in suffixes and not clip:
                kind = kinds.other_kind(path, name, suffixes)
                if kind != "photo":
                    report.pass_over(kind, path)
                    report.sidecars += [path] if suffix == ".xmp" else []
                    continue
            if include or exclude:  # the relative path costs more than all else
                relative = os.path.relpath(path, root)
                if not wanted_path(relative, name, include, exclude):
                    continue
            try:
                facts = os.stat(path)
            except OSError as error:  # a dangling link, or gone since the listing
                report.unreadable.append(f"{path}: {error.strerror}")
                continue
            absent = "no files" if is_special(path, facts) else kinds.absence(path, facts)
            if absent:
                report.pass_over(absent, path)
                continue
            kind = films if clip else found
            kind.append(FoundFile(path, *facts_of(facts)))
    if len(roots) > 1:  # one may be a file below another
        found, films = (list({file.path: file for file in x}.values()) for x in (found, films))
    report.files, report.films = (
        sorted(some, key=operator.attrgetter("path")) for some in (found, films)
    )
    return report


def is_special(path: str, facts: os.stat_result) -> bool:
    """Whether reading a file would block or never end: a pipe, a device, a file of the kernel."""
    if not stat.S_ISREG(facts.st_mode):
        return True
    odd = not 0 < facts.st_size < 2**40  # B; those of the kernel are empty or terabytes
    return odd and os.path.realpath(path).startswith(("/proc/", "/sys/", "/dev/"))


def walk_files(
    top: str, seen: set[tuple[int, int | str]], report: ScanReport
) -> Iterator[tuple[str, str]]:
    """Yield (path, name) of the files below `top`, each real folder once; the rest is told."""
    if os.path.isfile(top):
        yield top, os.path.basename(top)
        return
    pending = [top]
    while pending:
        folder = pending.pop()
        try:
            facts = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            report.unreadable.append(f"{folder}: {error.strerror}")
            continue
        own = (facts.st_dev, facts.st_ino or os.path.realpath(folder))  # 0: some network disks
        if own in seen:
            log.info("%s: skipped, the same folder came before", folder)
            continue
        seen.add(own)
        if folder != top and is_own_output(folder):
            report.skipped_outputs.append(folder)
            continue
        report.folders.add(folder)
        folders = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
                if companion("kinds").is_icloud_stub(entry.name):
                    report.pass_over(companion("kinds").IN_CLOUD, entry.path)
                continue
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # a link to itself, or into a folder we may not enter
                report.unreadable.append(f"{entry.path}: {error.strerror}")
                continue
            if is_folder:
                folders.append(entry.path)
            else:
                yield entry.path, entry.name
        pending.extend(reversed(folders))


def is_missing(path: str) -> bool:
    """Whether nothing lies at a path; what we may not look at may well be there."""
    try:
        os.lstat(file_of(path))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def wanted_path(relative: str, name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the globs let a file through; without --include everything is in."""

    def matches(globs: Sequence[str]) -> bool:
        return any(fnmatch.fnmatch(relative, g) or fnmatch.fnmatch(name, g) for g in globs)

    return (not include or matches(include)) and not matches(exclude)


# ============================================================================
# Progress
# ============================================================================


class Lines(io.TextIOBase):
    """A stream whose lines go to a function."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self.take = take

    def write(self, text: str) -> int:
        for line in filter(str.strip, text.splitlines()):
            self.take(" ".join(line.split()))
        return len(text)


def note(line: str, level: int = logging.INFO) -> None:
    """Write a line to the log file alone, where there is one."""
    for handler in log_files():
        handler.emit(log.makeRecord(TOOL, level, "", 0, line, (), None))


def bug_of_ours(error: BaseException) -> str:
    """A bug in one line, with its place; the traceback goes to the log file, where there is one."""
    import traceback

    for line in "".join(traceback.format_exception(error)).splitlines():
        note(line, logging.ERROR)
    *_, last = traceback.extract_tb(error.__traceback__)
    place = f"{PurePath(last.filename).name}:{last.lineno}"
    return f"a bug of ours ({type(error).__name__} at {place}: {one_line(error)})"


def log_files() -> list[logging.FileHandler]:
    """The log file in use, if there is one."""
    return [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]


class Stderr:
    """sys.stderr as it is at the moment: work/hush.py puts another stream there for a while."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


STDERR = Stderr()


def progress(items: Iterable, total: int, label: str, unit: str = "item") -> Iterable:
    """Iterate with a progress bar on a terminal, with a line now and then in a log.

    label: what is done, "" to show nothing; unit: what is counted, for the rate (1.50photo/s, or
    2.50s/photo).
    """
    if total == 0 or not label or log.level > logging.INFO:
        return items
    from tqdm import tqdm

    more: dict[str, Any] = {"file": STDERR, "dynamic_ncols": True}
    if not sys.stderr.isatty():
        line = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left"
        more = {"file": Lines(log.info), "bar_format": line, "miniters": 1}
        more |= dict.fromkeys(("mininterval", "maxinterval", "delay"), LOG_INTERVAL)
    return tqdm(items, total=total, desc=label, unit=unit, **more)


class Spent:
    """Seconds that threads spend in the stages of the work, all threads together."""

    def __init__(self) -> None:
        self.lock, self.seconds = threading.Lock(), Counter()

    @contextlib.contextmanager
    def on(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            with self.lock:
                self.seconds[stage] += time.perf_counter() - started

    def shares(self) -> str:
        """Where the time went so far, as `detect 45 %, decode 31 %`; from now on it counts anew."""
        seconds, self.seconds = self.seconds, Counter()
        whole = sum(seconds.values())
        return ", ".join(f"{stage} {part / whole:.0%}" for stage, part in seconds.most_common())


SPENT = Spent()


class LogHandler(logging.Handler):
    """Writes log lines to stderr without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        line = prefix + record.getMessage().encode(errors="backslashreplace").decode()
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=STDERR)
        else:
            print(line, file=sys.stderr)


# ============================================================================
# Photos
# ============================================================================

OPENCV_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # as Pillow names them
# and no others: its PostScript runs a program
PILLOW_FORMATS = ("DIB", "GIF", "HEIF", "AVIF", "JPEG2000")

PILLOW_ERRORS = (  # its plugins raise whatever a damaged file makes them stumble over
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError),
    *(EOFError, RuntimeError, MemoryError, OverflowError, ZeroDivisionError, struct.error),
)

# What tells of EXIF or XMP in a PNG; to look for it Pillow would decode the whole picture.
PNG_FACTS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")

# EXIF tags (CIPA DC-008, section 4.6)
EXIF_ORIENTATION, EXIF_IFD, EXIF_DATETIME = 0x0112, 0x8769, 0x0132  # in the first directory
EXIF_ORIGINAL, EXIF_DIGITIZED = 0x9003, 0x9004  # in the EXIF directory


# Most bytes a pixel takes while it is decoded, by format; measured: docs/analysis/embed.md
DECODED_BYTES = {"TIFF": 12, "GIF": 11, "HEIF": 16, "AVIF": 16, "JPEG2000": 24}
USUAL_DECODED_BYTES = 6  # of all other formats


# M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX of glibc, as arenas of threads end at 64 MB
MALLOC_SETTINGS = {-3: 1 << 28, -1: 1 << 29, -8: 1}  # bytes (89 megapixels), bytes, arenas


@dataclass(frozen=True)
class Reading:
    """How photos are decoded."""

    least: int = 0  # px; a JPEG may be reduced until its longer edge is no longer than this; 0: no
    nvjpeg: bool = False  # JPEGs by the GPU, see work/nvjpeg.py


WHOLE = Reading()


@dataclass(frozen=True)
class Photo:
    """A decoded photo."""

    image: np.ndarray  # (h, w, 3) uint8 BGR, upright; of a reduced JPEG one of scale x scale pixels
    scale: int = 1  # pixels of the photo per pixel of the image
    dates: str = "{}"  # as in FaceCache.file_dates
    name: str = ""  # of the file, which may tell its date
    note: str = ""  # what is wrong with the file, as FaceCache.file_note
    there: tuple[int, int, int, int] | None = None  # x1 y1 x2 y2 of the image; the rest is missing

    @functools.cached_property
    def when(self) -> Any:
        """capture_time.Taken by what the file says and its name; its folders may know better."""
        return companion("capture_time").of_file(self.dates, self.name)

    @property
    def taken(self) -> float:
        """The same in seconds as in FaceCache.file_taken, NaN if unknown."""
        return self.when.seconds

    @property
    def wh(self) -> tuple[int, int]:
        """Size of the photo itself, in whose pixels all boxes are."""
        return self.image.shape[1] * self.scale, self.image.shape[0] * self.scale

    def cut(self, window: tuple[int, int, int], size: int) -> np.ndarray:
        """Square (x, y, side) in pixels of the photo as (size, size, 3) uint8."""
        x, y, side = (round(value / self.scale) for value in window)
        return cut_window(self.image, (x, y, max(1, side)), size)


class DecodingMemory:
    """Bytes that decoded photos may take, all threads together.

    A thread with nothing in hand waits until there is room for its photo; one that holds photos
    already does not, or two could wait for each other. `limit` is --memory.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self.changed = threading.Condition()
        self.thread = threading.local()  # .held: bytes of the photos this thread works on

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Photos decoded within, by this thread, are given up at the end."""
        self.thread.held = 0
        try:
            yield
        finally:
            self.add(-self.thread.held)
            del self.thread.held

    @contextlib.contextmanager
    def room(self, need: int, keep: int) -> Iterator[None]:
        """Wait for `need` bytes to decode a photo in; of them it keeps `keep` afterwards."""
        if not hasattr(self.thread, "held"):  # nobody will say when the photo is given up
            yield
            return
        with self.changed:
            while self.used and not self.thread.held and self.used + need > self.limit:
                self.changed.wait()
            self.used += need
        self.thread.held += need
        try:
            yield
        finally:
            self.thread.held += keep - need
            self.add(keep - need)

    def add(self, more: int) -> None:
        with self.changed:
            self.used += more
            self.changed.notify_all()


def machine_memory() -> int:
    """Bytes of memory there are for us, 0 where the system does not tell."""
    found = [0]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError):  # of a container; "max" where it has no limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)


# A twentieth of the machine, but enough for any photo a camera of today takes.
DECODING = DecodingMemory(max(1_000_000_000, machine_memory() // 20))


def keep_freed_memory() -> None:
    """Let glibc keep the memory of large arrays that were freed, for the next ones.

    Else each photo's pages come fresh from the kernel, a third of the time of decoding it
    (docs/analysis/embed.md). Other C libraries are left as they are.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in MALLOC_SETTINGS.items():
            mallopt(setting, value)


def read_photo(path: str, sha256: str | None = None, how: Reading = WHOLE) -> Photo:
    """Read, check against its hash and decode one photo file.

    Raises PhotoGone when it cannot be read or is no longer the same file, else PhotoError.
    """
    if film_of(path):
        return companion("film_source").read_frame(path, sha256)
    try:
        with SPENT.on("read"):
            data = Path(path).read_bytes()
            changed = sha256 is not None and hashlib.sha256(data).hexdigest() != sha256
    except OSError as error:
        raise PhotoGone(error.strerror or str(error)) from None
    if changed:
        raise PhotoGone("changed while being read")
    photo = decode_photo(data, os.path.basename(path), how)
    if os.path.isfile(f"{path}.xmp"):
        photo = companion("sidecar_turn").turned(photo, path, data)
    return photo


def decode_photo(data: bytes, name: str = "", how: Reading = WHOLE) -> Photo:
    """Decode the bytes of a photo, upright, as 8-bit BGR; `name` may tell the capture time.

    JPEG, PNG, WebP, BMP and TIFF go through OpenCV, which also takes 16-bit and CMYK; all else
    (HEIC, HEIF, AVIF, GIF, JPEG 2000 and what OpenCV refuses) through Pillow; camera RAW and JPEG
    XL through work/raw_photos.py. Alpha is dropped, of an animation the first frame counts, of a
    TIFF the largest page. Orientation is applied exactly once: libheif has turned HEIF pictures
    already, the rest is turned here. What needs more than DECODING.limit is refused, but for JPEGs:
    they can be decoded at a half, a quarter or an eighth of their size. Of a photo that was cut off
    what is there is read (work/damaged_photos.py). Raises PhotoError.
    """
    if not data:
        raise PhotoError("empty file")
    if not data.startswith((b"\xff\xd8", b"\x89PNG")):
        kind = companion("kinds").special_kind(data, name)
        if kind:
            return special_photo(data, name, kind)
    header, odd = open_with_pillow(data), ""
    if header is None and not data.startswith((b"\xff\xd8", b"II", b"MM")):
        data, odd = companion("damaged_photos").jpeg_within(data, name)
        header = open_with_pillow(data) if odd else None
    first, about = data, header  # what the dates are read from
    if data.startswith((b"II", b"MM")):
        data = companion("odd_tiffs").photo_first(data)
        header = header if data is first else open_with_pillow(data)
    kind, wh = (header.format, header.size) if header is not None else format_and_size(data)
    progressive = bool(header and header.info.get("progressive"))
    scale, need = decoding_need(kind, wh, progressive, how.least)
    with DECODING.room(need, need // 2), SPENT.on("decode"):
        jpeg = kind == "JPEG" and how.nvjpeg and scale == 1
        image = companion("nvjpeg").decode(data) if jpeg else None
        photo = decoded_photo(data, (header, image), scale)
        dates = companion("dates_in_photos").dates_of(about, io.BytesIO(first))
    note = "; ".join(filter(None, (photo.note, odd)))
    return replace(photo, dates=dates, name=name, note=note)


def special_photo(data: bytes, name: str, kind: str) -> Photo:
    """A camera RAW or JPEG XL."""
    raw_photos, hushed = companion("raw_photos"), companion("hush").hushed
    opened, _ = hushed.heard(lambda: raw_photos.opened(data, kind))
    check_memory(opened.wh, opened.need)
    with DECODING.room(opened.need, opened.need // 2), SPENT.on("decode"):
        (found, orientation), lines = hushed.heard(opened.decode)
        dates, _ = hushed.heard(opened.dates)
    note = found.note or "".join(f"damaged: {line}" for line in lines[:1])
    photo = photo_of(found._replace(note=note), orientation, 1)
    return replace(photo, dates=dates, name=name)


def photo_of(found: Any, orientation: int, scale: int) -> Photo:
    """An upright photo; found: a Rescued of work/damaged_photos.py."""
    image, rows, note, top = found
    whole = rows >= len(image) and not top
    there = None if whole else turned_box(image.shape[1::-1], (top, rows), orientation)
    return Photo(turn_upright(image, orientation), scale, note=note, there=there)


def format_and_size(data: bytes) -> tuple[str, tuple[int, int]]:
    """(format, size) of what OpenCV may read though Pillow does not, such as 16-bit TIFF."""
    import cv2
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    with contextlib.suppress(*PILLOW_ERRORS):
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return "PNG", struct.unpack(">II", data[16:24])
        if data.startswith((b"II", b"MM")):
            tags = ImageFileDirectory_v2(data[:8])
            stream = io.BytesIO(data)
            stream.seek(tags.next)
            tags.load(stream)
            return "TIFF", (int(tags[256]), int(tags[257]))  # ImageWidth, ImageLength
        if data.startswith(b"\xff\xd8"):
            small = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
            return "JPEG", (small.shape[1] * 8, small.shape[0] * 8)
        header = open_with_pillow(companion("damaged_photos").filled(data))
        return header.format, header.size
    raise PhotoError(companion("damaged_photos").why_none(data))


def decoding_need(kind: str, wh: tuple[int, int], progressive: bool, least: int) -> tuple[int, int]:
    """(scale to decode at, bytes that takes) of a picture. Raises PhotoError for too much."""
    pixels = wh[0] * wh[1]
    each = DECODED_BYTES.get(kind, USUAL_DECODED_BYTES)
    whole = each if progressive else 0  # all of it is unpacked first
    scales = (1, 2, 4, 8) if kind in ("JPEG", "MPO") else (1,)
    wanted = [scale for scale in scales if least and max(wh) >= least * scale]
    for scale in scales[scales.index(max(wanted, default=1)) :]:
        need = pixels * each if scale == 1 else pixels * whole + pixels * each // scale**2
        if need <= DECODING.limit:
            return scale, need
    raise too_large(wh, pixels * each)


def too_large(wh: tuple[int, int], need: int) -> PhotoError:
    """What is said of a picture that takes more bytes to decode than there may be."""
    return PhotoError(
        f"too large: {wh[0]} x {wh[1]} pixels take {need / 1e9:.1f} GB to decode, more "
        f"than --memory {DECODING.limit // 1_000_000}"
    )


def check_memory(wh: tuple[int, int], need: int) -> None:
    """Raise PhotoError where a picture takes more bytes to decode than there may be."""
    if need > DECODING.limit:
        raise too_large(wh, need)


def decoded_photo(data: bytes, known: tuple[Any, Any], scale: int) -> Photo:
    """What decode_photo returns but for dates, for a photo that there is room for.

    known: what Pillow says of its header, and its pixels as they lie in the file; None if unknown.
    """
    header, image = known
    bare = header is not None and header.format == "PNG" and not any(c in data for c in PNG_FACTS)
    orientation, turned, found = 1 if bare else orientation_of(header), False, None
    if image is None:
        image, turned, found = pixels_of(data, header, scale)
    if turned:
        orientation = 1
    return photo_of(found or (image, len(image), "", 0), orientation, scale)


def pixels_of(data: bytes, header: Any, scale: int) -> tuple[np.ndarray, bool, Any]:
    """(image as it lies in the file, whether it is upright already, what was wrong with it).

    The last is a Rescued of work/damaged_photos.py, or None. Raises PhotoError.
    """
    hushed, lines, image = companion("hush").hushed, [], None
    tiff = data.startswith((b"II", b"MM"))
    if data.endswith(bytes(16)) and data.startswith(b"\xff\xd8"):
        found = companion("damaged_photos").zero_tail(data, scale)
        if found is not None:
            return found.image, False, found
    if header is None or header.format in (*OPENCV_FORMATS, "MPO"):
        image, lines = hushed.heard(lambda: by_opencv(data, scale))
    if tiff and (image is None or image.max() <= companion("odd_tiffs").DARK):
        deep = companion("odd_tiffs").deep(data)
        if deep is not None:
            return deep, True, None
    if image is not None and not (tiff and companion("odd_tiffs").lacks_parts(data)):
        found = companion("damaged_photos").noted(lines, data, image, scale) if lines else None
        return image, tiff, found
    try:
        if scale > 1:
            header.draft("RGB", (header.width // scale, header.height // scale))
        return hushed.heard(lambda: pixels_from_pillow(header))[0], False, None
    except PhotoError:
        found = companion("damaged_photos").rescued(data, header, scale)
        if found is not None:
            return found.image, False, found
        image = companion("odd_tiffs").by_tifffile(data) if tiff else None
        if image is None:
            raise
        return image, True, None


def opencv_flags(scale: int, grey: bool = False) -> int:
    """How OpenCV is told to decode at 1, 1/2, 1/4 or 1/8 of the size."""
    import cv2

    kind = "GRAYSCALE" if grey else "COLOR"
    return getattr(cv2, f"IMREAD_{kind}" if scale == 1 else f"IMREAD_REDUCED_{kind}_{scale}")


def by_opencv(data: bytes, scale: int) -> np.ndarray | None:
    """(h, w, 3) uint8 BGR as it lies in the file, a TIFF upright; None where it cannot."""
    import cv2

    cv2.utils.logging.setLogLevel(0)  # what it cannot read is told as our own one line
    flags = opencv_flags(scale) | cv2.IMREAD_IGNORE_ORIENTATION
    with contextlib.suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None


def open_with_pillow(data: bytes | BinaryIO) -> Any:
    """Pillow's view of the file's header, or None where Pillow does not know the format."""
    import PIL.Image

    register_heif()
    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses at twice this number
    try:
        stream = io.BytesIO(data) if isinstance(data, bytes) else data
        return PIL.Image.open(stream, formats=[*OPENCV_FORMATS, *PILLOW_FORMATS])
    except PIL.Image.DecompressionBombError as error:
        raise PhotoError(f"too large: {error}") from None
    except PILLOW_ERRORS:
        return None


@functools.cache
def register_heif() -> None:
    """Teach Pillow HEIC and HEIF (AVIF it reads itself)."""
    import warnings

    import PIL.Image
    import pillow_heif

    warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.")  # odd EXIF, big pictures
    pillow_heif.register_heif_opener()
    PIL.Image.init()  # a choice of formats finds only what is loaded


def pixels_from_pillow(header: Any) -> np.ndarray:
    """First frame of an opened Pillow image as (h, w, 3) uint8 BGR, not turned."""
    if header is None:
        raise PhotoError("not a picture this tool can read")
    try:
        rgb = np.asarray(header.convert("RGB"))
    except PILLOW_ERRORS as error:
        raise PhotoError(f"cannot decode: {error}") from None
    return np.ascontiguousarray(rgb[:, :, ::-1])


def orientation_of(header: Any) -> int:
    """The EXIF orientation, 1 to 8, still to be applied to an opened Pillow image."""
    if header is None or header.format == "HEIF":
        return 1
    try:
        orientation = header.getexif().get(EXIF_ORIENTATION, 1)
    except PILLOW_ERRORS:
        return 1  # broken EXIF: common, and no reason to lose the photo
    return int(orientation) if orientation in range(1, 9) else 1


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1-8, CIPA DC-008 table 6) of an (h, w, 3) image."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def turned_box(
    wh: tuple[int, int], rows: tuple[int, int], orientation: int
) -> tuple[int, int, int, int]:
    """Where rows [first, end) of a picture of this size lie once it is upright: x1 y1 x2 y2."""
    across, down = (0, wh[0]), rows
    if orientation in (5, 6, 7, 8):
        (width, height), across, down = wh[::-1], down, across
    else:
        width, height = wh
    x1, x2 = (width - across[1], width - across[0]) if orientation in (2, 3, 6, 7) else across
    y1, y2 = (height - down[1], height - down[0]) if orientation in (3, 4, 7, 8) else down
    return x1, y1, x2, y2


def cut_window(image: np.ndarray, window: tuple[int, int, int], size: int) -> np.ndarray:
    """Square (x, y, side) of a picture as (size, size, 3) uint8, border pixels repeated."""
    import cv2

    x, y, side = window
    height, width = image.shape[:2]
    part = image[max(y, 0) : min(y + side, height), max(x, 0) : min(x + side, width)]
    above, below = max(-y, 0), max(y + side - height, 0)
    left, right = max(-x, 0), max(x + side - width, 0)
    part = cv2.copyMakeBorder(part, above, below, left, right, cv2.BORDER_REPLICATE)
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(part, (size, size), interpolation=method)


def cut_places(image: np.ndarray, places: np.ndarray, side: int) -> list[np.ndarray]:
    """(side, side, 3) uint8 cuts of a picture, by affine maps (n, 2, 3) of it; black outside."""
    import cv2

    return [cv2.warpAffine(image, place, (side, side)) for place in places]


def paint_over(crop: np.ndarray, boxes: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Fill boxes (k, 4) of a crop from what lies around them, except within `own` (4,).

    Inpainting by Telea 2004, "An image inpainting technique based on the fast marching method", on
    a small copy: faces come out as plain cloth or wall, in hardly any time.
    """
    import cv2

    size = len(crop)
    hidden, clear = np.zeros((2, size, size), np.uint8)
    for box in boxes:
        x1, y1, x2, y2 = np.rint(np.clip(grow_box(box, PAINT_MARGIN), 0, size)).astype(int)
        hidden[y1:y2, x1:x2] = 255
    x1, y1, x2, y2 = np.rint(np.clip(own, 0, size)).astype(int)
    clear[y1:y2, x1:x2] = 255
    hidden &= ~clear
    small = [cv2.resize(one, (PAINT_SIZE, PAINT_SIZE), interpolation=cv2.INTER_AREA)
             for one in (crop, hidden)]  # fmt: skip
    filled = cv2.inpaint(small[0], (small[1] > 0).astype(np.uint8), 4, cv2.INPAINT_TELEA)
    filled = np.where(small[1][..., None] > 0, cv2.GaussianBlur(filled, (0, 0), 3), filled)
    filled = cv2.resize(filled, (size, size), interpolation=cv2.INTER_CUBIC)
    soft = np.maximum(hidden, cv2.GaussianBlur(hidden, (0, 0), size / 64)) & ~clear
    share = soft[..., None] / np.float32(255)
    return np.rint(crop * (1 - share) + filled * share).astype(np.uint8)


def grow_box(box: np.ndarray, margin: float) -> np.ndarray:
    """A box (4,) grown on every side by a share of its longer edge."""
    grow = margin * float(np.max(box[2:] - box[:2]))
    return box + np.array([-grow, -grow, grow, grow])


# ============================================================================
# Videos
# ============================================================================
# What is known of films; they are read by work/film_reading.py. A frame is known by its pts, the
# time stamp the file gives it in units of the stream's time base.

ID_BLOCKS, ID_BLOCK = 64, 65536  # parts of a video, and bytes each, that make its content id


PositiveInt = Annotated[int, msgspec.Meta(gt=0, le=2**62)]
Pts = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]  # arrays of pts are int64


class Video(Record):
    """What `scan` knows of one usable video."""

    id: PlainName  # of its content, 16 hex digits
    path: str
    size: int  # bytes
    mtime_ns: int
    duration: Amount  # s, as the file says
    fps: Amount  # average
    vfr: bool  # frames are not evenly spaced
    rotation: int  # degrees the player turns the picture by, counter-clockwise
    sar: PositiveAmount  # width of a pixel / its height
    width: int  # px as coded
    height: int
    codec: str
    pix_fmt: str
    audio: tuple[str, ...]  # codec of each audio stream
    time_base: tuple[PositiveInt, PositiveInt]  # s per pts, as a fraction
    start: Pts  # of the first frame

    @property
    def tick(self) -> float:
        return self.time_base[0] / self.time_base[1]

    def seconds(self, pts: Any) -> Any:
        """Time since the first frame of a pts, or of an array of them."""
        return (pts - self.start) * self.tick


class Join(Record):
    """Where the time of a film begins anew: it was joined of parts."""

    pos: int  # byte at which the part begins
    shift: Pts  # added to the time stamps of the part
    first: Pts  # of its first frame, then


class Joined(Record):
    """How the times of a joined film are found again (work/film_times.py)."""

    joins: list[Join]
    keys: list[tuple[Pts, int]]  # (pts, byte) of its key frames: time cannot be sought in it

    def between(self, low: int, high: int) -> Joined:
        """What is needed to find the frames from one pts to another."""
        first = max(0, bisect.bisect_right(self.keys, (low, -1)) - 3)
        last = bisect.bisect_right(self.keys, (high, -1))
        return Joined(self.joins, self.keys[:1] + self.keys[max(1, first) : last])


def content_id(path: str, size: int) -> str:
    """16 hex digits that stand for a video's bytes: its size and blocks spread over all of it."""
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as stream:
        for block in range(ID_BLOCKS):
            stream.seek(max(0, size - ID_BLOCK) * block // (ID_BLOCKS - 1))
            digest.update(stream.read(ID_BLOCK))
    return digest.hexdigest()[:16]


class Scenes(OwnFile, tag="scenes", kw_only=True):
    """WORK/scenes/<id>.json: the scenes of a video and the time stamps of all its frames."""

    video: PlainName  # id
    scenes: list[tuple[Pts, Pts]]  # of the first frame, and of the first that is beyond
    frames: int
    first: Pts
    steps: list[tuple[PositiveInt, PositiveInt]]  # pack_steps
    error: str = ""  # why the video ends early, "" if it does not
    joined: Joined | None = None  # where its time begins anew, if it does
    soft_cuts: str = ""  # sha256 of the network that was asked, if one was

    def __post_init__(self) -> None:
        if self.frames != 1 + sum(times for _, times in self.steps):
            raise ValueError("the steps are not those between the frames")

    @property
    def pts(self) -> np.ndarray:
        """(frames,) int64 time stamps, rising."""
        return unpack_steps(self.first, self.steps)


def pack_steps(pts: Sequence[int]) -> list[list[int]]:
    """Rising time stamps as [step, how often] pairs: two numbers where frames are even."""
    return [[int(step), len(list(run))] for step, run in itertools.groupby(np.diff(pts).tolist())]


def unpack_steps(first: int, steps: Sequence[Sequence[int]]) -> np.ndarray:
    """(n,) int64 time stamps of pack_steps."""
    times = [np.repeat(*pair) for pair in steps]
    return first + np.cumsum(np.concatenate([[0], *times])).astype(np.int64)


# ============================================================================
# Cache I/O
# ============================================================================
# <cache>.npz holds the arrays; <cache>.npz.journal holds, one JSON line each, what came since.
# Folding is idempotent, so a kill between writing the one and deleting the other is harmless.


class CacheMeta(Record, kw_only=True):
    """What a cache remembers of how it was made; JSON text in the .npz, first line of a journal."""

    schema: int
    tool: str = TOOL
    version: str = VERSION
    model: str  # the pack's name, or the folder's
    model_source: str = ""  # what --model has to say to load it again
    recognizer: str  # names the embedding space
    dim: Annotated[int, msgspec.Meta(gt=0, le=65_536)]  # numbers of one embedding
    det_size: int  # px
    det_threshold: float
    roots: list[str]  # every folder ever scanned
    rescans: int = 0  # how often faces were numbered anew
    quality_model: str = ""  # sha256 of the model whose scores learned_quality holds


Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Pixels = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Ascii = Annotated[str, msgspec.Meta(pattern=r"^[ -~]*\Z")]


def packed(*shape: int) -> Any:
    """The type of a float32 array as bytes, little-endian; base64 in JSON."""
    size = 4 * math.prod(shape)
    return Annotated[bytes, msgspec.Meta(min_length=size, max_length=size)]


class FaceMarks(Record, omit_defaults=True, kw_only=True):
    """Landmarks and pose of a face, where a model found them."""

    landmark_2d_106: packed(*LANDMARK_SHAPES["landmark_2d_106"]) | None = None
    landmark_3d_68: packed(*LANDMARK_SHAPES["landmark_3d_68"]) | None = None
    pose: packed(*LANDMARK_SHAPES["pose"]) | None = None


class FaceRecord(FaceMarks):
    """What is stored of a detected face; named and measured like the columns of a cache."""

    bbox: tuple[float, float, float, float]
    det_score: float
    kps: Annotated[list[tuple[float, float]], msgspec.Meta(min_length=5, max_length=5)]
    face_short: float
    blur: float
    embedding: bytes


class PhotoRecord(Record, kw_only=True):
    """What is found in a photo."""

    wh: tuple[Pixels, Pixels]
    taken: float | None
    taken_kind: str = ""  # this and what follows: not told by older versions
    taken_precision: str = ""
    dates: Ascii = ""
    status: Literal[0, 1, 2]  # STATUS_*
    error: str
    faces: list[FaceRecord]
    note: str = ""  # what is wrong with a photo that was read


class MetaLine(Record, tag_field="op", tag="meta"):
    """The first line of a journal."""

    meta: CacheMeta


class PhotoLine(PhotoRecord, tag_field="op", tag="photo", kw_only=True):
    """A photo and its faces; replaces what was known of those bytes."""

    path: str
    sha256: str
    size: Int64
    mtime_ns: Int64
    passes: str


class DatesLine(Record, tag_field="op", tag="dates"):
    """What a known photo's file says about when it was taken, read again."""

    sha256: str
    dates: Ascii


class PathLine(Record, tag_field="op", tag="path"):
    """A path now holds the bytes of a known photo."""

    path: str
    sha256: str
    size: Int64
    mtime_ns: Int64


class GoneLine(Record, tag_field="op", tag="gone"):
    """Forget a path; a photo without paths goes with its faces."""

    path: str


class MarkedFace(FaceMarks):
    """Landmarks and pose of one face of a photo."""

    index: int


class EnrichLine(Record, tag_field="op", tag="enrich"):
    """Landmarks and pose of faces of a photo."""

    sha256: str
    faces: list[MarkedFace]


class QualityLine(Record, tag_field="op", tag="quality"):
    """Scores of faces of a photo; those of any other model are void from here on."""

    sha256: str
    model: str  # sha256 of the quality model
    faces: list[tuple[int, float]]  # (face_index, score)


class DrawnLine(Record, tag_field="op", tag="drawn"):
    """A face the operator has drawn on a known photo, behind those it has."""

    sha256: str
    index: int
    face: FaceRecord


JournalLine = (
    MetaLine | PhotoLine | DatesLine | PathLine | GoneLine | EnrichLine | QualityLine | DrawnLine
)
Facts = tuple[str, int, int]  # of a path: sha256, size, mtime_ns


@functools.cache
def npz_errors() -> tuple[type[Exception], ...]:
    """What numpy and zipfile raise on files that are damaged or something else."""
    from lzma import LZMAError
    from tokenize import TokenError
    from zipfile import BadZipFile

    usual = (OSError, ValueError, TypeError, EOFError, KeyError, RuntimeError, SyntaxError)
    return *usual, NotImplementedError, BadZipFile, zlib.error, LZMAError, TokenError, MemoryError


def empty_cache(meta: CacheMeta) -> FaceCache:
    """A cache without photos."""
    return FaceCache(meta, **{name: about.filled(0, meta.dim) for name, about in COLUMNS.items()})


def journal_path(path: Path) -> Path:
    return path.with_name(path.name + ".journal")


def queue_folder(path: Path) -> Path:
    """Where workers find the queues of a cache."""
    return path.absolute().with_name(path.name + ".queue")


def cache_exists(path: Path) -> bool:
    """Whether there is a cache, if only the journal of a first run that was killed."""
    return path.exists() or any(True for _ in json_lines(journal_path(path)))


def load_cache(path: Path, held: FaceCache | None = None) -> FaceCache:
    """Load a cache and replay its journal; held: what its .npz holds, where that is known.

    Raises SortFacesError for anything missing, foreign, damaged or newer than this tool.
    """
    if path.is_dir():
        raise SortFacesError(f"{path}: is a folder; name the .npz file embed wrote")
    if path.suffix != ".npz":
        raise SortFacesError(f"{path}: is no cache; name the .npz file embed wrote")
    if not cache_exists(path):
        raise SortFacesError(f"{path}: no such cache; run `embed SRC {path}` first")
    header, records = read_journal(journal_path(path))  # first: a compaction may run meanwhile
    if header is None and not path.exists():
        raise SortFacesError(f"{journal_path(path)}: its header is damaged; move the file away")
    cache = held or (read_npz(path) if path.exists() else empty_cache(header))
    if header is not None and header.recognizer != cache.meta.recognizer:
        raise SortFacesError(
            f"{journal_path(path)}: made with {header.model}, the cache with "
            f"{cache.meta.model}; move the journal away"
        )
    return fold_records(cache, fitting(records, cache.meta.dim, journal_path(path)))


def load_photos(path: Path) -> FaceCache:
    """A cache for who asks only about its photos: of its faces it may know no more than whose."""
    if journal_path(path).exists() or not path.is_file():
        return load_cache(path)
    return read_npz(path, [name for name, about in COLUMNS.items() if about.rows != "n"])


def fitting(lines: Iterable[JournalLine], dim: int, path: Path) -> list[JournalLine]:
    """The lines of a journal whose embeddings and boxes are as they must be."""
    found = []
    for line in lines:
        faces = line.faces if isinstance(line, PhotoLine) else []
        faces = [line.face] if isinstance(line, DrawnLine) else faces
        try:
            check_embeddings(faces, dim)
            if not are_boxes(np.array([face.bbox for face in faces])):
                raise msgspec.ValidationError("a bounding box lies in no picture")
            found.append(line)
        except msgspec.ValidationError as error:
            name = line.path if isinstance(line, PhotoLine) else line.sha256
            log.warning("%s: %r: %s; embed looks at it again", path, name, error)
    return found


@contextlib.contextmanager
def locked_cache(path: Path) -> Iterator[None]:
    """Hold a cache; what a killed run left of one it was writing goes."""
    if not path.parent.is_dir():
        raise SortFacesError(f"{path}: no such cache; run `embed SRC {path}` first")
    with locked(path.with_name(path.name + ".lock"), f"cache {path}"):
        remove_unfinished_file(path.absolute(), alone=True)
        yield


def operators_word(cache_path: Path, cache: FaceCache) -> Word:
    """What the decisions beside a cache say of it."""
    if not decisions_path(cache_path).exists():
        return no_word(cache.faces)
    return companion("decisions").operators_word(cache_path, cache)


def decisions_path(cache_path: Path) -> Path:
    return cache_path.with_name(cache_path.name + ".decisions.jsonl")


def with_model_of(spec: EngineSpec, meta: CacheMeta | FrameMeta) -> EngineSpec:
    """A spec that names no model takes the one of what was made before."""
    return spec if spec.model else replace(spec, model=meta.model_source or meta.model)


def with_engine_of(spec: EngineSpec, meta: CacheMeta | FrameMeta) -> EngineSpec:
    """The same, with the detector settings of what was made before in any case."""
    spec = replace(spec, det_size=meta.det_size, det_threshold=meta.det_threshold)
    return with_model_of(spec, meta)


def as_consumer(spec: EngineSpec, meta: CacheMeta | None = None) -> EngineSpec:
    """A spec that finds faces as the consumers do, with the model of what was made before."""
    spec = replace(spec, det_size=0, det_threshold=CONSUMER_DET_THRESHOLD)
    return with_model_of(spec, meta) if meta else spec


def check_model(cache: FaceCache, path: Path, spec: EngineSpec) -> None:
    """Refuse to mix the embeddings of two models."""
    own, asked = cache.meta.model, model_label(spec.model)
    if own != asked:
        raise SortFacesError(
            f"{path}: holds faces of {own}, not {asked}; name that model or another cache"
        )


def read_npz(path: Path, only: Iterable[str] = COLUMNS) -> FaceCache:
    """The cache without its journal; every array is checked before it is believed.

    only: the columns that are read, beside face_file; the others must be there, no more.
    """
    damaged = f"{path}: is no readable cache"
    advice = "restore it from a backup, or move it away and embed again"
    try:
        with np.load(path, allow_pickle=False) as archive:
            wanted = {"meta", "face_file", *only}
            arrays = {name: archive[name] for name in archive.files if name in wanted}
            unread = {*archive.files} - {*arrays}
    except PermissionError as error:
        raise SortFacesError(f"{path}: {error.strerror}; make it readable") from None
    except npz_errors() as error:
        foreign = "allow_pickle" in str(error)  # numpy's advice for what is no .npz is dangerous
        why = "it is no .npz" if foreign else one_line(error)
        raise SortFacesError(f"{damaged} ({why}); {advice}") from None
    try:
        value = json.loads(str(arrays["meta"]))
        schema = value["schema"]
        if isinstance(schema, int) and schema > CACHE_SCHEMA:
            raise SortFacesError(
                f"{path}: has schema {schema}, this tool reads {CACHE_SCHEMA}; update"
            )
        meta = as_record(CacheMeta, value)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise SortFacesError(f"{damaged} of {TOOL} (no meta); name another file") from None
    for name in (*LATER_COLUMNS, *unread):
        if name in COLUMNS and name not in arrays and "face_file" in arrays:
            arrays[name] = COLUMNS[name].absent(len(arrays["face_file"]), meta.dim)
    for name, about in COLUMNS.items():
        have, want = arrays.get(name), about.filled(0, meta.dim)
        if have is None and name in TEXT_COLUMNS:
            continue
        if have is None or have.shape[1:] != want.shape[1:] or have.dtype.kind != want.dtype.kind:
            raise SortFacesError(f"{damaged} ({name} is missing or of another shape); {advice}")
    if not are_boxes(arrays["bbox"]):
        raise SortFacesError(f"{damaged} (bbox holds what no picture has); {advice}")
    return FaceCache(meta, **{name: arrays[name] for name in COLUMNS if name in arrays})


def are_boxes(boxes: np.ndarray) -> bool:
    """Whether all numbers are finite, and pixels of a picture that can be decoded or around it."""
    return bool((np.abs(boxes) < MAX_PIXELS).all())


def save_cache(path: Path, cache: FaceCache) -> None:
    """Write the whole cache atomically, then drop the journal it now contains."""
    arrays = {name: getattr(cache, name) for name in COLUMNS}
    for name in LATER_COLUMNS:
        if is_absent(arrays[name]) or not np.isfinite(arrays[name]).any():
            del arrays[name]  # not enriched yet: no gigabytes of NaN
    meta = json.dumps({**as_json(cache.meta), "version": VERSION})
    with writing(path) as part, open(part, "wb") as stream:
        np.savez(stream, meta=np.array(meta), **arrays)
    with contextlib.suppress(FileNotFoundError):
        journal_path(path).unlink()


def read_journal(path: Path) -> tuple[CacheMeta | None, list[JournalLine]]:
    """(meta the journal was opened with, its further lines); a damaged line costs that record.

    Raises SortFacesError for a journal of a newer version, and for one that never had a header.
    """

    def read(value: dict[str, Any]) -> JournalLine:
        schema = value.get("schema")
        if isinstance(schema, int) and schema > RECORD_SCHEMA:
            raise SortFacesError(f"{path}: holds lines of a newer version; update")
        return as_record(JournalLine, value if schema in (1, RECORD_SCHEMA) else None)

    lines = list(sound_lines(path, read, "embed finds again what it told of photos"))
    header = next((line.meta for line in lines if isinstance(line, MetaLine)), None)
    first = next(iter(json_lines(path)), (0, None))[1]
    if header is None and first is not None and first.get("op") != "meta":
        raise SortFacesError(f"{path}: line 1 is no journal header; move the file away")
    return header, [line for line in lines if not isinstance(line, MetaLine)]


def check_embeddings(faces: Iterable[FaceRecord | SeenFace], dim: int) -> None:
    """Raise ValidationError unless the embeddings of faces are as long as the header says."""
    if any(len(face.embedding) != 4 * dim for face in faces):
        raise msgspec.ValidationError(f"an embedding has not {dim} numbers")


class Journal:
    """What came since the cache was written; opened by the first record."""

    def __init__(self, path: Path, meta: CacheMeta) -> None:
        self.lines = AppendOnly(journal_path(path))
        self.meta = meta
        self.count = 0

    def append(self, op: str, **facts: Any) -> None:
        """Write the line of this op; facts that are none of its fields are passed over."""
        try:
            line = as_record(JournalLine, {"op": op, **facts})
        except msgspec.ValidationError as error:
            raise SortFacesError(f"{self.lines.path}: no {op} line for it ({error})") from None
        if self.lines.is_new():
            self.lines.append(as_json(MetaLine(meta=self.meta)))
        self.lines.append(as_json(line))
        self.count += 1

    def close(self) -> None:
        self.lines.close()


FORGOTTEN_IOU = 0.5  # from here on a detected box is the forgotten face's
Box = tuple[float, float, float, float]  # x1 y1 x2 y2, pixels of the upright photo


class Tombstone(OwnFile, tag="forgotten", kw_only=True):
    """<cache>.forgotten.json: what `forget` took out of a cache and `embed` must not bring back.

    Photos are named by salted hashes of their sha256, which tell nothing to who has not the photo.
    """

    salt: str
    photos: list[str] = []  # those that went as a whole
    boxes: dict[str, list[Box]] = {}  # of photos that stay: where the forgotten faces are
    recognizer: str = ""  # whose embeddings kept_out holds
    kept_out: list[str] = []  # packed (d,) of people whose new photos are refused as well

    def mark(self, sha256: str) -> str:
        """The name of a photo in here."""
        return hashlib.sha256(f"{self.salt}{sha256}".encode()).hexdigest()


def tombstone_path(path: Path) -> Path:
    return path.with_name(path.name + ".forgotten.json")


class Doorkeeper:
    """Tells `embed` what was forgotten; without a tombstone all may enter."""

    def __init__(self, path: Path, meta: CacheMeta) -> None:
        self.path, self.limit = tombstone_path(path), thresholds_for(meta.model).merge
        self.stone = read_file(self.path, Tombstone) if self.path.exists() else Tombstone(salt="")
        self.photos = set(self.stone.photos)
        self.counts: Counter[str] = Counter()  # photos passed over, faces left out
        unwanted = [unpack_floats(text, (meta.dim,)) for text in self.stone.kept_out]
        self.unwanted = np.array(unwanted, np.float32).reshape(-1, meta.dim)
        if unwanted and self.stone.recognizer != meta.recognizer:
            raise SortFacesError(
                f"{self.path}: keeps out people known by another model than {meta.model}; use "
                "the model of then, or remove the file and forget them again"
            )

    def refuses(self, sha256: str) -> bool:
        """Whether a photo was forgotten as a whole."""
        if not self.photos or self.stone.mark(sha256) not in self.photos:
            return False
        self.counts["forgotten"] += 1
        return True

    def admitted(self, sha256: str, faces: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of the faces found in a photo, as in a PhotoRecord, that may enter the cache."""
        if not self.stone.salt:
            return faces
        boxes = np.array(self.stone.boxes.get(self.stone.mark(sha256), ())).reshape(-1, 4)
        stay = []
        for face in faces:
            unit = unit_rows(unpack_floats(face["embedding"], (1, -1)))
            if (box_iou(np.array(face["bbox"]), boxes) >= FORGOTTEN_IOU).any():
                self.counts["forgotten_faces"] += 1
            elif (nearest(unit, self.unwanted)[1] <= self.limit).any():
                self.counts["kept_out"] += 1
            else:
                stay.append(face)
        return stay

    def shut(self, sha256: str) -> None:
        """Forget a photo as a whole: nobody but the forgotten is in it."""
        self.photos.add(self.stone.mark(sha256))

    def close(self) -> None:
        """Write down what was shut."""
        if self.photos > set(self.stone.photos):
            write_file(self.path, msgspec.structs.replace(self.stone, photos=sorted(self.photos)))


def float_bytes(array: np.ndarray) -> bytes:
    """float32 array as bytes, exactly."""
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def pack_floats(array: np.ndarray) -> str:
    """float32 array as base64 text, exactly."""
    return base64.b64encode(float_bytes(array)).decode()


def unpack_floats(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(shape)


def fold_records(cache: FaceCache, lines: Sequence[JournalLine]) -> FaceCache:
    """Apply the lines of a journal to a cache; folding the same lines again changes nothing."""
    if not lines:
        return cache
    photos: dict[str, PhotoLine] = {}
    marks: dict[str, dict[int, MarkedFace]] = defaultdict(dict)  # by sha256 and face index
    scores: dict[str, dict[int, float]] = defaultdict(dict)  # likewise
    drawn: dict[str, dict[int, FaceRecord]] = defaultdict(dict)  # likewise; of photos as they were
    dates: dict[str, str] = {}  # by sha256
    added: Counter[str] = Counter()  # drawn faces behind those of the new photos
    scorer = cache.meta.quality_model
    paths = known_paths(cache)
    known = {*cache.file_sha256.tolist(), *(r.sha256 for r in lines if isinstance(r, PhotoLine))}
    for line in lines:
        if isinstance(line, PhotoLine):
            photos[line.sha256] = line
            for told in (marks, scores, drawn, added, dates):  # of what this record replaces
                told.pop(line.sha256, None)
        elif isinstance(line, DrawnLine):
            photo = photos.get(line.sha256)
            if photo is not None and line.index == len(photo.faces):
                photos[line.sha256] = with_face(photo, line.face)
                added[line.sha256] += 1
            elif photo is None:
                drawn[line.sha256][line.index] = line.face
        elif isinstance(line, DatesLine):
            dates[line.sha256] = line.dates
        elif isinstance(line, EnrichLine):
            marks[line.sha256].update((face.index, face) for face in line.faces)
        elif isinstance(line, QualityLine):
            if line.model != scorer:
                scores.clear()
            scorer = line.model
            scores[line.sha256].update(line.faces)
        elif isinstance(line, GoneLine):
            paths.pop(line.path, None)
        if isinstance(line, PhotoLine | PathLine) and line.sha256 in known:
            paths[line.path] = (line.sha256, line.size, line.mtime_ns)
    cache = with_marks(with_drawn(rebuild_cache(cache, photos, paths, added), drawn), marks)
    return with_scores(with_dates(cache, dates), scorer, scores)


def with_dates(cache: FaceCache, dates: dict[str, str]) -> FaceCache:
    """Fill in what files say about when they were taken, given by sha256."""
    if not dates:
        return cache
    known = zip(cache.file_sha256.tolist(), cache.file_dates.tolist(), strict=True)
    texts = [dates[sha].encode() if sha in dates else text for sha, text in known]
    return replace(cache, file_dates=np.array(texts, bytes))


def with_face(photo: PhotoLine, face: FaceRecord) -> PhotoLine:
    """A photo with one face more."""
    return msgspec.structs.replace(photo, faces=[*photo.faces, face], status=STATUS_FACES)


def with_drawn(cache: FaceCache, drawn: dict[str, dict[int, FaceRecord]]) -> FaceCache:
    """Add drawn faces, given by sha256 and face index, behind those their photos have."""
    row_of = {sha: row for row, sha in enumerate(cache.file_sha256.tolist()) if sha in drawn}
    new = [
        (row, index, face)
        for sha, row in row_of.items()
        for index, face in drawn[sha].items()
        if f"{sha[:16]}:{index}" not in cache.row_of_face
    ]
    if not new:
        return cache
    owners, numbers, faces = zip(*new, strict=True)
    order = np.argsort(np.concatenate([cache.face_file, owners]), kind="stable")
    columns = {}
    for name, about in COLUMNS.items():
        if about.rows == "n":
            given = {"face_file": owners, "face_index": numbers}.get(name)
            values = given or [getattr(face, name, None) for face in faces]
            columns[name] = extended(cache, name, np.arange(cache.faces), values)[order]
    status = cache.file_status.copy()
    status[list(owners)] = STATUS_FACES
    return replace(cache, file_status=status, **columns)


def known_paths(cache: FaceCache) -> dict[str, Facts]:
    """path -> (sha256, size, mtime_ns) of every path of a cache, canonical ones first."""
    shas = cache.file_sha256.tolist()
    main = zip(shas, cache.file_size.tolist(), cache.file_mtime_ns.tolist(), strict=True)
    paths = dict(zip(cache.file_path.tolist(), main, strict=True))
    owners = [shas[row] for row in cache.alias_file.tolist()]
    facts = zip(owners, cache.alias_size.tolist(), cache.alias_mtime_ns.tolist(), strict=True)
    paths.update(zip(cache.alias_path.tolist(), facts, strict=True))
    return paths


def rebuild_cache(
    cache: FaceCache, photos: dict[str, PhotoLine], paths: dict[str, Facts], added: Counter[str]
) -> FaceCache:
    """Cache rows not replaced by `photos`, then the new photos, with exactly these paths.

    added: {sha256: how many of a new photo's faces, the last ones, are drawn}.
    """
    paths_of = paths_by_photo(cache, photos, paths)
    known = enumerate(cache.file_sha256.tolist())
    old = [row for row, sha in known if sha in paths_of and sha not in photos]
    new = [photo for sha, photo in photos.items() if sha in paths_of]
    row_of = np.full(cache.files, -1, dtype=np.int64)
    row_of[old] = np.arange(len(old))
    kept = np.flatnonzero(row_of[cache.face_file] >= 0)
    faces = [face for photo in new for face in photo.faces]
    owner = np.repeat(np.arange(len(new)), [len(photo.faces) for photo in new]) + len(old)
    shas = cache.file_sha256[old].tolist() + [photo.sha256 for photo in new]
    columns = path_columns(shas, paths_of, paths)
    columns["face_file"] = np.concatenate([row_of[cache.face_file[kept]], owner]).astype(np.int32)
    index = [at for photo in new for at in range(len(photo.faces))]
    columns["face_index"] = extended(cache, "face_index", kept, index)
    for name, about in COLUMNS.items():
        if name not in columns and about.rows == "f":
            values = [getattr(photo, name.removeprefix("file_")) for photo in new]
            columns[name] = extended(cache, name, old, values)
        elif name not in columns:
            values = [getattr(face, name, None) for face in faces]
            columns[name] = extended(cache, name, kept, values)
    meta = msgspec.structs.replace(cache.meta, rescans=rescans_after(cache, photos, added))
    return FaceCache(meta, **columns)


def rescans_after(cache: FaceCache, photos: dict[str, PhotoLine], added: Counter[str]) -> int:
    """How often faces have been numbered anew: manifests from before speak of other faces.

    A drawn face behind the others numbers nobody anew. added: as in rebuild_cache.
    """
    row_of = {sha: row for row, sha in enumerate(cache.file_sha256.tolist()) if sha in photos}
    for sha, row in row_of.items():
        own = cache.face_file == row
        boxes, gaps = cache.bbox[own], np.diff(cache.face_index[own], prepend=-1) != 1  # forgotten
        fresh = np.array([face.bbox for face in photos[sha].faces], np.float32).reshape(-1, 4)
        fresh = fresh[: max(len(boxes), len(fresh) - added[sha])]
        if len(boxes) and (gaps.any() or not np.array_equal(boxes, fresh)):
            return cache.meta.rescans + 1
    return cache.meta.rescans


def paths_by_photo(
    cache: FaceCache, photos: dict[str, PhotoLine], paths: dict[str, Facts]
) -> dict[str, list[str]]:
    """The paths of each photo, its canonical one first as long as it holds these bytes."""
    canonical = {sha: photo.path for sha, photo in photos.items()}
    canonical |= zip(cache.file_sha256.tolist(), cache.file_path.tolist(), strict=True)
    paths_of: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths, key=lambda path: (canonical.get(paths[path][0]) != path, path)):
        paths_of[paths[path][0]].append(path)
    return paths_of


def path_columns(
    shas: list[str], paths_of: dict[str, list[str]], paths: dict[str, Facts]
) -> dict[str, np.ndarray]:
    """The columns that say where photos lie, for photos in this order."""
    main = [paths_of[sha][0] for sha in shas]
    alias = [(path, row) for row, sha in enumerate(shas) for path in paths_of[sha][1:]]
    values = {
        "file_path": main,
        "file_sha256": shas,
        "file_size": [paths[path][1] for path in main],
        "file_mtime_ns": [paths[path][2] for path in main],
        "alias_path": [path for path, _ in alias],
        "alias_file": [row for _, row in alias],
        "alias_size": [paths[path][1] for path, _ in alias],
        "alias_mtime_ns": [paths[path][2] for path, _ in alias],
    }
    return {name: np.array(some, COLUMNS[name].dtype) for name, some in values.items()}


def extended(cache: FaceCache, name: str, kept: Any, values: Sequence[Any]) -> np.ndarray:
    """Rows `kept` of a cache's array, then the values of records as rows of the same kind."""
    about, have = COLUMNS[name], getattr(cache, name)
    if is_absent(have) and not any(value is not None for value in values):
        return about.absent(len(kept) + len(values), cache.meta.dim)
    have = have[kept] if len(kept) < len(have) else have
    if name == "embedding" or name in LATER_COLUMNS:
        new = about.filled(len(values), cache.meta.dim)
        for row, value in enumerate(values):
            if value is not None:
                new[row] = np.frombuffer(value, "<f4").reshape(new.shape[1:])
    else:
        new = np.array(values, about.dtype).reshape(len(values), *have.shape[1:])
    return np.concatenate([have, new])


def with_marks(cache: FaceCache, marks: dict[str, dict[int, MarkedFace]]) -> FaceCache:
    """Fill in the landmarks and pose of faces, given by sha256 and face index."""
    if not marks:
        return cache
    arrays = {name: getattr(cache, name).copy() for name in LANDMARK_SHAPES}
    for sha, faces in marks.items():
        for index, face in faces.items():
            row = cache.row_of_face.get(f"{sha[:16]}:{index}")
            for name, shape in LANDMARK_SHAPES.items():
                value = getattr(face, name)
                if row is not None and value is not None:
                    arrays[name][row] = np.frombuffer(value, "<f4").reshape(shape)
    return replace(cache, **arrays)


def with_scores(cache: FaceCache, model: str, scores: dict[str, dict[int, float]]) -> FaceCache:
    """Fill in what a quality model gave, by sha256 and face index; another model's scores go."""
    if not scores and model == cache.meta.quality_model:
        return cache
    column = cache.learned_quality.copy()
    if model != cache.meta.quality_model:
        column[:] = math.nan
    for sha, faces in scores.items():
        for index, score in faces.items():
            if (row := cache.row_of_face.get(f"{sha[:16]}:{index}")) is not None:
                column[row] = score
    meta = msgspec.structs.replace(cache.meta, quality_model=model)
    return replace(cache, meta=meta, learned_quality=column)


# ============================================================================
# Engines
# ============================================================================
# An engine detects faces, embeds them on the common cosine scale and finds landmarks. What runs is
# said once; nothing is swapped silently: not the provider, not the model.

# Head model for solvePnP, arbitrary units, y up, z towards the lens: outer eye corners, nose tip,
# mouth corners and chin as used in S. Mallick, "Head pose estimation using OpenCV and dlib"
# (learnopencv.com, 2016); the eye centres lie two thirds of the way to the outer corners.
HEAD_EYES = ((-150, 170, -135), (150, 170, -135))
HEAD_NOSE_AND_MOUTH = ((0, 0, 0), (-150, -150, -125), (150, -150, -125))
HEAD_5 = (*HEAD_EYES, *HEAD_NOSE_AND_MOUTH)
POSE_FOCAL = 10.0  # face sizes


class Engine:
    """A detector, a recogniser and, where loaded, landmark models.

    `recognizer` identifies the embedding space: caches made with another one do not mix.
    """

    model: str
    source: str  # what --model has to say to load it again
    recognizer: str
    dim: int
    det_size: int  # px
    det_threshold: float
    provider: str  # as in PROVIDERS
    has_landmarks: bool

    def detect(
        self, image: np.ndarray, det_size: int | tuple[int, int] | None = None
    ) -> Detections:
        """Faces in an (h, w, 3) uint8 BGR picture, best first.

        det_size: longest edge of what the detector sees, px, or its width and height.
        """
        raise NotImplementedError

    def fitted_size(self, image: np.ndarray) -> tuple[int, int] | None:
        """det_size without what a square has beside a wide picture; None where it must be one."""
        return None

    def align(self, image: np.ndarray, found: Detections) -> list[np.ndarray]:
        """One aligned crop per detected face, as the recogniser takes it."""
        raise NotImplementedError

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """(n, dim) float32 embeddings of aligned crops, in calls that suit the device."""
        raise NotImplementedError

    def embed(self, image: np.ndarray, found: Detections) -> np.ndarray:
        """(n, dim) float32 embeddings of the faces detected in one picture."""
        return self.embed_crops(self.align(image, found))

    def landmarks(self, image: np.ndarray, found: Detections) -> dict[str, np.ndarray]:
        """Landmarks and pose of detected faces: arrays named and shaped as in LANDMARK_SHAPES."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What a command must know of the engine wherever it runs."""
        own = ("model", "recognizer", "dim", "det_size", "det_threshold")
        meta = {name: getattr(self, name) for name in own}
        meta |= {"schema": CACHE_SCHEMA, "model_source": self.source, "roots": []}
        return {"meta": meta, "landmarks": self.has_landmarks, "provider": self.provider}


def load_onnxruntime() -> Any:
    """onnxruntime, silent: REPORTS_OFF does not reach the tracing of its Windows builds."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def load_engine(spec: EngineSpec, threads: int = 1) -> Engine:
    """Load the face models of a spec. Raises SortFacesError with what to install or put where."""
    try:
        if spec.model == DLIB_MODEL:
            engine: Engine = companion("dlib_engine").DlibEngine(spec)
        else:
            engine = companion("insightface_engine").InsightFaceEngine(spec, threads)
    except ImportError as error:
        raise no_model(spec, package_hint(error)) from error
    log.info("engine: %s on %s, det size %d", engine.model, engine.provider, engine.det_size)
    return engine


def model_folder(spec: EngineSpec) -> Path:
    """Folder where a pack's .onnx files lie or belong."""
    named = Path(spec.model).expanduser()
    if named.is_dir():
        return named
    folder = Path(spec.model_root).expanduser() / "models" / spec.model
    nested = folder / spec.model  # the antelopev2 archive holds one folder too many
    return nested if nested.is_dir() else folder


def no_model(spec: EngineSpec, why: str) -> SortFacesError:
    """What to raise where the models of a spec cannot be had."""
    return SortFacesError(f"--model {spec.model}: {why}")


def pose_from_kps(kps: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    """(n, 3) degrees pitch yaw roll estimated from five key points (n, 5, 2) alone."""
    poses = [solve_pose(points, HEAD_5, wh) for points in kps]
    return np.array(poses, np.float32).reshape(-1, 3)


def solve_pose(points: np.ndarray, head: Any, wh: tuple[int, int]) -> tuple[float, ...]:
    """Degrees (pitch, yaw, roll) of a head from image points (k, 2) and model points (k, 3).

    Perspective-n-point with a lens as long as the picture is wide and the optical axis through
    the face, so that a face at the edge of a group is not read as turned. For small faces the
    lens is shortened to POSE_FOCAL face sizes: farther away perspective no longer shows, and the
    solver refuses points that close together. NaN if unsolvable.
    """
    import cv2

    centred = points.astype(np.float64) - points.mean(axis=0)
    focal = min(float(max(wh)), POSE_FOCAL * float(np.ptp(centred)))
    camera = np.array([[focal, 0, 0], [0, focal, 0], [0, 0, 1]], np.float64)
    model = np.array(head, np.float64) * (1.0, -1.0, -1.0)  # y runs down, z away from the lens
    try:
        solved, turn, _ = cv2.solvePnP(model, centred, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:  # points on one line or all in one place
        solved = False
    if not solved:
        return math.nan, math.nan, math.nan
    matrix = cv2.Rodrigues(turn)[0]
    pitch = math.atan2(matrix[2, 1], matrix[2, 2])
    yaw = math.asin(max(-1.0, min(1.0, -matrix[2, 0])))
    roll = math.atan2(matrix[1, 0], matrix[0, 0])
    return math.degrees(pitch), math.degrees(yaw), math.degrees(roll)


# ============================================================================
# Analysing one photo
# ============================================================================


def find_faces(
    engine: Engine, image: np.ndarray, passes: Passes, fitted: bool = False
) -> Detections:
    """Detect with the plain pass and the optional ones.

    fitted: let the detector see no more than the picture, which spares two fifths of its work in
    a film of 16:9; each shape costs a GPU a start.
    """
    if max(image.shape[:2]) > LONGEST_PHOTO * min(image.shape[:2]):
        return no_detections()  # a spacer, which detectors would shrink to nothing
    with SPENT.on("detect"):
        size = engine.fitted_size(image) if fitted else None
        found = engine.detect(image, size) if size else engine.detect(image)
        if passes.tiles:
            found = add_tiles(engine, image, found)
        if passes.pad_retry and not len(found):
            found = detect_padded(engine, image)
        return found


def find_in_frame(
    engine: Engine, image: np.ndarray, passes: Passes, border: bool
) -> tuple[Detections, bool]:
    """(what find_faces finds in a film's frame, whether a border was needed to look for it).

    border: look again with one where nothing is found.
    """
    found = find_faces(engine, image, passes, fitted=True)
    padded = border and not len(found)
    return (detect_padded(engine, image) if padded else found), padded


def add_tiles(engine: Engine, image: np.ndarray, whole: Detections) -> Detections:
    """Add the small faces that show only when parts of a large picture are looked at closely.

    A box that touches the inner edge of a tile is cut off there and seen whole in the next one.
    """
    height, width = image.shape[:2]
    side = engine.det_size * (TILE_SCALE if engine.model != DLIB_MODEL else 1)
    if max(width, height) <= side:
        return whole
    parts = [whole]
    for x1, y1, x2, y2 in tile_windows(width, height, side):
        found = engine.detect(np.ascontiguousarray(image[y1:y2, x1:x2]))
        gaps = np.hstack([found.bbox[:, :2], (x2 - x1, y2 - y1) - found.bbox[:, 2:]])  # (n, 4) px
        inner = (x1 > 0, y1 > 0, x2 < width, y2 < height)
        found = found.take(np.flatnonzero(~((gaps <= 1) & inner).any(axis=1)))
        parts.append(shifted(found, x1, y1))
    arrays = ([getattr(part, item.name) for part in parts] for item in fields(Detections))
    return distinct_faces(Detections(*map(np.concatenate, arrays)))


def detect_padded(engine: Engine, image: np.ndarray) -> Detections:
    """Look again with a border around the picture: a face that fills it then has a context."""
    import cv2

    scale = max(1, max(image.shape[:2]) // PAD_LONGEST)
    if scale > 1:  # the border would take three times the memory of a huge picture again
        wh = image.shape[1] // scale, image.shape[0] // scale
        small = cv2.resize(image, wh, interpolation=cv2.INTER_AREA)
        return resized(detect_padded(engine, small), scale)
    pad = round(max(image.shape[:2]) * PAD_RETRY)
    padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    return shifted(engine.detect(padded), -pad, -pad)


def shifted(found: Detections, dx: float, dy: float) -> Detections:
    """Detections moved by (dx, dy) pixels."""
    move = np.array([dx, dy], np.float32)
    return Detections(found.bbox + np.tile(move, 2), found.score, found.kps + move)


def resized(found: Detections, scale: float) -> Detections:
    """Detections in a picture `scale` times as large."""
    return Detections(found.bbox * scale, found.score, found.kps * scale)


def blur_of(image: np.ndarray, bbox: np.ndarray) -> float:
    """Variance of the Laplacian of the grey face crop at native scale; 0 outside the picture."""
    import cv2

    x1, y1 = np.maximum(np.floor(bbox[:2]), 0).astype(int)
    x2, y2 = np.maximum(np.ceil(bbox[2:]), 0).astype(int)
    crop = image[y1:y2, x1:x2]
    if not crop.size:
        return 0.0
    edges = cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.CV_16S)
    return float(cv2.meanStdDev(edges)[1].item() ** 2)


def face_records(
    engine: Engine, seen: Sequence[tuple[np.ndarray, Detections]], landmarks: bool
) -> list[list[FaceRecord]]:
    """Everything a cache stores of each face detected in each picture.

    The faces of all pictures go through the recogniser together.
    """
    with SPENT.on("recognise"):
        crops = [crop for image, faces in seen for crop in engine.align(image, faces)]
        embeddings = iter(engine.embed_crops(crops))
    marks: list[dict[str, np.ndarray]] = [{} for _ in seen]
    if landmarks and engine.has_landmarks:
        with SPENT.on("landmarks"):
            marks = [engine.landmarks(image, faces) for image, faces in seen]
    with SPENT.on("measure"):
        return [
            [face_record(image, faces, row, next(embeddings), own) for row in range(len(faces))]
            for (image, faces), own in zip(seen, marks, strict=True)
        ]


def face_record(
    image: np.ndarray,
    found: Detections,
    row: int,
    embedding: np.ndarray,
    marks: dict[str, np.ndarray],
) -> FaceRecord:
    """What a cache stores of one detected face."""
    bbox = found.bbox[row]
    return FaceRecord(
        bbox=bbox.tolist(),
        det_score=float(found.score[row]),
        kps=found.kps[row].tolist(),
        face_short=float(np.min(bbox[2:] - bbox[:2])),
        blur=blur_of(image, bbox),
        embedding=float_bytes(embedding),
        **{name: float_bytes(values[row]) for name, values in marks.items()},
    )


# ============================================================================
# Work queue
# ============================================================================
# Every slow step is a list of JSON items, a function from an item to a JSON result, and results
# in the order of the items. Where the function runs is no business of the command.


Item = dict[str, Any]  # JSON: what to work on
Result = dict[str, Any]  # JSON: what came of it, or {"failed": why} where the engine gave up


class ResultTail:
    """Reads a growing results file line by line; an unfinished last line waits."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset, self.lines = path, 0, 0

    def read(self) -> Iterator[Result]:
        """The results that came since the last call, each with the id of its item.

        A damaged line costs that result: its item is worked on again.
        """
        for offset, result in json_lines(self.path, self.offset):
            self.offset, self.lines = offset, self.lines + 1
            if result is None:
                log.warning("%s: line %d is damaged; passed over", self.path, self.lines)
                continue
            ours = result.get("schema") in (1, RECORD_SCHEMA)
            if not ours or not isinstance(result.get("id"), str):
                raise SortFacesError(
                    f"{self.path}: line {self.lines} is no result of this version; remove that "
                    "line to keep the others, or the file to compute them again"
                )
            yield result


def describe_item(models: Models, _: Item) -> Result:
    """What whoever does the work would do it with; asks for nothing but working models."""
    return models.facts()


def read_item(item: Item, how: Reading = WHOLE, **unread: Any) -> Photo | Result:
    """The photo an item names, or the result of an item whose photo cannot be read.

    unread: what that says beside {"error": why}. A photo that is gone or changed gives {"failed":
    why} alone, which says nothing of the bytes named.
    """
    try:
        return read_photo(item["path"], item["sha256"], how)
    except PhotoGone as error:
        return {"failed": str(error)}
    except PhotoError as error:
        return {"error": str(error), **unread}


def embed_items(engine: Engine, items: Sequence[Item]) -> list[Result]:
    """Photos -> a PhotoRecord each. item: sha256, path, passes, landmarks."""
    looked = [look(engine, item, Passes(**item["passes"])) for item in items]
    seen = [(one[0].image, one[1]) for one in looked if isinstance(one, tuple)]
    found = iter(face_records(engine, seen, items[0]["landmarks"]) if seen else ())
    return [photo_result(one[0], next(found)) if isinstance(one, tuple) else one for one in looked]


def look(engine: Engine, item: Item, passes: Passes) -> tuple[Photo, Detections] | Result:
    """The photo of an item and the faces in it, or the result of one that cannot be read.

    Where a face is smaller in a reduced photo than its crop will be, the photo is read whole.
    """
    reduced = engine.det_size if passes.decode == "reduced" and not passes.tiles else 0
    how = Reading(reduced, passes.decode == "nvjpeg")
    unread = {
        "wh": [0, 0], "taken": None, "dates": "{}", "status": STATUS_UNREADABLE, "faces": [],
    }  # fmt: skip
    photo = read_item(item, how, **unread)
    if not isinstance(photo, Photo):
        return photo
    found, scale = find_faces(engine, photo.image, passes), photo.scale
    edges = (found.bbox[:, 2:] - found.bbox[:, :2]).min(axis=1)
    if reduced and scale > 1 and (edges < LEAST_REDUCED).any():
        photo = read_item(item, **unread)
        if not isinstance(photo, Photo):
            return photo
        found = resized(found, scale / photo.scale)
    return photo, found if photo.there is None else found.take(faces_there(found, photo.there))


def faces_there(found: Detections, there: tuple[int, int, int, int]) -> np.ndarray:
    """Rows of the faces of a damaged photo whose five key points lie in what is there of it."""
    inside = (found.kps >= there[:2]) & (found.kps < there[2:])
    return np.flatnonzero(inside.all(axis=(1, 2)))


def photo_result(photo: Photo, faces: list[FaceRecord]) -> Result:
    """A PhotoRecord of a photo that could be read."""
    faces = [enlarged(face, photo.scale) for face in faces]
    when = photo.when
    return as_json(
        PhotoRecord(
            wh=photo.wh,
            taken=when.seconds if when.is_known else None,
            taken_kind=when.kind,
            taken_precision=when.precision,
            dates=photo.dates,
            status=STATUS_FACES if faces else STATUS_NO_FACE,
            error="",
            faces=faces,
            note=photo.note,
        )
    )


def enlarged(record: R, scale: int) -> R:
    """A face found in a reduced image, or its marks, in pixels of the photo."""
    if scale == 1:
        return record
    marks = {
        name: float_bytes(np.frombuffer(value, "<f4") * scale)
        for name in ("landmark_2d_106", "landmark_3d_68")
        if (value := getattr(record, name)) is not None
    }
    if isinstance(record, FaceRecord):
        kps = [(x * scale, y * scale) for x, y in record.kps]
        box = tuple(value * scale for value in record.bbox)
        marks |= {"bbox": box, "kps": kps, "face_short": record.face_short * scale}
    return msgspec.structs.replace(record, **marks)


def enrich_item(engine: Engine, item: Item) -> Result:
    """A photo -> landmarks and pose of its known faces. item: sha256, path, faces."""
    photo, known = read_item(item, faces=[]), item["faces"]
    if not isinstance(photo, Photo):
        return photo
    boxes = ([face[key] for face in known] for key in ("bbox", "det_score", "kps"))
    bbox, score, kps = (np.array(values, np.float32) for values in boxes)
    marks = engine.landmarks(photo.image, Detections(bbox / photo.scale, score, kps / photo.scale))
    faces = [
        MarkedFace(index=face["index"], **{name: float_bytes(marks[name][row]) for name in marks})
        for row, face in enumerate(known)
    ]
    faces = [enlarged(face, photo.scale) for face in faces]
    return {"error": "", "faces": as_json(faces)}


def score_items(scorer: Models, items: Sequence[Item]) -> list[Result]:
    """Pictures -> probabilities of each attribute. item: path, sha256."""
    read = [read_item(item, scores=[]) for item in items]
    images = [one.image for one in read if isinstance(one, Photo)]
    found = scorer.score(images) if images else ()
    scores = ({"error": "", "scores": row.tolist()} for row in found)
    return [next(scores) if isinstance(one, Photo) else one for one in read]


def audit_item(engine: Engine, item: Item) -> Result:
    """An exported PNG -> what a consumer sees in it, as in Audit. item: path, sha256.

    That is the faces found at each consumer's detector size, and the middle one's embedding.
    """
    nothing = {"counts": [], "kps": [], "embedding": ""}
    photo = read_item(item, **nothing)
    if not isinstance(photo, Photo):
        return photo
    image = photo.image
    found = [engine.detect(image, size) for size in CONSUMER_DET_SIZES]
    result: Result = {"error": "", **nothing, "counts": [len(faces) for faces in found]}
    result["boxes"] = [faces.bbox.tolist() for faces in found]
    seen = next((faces for faces in found if len(faces)), None)
    if seen is not None:
        middle = np.array(image.shape[1::-1], np.float32) / 2
        away = np.linalg.norm(seen.bbox.reshape(-1, 2, 2).mean(axis=1) - middle, axis=1)
        own = seen.take([int(away.argmin())])
        result["kps"] = own.kps[0].tolist()
        result["embedding"] = pack_floats(engine.embed(image, own)[0])
    return result


def frames_item(engine: Engine, item: Item) -> Result:
    """A stretch of a video -> faces per frame.

    item: video, path, pts (rising), sar, landmarks, padded (of those pts).

    It is decoded in sequence from the key frame before it; never a seek per frame.
    """
    frames = {pts: {"failed": "not found in the video"} for pts in item["pts"]}
    try:
        joined = item.get("joined") and as_record(Joined, item["joined"])
        film = companion("film_reading")
        for pts, image in film.frames_at(item["path"], item["pts"], item["sar"], joined):
            border = pts in item.get("padded", ())
            frames[pts] = frame_result(engine, image, item["landmarks"], border)
    except VideoError as error:
        missing = [pts for pts, result in frames.items() if "failed" in result]
        frames |= {pts: {"failed": str(error)} for pts in missing}
    return {"frames": [{"pts": pts, **result} for pts, result in frames.items()]}


def frame_result(
    engine: Engine, image: np.ndarray, landmarks: bool, border: bool = False
) -> Result:
    """Size of an upright frame and its faces, or why the engine gave up on it.

    border: look again with one around it where nothing is found; `padded` says that this was done.
    """
    try:
        found, padded = find_in_frame(engine, image, Passes(), border)
        seen = [(image, found)]
        faces = as_json(face_records(engine, seen, landmarks)[0])
    except engine_errors() as error:
        return {"failed": one_line(error)}
    wh = list(image.shape[1::-1])
    for face in faces:
        if "pose" not in face:  # a pack without landmark models
            face["pose"] = pack_floats(pose_from_kps(np.array([face["kps"]]), tuple(wh))[0])
        face["look"] = pack_floats(companion("clip_ranking").look_of(image, face["bbox"]))
        face["kps"] = pack_floats(face["kps"])
    kept = ("bbox", "det_score", "pose", "embedding", "look", "kps")
    faces = [{key: face[key] for key in kept} for face in faces]
    return {"wh": wh, **({"padded": True} if padded else {}), "faces": faces}


Models = Any  # an Engine, a ClipScorer (work/clip_scorer.py), a QualityModel (quality_model.py)

Task = Callable[[Any, Sequence[Item]], list[Result]]


def one_by_one(work: Callable[[Any, Item], Result]) -> Task:
    """A task whose items gain nothing from being looked at together."""
    return lambda models, items: [work(models, item) for item in items]


TASKS: dict[str, Task] = {
    "describe": one_by_one(describe_item),
    "embed": embed_items,
    "enrich": one_by_one(enrich_item),
    "score": score_items,
    "quality": lambda model, items: model.rate(items),
    "audit": one_by_one(audit_item),
    "frames": one_by_one(frames_item),
    "film": one_by_one(lambda engine, item: companion("film_source").stretch_item(engine, item)),
    "drawn": one_by_one(lambda engine, item: companion("drawn_faces").draw_item(engine, item)),
}


def load_models(spec: EngineSpec, threads: int) -> Models:
    if spec.clip:
        return companion("clip_scorer").load_scorer(spec, threads)
    if spec.quality:
        return companion("quality_model").QualityModel(spec, threads)
    return load_engine(spec, threads)


def work_batch(task: str, engine: Models, items: Sequence[Item]) -> list[Result]:
    """Results of a few items; when the engine fails on them, each gets a second try alone."""
    errors = engine_errors()
    with contextlib.suppress(*errors):
        return TASKS[task](engine, items)
    results = []
    for item in items:
        try:
            results += TASKS[task](engine, [item])
        except errors as error:
            results.append({"failed": one_line(error)})
    return results


@functools.cache
def engine_errors() -> tuple[type[Exception], ...]:
    """What OpenCV, onnxruntime and dlib raise when a picture or a driver is too much for them."""
    import cv2

    errors: tuple[type[Exception], ...] = (cv2.error, RuntimeError, MemoryError)
    with contextlib.suppress(ImportError):  # a machine for CLIP on torch may do without it
        state = load_onnxruntime().capi.onnxruntime_pybind11_state
        errors += (state.Fail, state.RuntimeException, state.EPFail, state.InvalidArgument)
    return errors


def run_here(
    task: str, items: Iterable[Item], engine: Callable[[], Models], threads: int, batch: int
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, result) in the order of the items, working on several batches at once."""

    def work(some: list[Item]) -> list[tuple[Item, Result]]:
        return list(zip(some, work_batch(task, engine(), some), strict=True))

    with companion("hush").hushed.descriptor(note):  # begun once, not for every photo
        for pairs in ordered_map(work, batched(items, batch), threads):
            yield from pairs


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size` items (itertools.batched is younger than the Pythons we serve)."""
    items = iter(items)
    while some := list(itertools.islice(items, size)):
        yield some


def ordered_map(function: Callable, items: Iterable, threads: int) -> Iterator:
    """Map over items in a few threads, results in order, at most 2 x threads items ahead."""
    from concurrent.futures import ThreadPoolExecutor

    def alone(item: Any) -> Any:
        with DECODING.work():
            return function(item)

    with ThreadPoolExecutor(max_workers=threads) as pool:
        pending: deque = deque()
        try:
            for item in items:
                pending.append(pool.submit(alone, item))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


# ============================================================================
# Crew
# ============================================================================


@dataclass(frozen=True)
class Crew:
    """Who does the slow work, and with which models: this process, a worker, or a cluster.

    Frozen: with other models it is another crew, with an engine of its own.
    """

    spec: EngineSpec
    work: WorkOptions
    lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def with_spec(self, spec: EngineSpec) -> Crew:
        """A crew with these models; this one, engine and all, where they are the same."""
        return self if spec == self.spec else replace(self, spec=spec)

    def engine(self) -> Models:
        """The engine of this process, loaded when it is first needed."""
        with self.lock:
            return self.models

    @functools.cached_property
    def models(self) -> Models:
        return load_models(self.spec, self.threads)

    @property
    def threads(self) -> int:
        return self.work.threads

    @property
    def elsewhere(self) -> bool:
        return bool(self.work.worker or self.work.cluster)

    def run(self, task: str, items: Iterable[Item], folder: Path) -> Iterator[tuple[Item, Result]]:
        """Yield (item, result), here in the order of the items, elsewhere as they are finished.

        folder: where a worker's queue may lie; it is gone again when all is done.
        """
        if self.work.worker:
            models = hashlib.sha256(repr(self.spec).encode()).hexdigest()[:8]
            there = companion("worker_process")
            files = there.QueueFiles(folder / f"{task}-{models}")
            return there.run_on_worker(task, items, self, files)
        if self.work.cluster:
            return companion("dask_cluster").run_on_cluster(task, items, self)
        return run_here(task, items, self.engine, self.threads, self.work.batch)

    @functools.cached_property
    def facts(self) -> Result:
        """What describe_item says of whoever does the work: meta, landmarks, provider."""
        if not self.elsewhere:
            return self.engine().facts()
        with tempfile.TemporaryDirectory(prefix="sort_faces-") as folder:
            result = next(iter(self.run("describe", [{}], Path(folder))))[1]
        if "failed" in result:
            raise no_model(self.spec, result["failed"])
        log.info("engine there: %s on %s", self.spec.model, result["provider"])
        if "meta" in result:  # the folder as this side opens it
            result["meta"]["model_source"] = model_source(self.spec.model)
        return result


# ============================================================================
# Runs
# ============================================================================
# Whatever changes an output folder is one run: what is new is built in _runs/<run>/stage, then a
# journal of renames is written, and from then on the run happens, whatever comes. What it replaces
# lies in _runs/<run>/before, so that undoing a run is the same renames backwards. Where nobody
# will want that (photos placed in a tree) the run's folder goes with the last rename.

RUNS_FOLDER = "_runs"
JOURNAL = "journal.json"
SYNCS_ALL = hasattr(os, "sync")  # not on Windows: whether a run syncs all it has built at once
TREE_RUN = "tree"  # name of the run that changes a tree of photos; nobody undoes that
# How far a restore is, as names of empty files: those need no room on a full disk.
RESTORING = re.compile(r"restoring-(\d{4})-to-(\d{4}-.+)")  # in _runs: newest run, run it goes to
TAKE_IN = "take-in"  # in _runs: the operator's changes are to be taken in at the end
UNDOING = "undoing"  # in the folder of a run whose renames go backwards


class RunJournal(OwnFile, tag="journal", kw_only=True):
    """The renames of a run, and how far it is."""

    run: str
    state: Literal["applying", "done", "restoring"]  # the last in version 0.1.0; now see UNDOING
    steps: list[tuple[Inside, Inside]]
    names: dict[str, str] = {}  # folder: the operator's name as the run wrote it
    before: dict[Inside, Inside] = {}  # folder: where that set lay before
    keep: bool = True  # so that it can be undone


class Run:
    """What one command changes in an output folder; see new_run."""

    def __init__(self, root: Path, name: str, keep: bool) -> None:
        self.root, self.name, self.keep = root, name, keep
        self.folder = place_in(root, f"{RUNS_FOLDER}/{name}")
        self.steps: list[tuple[str, str]] = []
        self.left: set[str] = set()  # places that are empty by then
        self.before: dict[str, str] = {}  # of sets that get another place, as in RunJournal

    def place(self, target: str, instead_of: str = "") -> Path:
        """Where to build what shall lie at `target`, in place of what lies there (or elsewhere)."""
        name = instead_of or target
        self.clear(name)
        self.steps.append((f"{RUNS_FOLDER}/{self.name}/stage/{name}", target))
        return self.folder / "stage" / name

    def clear(self, target: str) -> None:
        """Take away what lies at a place; it is kept as long as the run is."""
        if target not in self.left and os.path.lexists(self.root / target):
            self.move(target, f"{RUNS_FOLDER}/{self.name}/before/{target}")

    def move(self, source: str, target: str) -> None:
        """Rename a file or a folder of the output."""
        self.left.add(source)
        self.steps.append((source, target))

    def set_aside(self, target: str) -> None:
        """Move what lies at a place to REMOVED_FOLDER, for good."""
        self.move(target, free_place(self.root, f"{REMOVED_FOLDER}/{target}"))

    def commit(self, names: dict[str, str] | None = None) -> None:
        """Let the run happen: from the journal on no kill stops it."""
        if self.keep and SYNCS_ALL:
            os.sync()  # what the renames are about to make visible
        journal = RunJournal(
            run=self.name,
            state="applying",
            steps=self.steps,
            names=names or {},
            before=self.before,
            keep=self.keep,
        )
        write_file(self.folder / JOURNAL, journal)
        finish_run(self.root, self.folder)


@contextlib.contextmanager
def new_run(root: Path, name: str, keep: bool = True) -> Iterator[Run]:
    """A run to be built and committed; of one that was not, nothing stays.

    What is staged of a run that need not be kept stays for its next attempt.
    """
    make_folder(root)
    run = Run(root, name, keep)
    try:
        yield run
    except BaseException as error:
        begun = (run.folder / JOURNAL).exists()
        if keep and not begun:
            shutil.rmtree(run.folder, ignore_errors=True)
            remove_empty(run.folder.parent)
        if isinstance(error, FileNotFoundError) and not begun:
            raise SortFacesError(f"{error.filename}: is gone; make the plan again") from None
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            error.filename = error.filename or str(root)
        raise


def next_run(root: Path, command: str, above: int = 0) -> str:
    """`0007-occlusion-apply`: a name for a run of a corpus, numbered behind all there are."""
    found = (re.match(r"\d{4}(?=-)", path.name) for path in (root / RUNS_FOLDER).glob("*"))
    number = max([above, *(int(hit[0]) for hit in found if hit)]) + 1
    return f"{number:04d}-{command.replace(' ', '-')}"


def runs_of(root: Path) -> list[Path]:
    """The folders of the runs of a corpus, the newest first."""
    found = (root / RUNS_FOLDER).glob("[0-9][0-9][0-9][0-9]-*")
    return sorted((path for path in found if path.is_dir()), reverse=True)


def read_run(folder: Path) -> RunJournal:
    """The journal of a run. Raises SortFacesError where it is not as the tool wrote it."""
    try:
        return read_file(folder / JOURNAL, RunJournal)
    except SortFacesError as error:
        raise SortFacesError(f"{error}, or move {folder} away to go without it") from None


def finish_run(root: Path, folder: Path) -> None:
    """Do the renames of a run's journal that are not done yet."""
    journal = read_run(folder)
    rename_all(root, journal.steps)
    if not journal.keep:
        forget_run(root, folder)
        return
    keep_leftovers(root, folder, "stage")
    write_file(folder / JOURNAL, msgspec.structs.replace(journal, state="done"))


def undo_run(root: Path, folder: Path) -> None:
    """Do the renames of a run backwards."""
    steps = reversed(read_run(folder).steps)
    rename_all(root, [(target, source) for source, target in steps])
    keep_leftovers(root, folder, "before")


def begun_restore(root: Path) -> tuple[str, int] | None:
    """(run a restore goes back to, number of the newest run there was) of one a kill cut short."""
    marks = (RESTORING.fullmatch(path.name) for path in (root / RUNS_FOLDER).glob("restoring-*"))
    return next(((mark[2], int(mark[1])) for mark in marks if mark), None)


def end_restore(root: Path) -> None:
    """Forget how far a restore was; it is done, or the operator has gone on to something else."""
    runs = root / RUNS_FOLDER
    for path in (runs / TAKE_IN, *runs.glob("restoring-*")):
        path.unlink(missing_ok=True)
    remove_empty(runs)


def rename_all(root: Path, steps: Sequence[Sequence[str]]) -> None:
    """Do each rename unless it is done.

    A place is empty until its own step fills it, except where the operator put something there
    meanwhile; what then stays behind goes to _removed (keep_leftovers).
    """
    for source, target in steps:
        here, there = place_in(root, source), place_in(root, target)
        if os.path.lexists(there):
            continue
        if not os.path.lexists(here):
            log.warning("%s: %s is gone, deleted by hand; passed over", root, source)
            continue
        if not there.parent.is_dir():
            there.parent.mkdir(parents=True)
        os.rename(here, there)
    for source, _ in steps:
        if not source.startswith(f"{RUNS_FOLDER}/"):
            for parent in list(PurePosixPath(source).parents)[:-1]:
                remove_empty(root / parent)  # a shelf, a person's folder


def keep_leftovers(root: Path, folder: Path, part: str) -> None:
    """Keep what the operator's changes left in the `stage` or `before` of a run.

    The empty folders stay: undoing the run needs them, perhaps on a full disk.
    """
    left = [path for path in (folder / part).rglob("*") if not path.is_dir() or path.is_symlink()]
    if left:
        log.warning(
            "%s: changed by hand meanwhile; the rest of %s is in %s",
            root,
            folder.name,
            REMOVED_FOLDER,
        )
        set_aside(root, f"{RUNS_FOLDER}/{folder.name}/{part}")


def forget_run(root: Path, folder: Path) -> None:
    """Remove the folder of a run; a kill leaves nothing half removed."""
    gone = folder.with_name(f"{PART_PREFIX}{folder.name}")
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)
    remove_empty(root / RUNS_FOLDER)


def recover_runs(root: Path) -> None:
    """Finish the run a kill cut short, or remove what it had only prepared."""
    place_in(root, f"{RUNS_FOLDER}/run")
    for folder in sorted(path for path in (root / RUNS_FOLDER).glob("*") if path.is_dir()):
        begun = (folder / JOURNAL).exists()
        ours = re.fullmatch(r"\d{4}-.*", folder.name) and not (folder / "before").exists()
        if folder.name.startswith(PART_PREFIX) or (ours and not begun):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        journal = read_if_sound(folder / JOURNAL, RunJournal)
        if journal is None and folder.name != TREE_RUN:
            log.warning("%s: has no usable journal; that run cannot be undone", folder)
        elif journal is None:
            continue  # the next attempt goes on with what is staged
        elif journal.state == "applying":
            log.info("%s: finishing the interrupted run %s", root, folder.name)
            finish_run(root, folder)
        elif journal.state == "restoring" or (folder / UNDOING).exists():
            log.info("%s: finishing the interrupted restore of %s", root, folder.name)
            undo_run(root, folder)
            forget_run(root, folder)
    remove_empty(root / RUNS_FOLDER)


def set_aside(out: Path, dst: str) -> None:
    """Move a file or folder of an output to its REMOVED_FOLDER under a free name."""
    target = place_in(out, free_place(out, f"{REMOVED_FOLDER}/{dst}"))
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(place_in(out, dst), target)


def free_place(root: Path, place: str, mark: str = ".", second: int = 1) -> str:
    """A place below a folder where nothing lies yet: itself, or with a number."""
    return first_free(place, lambda name: os.path.lexists(root / name), mark, second)


def remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SortFacesError(f"{path}: {error.strerror}; choose another folder") from None
    if not os.access(path, os.W_OK):
        raise SortFacesError(f"{path}: no permission to write; choose another folder")


# ============================================================================
# Output trees
# ============================================================================
# Photos placed by person. The manifest lists every file the tool put there; nothing else is ever
# touched. A plan says what to place, move and take away before anything happens.


@dataclass(frozen=True)
class Sorting:
    """Rows of a raw tree; together with what is no face they are all of the cache."""

    persons: dict[str, np.ndarray]  # by folder
    singles: np.ndarray
    ignored: np.ndarray


def sorted_out(
    word: Word,
    groups: Sequence[np.ndarray],
    standing: dict[str, np.ndarray] | None = None,
    taken: Iterable[str] = (),
) -> Sorting:
    """Settled groups of rows as persons, singletons and strangers nobody wants to see.

    standing: {folder: rows} of persons who keep theirs; taken: folders nobody new gets.
    """
    standing, none = standing or {}, np.zeros(0, np.intp)
    ignored = [rows for rows in (*standing.values(), *groups) if word.is_ignored(rows)]
    others = [rows for rows in groups if not word.is_ignored(rows)]
    is_person = [len(rows) > 1 or word.of_group(rows) in word.names for rows in others]
    persons = {name: rows for name, rows in standing.items() if not word.is_ignored(rows)}
    persons |= numbered_groups("person", list(itertools.compress(others, is_person)), word, taken)
    singles = [rows for rows, several in zip(others, is_person, strict=True) if not several]
    return Sorting(persons, np.concatenate([none, *singles]), np.concatenate([none, *ignored]))


def numbered_groups(
    prefix: str, groups: Sequence[np.ndarray], word: Word, taken: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """{folder: rows} of settled groups, in this order; who has a number keeps it.

    taken: folders that are there; without any the numbers begin at 1.
    """
    taken = set(taken)
    known = {known[prefix] for known in word.numbers.values() if prefix in known}
    free = (name for name in next_names(prefix, taken) if name not in known)
    named: dict[str, np.ndarray] = {}
    for rows in groups:
        own = word.numbers.get(word.of_group(rows), {}).get(prefix, "")
        named[own if own and own not in taken | named.keys() else next(free)] = rows
    return named


def changed_folders(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], word: Word
) -> set[str]:
    """Folders of a grown tree from which the word took faces: their files are placed anew."""
    none = np.zeros(0, np.intp)
    lost = {n for n, rows in before.items() if not np.isin(rows, after.get(n, none)).all()}
    return lost | ({"_ignored"} if word.is_silent else {"_singletons", "_ignored"})


def next_names(prefix: str, taken: Iterable[str]) -> Iterator[str]:
    """Unused numbered names after the highest one taken."""
    numbers = (re.fullmatch(rf"{prefix}_(\d+)", name) for name in taken)
    last = max((int(found[1]) for found in numbers if found), default=0)
    return (numbered(prefix, number) for number in itertools.count(last + 1))


MADE_SIZE = -1  # of the picture of a film's frame, which is made when it is placed


@dataclass(frozen=True)
class Placement:
    """One file of a tree."""

    dst: str  # relative path with forward slashes
    sha256: str
    size: int  # bytes, or MADE_SIZE
    source: str  # a live file with these bytes, "" if none is left


@dataclass(frozen=True)
class TreePlan:
    """What it takes to turn a tree into the wanted one."""

    place: list[Placement]  # new or changed files
    move: list[tuple[str, Placement]]  # (present dst, new place) of files already in the tree
    stale: list[tuple[str, bool]]  # (dst no longer wanted, whether the photo is elsewhere)
    aside: list[str]  # dst about to be replaced that holds what lies nowhere else
    missing: list[str]  # wanted, but no file with these bytes is left
    kept: int  # already in place

    def counts(self) -> dict[str, int]:
        parts = {"placed": self.place, "moved": self.move, "removed": self.stale}
        counts = {f"files_{name}": len(some) for name, some in parts.items()}
        return {**counts, "files_kept": self.kept, "files_missing": len(self.missing)}


UNSET = msgspec.UNSET
Maybe = msgspec.UnsetType  # of a field that is not written where it is not known


class Manifest(OwnFile, kw_only=True):
    """What every manifest says: when and from what it was made."""

    FILE: ClassVar[str] = "manifest.json"  # its name in the folder it is about

    created: str = ""
    cache: str = ""
    model: str = ""
    recognizer: str = ""
    rescans: int = 0


class Group(Record, kw_only=True):
    """A person of a raw tree, or a face set of a refined one."""

    id: str
    faces: list[str]
    face_count: int = 0
    image_count: int = 0
    alias_count: int = 0
    images: list[str] = []
    purity: Purity | Maybe = UNSET  # of a face set


class RawManifest(Manifest, tag="raw", kw_only=True):
    """manifest.json of what `cluster` wrote."""

    params: dict[str, float | str]
    persons: list[Group]
    singletons: list[str]
    ignored: list[str] = []  # faces of strangers the operator does not want to see
    placed: dict[Inside, str]  # {file: sha256}
    counts: dict[str, int] = {}

    @property
    def groups(self) -> list[Group]:
        return self.persons

    @property
    def extended(self) -> bool:
        return "extend_threshold" in self.params


class RefinedManifest(Manifest, tag="refined", kw_only=True):
    """refine_manifest.json of what `refine` wrote."""

    FILE: ClassVar[str] = "refine_manifest.json"

    params: RefineParams
    facesets: list[Group]
    seen: list[str]  # first 16 hex digits of every photo that was considered
    placed: dict[Inside, str]  # {file: sha256}
    counts: dict[str, Any] = {}
    extended: bool = False
    usual: Usual = Usual()  # without, no gate asks what is usual

    @property
    def groups(self) -> list[Group]:
        return self.facesets


TreeManifest = RawManifest | RefinedManifest


class Library:
    """A cache, where its photos lie now, and what the operator has said of it."""

    def __init__(self, cache: FaceCache, path: Path) -> None:
        self.cache, self.path = cache, path
        self.facts = known_paths(cache)
        self.row_of_sha = {sha: row for row, sha in enumerate(cache.file_sha256.tolist())}
        self.live: dict[int, str] = {}

    @functools.cached_property
    def word(self) -> Word:
        """What the operator has said of the cache; read when somebody asks."""
        return operators_word(self.path, self.cache)

    def live_path(self, row: int) -> str:
        """First path of a photo that still holds its bytes (by size and time), "" if none."""
        if row not in self.live:
            paths = (path for path in self.cache.copies[row] if self.unchanged(path))
            self.live[row] = next(paths, "")
        return self.live[row]

    def holds(self, file: Path) -> bool:
        """Whether the very bytes of a file lie among the photos, too; a link is its photo's."""
        if file.is_symlink():
            return os.readlink(file) in self.facts
        if file.suffix == ".jpg" and "#pts=" in file.name:
            return companion("film_source").holds(self, file)
        row = self.row_of_sha.get(sha256_of_file(file)) if file.is_file() else None
        live = "" if row is None else self.live_path(row)
        return bool(live) and os.path.realpath(live) != os.path.realpath(file)

    def unchanged(self, path: str) -> bool:
        try:
            now = os.stat(file_of(path))
        except OSError:
            return False
        return facts_of(now) == self.facts[path][1:]

    def is_frame(self, sha: str) -> bool:
        """Whether it is a frame of a film; its file in a tree is made from that."""
        row = self.row_of_sha.get(sha)
        return row is not None and bool(film_of(str(self.cache.file_path[row])))

    def placements(self, folder: str, files: Iterable[int]) -> list[Placement]:
        """Every path of the photos `files` (rows) as a file of one folder of a tree."""
        wanted: dict[str, int] = {}
        for row in files:
            wanted.update((path, row) for path in self.cache.paths[row])
        result = []
        taken: set[str] = set()
        for path, row in wanted.items():
            name = safe_dst_name(path)
            if name.casefold() in taken:  # NTFS folds case; the older file keeps the plain name
                stem, suffix = os.path.splitext(name)
                name = f"{stem}-{path_mark(path)}{suffix}"
            taken.add(name.casefold())
            sha, size, _ = self.facts[path]
            size = MADE_SIZE if film_of(path) else size
            copy = self.live_path(row) if path in self.cache.copies[row] else ""
            source = path if self.unchanged(path) else copy
            result.append(Placement(f"{folder}/{name}", sha, size, source))
        return result

    def group(
        self, name: str, rows: np.ndarray, images: list[str] | None = None, **more: Any
    ) -> Group:
        """What a manifest says of the faces (rows) of one person."""
        files = len(np.unique(self.cache.face_file[rows]))
        return Group(
            id=name,
            faces=face_names(self.cache, rows),
            face_count=len(rows),
            image_count=files,
            alias_count=len(images) - files if images is not None else 0,
            images=images or [],
            **more,
        )


def plan_tree(
    library: Library,
    out: Path,
    wanted: Sequence[Placement],
    owned: dict[str, str],
    keep: Iterable[str] = (),
) -> TreePlan:
    """Compare a tree on disk with what is wanted in it.

    owned: {dst: sha256} the tool placed earlier; those in `keep` stay even if nothing wants them.
    What owned says is believed of no file that goes: its bytes are looked at.
    Raises SortFacesError where a wanted name is taken by a file that is not ours.
    """
    for folder in {str(PurePosixPath(dst).parent) for dst in (*owned, *(i.dst for i in wanted))}:
        place_in(out, f"{folder}/file")
    names = {item.dst for item in wanted}.union(keep)
    stale = {dst: sha for dst, sha in owned.items() if dst not in names}
    spare = defaultdict(list)
    for dst, sha in stale.items():
        if os.path.isfile(out / dst):
            size = MADE_SIZE if library.is_frame(sha) else os.stat(out / dst).st_size
            spare[sha, size].append(dst)
    place, move, missing, kept = [], [], [], 0
    for item in wanted:
        path = out / item.dst
        if is_placed(path, item, owned.get(item.dst)):
            kept += 1
        elif os.path.lexists(path) and item.dst not in owned:
            raise SortFacesError(
                f"{path}: not written by this tool; move it away or choose another folder"
            )
        elif spare[item.sha256, item.size] and not os.path.lexists(path):
            move.append((spare[item.sha256, item.size].pop(), item))
        elif item.source:
            place.append(item)
        else:
            missing.append(item.dst)
    moved = {dst for dst, _ in move}
    gone = [dst for dst in stale if dst not in moved and os.path.lexists(out / dst)]
    replaced = [item.dst for item in place if os.path.lexists(out / item.dst)]
    looked = progress([*gone, *replaced], len(gone) + len(replaced), "comparing", "file")
    held = {dst: library.holds(out / dst) for dst in looked}
    left = [(dst, held[dst]) for dst in gone]
    aside = [dst for dst in replaced if not held[dst]]
    return TreePlan(place, move, left, aside, missing, kept)


def is_placed(path: Path, item: Placement, owned_sha256: str | None) -> bool:
    """Whether a file of a tree is in place; our own are known by name and size, others read."""
    if not path.is_file() or item.size not in (path.stat().st_size, MADE_SIZE):
        return False
    return (owned_sha256 or sha256_of_file(path)) == item.sha256


def stage_tree(run: Run, plan: TreePlan, link: str) -> None:
    """Bring the files of a plan into a run; those an earlier attempt has staged are there."""
    for dst in plan.aside:
        run.set_aside(dst)
    for dst, item in plan.move:
        run.move(dst, item.dst)
    for item in progress(plan.place, len(plan.place), f"placing in {run.root.name}", "photo"):
        place_file(Path(item.source), run.place(item.dst), link)
    for dst, replaceable in plan.stale:
        (run.clear if replaceable else run.set_aside)(dst)


def place_file(source: Path, target: Path, link: str) -> None:
    """Copy or link one photo into a tree, atomically, with its modification time."""
    try:
        if film_of(str(source)):
            companion("film_source").place(str(source), target)
            return
        if link == "copy" and same_facts(source, target):
            return
        with writing(target, sync=False) as part:  # the photo itself is still there
            if link == "hard":
                os.link(source, part)
            elif link == "sym":
                os.symlink(os.path.abspath(source), part)
            else:
                clone_file(source, part) if link == "reflink" else shutil.copyfile(source, part)
                facts = os.stat(source)
                os.utime(part, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    except OSError as error:
        hint = {
            errno.EXDEV: "links need one file system, use --link copy",
            errno.EOPNOTSUPP: f"this file system has no {link} links, use --link copy",
            errno.EPERM: f"this file system has no {link} links, use --link copy",
            errno.ENOSPC: "free some space and run again",
        }.get(error.errno, "mend that and run again")
        raise SortFacesError(f"{source} -> {target}: {error.strerror}; {hint}") from error


def same_facts(source: Path, target: Path) -> bool:
    """Whether a whole copy of a file lies there already, by size and time."""
    try:
        a, b = os.stat(source), os.lstat(target)
    except OSError:
        return False
    return facts_of(a) == facts_of(b) and stat.S_ISREG(b.st_mode) and a.st_ino != b.st_ino


def clone_file(source: Path, target: Path) -> None:
    """Copy a file by sharing its blocks (Linux FICLONE, on btrfs or XFS)."""
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, "no reflinks on this system")
    import fcntl

    ficlone = 0x40049409  # linux/fs.h
    with open(source, "rb") as src, open(target, "wb") as dst:
        fcntl.ioctl(dst.fileno(), ficlone, src.fileno())


def write_tree(
    library: Library,
    out: Path,
    manifest: TreeManifest,
    wanted: Sequence[Placement],
    tree: TreeOptions,
    changed: Container[str] = (),
) -> TreePlan:
    """Bring a tree to the wanted state and its manifest with it; with dry_run only plan.

    A tree that `extend` has grown keeps files nothing wants any more, but for those of `changed`
    folders.
    """
    kind = type(manifest)

    def planned() -> tuple[TreePlan, dict[str, str]]:
        owned, listed = owned_files(out, kind)
        keep = {dst for dst in listed if manifest.extended and dst.split("/")[0] not in changed}
        return plan_tree(library, out, wanted, owned, keep), {dst: owned[dst] for dst in keep}

    if tree.dry_run:
        return planned()[0]
    make_folder(out)
    with locked(out / LOCK_NAME, str(out)):
        recover_runs(out)
        remove_unfinished(out)
        plan, placed = planned()
        placed |= {item.dst: item.sha256 for item in wanted}
        for dst in plan.missing:
            log.warning("%s: the photo is gone and cannot be placed", dst)
            del placed[dst]
        for entry in manifest.groups:
            entry.images[:] = [dst for dst in entry.images if dst in placed]
        with new_run(out, TREE_RUN, keep=False) as run:
            stage_tree(run, plan, tree.link)
            record = msgspec.structs.replace(manifest, placed=dict(sorted(placed.items())))
            write_file(run.place(kind.FILE), record)
            run.commit()
        (out / f"{kind.FILE}{PENDING}").unlink(missing_ok=True)
    note_numbers(library, manifest)
    return plan


def note_numbers(library: Library, manifest: TreeManifest) -> None:
    """Write down the folders of people the operator has named, as they keep them from now on."""
    if library.word.names:
        folders = {g.id: rows_of_faces(library.cache, g.faces) for g in manifest.groups}
        companion("decisions").note_numbers(library, folders)


PENDING = ".pending"  # ends the name of the manifest a killed run of version 0.1.0 was making true


def owned_files(out: Path, kind: type[TreeManifest]) -> tuple[dict[str, str], set[str]]:
    """({dst: sha256} of all files the tool may have put into a tree, those its manifest lists).

    Those of a killed run of version 0.1.0 count as well; where it may have replaced one, the
    sha256 is "".
    """
    path = out / kind.FILE
    found = read_if_sound(path, kind), read_if_sound(path.with_name(path.name + PENDING), kind)
    listed, pending = (manifest.placed if manifest else {} for manifest in found)
    owned = {**listed, **pending}
    owned |= {dst: "" for dst in listed.keys() & pending.keys() if listed[dst] != pending[dst]}
    return owned, set(listed)


def check_place(out: Path, roots: Sequence[str]) -> None:
    """Refuse an output folder that is a file, lies among the photos or holds them."""
    real = out.resolve()
    for root in roots:
        if real in Path(root).parents:
            raise SortFacesError(f"{out}: holds the source {root}; choose a folder beside it")
        if real == Path(root) or Path(root) in real.parents:
            raise SortFacesError(
                f"{out}: lies inside the source {root}; choose a folder outside it"
            )
    for folder in (out, *out.parents):
        if folder.exists() and not folder.is_dir():
            raise SortFacesError(f"{folder}: is a file; name a folder")


def check_output(out: Path, roots: Sequence[str], kind: type[Manifest]) -> None:
    """Refuse an output that lies among the photos or would mix with files that are not ours."""
    check_place(out, roots)
    manifest = out / kind.FILE
    if manifest.exists() and read_if_sound(manifest, kind) is None:
        raise SortFacesError(
            f"{manifest}: is no {tag_of(kind)} manifest of {TOOL}; move it away or choose another "
            "folder"
        )
    ours = {LOCK_NAME, RUNS_FOLDER, manifest.name, f"{manifest.name}{PENDING}"}
    names = set(os.listdir(out)) if out.is_dir() else set()
    if names and not names & ours:
        raise SortFacesError(f"{out}: holds other files; name a new or empty folder")


def manifest_head(library: Library) -> dict[str, Any]:
    """The fields every manifest starts with: what it was made from, and when."""
    meta = library.cache.meta
    return {
        "created": now_text(),
        "cache": str(library.path.resolve()),
        "model": meta.model,
        "recognizer": meta.recognizer,
        "rescans": meta.rescans,
    }


def load_manifest(path: Path, kind: type[R], cache: FaceCache) -> R:
    """Read the manifest of a tree and make sure that it speaks of this cache's faces.

    A kill between two renames can leave none; then what that run had begun is finished first.
    """
    if not path.exists() and (path.parent / RUNS_FOLDER).is_dir():
        with locked(path.parent / LOCK_NAME, str(path.parent)):
            recover_runs(path.parent)
    manifest = read_file(path, kind)
    if manifest.recognizer != cache.meta.recognizer:
        raise SortFacesError(
            f"{path}: made with {manifest.model}, the cache with {cache.meta.model}; "
            "run the earlier steps again with this cache"
        )
    faces = [face for entry in manifest.groups for face in entry.faces]
    if faces and not any(face in cache.row_of_face for face in faces):
        raise SortFacesError(f"{path}: speaks of none of this cache's faces; name its own cache")
    if manifest.rescans != cache.meta.rescans:
        raise SortFacesError(
            f"{path}: since it was written a rescan has numbered faces anew; "
            "run cluster and refine again"
        )
    return manifest


def face_names(cache: FaceCache, rows: Iterable[int]) -> list[str]:
    return [cache.face_ids[row] for row in rows]


def rows_of_faces(cache: FaceCache, faces: Iterable[str]) -> np.ndarray:
    """Cache rows of face ids; faces that left the cache are passed over."""
    rows = (cache.row_of_face.get(face) for face in faces)
    return np.array([row for row in rows if row is not None], dtype=np.intp)


def now_text() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def raw_manifest(
    library: Library, params: dict[str, Any], sorting: Sorting
) -> tuple[RawManifest, list[Placement]]:
    """Manifest and placements of a raw tree."""
    cache = library.cache
    no_faces = np.setdiff1d(
        cache.face_file[library.word.no_face], cache.face_file[library.word.faces]
    )
    faceless = np.union1d(np.flatnonzero(cache.file_status == STATUS_NO_FACE), no_faces)
    wanted = []
    for folder, files in [
        *((person, cache.face_file[rows]) for person, rows in sorting.persons.items()),
        ("_singletons", cache.face_file[sorting.singles]),
        ("_ignored", cache.face_file[sorting.ignored]),
        ("_noface", faceless),
    ]:
        wanted += library.placements(folder, np.unique(files).tolist())
    counts = {
        "faces": cache.faces,
        "persons": len(sorting.persons),
        "singletons": len(sorting.singles),
        "without_face": len(faceless),
    }
    if len(sorting.ignored):
        counts["ignored"] = len(sorting.ignored)
    manifest = RawManifest(
        **manifest_head(library),
        params=params,
        counts=counts,
        persons=[library.group(person, rows) for person, rows in sorting.persons.items()],
        singletons=face_names(cache, sorting.singles),
        ignored=face_names(cache, sorting.ignored),
        placed={},
    )
    return manifest, wanted


def refined_manifest(
    library: Library,
    params: RefineParams,
    facesets: dict[str, np.ndarray],
    purity: dict[str, Purity],
    dropped: dict[str, int],
    usual: Usual,
    extended: bool = False,
) -> tuple[RefinedManifest, list[Placement]]:
    """Manifest and placements of a refined tree from rows and purity per face set."""
    cache = library.cache
    entries, wanted = [], []
    for name, rows in facesets.items():
        placed = library.placements(name, np.unique(cache.face_file[rows]).tolist())
        wanted += placed
        images = [item.dst for item in placed]
        entries.append(library.group(name, rows, images, purity=purity[name]))
    kept = sum(len(rows) for rows in facesets.values())
    manifest = RefinedManifest(
        **manifest_head(library),
        params=params,
        usual=usual,
        extended=extended,
        counts={"faces": cache.faces, "faces_kept": kept, "dropped": dropped},
        facesets=entries,
        seen=[sha[:16] for sha in cache.file_sha256.tolist()],
        placed={},
    )
    return manifest, wanted


# ============================================================================
# Corpus
# ============================================================================
# A swap-ready corpus on disk: one folder a face set, each with a manifest, a master manifest over
# all of them. What the operator deletes stays deleted and what he adds is taken in: the lists of
# the master are always made anew from what the folders hold.

UNNAMED = "unnamed"
YOURS = "_yours"  # files of others whose names a face set needs for itself
DROPPED = "faces/_dropped"  # within a face set
ADOPTED = ":yours"  # ends the name of a face the operator added
RANKED_PNG = re.compile(r"faces/\d{3,}\.png")
FOLDER_OLD = ".sort_faces-old-"  # of version 0.1.0: the face set a new one was about to replace
SHELVES = {"_masked": "masked", "_thin": "thin_eras", "_merged": "merged"}  # folder: list in master
SHELVED_AGAIN = r"(?:-\d+)*"  # ends the folder of a set whose name was on the shelf already
SCORES_FOLDER = "_scores"
EXPORTS_FOLDER = "exports"  # of a face set, and of all of them at once


class Face(Record, kw_only=True):
    """A face in the manifest of a face set: what it shows, and how good it is."""

    face: str  # id in the cache, or of a PNG the operator added
    sha256: str  # of the PNG
    quality: float
    file: Annotated[str, msgspec.Meta(pattern=r"\Afaces/[^/]+\.png\Z")]
    rank: int | Maybe = UNSET
    source: str = ""  # path of the photo
    photo_sha256: str | Maybe = UNSET
    bbox: list[float] | Maybe = UNSET  # pixels of the photo, x1 y1 x2 y2
    taken: float | Maybe | None = UNSET  # seconds as in the cache
    taken_kind: str | Maybe = UNSET  # likewise; "decision": by the operator
    taken_precision: str | Maybe = UNSET
    terms: dict[str, float] | Maybe = UNSET
    distance: float | Maybe = UNSET  # to the centroid of its set
    pad: float | Maybe = UNSET
    neighbours_painted: bool | Maybe = UNSET
    kept_because: str | Maybe = UNSET
    retouched: bool | Maybe = UNSET  # by the operator
    chosen: bool | Maybe = UNSET  # by the operator, as the picture of its person: it comes first

    @property
    def photo(self) -> str:
        """What tells its photo from others; of a PNG the operator added, itself."""
        return self.photo_sha256 or self.sha256

    @property
    def year(self) -> float:
        told = self.taken is not UNSET and self.taken_kind not in LATER_TIMES
        return year_of(self.taken if told else None)


class Left(Face, kw_only=True):
    """A face that is not in its set, and why: left out by an export, or taken out by a run."""

    face: str = ""
    sha256: str | Maybe = UNSET
    quality: float | Maybe = UNSET
    file: Annotated[str, msgspec.Meta(pattern=r"\A(faces/_dropped/[^/]+)?\Z")] | Maybe = UNSET
    reason: str = ""
    value: float | Maybe = UNSET  # what decided
    run: str | Maybe = UNSET  # that took it out
    score: float | Maybe = UNSET  # of occlusion
    cosine: float | Maybe = UNSET
    years: float | Maybe = UNSET


class Era(Record, kw_only=True):
    """What makes a face set an era of another; the anchor never changes."""

    of: str  # id of the person's whole set
    years: str = ""
    anchor_year: float | None = None
    anchor: str = ""  # packed (d,) float32 of length 1
    distance: float = EraParams.distance
    max_years: float = EraParams.years
    min_faces: int | Maybe = UNSET


class Bundle(Record, kw_only=True):
    """A .fsz of a face set, and what the average of its raw embeddings is worth."""

    file: PlainName
    faces: list[str] | Maybe = UNSET  # its PNGs; without it all of the set
    cosine: float | Maybe = UNSET  # to the average of the whole set
    held_out: float | Maybe = UNSET  # chosen from half the faces, to the average of the others


class Exported(Record, kw_only=True):
    """What was written for another program, by its KIND: below exports/KIND of a set or corpus."""

    kind: PlainName
    options: dict[str, Any] = {}
    made_of: str = ""  # mark of all that it was made of; another one, and it is made again
    averaged: list[str] = []  # the bundles whose faces its averages are of
    files: dict[Inside, str] = {}  # sha256 of each, by its place below the manifest's folder
    left: dict[str, str] = {}  # why a face, or "" for all, is not in it


class FacesetManifest(Manifest, tag="faceset", kw_only=True):
    """manifest.json of a face set."""

    id: str
    params: ExportParams
    quality_terms: list[str] = []
    era: Era | Maybe = UNSET
    counts: dict[str, int] = {}
    bundles: list[Bundle] = []  # none before those were told
    files: list[Any] = []  # names of all that the tool has written into the folder
    faces: list[Face]
    dropped: list[Left]
    purity: Purity | Maybe = UNSET  # as refine found it
    exports: list[Exported] = []


class Listed(Record, kw_only=True):
    """A face set as the master manifest lists it."""

    id: str
    faces: list[str] = []
    name: str = ""
    face_count: int = 0
    left_out: int = 0
    best: float = 0.0
    bundle: str = ""
    full_bundle: str = ""
    core_bundle: str = ""
    folder: str | Maybe = UNSET  # of a set on a shelf
    reason: str | Maybe = UNSET
    run: str | Maybe = UNSET


class SwapManifest(Manifest, tag="swap", kw_only=True):
    """manifest.json of a swap-ready corpus: its face sets, those on shelves, and its runs."""

    params: dict[str, Any] = {}
    facesets: list[Listed]
    masked: list[Listed] = []
    thin_eras: list[Listed] = []
    merged: list[Listed] = []
    runs: list[dict[str, Any]] = []
    exports: dict[PlainName, dict[str, Any]] = {}  # the options of each kind its sets have


class ExportsManifest(Manifest, tag="exports", kw_only=True):
    """manifest.json of EXPORTS_FOLDER: what was written of all people at once."""

    files: list[str]
    exports: list[Exported]


class Candidate(Face, kw_only=True):
    """A singleton that may belong to a face set, or to another singleton."""

    file: Inside  # below _candidates


class CandidatesManifest(Manifest, tag="candidates", kw_only=True):
    """manifest.json of _candidates."""

    params: dict[str, Any] = {}
    files: list[str]
    faces: list[Candidate]
    dropped: list[Left] = []


RUN_TREES = {  # folders of what `run` makes
    RawManifest: "raw_full",
    RefinedManifest: "facesets_full",
    SwapManifest: "facesets_swap_ready",
}


def read_name(folder: Path) -> str:
    """The operator's name of a face set, UNNAMED if there is none."""
    with contextlib.suppress(OSError):
        text = (folder / "NAME.txt").read_text(encoding="utf-8-sig", errors="replace").strip()
        return text or UNNAMED
    return UNNAMED


def finish_faceset(
    stage: Path, manifest: FacesetManifest, earlier: Path | None = None
) -> FacesetManifest:
    """Write bundles, contact sheet and manifest of a folder that holds its PNGs and exports.

    earlier: the folder of its earlier self, of which as much as fits is taken over. Returns the
    manifest.
    """
    faces, written, beside = manifest.faces, ["manifest.json", "NAME.txt"], "faceset_files"
    written += [file for exported in manifest.exports for file in exported.files]
    if faces:
        bundles = companion(beside).members_of(manifest)
        written += companion(beside).write_bundles(stage, bundles, earlier)
        sheet = companion(beside).contact_sheet(stage, faces, earlier)
        write_part(stage / "previews" / "top_20_grid.jpg", sheet)
        written += ["previews/top_20_grid.jpg", *(face.file for face in faces)]
    written += [gone.file for gone in manifest.dropped if gone.file]
    counts = {"faces": len(faces), "dropped": len(manifest.dropped)}
    manifest = msgspec.structs.replace(manifest, counts=counts, files=written)
    write = write_part if SYNCS_ALL else write_bytes
    write(stage / "manifest.json", text_of_file(manifest))
    return manifest


def with_bundles(manifest: FacesetManifest, embedding: np.ndarray) -> FacesetManifest:
    """A face set with its bundles chosen: top-N, full and, where there are more faces, core.

    embedding: (n, d) of its faces, zeros where not known; their averages are those of the known.
    """
    faces, params = manifest.faces, manifest.params
    known = embedding.any(axis=1)
    vectors = embedding[known]
    half = np.zeros(len(vectors), dtype=bool)  # as the hashes of the photos fall, not by rank
    half[np.argsort([f.face for f, is_so in zip(faces, known, strict=True) if is_so])[::2]] = True
    rules: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"{manifest.id}_top{params.top_n}.fsz": lambda some: top_faces(some, params.top_n),
        f"{manifest.id}.fsz": lambda some: np.arange(len(some)),
        f"{manifest.id}_core.fsz": lambda some: core_faces(some, params.core_n),
    }
    bundles = []
    for name, choose in rules.items():
        rows = choose(embedding)
        if not len(rows):
            continue
        some, files = embedding[rows][known[rows]], [faces[row].file for row in rows]
        cosine, held_out = UNSET, UNSET
        if len(some):
            cosine = round(average_cosine(some, vectors), 4)
        if len(vectors) >= HELD_OUT_FROM:
            held_out = round(held_out_cosine(vectors, half, choose), 4)
        part = files if len(files) < len(faces) else UNSET
        bundles.append(Bundle(file=name, faces=part, cosine=cosine, held_out=held_out))
    return msgspec.structs.replace(manifest, bundles=bundles)


def listed(folder: str, manifest: FacesetManifest, name: str) -> Listed:
    """What the master manifest says of one face set."""
    faces = manifest.faces
    small, full, core = (*(f"{folder}/{file}" for file in bundles_of(manifest)), "", "", "")[:3]
    return Listed(
        id=manifest.id,
        name=name,
        face_count=len(faces),
        left_out=len(manifest.dropped),
        best=max((face.quality for face in faces), default=0.0),
        bundle=small,
        full_bundle=full,
        core_bundle=core,
        faces=[face.face for face in faces],
    )


def bundles_of(manifest: FacesetManifest) -> dict[str, list[str]]:
    """{name: its PNGs} of the bundles of a face set: top-N, full and perhaps core."""
    files = [face.file for face in manifest.faces]
    if not files:
        return {}
    top, full = f"{manifest.id}_top{manifest.params.top_n}.fsz", f"{manifest.id}.fsz"
    told = {bundle.file: bundle.faces or files for bundle in manifest.bundles}
    return {top: files[: manifest.params.top_n], full: files} | told | {full: files}


def carry_over(old: Path, stage: Path, moved: Iterable[str] = ()) -> None:
    """Copy every file of the old folder that the tool did not write itself, nor has `moved`.

    One whose name the new folder needs goes to YOURS.
    """
    for file in sorted(foreign_files(old) - set(moved)):  # those of YOURS first
        places = (stage / file, *(stage / part for part in PurePosixPath(file).parents))
        taken = os.path.lexists(places[0]) or any(map(os.path.isfile, places))
        target = stage / (free_place(stage, f"{YOURS}/{file}") if taken else file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(old / file, target, follow_symlinks=False)


def foreign_files(folder: Path) -> set[str]:
    """Files of a folder of ours that its manifest does not know."""
    known = told_by(folder).get("files", [])
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    files = {path.relative_to(folder).as_posix() for path in found}
    told = known if isinstance(known, list) else []
    return files - {file for file in told if isinstance(file, str)}


def told_by(folder: Path) -> dict[str, Any]:
    """The manifest of a face set, of candidates or of exports, whatever a person made of it."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads((folder / "manifest.json").read_bytes())
        if isinstance(value, dict) and value.get("kind") in ("faceset", "candidates", "exports"):
            return value
    return {}


def sha_of_own(path: Path) -> str:
    """sha256 of a file; "" of a link that leads nowhere, and of what is not there."""
    return sha256_of_file(path) if path.is_file() else ""


def recover_folders(out: Path) -> None:
    """Finish the swaps a killed export of version 0.1.0 left between its two renames."""
    for old in out.glob(FOLDER_OLD + "*"):
        target = old.with_name(old.name[len(FOLDER_OLD) :])
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, target)


SET_PATH = r"(?:_(?:masked|thin|merged)/)?faceset_[^/]+"
MOVE_SHAPES = {  # action: (what `from` looks like, what `to` looks like)
    "drop": (rf"{SET_PATH}/faces/(?:_dropped/)?[^/]+\.png", rf"{SET_PATH}/{DROPPED}/[^/]+\.png"),
    "copy": (rf"{SET_PATH}/faces/[^/]+\.png", rf"{SET_PATH}/faces/"),
    "adopt": (rf"{SET_PATH}/faces/[^/]+\.png", rf"{SET_PATH}/faces/[^/]+\.png"),
    "gone": (rf"{SET_PATH}/faces/[^/]+\.png", ""),
    "shelve": (SET_PATH, r"_(?:masked|thin|merged)/faceset_[^/]+"),
    "name": (rf"{SET_PATH}/NAME\.txt", rf"{SET_PATH}/NAME\.txt"),
    "rebuild": (rf"{SET_PATH}|{EXPORTS_FOLDER}", rf"{SET_PATH}|{EXPORTS_FOLDER}"),
    "yours": (rf"{SET_PATH}/.+", rf"{SET_PATH}/{YOURS}/.+"),
}
MOVE_WORDS = {  # how counts call the actions
    "drop": "dropped",
    "copy": "copied",
    "adopt": "adopted",
    "gone": "gone",
    "shelve": "shelved",
    "name": "named",
    "rebuild": "rebuilt",
    "yours": "set_aside",
}


class Move(Record, kw_only=True, rename={"source": "from", "target": "to"}):
    """One step of a plan: a file of a face set, or the whole set, goes somewhere, and why.

    Paths are relative to the corpus; MOVE_SHAPES says what they look like.
    """

    action: Literal["drop", "copy", "adopt", "gone", "shelve", "name", "rebuild", "yours"]
    source: str
    target: str
    reason: str = ""
    numbers: dict[str, Any] = {}  # what decided

    @property
    def folder(self) -> str:
        """The face set it starts from, or EXPORTS_FOLDER."""
        found = re.match(SET_PATH, self.source)
        return found[0] if found else self.source

    @property
    def file(self) -> str:
        """What moves, within that set; "" for the whole of it."""
        return self.source[len(self.folder) + 1 :]

    @property
    def aim(self) -> str:
        """The face set it leads to, "" for nowhere."""
        found = re.match(SET_PATH, self.target)
        return found[0] if found else self.target

    @property
    def place(self) -> str:
        """Where it leads to, within that set."""
        return self.target[len(self.aim) + 1 :]


def move_file(action: str, folder: str, file: str, to: str, reason: str) -> Move:
    """The move of a file within its face set; "" stands for the set, or for nowhere."""
    source = f"{folder}/{file}" if file else folder
    target = f"{folder}/{to}" if to else "" if file else folder
    return Move(action=action, source=source, target=target, reason=reason)


@dataclass(frozen=True)
class FaceSet:
    """One face set of a corpus as it lies on disk."""

    folder: str  # within the corpus: faceset_001, _masked/faceset_007
    manifest: FacesetManifest
    name: str  # the operator's, or UNNAMED
    faces: list[Face]  # of its manifest, those whose PNG is there, best first
    repairs: list[Move]  # what it takes to bring the manifest to what lies there

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def family(self) -> str:
        """The identity: eras of one person share it."""
        return self.manifest.era.of if self.is_era else self.id

    @property
    def is_era(self) -> bool:
        return self.manifest.era is not UNSET

    @property
    def shelf(self) -> str:
        """The folder of SHELVES it lies in, "" if it is in use."""
        return self.folder.rpartition("/")[0]

    def known(self) -> set[str]:
        """Ids of all faces that are or were in it."""
        return {face.face for face in (*self.manifest.faces, *self.manifest.dropped)}


class Corpus:
    """The face sets of a swap-ready folder."""

    def __init__(self, root: Path, master: SwapManifest) -> None:
        self.root, self.master = root, master
        self.sets: dict[str, FaceSet] = {}  # by folder, shelved ones too
        self.broken: dict[str, str] = {}  # folder: why its manifest cannot be used
        folders = [root, *(root / shelf for shelf in SHELVES)]
        for folder in sorted(found for top in folders for found in top.glob("faceset_*")):
            where = folder.relative_to(root).as_posix()
            if folder.is_dir():
                try:
                    self.sets[where] = read_faceset(root, where)
                except SortFacesError as error:
                    self.broken[where] = str(error)

    @property
    def active(self) -> dict[str, FaceSet]:
        return {folder: faceset for folder, faceset in self.sets.items() if not faceset.shelf}

    def get(self, name: str) -> FaceSet:
        """An active face set by its id or by the operator's name. Raises SortFacesError."""
        found = [s for s in self.active.values() if name in (s.id, s.name)]
        if len(found) != 1:
            what = f"{len(found)} face sets are named so" if found else "no such face set"
            raise SortFacesError(f"{name}: {what}; name the folder of one in {self.root}")
        return found[0]

    def embeddings(self, faces: Sequence[Face]) -> np.ndarray:
        """(n, d) float32 raw embeddings of exported faces, zeros where not known.

        As consumers get them: of the face in the PNG, which somebody has looked at; where nobody
        has, as the photo in the cache gave it.
        """
        with LOADING:  # both are read once, whoever asks first
            found = [self.seen.get(face.sha256) for face in faces]
            for at, face in enumerate(faces):
                if found[at] is None and not face.face.endswith(ADOPTED) and self.cache is not None:
                    row = self.cache.row_of_face.get(face.face)
                    found[at] = None if row is None else self.cache.embedding[row]
        return of_one_width([np.zeros(0) if one is None else one for one in found])

    @functools.cached_property
    def seen(self) -> dict[str, np.ndarray]:
        """{sha256 of a PNG: (d,) embedding of its face} where somebody has looked."""
        found = {}
        for path in sorted((self.root / SCORES_FOLDER).glob("audit-*.jsonl")):
            if path.name.startswith(f"audit-{self.master.recognizer}"):
                for _, value in json_lines(path):
                    with contextlib.suppress(KeyError, TypeError, ValueError):
                        vector = unpack_floats(value["embedding"], (-1,))
                        if np.isfinite(vector).all() and vector.any():
                            found[value["sha256"]] = vector
        return found

    @functools.cached_property
    def cache(self) -> FaceCache | None:
        return corpus_cache(self.master)

    @functools.cached_property
    def word(self) -> Word:
        """What the operator has said of its cache; of one that is gone nothing is known."""
        if self.cache is None:
            return no_word(0)
        return operators_word(Path(self.master.cache), self.cache)

    def rows(self, faceset: FaceSet) -> np.ndarray:
        """Cache rows of all faces that are or were in a face set."""
        known = sorted(faceset.known()) if self.cache is not None else []
        return np.array(
            [self.cache.row_of_face[f] for f in known if f in self.cache.row_of_face], int
        )

    def again(self) -> Corpus:
        """The corpus as it lies there now."""
        return Corpus(self.root, read_file(self.root / "manifest.json", SwapManifest))

    def repairs(self) -> list[Move]:
        """What brings manifests, bundles and exports to what lies there."""
        moves = self.repairs_by_hand()
        return moves + (companion("consumers").repairs(self, moves) if self.exports else [])

    def repairs_by_hand(self) -> list[Move]:
        """Those of sets the operator has changed, or whose bundles are gone."""
        return [move for faceset in self.sets.values() for move in faceset.repairs]

    @property
    def exports(self) -> bool:
        """Whether anything is, or is to be, written for other programs."""
        told = (faceset.manifest.exports for faceset in self.sets.values())
        return bool(self.master.exports) or any(told) or (self.root / EXPORTS_FOLDER).is_dir()

    def eras_of(self, faceset: FaceSet) -> list[FaceSet]:
        eras = [era for era in self.sets.values() if era.is_era and era.family == faceset.id]
        if faceset.shelf and any(faceset.id == other.id for other in self.active.values()):
            return []  # its number was given to another set since
        merged = faceset.shelf == "_merged"
        return [era for era in eras if (era.shelf == "_merged") == merged]

    def state(self) -> str:
        """Hash over every manifest and the PNGs beside it; names the operator gives do not count.

        A plan holds the state it was made for.
        """
        digest = hashlib.sha256((self.root / "manifest.json").read_bytes())
        for folder in self.sets:
            digest.update(folder.encode("utf-8", "surrogateescape"))
            digest.update((self.root / folder / "manifest.json").read_bytes())
            found = (self.root / folder / "faces").rglob("*.png")
            pngs = sorted(png for png in found if png.is_file())
            digest.update(repr([(png.name, png.stat().st_size) for png in pngs]).encode())
        return digest.hexdigest()[:16]

    def lists(
        self, after: dict[str, FaceSet], notes: dict[str, dict[str, str]]
    ) -> dict[str, list[Listed]]:
        """facesets[] and the lists of the shelves, for the sets `after` a run, by folder.

        notes: {folder: reason and run} of sets that were shelved just now. What cannot be read
        stays listed as it was.
        """
        lists: dict[str, list[Listed]] = {key: [] for key in ("facesets", *SHELVES.values())}
        for folder in sorted({*after, *self.broken}, key=natural):
            shelf = folder.rpartition("/")[0]
            if folder in after:
                entry = listed(folder, after[folder].manifest, after[folder].name)
                if shelf:
                    note = notes.get(folder) or self.note(folder)
                    entry = msgspec.structs.replace(entry, folder=folder, **note)
            else:
                entry = self.told.get(folder)
            lists[SHELVES.get(shelf, "facesets")] += [entry] if entry else []
        return lists

    @functools.cached_property
    def told(self) -> dict[str, Listed]:
        """{folder: what the master manifest says of it}."""
        lists = (getattr(self.master, key) for key in ("facesets", *SHELVES.values()))
        return {entry.folder or entry.id: entry for some in lists for entry in some}

    def differs(self, lists: dict[str, list[Listed]]) -> bool:
        """Whether the master manifest has other lists than these."""
        return any(getattr(self.master, key) != some for key, some in lists.items())

    def note(self, folder: str) -> dict[str, str]:
        """Why a set is on a shelf, and since which run."""
        entry = self.told.get(folder)
        return {key: getattr(entry, key, None) or "" for key in ("reason", "run")}


def corpus_cache(master: SwapManifest) -> FaceCache | None:
    """The cache a corpus was made from, if it is there and still numbers faces the same way."""
    if not master.cache:
        return None
    try:
        cache = load_cache(Path(master.cache))
    except (SortFacesError, OSError) as error:
        log.info("without the cache: %s", error)
        return None
    made_with = cache.meta.recognizer, cache.meta.rescans
    return cache if made_with == (master.recognizer, master.rescans) else None


def of_one_width(found: Sequence[np.ndarray]) -> np.ndarray:
    """(n, d) float32 of embeddings; zeros for those of another width than most."""
    widths = Counter(len(vector) for vector in found if len(vector))
    width = widths.most_common(1)[0][0] if widths else 0
    rows = [vector if len(vector) == width else np.zeros(width) for vector in found]
    return np.array(rows, np.float32).reshape(len(found), width)


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that counts: faceset_2 before faceset_10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


@contextlib.contextmanager
def opened_corpus(root: Path) -> Iterator[Corpus]:
    """Hold a corpus while working on it; what a killed run left is finished or undone first.

    A corpus on a read-only disk can be looked at without a lock. Raises SortFacesError for a
    folder that is no corpus.
    """
    with held_corpus(root):
        if begun_restore(root) and os.access(root, os.W_OK):
            end_restore(root)
        yield Corpus(root, read_file(root / "manifest.json", SwapManifest))


def why_no_corpus(root: Path) -> str:
    """Why a folder is not to be held as a corpus, and which one is meant; else nothing."""
    manifest, advice = root / "manifest.json", "name the folder export-swap wrote"
    if not root.is_dir():
        return f"no such folder; {advice}"
    if not manifest.exists() and not (root / RUNS_FOLDER).is_dir():
        ready = root / RUN_TREES[SwapManifest]
        return f"holds no manifest.json; {f'name {ready}' if ready.is_dir() else advice}"
    return f"is one face set; {advice}" if read_if_sound(manifest, FacesetManifest) else ""


@contextlib.contextmanager
def held_corpus(root: Path) -> Iterator[None]:
    """Hold a corpus; what a killed run left is finished or undone, but for a restore."""
    if why := why_no_corpus(root):
        raise SortFacesError(f"{root}: {why}")
    if not os.access(root, os.W_OK):
        yield
        return
    with locked(root / LOCK_NAME, str(root)):
        recover_folders(root)
        recover_runs(root)
        remove_unfinished(root)
        yield


def read_faceset(root: Path, folder: str) -> FaceSet:
    """Read one face set and compare its manifest with its files. Raises SortFacesError."""
    path = root / folder / "manifest.json"
    manifest = read_file(path, FacesetManifest)
    fits = re.fullmatch(re.escape(manifest.id) + SHELVED_AGAIN, PurePosixPath(folder).name)
    if not fits or len({face.file for face in manifest.faces}) < len(manifest.faces):
        raise SortFacesError(f"{path}: is not as the tool wrote it; undo the edit or export again")
    faces = [face for face in manifest.faces if (root / folder / face.file).is_file()]
    return FaceSet(
        folder, manifest, read_name(root / folder), faces, repairs_of(root, folder, manifest)
    )


def repairs_of(root: Path, folder: str, manifest: FacesetManifest) -> list[Move]:
    """Moves that take in what the operator did to a face set by hand."""
    here = root / folder
    on_disk = {f"faces/{path.name}" for path in (here / "faces").glob("*.png") if path.is_file()}
    told = {face.file: face for face in manifest.faces}
    aside = {gone.file for gone in manifest.dropped}
    moves = []
    for file in sorted(told.keys() - on_disk):
        put = by_hand_in_dropped(here, told[file], aside)
        if put:
            moves.append(move_file("drop", folder, put, put, BY_OPERATOR))
        else:
            moves.append(move_file("gone", folder, file, "", "deleted by the operator"))
    for file in sorted(on_disk - told.keys()):
        moves.append(move_file("adopt", folder, file, file, "added by the operator"))
    missing = [name for name in bundles_of(manifest) if not (here / name).is_file()]
    if missing and not moves and manifest.faces:
        moves.append(move_file("rebuild", folder, "", "", f"{missing[0]} is missing"))
    return moves


def by_hand_in_dropped(here: Path, face: Face, told: set[str]) -> str:
    """Where in _dropped the operator has moved the PNG of a face, "" if he has not.

    Restoring puts it there under a longer name where its own is taken.
    """
    name = PurePosixPath(face.file)
    stem = glob.escape(name.stem)
    found = [*(here / DROPPED).glob(f"{stem}.png"), *(here / DROPPED).glob(f"{stem}-*.png")]
    for path in found:
        file = path.relative_to(here).as_posix()
        same = path.name == name.name or sha_of_own(path) == face.sha256
        if file not in told and path.is_file() and same:
            return file
    return ""


# ============================================================================
# Maintenance runs
# ============================================================================
# A plan is a list of moves, a file that a person can edit. Carrying it out is a run in which every
# changed face set is built anew.

NAMELESS = {"_candidates": UNNAMED, EXPORTS_FOLDER: UNNAMED}  # nobody names those folders
CLONELESS: set[int] = set()  # disks (st_dev) whose files do not share blocks
BUILDERS = 4  # face sets built side by side: half of the work is done without Python's lock


def drop(faceset: FaceSet, face: Face, reason: str, **numbers: float) -> Move:
    """The move that takes one PNG out of its face set."""
    name = PurePosixPath(face.file).name
    if any(gone.file == f"{DROPPED}/{name}" for gone in faceset.manifest.dropped):
        name = f"{PurePosixPath(name).stem}-{face.sha256[:8]}.png"  # numbers come again
    move = move_file("drop", faceset.folder, face.file, f"{DROPPED}/{name}", reason)
    return msgspec.structs.replace(move, numbers=numbers)


def copy_into(
    folder: str, faceset: FaceSet, face: Face, reason: str, numbers: dict[str, float]
) -> Move:
    """The move that puts a PNG of one face set into another, `folder`, as well."""
    source, target = f"{faceset.folder}/{face.file}", f"{folder}/faces/"
    return Move(action="copy", source=source, target=target, reason=reason, numbers=numbers)


def shelve(corpus: Corpus, faceset: FaceSet, shelf: str, reason: str, **numbers: float) -> Move:
    """The move that takes a whole face set out of use."""
    target = free_shelf(corpus.root, f"{shelf}/{PurePosixPath(faceset.folder).name}")
    return Move(
        action="shelve", source=faceset.folder, target=target, reason=reason, numbers=numbers
    )


def free_shelf(root: Path, target: str) -> str:
    """A place on a shelf; a set of that name may be there already from before an export."""
    return free_place(root, target, "-", 2)


class NewSet(Record, kw_only=True):
    """A face set that a plan creates."""

    like: str  # the folder of the set it takes its settings from
    name: str = UNNAMED
    reason: str = ""
    era: Era | Maybe = UNSET


@dataclass(frozen=True)
class Plan:
    """What a maintenance command decided."""

    command: str
    params: dict[str, Any]
    moves: list[Move]
    sets: dict[str, NewSet] = field(default_factory=dict)  # by folder
    exports: dict[str, dict[str, Any]] | None = None  # of the master, where that changes


class PlanFile(OwnFile, tag="plan", kw_only=True):
    """A plan as a file, bound to a corpus in one state."""

    command: str
    corpus: str
    state: str
    params: dict[str, Any]
    counts: dict[str, int] = {}
    moves: list[dict[str, Any]]  # of Move, with `faceset` and `file` for a person's eyes
    sets: dict[str, NewSet] = {}
    exports: dict[PlainName, dict[str, Any]] | Maybe = UNSET


def plan_file(plan: Plan, corpus: Corpus) -> PlanFile:
    """A plan as it is written for a person to look at, edit and apply."""
    moves = []
    for move in plan.moves:
        about = {"action": "", "faceset": PurePosixPath(move.folder).name, "file": move.file}
        moves.append({**about, **as_json(move)})
    return PlanFile(
        command=plan.command,
        corpus=str(corpus.root.resolve()),
        state=corpus.state(),
        params=plan.params,
        counts=move_counts(plan.moves),
        moves=moves,
        sets=plan.sets,
        exports=UNSET if plan.exports is None else plan.exports,
    )


def move_counts(moves: Sequence[Move]) -> dict[str, int]:
    return dict(Counter(MOVE_WORDS[move.action] for move in moves))


def load_plan(path: Path, corpus: Corpus, command: str) -> Plan:
    """Read a plan and make sure that it was made for this corpus as it is now."""
    plan = read_file(path, PlanFile)
    if plan.command != command:
        raise SortFacesError(f"{path}: is a plan of `{plan.command}`; apply it with that")
    if Path(plan.corpus) != corpus.root.resolve():
        raise SortFacesError(f"{path}: was made for {plan.corpus}; make one for this corpus")
    if plan.state != corpus.state():
        applied = run_of_plan(corpus, plan)
        if applied:
            log.info("%s: was applied before, as %s", path, applied)
            return Plan(command, plan.params, [])
        raise SortFacesError(f"{path}: the corpus has changed since; make the plan again")
    moves: list[Move] = []
    taken: set[str] = set()
    for number, entry in enumerate(plan.moves, 1):
        try:
            moves.append(as_record(Move, entry))
            check_shape(moves[-1])
            check_move(corpus, moves[-1], taken)
        except (ValueError, msgspec.ValidationError) as error:
            raise SortFacesError(f"{path}: move {number}: {error}; mend or remove it") from None
    exports = None if plan.exports is UNSET else plan.exports
    return Plan(command, plan.params, moves, plan.sets, exports)


def run_of_plan(corpus: Corpus, plan: PlanFile) -> str:
    """The last run, if it did just this plan, as after a kill that came too late; "" if not."""
    for folder in runs_of(corpus.root)[:1]:
        done = read_if_sound(folder / "plan.json", PlanFile)
        if done is not None and (done.state, done.moves) == (plan.state, plan.moves):
            return folder.name
    return ""


def check_shape(move: Move) -> None:
    """Refuse a move whose places are not what its action needs. Raises ValueError."""
    shapes = MOVE_SHAPES[move.action]
    for key, text, shape in zip(("from", "to"), (move.source, move.target), shapes, strict=True):
        if ".." in text.split("/") or not re.fullmatch(shape, text):
            raise ValueError(f'"{key}" is not what {move.action} needs')
    if move.action not in ("copy", "shelve", "name") and move.target and move.aim != move.folder:
        raise ValueError('"to" lies in another face set')


def check_move(corpus: Corpus, move: Move, taken: set[str]) -> None:
    """Refuse a move that cannot be done or would get in the way of another. Raises ValueError.

    taken: places other moves leave or fill; this one's are added.
    """
    there = move.action == "gone" or move.source == EXPORTS_FOLDER
    if not there and not (corpus.root / move.source).exists():
        raise ValueError(f"{move.source} is not there")
    if move.action in ("copy", "name", "rebuild"):
        places = [f"{move.action} {move.source} {move.target}"]
    else:
        places = [move.source, *([move.target] if move.target not in ("", move.source) else [])]
        if len(places) > 1 and os.path.lexists(corpus.root / move.target):
            raise ValueError(f"{move.target} is there already")
    if move.action == "shelve":
        name = PurePosixPath(move.folder).name
        if not re.fullmatch(re.escape(name) + SHELVED_AGAIN, PurePosixPath(move.target).name):
            raise ValueError(f"{move.target} is another name")
    faceset = corpus.sets.get(move.folder)
    if faceset is None and move.folder != EXPORTS_FOLDER:
        raise ValueError(f"{move.folder} is no face set")
    if move.action == "adopt" and any(face.file == move.file for face in faceset.faces):
        raise ValueError(f"{move.source} is in the set already")
    for place in places:
        if place in taken:
            raise ValueError(f"another move has {place}")
        taken.add(place)


class Draft:
    """What a face set will be after a run."""

    def __init__(
        self, root: Path, folder: str, manifest: FacesetManifest, name: str, lies: str = ""
    ) -> None:
        self.root, self.folder, self.manifest = root, folder, manifest
        self.lies = lies or folder  # where it lies now
        self.name = f"{name}\n".encode()  # what NAME.txt will hold
        here = root / self.lies
        self.faces = [(face, here / face.file) for face in manifest.faces]  # with their PNGs
        self.dropped = list(manifest.dropped)
        self.files = {gone.file: here / gone.file for gone in self.dropped if gone.file}
        self.moved: set[str] = set()  # files of others that get another place
        self.reorder = False

    def take(self, file: str) -> Face:
        """Remove and return the face of a file. Raises SortFacesError where it is not there."""
        wanted = self.root / self.lies / file
        for at, (face, png) in enumerate(self.faces):
            if png == wanted:
                del self.faces[at]
                return face
        raise SortFacesError(f"{self.folder}: {file} is not among its faces (any more)")

    def drop(self, move: Move, run: str) -> None:
        """Carry out `drop` and `gone`."""
        name, told = PurePosixPath(move.file).name, [face.file for face, _ in self.faces]
        if f"faces/{name}" not in told:  # its number was in _dropped already
            name = name.partition("-")[0] + ".png"
        face = self.take(f"faces/{name}")
        if move.place:
            self.files[move.place] = self.root / move.source
        self.moved.add(move.file)
        known = {
            key: move.numbers[key] for key in move.numbers.keys() & set(Left.__struct_fields__)
        }
        about = {**face_fields(face), **known, "file": move.place, "reason": move.reason}
        self.dropped.append(Left(**about, run=run))

    def adopt(self, move: Move) -> None:
        """Take in a PNG the operator put there, perhaps one that was dropped before."""
        png = self.root / move.source
        sha = sha256_of_file(png)
        face = Face(face=sha[:16] + ADOPTED, sha256=sha, quality=0.0, file=move.file)
        for gone in self.dropped:
            if gone.sha256 == sha and gone.quality is not UNSET:
                self.dropped.remove(gone)
                face = Face(**{**face_fields(gone), "file": move.file})
                break
        self.moved.add(move.file)
        self.join(face, png, move.reason)

    def join(self, face: Face, png: Path, reason: str) -> None:
        """Take in a face of another set, or one of the operator's."""
        self.faces.append((msgspec.structs.replace(face, kept_because=reason), png))
        self.reorder = True

    def ranked(self) -> list[tuple[Face, Path]]:
        """Its faces by rank under their final names, and where their PNGs lie."""
        if self.reorder:
            self.faces.sort(key=lambda pair: rank_of(pair[0]))
        names = [face.file for face, _ in self.faces]
        keep = names == sorted(set(names)) and all(map(RANKED_PNG.fullmatch, names))
        if self.reorder or not keep:
            names = ranked_names(len(names))
        return [
            (msgspec.structs.replace(face, file=name, rank=rank), png)
            for rank, ((face, png), name) in enumerate(zip(self.faces, names, strict=True))
        ]

    def is_like(self, faceset: FaceSet) -> bool:
        """Whether a face set is already what this one will be."""
        old, new = faceset.manifest, self.manifest
        same = ("id", "params", "quality_terms", "era", "model", "recognizer", "rescans")
        return (
            all(getattr(old, key) == getattr(new, key) for key in same)
            and [face for face, _ in self.ranked()] == old.faces
            and self.dropped == old.dropped
            and self.name.decode("utf-8-sig", "replace").strip() == faceset.name
            and len(faceset.faces) == len(old.faces)
        )

    def write(self, stage: Path, corpus: Corpus) -> FaceSet:
        """Build the face set in an empty folder; the corpus knows its faces."""
        faces = []
        for face, png in self.ranked():
            clone_or_copy(png, stage / face.file)
            sha = sha256_of_file(stage / face.file)
            if sha != face.sha256:
                face = msgspec.structs.replace(face, sha256=sha, retouched=True)
            faces.append(face)
        for file, source in self.files.items():
            if source.is_file():
                clone_or_copy(source, stage / file)
        write_part(stage / "NAME.txt", self.name)
        dropped = [
            msgspec.structs.replace(gone, file="")  # the operator has emptied _dropped
            if gone.file and not (stage / gone.file).is_file()
            else gone
            for gone in self.dropped
        ]
        record = msgspec.structs.replace(self.manifest, faces=faces, dropped=dropped, exports=[])
        record, old = with_bundles(record, corpus.embeddings(faces)), self.root / self.lies
        if corpus.master.exports and faces:
            record = companion("consumers").export_set(stage, record, corpus, self)
        manifest = finish_faceset(stage, record, old)
        if old.is_dir():
            carry_over(old, stage, self.moved)
        return FaceSet(self.folder, manifest, read_name(stage), faces, [])


def rank_of(face: Face) -> tuple[bool, float]:
    """Sort key of the faces of a set, best first: the operator's picture, then by quality."""
    painted = face.neighbours_painted is True
    return face.chosen is UNSET, PAINTED_COST * painted - face.quality


def face_fields(face: Face) -> dict[str, Any]:
    """What is known of a face, by the fields of Face."""
    return {name: getattr(face, name) for name in Face.__struct_fields__}


def ranked_names(number: int) -> list[str]:
    """faces/000.png and so on: as many digits as sort in rank order."""
    digits = max(3, len(str(number - 1)))
    return [f"faces/{rank:0{digits}d}.png" for rank in range(number)]


def clone_or_copy(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can: a hard link would share edits."""
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
    disk = target.parent.stat().st_dev
    try:
        if disk in CLONELESS:
            raise OSError(errno.EOPNOTSUPP, "asked before")
        clone_file(source, target)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS):
            CLONELESS.add(disk)  # to ask costs as much as a copy
        shutil.copyfile(source, target)


def draft_sets(corpus: Corpus, plan: Plan, run: str) -> tuple[dict[str, Draft], dict[str, Move]]:
    """({folder: face set to be built}, {folder: its shelve move}) of a plan."""
    drafts: dict[str, Draft] = {}
    shelved: dict[str, Move] = {}

    def draft(folder: str) -> Draft:
        if folder not in drafts:
            drafts[folder] = existing_or_new(corpus, folder, plan)
        return drafts[folder]

    for move in plan.moves:
        if move.action in ("drop", "gone"):
            draft(move.folder).drop(move, run)
        elif move.action == "adopt":
            draft(move.folder).adopt(move)
        elif move.action == "copy":
            faceset = corpus.sets[move.folder]
            face = next((face for face in faceset.faces if face.file == move.file), None)
            if face is None:
                raise SortFacesError(f"{move.source}: is not among the faces of its set")
            draft(move.aim).join(face, corpus.root / move.source, move.reason)
        elif move.action == "shelve":
            shelved[move.folder] = move
        elif move.action == "name":
            draft(move.aim).name = (corpus.root / move.source).read_bytes()
        elif move.action == "yours":
            draft(move.folder).moved.add(move.file)
            draft(move.folder).files[move.place] = corpus.root / move.source
        elif move.folder != EXPORTS_FOLDER:
            draft(move.folder)
    return drafts, shelved


def existing_or_new(corpus: Corpus, folder: str, plan: Plan) -> Draft:
    """The draft of a set as it is, or of an empty one the plan describes."""
    root = corpus.root
    if folder in corpus.sets:
        draft = Draft(root, folder, corpus.sets[folder].manifest, UNNAMED)
        name = root / folder / "NAME.txt"
        draft.name = name.read_bytes() if name.is_file() else draft.name
        return draft
    about = plan.sets.get(folder)
    if about is None or os.path.lexists(root / folder):
        raise SortFacesError(f"{root / folder}: no such face set; mend the plan")
    if about.like not in corpus.sets:
        raise SortFacesError(f"{root / about.like}: no such face set; mend the plan")
    manifest = msgspec.structs.replace(
        corpus.sets[about.like].manifest,
        id=PurePosixPath(folder).name,
        era=about.era,
        faces=[],
        dropped=[],
    )
    return Draft(root, folder, manifest, about.name)


def refresh_master(corpus: Corpus) -> None:
    """Bring the master's lists to what lies there: sets moved back by hand, names."""
    lists = corpus.lists(corpus.sets, {})
    if corpus.differs(lists):
        write_file(corpus.root / "manifest.json", msgspec.structs.replace(corpus.master, **lists))


def carry_out(corpus: Corpus, plan: Plan, above: int = 0) -> str:
    """Do what a plan says, so that a kill at any moment leaves the old state or the new one.

    Returns the name of the run, which is numbered `above` others; "" where there are no moves.
    """
    if not plan.moves and plan.exports in (None, corpus.master.exports):
        refresh_master(corpus)
        return ""
    if plan.exports is not None:
        corpus.master = msgspec.structs.replace(corpus.master, exports=plan.exports)
    name = next_run(corpus.root, plan.command, above)
    record = plan_file(plan, corpus)
    with new_run(corpus.root, name) as run:
        drafts, shelved = draft_sets(corpus, plan, name)
        after = {
            folder: faceset for folder, faceset in corpus.sets.items() if folder not in shelved
        }
        notes, staged = {}, {}
        for folder, draft in sorted(drafts.items()):
            final = shelved[folder].target if folder in shelved else folder
            staged[final] = draft, run.place(final, folder)
            if folder in plan.sets:
                notes[final] = {"reason": plan.sets[folder].reason, "run": name}
        built = build_sets(staged, corpus)
        after |= built
        for folder, move in shelved.items():
            notes[move.target] = {"reason": move.reason, "run": name}
            if folder not in drafts:
                after[move.target] = corpus.sets[folder]
                run.move(folder, move.target)
        if corpus.exports:
            companion("consumers").export_corpus(run, corpus, after)
        about = {"command": plan.command, "params": plan.params, "counts": move_counts(plan.moves)}
        stage_master(run, corpus.master, corpus.lists(after, notes), about)
        write_file(run.folder / "plan.json", record)
        run.commit({folder: faceset.name for folder, faceset in built.items()} | NAMELESS)
    return name


def build_sets(staged: dict[str, tuple[Draft, Path]], corpus: Corpus) -> dict[str, FaceSet]:
    """Build {folder: (face set, empty folder to build it in)}, several at once; {folder: it}."""

    def build(pair: tuple[Draft, Path]) -> FaceSet:
        return pair[0].write(pair[1], corpus)

    built = ordered_map(build, staged.values(), min(BUILDERS, os.cpu_count() or 1))
    return dict(zip(staged, progress(built, len(staged), "staging", "set"), strict=True))


def stage_master(
    run: Run, master: SwapManifest, lists: dict[str, list[Listed]], about: dict[str, Any]
) -> None:
    """Build the master manifest a run leaves: its lists, and a note about the run."""
    about = {"id": run.name, "at": now_text(), **about}
    record = msgspec.structs.replace(master, **lists, runs=[*master.runs, about])
    write_file(run.place("manifest.json"), record)


# ============================================================================
# Looking at exported faces
# ============================================================================
# Results over the PNGs of a corpus are kept in _scores/, a JSONL file per task and model, by the
# sha256 of the PNG: what was looked at once is not looked at again.

OCCLUSION_SCORES = "occlusion-"  # how the names of results files begin
Work = Callable[[Iterable[Item]], Iterable[tuple[Item, Result]]]


class Audit(Record, kw_only=True):
    """What a consumer sees in a PNG; see audit_item."""

    error: str
    counts: list[int]  # faces at each of CONSUMER_DET_SIZES
    kps: list[tuple[float, float]]  # of the face nearest the middle, pixels
    embedding: str  # of that face, packed
    boxes: list[list[tuple[float, float, float, float]]] | Maybe = UNSET  # at each size, pixels


class Scores(Record, kw_only=True):
    """Probabilities of the ATTRIBUTES; none where the PNG could not be read."""

    error: str
    scores: list[float]


class Kept:
    """Results over PNGs by their sha256: Scores or Audits."""

    def __init__(self, corpus: Corpus, name: str) -> None:
        self.corpus, self.path = corpus, scores_path(corpus, name)
        self.known = read_results(self.path)
        self.lines = AppendOnly(self.path)

    def complete(self, faces: Sequence[tuple[str, str]], work: Work, label: str) -> dict[str, Any]:
        """Work on the PNGs not seen before; returns all results.

        faces: (path within the corpus, sha256); work: items with path and sha256 to (item,
        result); label: of the progress bar.
        """
        root = self.corpus.root.resolve()
        todo = {sha: file for file, sha in faces if sha not in self.known}
        items = ({"path": str(root / file), "sha256": sha} for sha, file in todo.items())
        try:
            for item, result in progress(work(items) if todo else (), len(todo), label, "PNG"):
                self.add(item, result)
        finally:
            self.close()
        return self.known

    def add(self, item: Item, result: Result) -> Any:
        """Keep a result; returns it as a record, None where it says nothing of the PNG."""
        if "failed" in result:
            log.warning("%s: %s", item["path"], result["failed"])
            return None
        record = self.known[item["sha256"]] = as_record(result_kind(self.path), result)
        if os.access(self.corpus.root, os.W_OK):
            self.lines.append({"sha256": item["sha256"], **result})
        return record

    def close(self) -> None:
        self.lines.close()
        remove_empty(self.path.parent / "queue")


def scores_path(corpus: Corpus, name: str) -> Path:
    return place_in(corpus.root, f"{SCORES_FOLDER}/{name}.jsonl")


def crew_work(corpus: Corpus, task: str, crew: Crew) -> Work:
    """A task of the crew over PNGs of a corpus."""
    return lambda items: crew.run(task, items, corpus.root / SCORES_FOLDER / "queue")


def result_kind(path: Path) -> type[Record]:
    return Scores if path.name.startswith(OCCLUSION_SCORES) else Audit


def read_results(path: Path) -> dict[str, Any]:
    """Results by sha256; a damaged line costs that result, which is then made again."""
    results = {}
    for _, value in json_lines(path):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            record = as_record(result_kind(path), value)
            if is_whole(record):
                results[value["sha256"]] = record
    return results


def is_whole(record: Audit | Scores) -> bool:
    """Whether a result holds as many finite numbers as there must be. Raises ValueError."""
    if isinstance(record, Scores):
        numbers, least = record.scores, len(ATTRIBUTES)
    else:
        unpack_floats(record.embedding, (-1,))
        numbers, least = record.counts, len(CONSUMER_DET_SIZES)
        if len(record.kps) not in (0, 5) or not np.isfinite(np.array(record.kps)).all():
            return False
    return len(numbers) == (0 if record.error else least) and bool(np.isfinite(numbers).all())


def faces_of(sets: Iterable[FaceSet]) -> list[tuple[str, str]]:
    """(path within the corpus, sha256) of every face of these sets."""
    return [
        (f"{faceset.folder}/{face.file}", face.sha256) for faceset in sets for face in faceset.faces
    ]


class Looker:
    """What is known of a corpus's faces: from its cache where that fits, else by looking."""

    def __init__(self, corpus: Corpus, crew: Crew) -> None:
        self.corpus, self.cache = corpus, corpus.cache
        spec = as_consumer(crew.spec, self.cache.meta if self.cache else None)
        self.crew = crew.with_spec(replace(spec, model=spec.model or corpus.master.model))

    @property
    def thresholds(self) -> Thresholds:
        return thresholds_for(self.corpus.master.model)

    @functools.cached_property
    def kept(self) -> Kept:
        return kept_audits(self.corpus, self.crew.spec, self.cache)

    def audits(self, sets: Iterable[FaceSet]) -> dict[str, Audit]:
        """What a consumer sees in the faces of these sets, by PNG sha256."""
        faces = faces_of(sets)
        if any(sha not in self.kept.known for _, sha in faces):
            check_recognizer(self.corpus, self.crew)
        work = crew_work(self.corpus, "audit", self.crew)
        return self.kept.complete(faces, work, "looking at the faces")

    def vectors(self, sets: Sequence[FaceSet], by_crop: bool = False) -> dict[str, np.ndarray]:
        """{folder: (n, d) float32 unit embeddings} of the faces of each set; 0 where unknown.

        by_crop: as a consumer computes them from the PNGs, not as the photos gave them.
        """
        rows = {} if by_crop or self.cache is None else self.cache.row_of_face
        unseen = [
            replace(faceset, faces=[face for face in faceset.faces if face.face not in rows])
            for faceset in sets
        ]
        audits = self.audits(unseen) if any(faceset.faces for faceset in unseen) else {}
        raw = {faceset.folder: self.known(faceset, rows, audits) for faceset in sets}
        whole = unit_rows(of_one_width([vector for found in raw.values() for vector in found]))
        ends = itertools.accumulate(map(len, raw.values()))
        return {
            folder: whole[end - len(raw[folder]) : end]
            for folder, end in zip(raw, ends, strict=True)
        }

    def known(
        self, faceset: FaceSet, rows: dict[str, int], audits: dict[str, Audit]
    ) -> list[np.ndarray]:
        """Embeddings of one set from the cache or from audits; an empty one where unknown."""
        found = []
        for face in faceset.faces:
            if face.face in rows:
                found.append(self.cache.embedding[rows[face.face]])
            else:
                audit = audits.get(face.sha256)
                found.append(unpack_floats(audit.embedding if audit else "", (-1,)))
        return found


def audit_name(corpus: Corpus, spec: EngineSpec) -> str:
    """The name of the results file of audits: other models, another name."""
    return f"audit-{corpus.master.recognizer}-{looks_mark(spec)}"


def looks_mark(spec: EngineSpec) -> str:
    """Eight hex digits of all that decides what is seen in an exported face.

    The models of a pack that lies here count by their bytes: another detector may come under the
    old name.
    """
    folder = model_folder(spec)
    files = sorted(folder.glob("*.onnx")) if folder.is_dir() else []
    marks = [content_id(str(file), file.stat().st_size) for file in files]
    looks = (model_label(spec.model), marks, CONSUMER_DET_SIZES, spec.det_threshold)
    return hashlib.sha256(repr(looks).encode()).hexdigest()[:8]


def kept_audits(corpus: Corpus, spec: EngineSpec, cache: FaceCache | None) -> Kept:
    """The audits so far; those of version 0.1.0 where the cache tells that it looked alike."""
    kept = Kept(corpus, audit_name(corpus, spec))
    if cache is not None and cache.meta.det_threshold == CONSUMER_DET_THRESHOLD:
        old = read_results(scores_path(corpus, f"audit-{corpus.master.recognizer}"))
        kept.known = {**old, **kept.known}
    return kept


def check_recognizer(corpus: Corpus, crew: Crew) -> None:
    """Refuse to look at faces with another recogniser than they were exported with."""
    if crew.facts["meta"]["recognizer"] != corpus.master.recognizer:
        raise SortFacesError(
            f"{corpus.root}: made with {corpus.master.model}, not {crew.spec.model}; "
            "name that model"
        )


@dataclass(frozen=True)
class Finding:
    """Something wrong in a corpus."""

    faceset: str
    file: str
    rule: str
    detail: str


Findings = Iterator[tuple[Finding, Move | None]]  # with what would mend it


def face_count_findings(faceset: FaceSet, audits: dict[str, Audit]) -> Findings:
    """PNGs in which a consumer would not find exactly one face."""
    for face in faceset.faces:
        seen = audits.get(face.sha256)
        if seen is None:  # an engine or a disk that failed says nothing of the face
            yield Finding(faceset.id, face.file, "one face", "could not be looked at"), None
        elif set(seen.counts) != {1}:
            sizes = zip(seen.counts, CONSUMER_DET_SIZES, strict=bool(seen.counts))
            wrong = ", ".join(f"{found or 'no'} faces at {size}" for found, size in sizes)
            wrong = seen.error or wrong
            yield Finding(faceset.id, face.file, "one face", wrong), drop(faceset, face, wrong)


def extend_eras(corpus: Corpus, crew: Crew) -> None:
    """Put the new faces of every set into the eras it has, as a run of its own."""
    split = [
        faceset
        for faceset in corpus.active.values()
        if not faceset.is_era and any(era.shelf != "_merged" for era in corpus.eras_of(faceset))
    ]
    if not split:
        return  # the cache need not be read again
    looker, moves = Looker(corpus, crew), []
    for faceset in split:
        try:
            unit = looker.vectors([faceset])[faceset.folder]
            moves += companion("eras").extend_era_moves(corpus, faceset, unit)[0]
        except SortFacesError as error:
            log.warning("%s", error)
    if moves:
        carry_out(corpus, Plan("era extend", {}, moves))


# ============================================================================
# Reporting
# ============================================================================


def complain(program: str, message: str) -> int:
    """Print the one line that explains a failure; returns the exit code for it."""
    line = " ".join(message.split())
    print(f"{program}: {line}", file=sys.stderr)
    note(line, logging.ERROR)
    return EXIT_USAGE


def log_folder() -> Path:
    """Where logs go; of an installed copy to what is the user's, as XDG or Windows name it."""
    home = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.local/state"
    own = Path(home).expanduser() / TOOL if INSTALLED else WORK_FOLDER
    return Path(os.environ.get("SORT_FACES_LOGS", own / "logs"))


def report_bug(program: str, error: Exception, args: argparse.Namespace | None) -> int:
    """Say in one line that this is a bug of ours, and where its traceback is; the exit code."""
    if args is not None and not log_files():
        open_log(args)
    files, what = log_files(), bug_of_ours(error)
    told = f"the traceback is in {files[0].baseFilename}" if files else "there is no log file"
    complain(program, f"{what}; {told}; what was finished before is kept")
    return EXIT_BUG


def start_logging(args: argparse.Namespace) -> None:
    """Log to stderr and, for steps that take long, to work/logs/<command>-<date>.log."""
    log.handlers.clear()
    log.propagate = False
    logging.raiseExceptions = False  # a log that cannot be written must not end the work
    log.setLevel(logging.WARNING if args.quiet else logging.INFO)
    log.addHandler(LogHandler())
    if getattr(args, "log_file", False):
        open_log(args)
        settings = f"  {args.config}: {plain(args.settings)}" if args.settings else ""
        note(" ".join(sys.argv) + settings)


def open_log(args: argparse.Namespace) -> None:
    """Log to the file of this command and day as well."""
    folder = log_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{args.command}-{datetime.now():%Y-%m-%d}.log"
        handler = logging.FileHandler(folder / name, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        log.warning("no log file: %s: %s", folder, error.strerror)
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    log.addHandler(handler)


def show_result(result: dict[str, Any], as_json: bool) -> None:
    """Print a command's result on stdout: a table for people, JSON for programs."""
    if as_json:
        print(json.dumps(result, default=json_default))
        return
    width = max((len(key) for key, value in result.items() if not is_table(value)), default=0)
    gap = ""
    for key, value in result.items():
        if is_table(value):
            print_table(key, value)
            gap = "\n"
        elif value not in ({}, [], None):
            print(f"{gap}{key.replace('_', ' '):<{width}}  {plain(value)}")
            gap = ""


def is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows of the same keys as aligned columns, numbers to the right."""
    keys = list(rows[0])
    cells = [[plain(row.get(key, "")) for key in keys] for row in rows]
    widths = [
        max(map(shown_width, (k, *(line[at] for line in cells)))) for at, k in enumerate(keys)
    ]
    right = [isinstance(rows[0][key], (int, float)) for key in keys]
    print(f"\n{title.replace('_', ' ')}")
    for line in [[key.replace("_", " ") for key in keys], *cells]:
        columns = zip(line, widths, right, strict=True)
        gaps = ((c, " " * (w - shown_width(c)), r) for c, w, r in columns)
        text = "  ".join(gap + c if r else c + gap for c, gap, r in gaps)
        print(f"  {text.rstrip()}")


def shown_width(text: str) -> int:
    """How many columns of a terminal a text takes: two a Chinese letter, none a mark above one."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def plain(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, dict):
        return "  ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return str(value)


def clock(seconds: float) -> str:
    """`1:02:03.4`"""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes // 60}:{minutes % 60:02d}:{tenths / 10:04.1f}"


def run_steps(
    steps: dict[str, Callable[[], dict[str, Any]]],
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Do the steps of a chain in order; returns (rows for the closing table, result of each)."""
    table, results = [], {}
    for number, (name, step) in enumerate(steps.items(), 1):
        log.info("%d/%d %s", number, len(steps), name)
        started = time.monotonic()
        results[name] = step()
        seconds = round(time.monotonic() - started, 1)
        table.append({"step": name, "seconds": seconds, "result": headline(results[name])})
    return table, results


def headline(result: dict[str, Any]) -> str:
    """The numbers of a step's result in one line, and why it did another thing than usual."""
    numbers = {key: value for key, value in result.items() if isinstance(value, int) and value}
    parts = [f"{value} {key.replace('_', ' ')}" for key, value in numbers.items()]
    if "because" in result:  # of the linkage
        parts.append(f"by {result['linkage']} linkage: {result['because']}")
    return ", ".join(parts)


def gate_rows(
    gates: dict[str, str], params: dict[str, Any], took: dict[str, int], **names: str
) -> list[dict[str, Any]]:
    """How many faces each gate took, and the options that move it; a line for each.

    gates: {what the gate calls its reason: the parameters that decide}; names: as in add_fields.
    """
    rows = []
    for reason, faces in took.items():
        options = [
            f"--{names.get(name, name).replace('_', '-')} {params[name]:g}"
            for name in gates.get(reason, "").split()
        ]
        row = {"faces": faces, "because": reason.replace("_", " "), "option": ", ".join(options)}
        rows += [row] if faces else []
    return rows


def own_command(*words: object, anywhere: bool = False) -> str:
    """A command line of this tool to paste into the shell that runs it now.

    anywhere: whatever folder that shell is in by then.
    """
    if INSTALLED:
        program = (COMMAND,) if shutil.which(COMMAND) else (sys.executable, "-m", TOOL)
        return shlex.join(map(str, (*program, *words)))
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    script = Path(__file__).resolve()
    here = script.name if script.parent == Path.cwd() and not anywhere else script
    return shlex.join(map(str, (python, here, *words)))


@dataclass(frozen=True)
class Outcome:
    """What a command found out: what stdout shows, and whether all is well (else exit code 1)."""

    result: dict[str, Any]
    ok: bool = True


class OneLineParser(argparse.ArgumentParser):
    """argparse, but a usage error is one line and says what was meant; no words at all: the help.

    steps: the parsers of the commands, or of a command's steps, by name; words: what it was given.
    """

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.steps: dict[str, OneLineParser] = {}
        self.words: list[str] = []

    def options(self, start: str = "--") -> dict[str, argparse.Action]:
        """{flag: option} of the long options that begin so."""
        flags = self._option_string_actions
        return {flag: flags[flag] for flag in flags if flag.startswith(start)}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self.words = sys.argv[1:] if args is None else list(args)
        namespace, unknown = super().parse_known_args(self.words, namespace)
        if unknown:
            self.error(self.refusal(unknown))
        return namespace, unknown

    def refusal(self, unknown: Sequence[str]) -> str:
        meant = did_you_mean(unknown[0].split("=")[0], self.options())
        return f"unrecognized arguments: {' '.join(unknown)}{meant}"

    def error(self, message: str) -> None:
        """Show the help where nothing was asked for, else the line, unknown options before all."""
        if self.steps and not self.words:
            self.print_help()
            raise SystemExit(EXIT_USAGE)
        flags = [word for word in self.words if word.startswith("--")]
        unknown = [flag for flag in flags if not self.options(flag.split("=")[0])]
        step = next((word for word in self.words if word in self.steps), "")
        if step and self.words[0] in unknown:
            message = f"{self.words[0]}: options come after {step}"
        if unknown and not self.steps:  # a wrong option's value looks like an argument too many
            message = self.refusal(unknown)
        line = " ".join(message.split()) + ("" if message.endswith("?") else ";")
        print(f"{self.prog}: {line} see {self.prog} --help", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = f" (choose from {', '.join(map(str, action.choices))})"
            meant = did_you_mean(str(value), action.choices) or known
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{meant}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the known one nearest to it, if any is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {near[0]}?" if near else ""


# ============================================================================
# Shared options
# ============================================================================


@dataclass(frozen=True)
class TreeOptions:
    """How photos get into an output tree."""

    GROUP: ClassVar[str] = "output"

    link: str = option(("copy", "hard", "sym", "reflink"), "how photos are placed", "copy")
    dry_run: bool = option(bool, "say what would be done and stop", False)


def add_engine_options(
    p: argparse.ArgumentParser, detector: bool = True, own_model: str = ""
) -> None:
    """Which models, on what.

    Commands over a finished cache take its model and detector; own_model says in the help where a
    model that is not named comes from.
    """
    group = p.add_argument_group("engine")
    skip = [] if detector else ["det_size", "det_threshold"]
    own_model = own_model or ("" if detector else "the cache's")
    if own_model:
        text = f"{MODEL_HELP} (default: {own_model})"
        group.add_argument("--model", metavar="PACK", help=text)
        skip.append("model")
    add_fields(group, EngineSpec, skip=skip)
    if own_model:
        group.set_defaults(model="")


def engine_spec(args: argparse.Namespace, landmarks: bool) -> EngineSpec:
    """The models the options ask for; an empty name stands for the cache's."""
    return replace(of_args(EngineSpec, args), landmarks=landmarks)


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class WorkOptions:
    """Where the slow work is done, and how much of it at once."""

    GROUP: ClassVar[str] = "who does the work"

    threads: int = option(
        COUNT,
        "photos worked on at once (default: the usable cores, %(default)s here)",
        usable_cores(),
    )
    worker: str = option(
        str,
        "python.exe that runs work/dml_worker.py on Windows, or local "
        "(default: $SORT_FACES_WORKER, else local: this process)",
        "",
        unit="PYTHON_EXE",
    )
    cluster: str = option(
        str,
        "scheduler of a Dask cluster, such as tcp://host:8786 (default: none)",
        "",
        unit="ADDRESS",
    )
    path_map: tuple[str, str] | None = option(
        KeyValue("LOCAL=REMOTE"),
        "how paths that begin with LOCAL begin where the work is done (default: the same)",
    )
    memory: int = option(
        Number(int, 100, 10_000_000, "a number of megabytes from 100", "MB"),
        "memory for decoded photos, all threads together; what needs more is refused, but huge "
        "JPEGs are read at a half to an eighth of their size (default: a twentieth of the "
        "machine's, at least 1000)",
        DECODING.limit // 1_000_000,
    )
    batch: int = option(
        COUNT,
        "photos a thread looks at before it recognises; a kill loses at most so many per thread",
        1,
    )


def add_threads(p: argparse.ArgumentParser) -> None:
    """For commands that read pictures but need no engine."""
    add_fields(p, WorkOptions, skip=("worker", "cluster", "path_map", "memory", "batch"))


def add_engine_and_work(
    p: argparse.ArgumentParser, detector: bool = True, own_model: str = ""
) -> None:
    """The options of every command that looks at pictures."""
    add_engine_options(p, detector, own_model)
    add_fields(p, WorkOptions)


def crew_of(args: argparse.Namespace, landmarks: bool) -> Crew:
    """Who does the work, as the options say."""
    work = of_args(WorkOptions, args)
    worker = work.worker or os.environ.get("SORT_FACES_WORKER", "local")
    work = replace(work, worker="" if worker == "local" else worker)
    DECODING.limit = work.memory * 1_000_000
    keep_freed_memory()
    if work.worker and work.cluster:
        raise SortFacesError("--worker and --cluster: choose one of them")
    if work.worker and shutil.which(worker) is None:
        raise SortFacesError(f"--worker {worker}: no such program; name the worker's python.exe")
    return Crew(engine_spec(args, landmarks), work)


def add_cache_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument("cache", type=Path, metavar="CACHE", help="the .npz that embed wrote")


def add_save_filtered(p: argparse.ArgumentParser) -> None:
    """Where what filters take is put, for commands that have them."""
    text = "also put crops of what the filters took there, to be looked at and taken back"
    p.add_argument("--save-filtered", type=Path, metavar="DIR", help=text)


def add_quality_model(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--quality-model",
        type=Path,
        metavar="FILE",
        help="also score every face by this .onnx: aligned faces of 112 px in, a number each out, "
        "as eDifFIQA and CR-FIQA",
    )


def add_dry_run(p: Any) -> None:
    p.add_argument("--dry-run", action="store_true", help="say what would be done and stop")


Steps = dict[str, tuple[Callable, Callable]]  # name: (what adds its options, its handler)


def add_steps(p: OneLineParser, steps: Steps) -> None:
    """The subcommands of a command: `occlusion score`."""
    choice = p.add_subparsers(dest="step", required=True, metavar="STEP", help="what to do")
    for name, (add_options, handler) in steps.items():
        step = p.steps[name] = choice.add_parser(
            name, help=handler.__doc__, description=handler.__doc__
        )
        add_options(step)
        add_output_options(step, argparse.SUPPRESS)  # what stands before the step counts as well
        step.set_defaults(step_handler=handler)


def add_output_options(p: argparse.ArgumentParser, default: Any) -> None:
    """What every command can be told about its output, and where else it finds its options."""
    for flags, text in (
        (("--json",), "print the result as JSON"),
        (("-q", "--quiet"), "no progress, only warnings"),
    ):
        p.add_argument(*flags, action="store_true", default=default, help=text)
    p.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=default or None,
        help="settings file, TOML with the options' names (default: $SORT_FACES_CONFIG)",
    )


def add_corpus_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument("corpus", type=Path, metavar="CORPUS", help="the folder export-swap wrote")


def beside(path: Path, suffix: str) -> Path:
    """What lies beside a folder under its name and a suffix; `.` has a name, too."""
    path = path.resolve()
    return path.with_name(path.name + suffix)


@dataclass(frozen=True)
class PlanOptions:
    """Options of every command that changes a corpus."""

    GROUP: ClassVar[str] = "plan"

    plan: Path | None = option(Path, "write the plan there", unit="FILE")
    apply: Path | None = option(Path, "carry out this plan in place of a new one", unit="FILE")
    dry_run: bool = option(bool, "say what would be done and stop", False)


@dataclass(frozen=True)
class Decision:
    """What a maintenance command wants done."""

    moves: list[Move]
    params: dict[str, Any] = field(default_factory=dict)  # what decided, as the plan notes it
    sets: dict[str, NewSet] = field(default_factory=dict)  # as in Plan
    exports: dict[str, dict[str, Any]] | None = None  # as in Plan
    notes: dict[str, Any] = field(default_factory=dict)  # for the report


def maintain(args: argparse.Namespace, decide: Callable[[Corpus], Decision]) -> dict[str, Any]:
    """Plan, and unless it is a dry run carry out, one maintenance command; returns the counts.

    What the operator did by hand comes first, as a run of its own, so that it takes part in what
    is decided.
    """
    options = of_args(PlanOptions, args)
    command = " ".join(filter(None, (args.command, getattr(args, "step", ""))))
    with opened_corpus(args.corpus) as corpus:
        for why in corpus.broken.values():
            raise SortFacesError(why)
        plans, runs = [], []
        if options.apply is None and not options.dry_run and corpus.repairs():
            plans.append(by_hand(corpus))
            runs.append(carry_out(corpus, plans[-1]))
            corpus = corpus.again()
        try:
            if options.apply is not None:
                decision, plan = Decision([]), load_plan(options.apply, corpus, command)
            else:
                decision = decide(corpus)
                moves = [*corpus.repairs(), *without_kept(corpus, decision.moves)]
                plan = Plan(command, decision.params, moves, decision.sets, decision.exports)
            plan = replace(plan, moves=with_empty_shelved(corpus, plan.moves))
            if options.plan is not None:
                remove_unfinished_file(options.plan)
                write_file(options.plan, plan_file(plan, corpus))
            runs += [] if options.dry_run else filter(None, [carry_out(corpus, plan)])
        except SortFacesError as error:
            done = f" (what you did by hand was taken in first, as {runs[0]})" if runs else ""
            raise SortFacesError(f"{error}{done}") from error
    moves = [move for some in (*plans, plan) for move in some.moves]
    return {
        "corpus": str(args.corpus),
        "run": ", ".join(runs) or f"none: {'dry run' if options.dry_run else 'nothing to do'}",
        **move_counts(moves),
        **decision.notes,
        "moves": move_table(moves),
    }


def without_kept(corpus: Corpus, moves: Sequence[Move]) -> list[Move]:
    """The moves that take out no face of which the operator said that it stays."""
    if corpus.master.cache and decisions_path(Path(corpus.master.cache)).exists():
        kept = set(face_names(corpus.cache, np.flatnonzero(corpus.word.keep > 0)))
        stay = {
            f"{folder}/{face.file}"
            for folder, faceset in corpus.sets.items()
            for face in faceset.faces
            if face.face in kept
        }
        return [move for move in moves if move.action != "drop" or move.source not in stay]
    return list(moves)


def by_hand(corpus: Corpus) -> Plan:
    """The plan that takes in what the operator did."""
    return Plan("reconcile", {}, with_empty_shelved(corpus, corpus.repairs()))


def with_empty_shelved(corpus: Corpus, moves: list[Move]) -> list[Move]:
    """A set that would lose its last face goes to _thin as it is."""
    leaving = {move.source for move in moves if move.action == "drop"}
    joined = {move.aim for move in moves if move.action == "copy"}
    joined |= {move.folder for move in moves if move.action in ("adopt", "shelve")}
    for folder, faceset in corpus.active.items():
        files = {f"{folder}/{face.file}" for face in faceset.faces}
        if folder not in joined and files <= leaving:
            repairs = [move for move in moves if move.folder != folder or move in faceset.repairs]
            moves = [*repairs, shelve(corpus, faceset, "_thin", "no face left")]
    return moves


def move_table(moves: Sequence[Move]) -> list[dict[str, Any]]:
    """Moves counted by what they do to which set and why."""
    kinds = Counter((PurePosixPath(m.folder).name, m.action, m.reason) for m in moves)
    return [
        {"faceset": name, "action": action, "count": number, "reason": reason}
        for (name, action, reason), number in kinds.items()
    ]


# ============================================================================
# Command: enrich
# ============================================================================


def add_enrich_options(p: argparse.ArgumentParser) -> None:
    add_cache_argument(p)
    add_quality_model(p)
    add_engine_and_work(p, detector=False)


def cmd_enrich(args: argparse.Namespace) -> Outcome:
    """add landmarks and head pose to the cached faces that lack them"""
    result = enrich_and_score(args.cache, crew_of(args, True), True, args.quality_model)
    all_lost = result["photos_lost"] and not result["enriched"] and result["lacking"]
    unscored = result.get("photos_not_scored") and not result["scored"]
    return Outcome(result, not (all_lost or unscored))


def enrich_and_score(path: Path, crew: Crew, required: bool, model: Path | None) -> dict[str, Any]:
    """Landmarks and, where a quality model is given, scores: then landmarks may be missing."""
    result = enrich_library(path, crew, required and model is None)
    if model is not None:
        result |= companion("quality_model").score_library(path, crew, model)
    return result


def enrich_library(path: Path, crew: Crew, required: bool = True) -> dict[str, Any]:
    """Find landmarks and pose at the cached boxes; neither detector nor recogniser is run.

    A pack without landmark models is an error only where `required`; a chain goes on without.
    """
    with locked_cache(path):
        cache = load_cache(path)
        crew = crew.with_spec(with_engine_of(crew.spec, cache.meta))
        check_model(cache, path, crew.spec)
        lacking = np.flatnonzero(~cache.enriched)
        items, lost = enrich_queue(Library(cache, path), lacking)
        if items and not crew.facts["landmarks"]:
            text = (
                f"--model {crew.spec.model}: the pack has no landmark_2d_106 or landmark_3d_68 "
                "model; export-swap will estimate the pose from the five key points instead"
            )
            if required:
                raise SortFacesError(text)
            log.info("%s", text)
            items = []
        done, failed = journal_results(path, cache, crew, "enrich", items)
    return {"lacking": len(lacking), "enriched": done, "photos_lost": lost + failed}


def journal_results(
    path: Path, cache: FaceCache, crew: Crew, task: str, items: Sequence[Item]
) -> tuple[int, int]:
    """Have items of enrich_queue worked on, each result kept at once: (faces, photos that failed).

    task: of TASKS and, by the same name, what its results are in the journal.
    """
    done = failed = 0
    with contextlib.closing(Journal(path, cache.meta)) as journal:
        results = crew.run(task, items, queue_folder(path))
        for item, result in progress(results, len(items), task, "photo"):
            error = result.get("failed") or result["error"]
            if error:
                log.warning("%s: %s", item["path"], error)
                failed += 1
            else:
                journal.append(task, **{**item, **result})
                done += len(result["faces"])
    if journal.count:
        save_cache(path, load_cache(path))
    return done, failed


def enrich_queue(library: Library, rows: np.ndarray) -> tuple[list[dict[str, Any]], int]:
    """Items for the photos of faces `rows`, and how many photos have no live file left."""
    cache = library.cache
    items, lost = [], 0
    for group in groups_of(cache.face_file[rows]):
        group = rows[group]
        file = int(cache.face_file[group[0]])
        path = library.live_path(file)
        if not path:
            log.warning("%s: gone or changed since embed", cache.file_path[file])
            lost += 1
            continue
        faces = [
            {"index": int(cache.face_index[row])}
            | {name: getattr(cache, name)[row].tolist() for name in ("bbox", "det_score", "kps")}
            for row in group
        ]
        items.append({"sha256": str(cache.file_sha256[file]), "path": path, "faces": faces})
    return items, lost


# ============================================================================
# Command: embed
# ============================================================================


@dataclass(frozen=True)
class FilmOptions:
    """Whether `embed` takes films, and how much of them; work/film_source.py."""

    GROUP: ClassVar[str] = "films"

    films: bool = option(bool, "take the best few faces of films, too", False)
    motion: bool = option(bool, "likewise of the clips of motion photos and Live Photos", False)
    every: float = option(AT_LEAST_0, "least time between two of a track", 2.0, unit="SECONDS")
    per_track: int = option(COUNT, "faces of a track at most, beyond 3 minutes one a minute", 3)
    per_minute: float = option(
        AT_LEAST_0, "faces of a person per minute of film at most, of a short film ten", 1.0
    )
    every_frames: int | None = option(
        COUNT, "instead of the best: every Nth frame that shows a face"
    )
    soft_cuts: Path | None = option(
        Path, "TransNetV2 as ONNX: asked as well where a transition may be", unit="MODEL.onnx"
    )

    @property
    def wanted(self) -> bool:
        return self.films or self.motion


@dataclass(frozen=True)
class ScanOptions:
    """Which photos `embed` takes, and how hard it looks at them."""

    GROUP: ClassVar[str] = "photos"

    include: tuple[str, ...] = option(
        str, "only files whose name or path below SRC matches; repeatable", (), unit="GLOB"
    )
    exclude: tuple[str, ...] = option(
        str, "no files whose name or path below SRC matches; repeatable", (), unit="GLOB"
    )
    passes: Passes = nested(Passes)
    rescan: bool = option(
        bool, "redo photos whose faces were found with other detection settings", False
    )
    retry_errors: bool = option(bool, "try unreadable files again", False)
    prune: bool = option(
        bool, "forget files that no longer exist below SRC, or whose bytes moved on", False
    )
    dates: Path | None = option(
        Path, "CSV of path, date: when photos were taken, whatever else says so", unit="FILE"
    )
    redate: bool = option(
        bool,
        "read the dates again of photos that an older version dated; no face is looked for",
        False,
    )
    films: FilmOptions = nested(FilmOptions)
    tags: str = option(
        ("read", "ignore"),
        "names of faces that other programs wrote into the photos or beside them",
        "read",
    )


MODEL_OF_CACHE = f"the cache's, of a new one {EngineSpec.model}"


def passes_label(spec: EngineSpec, passes: Passes) -> str:
    """The detection settings as file_passes stores them."""
    size = spec.det_size or (DLIB_DET_SIZE if spec.model == DLIB_MODEL else DET_SIZE)
    reduced = passes.decode == "reduced"
    words = [("+tiles", passes.tiles), ("+pad", passes.pad_retry), ("+reduced", reduced)]
    return f"{size}@{spec.det_threshold:g}{''.join(word for word, on in words if on)}"


FILTER_MARK = "+filter:"  # in file_passes; what a filter kept out comes in when it is another


def filter_mark(filter_of_faces: Any) -> str:
    """What file_passes says of a ReferenceFilter; "" of none."""
    return "" if filter_of_faces is None else FILTER_MARK + filter_of_faces.mark


def add_embed_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "sources", nargs="+", type=Path, metavar="SRC", help="folders (or files) of photos"
    )
    p.add_argument("cache", type=Path, metavar="CACHE", help="the .npz to create or to add to")
    add_fields(p, ScanOptions)
    p.add_argument("--enrich", action="store_true", help="find landmarks and pose in the same pass")
    add_fields(p, ReferenceOptions)
    add_engine_and_work(p, own_model=MODEL_OF_CACHE)


def cmd_embed(args: argparse.Namespace) -> Outcome:
    """find and embed every face below SRC into the cache; resumable"""
    options, crew = of_args(ScanOptions, args), crew_of(args, args.enrich)
    only = of_args(ReferenceOptions, args)
    result = embed_library(args.sources, args.cache, crew, options, only)
    if args.enrich:
        result |= enrich_library(args.cache, crew_of(args, True), required=False)
    return Outcome(result, result["unreadable"] < result["photos"] or bool(result.get("films")))


def embed_library(
    sources: Sequence[Path],
    path: Path,
    crew: Crew,
    options: ScanOptions,
    only: ReferenceOptions = ReferenceOptions(),
) -> dict[str, Any]:
    """Scan, hash, detect and embed what the cache does not hold yet; returns the counts.

    only: whose faces come in.
    """
    if path.suffix != ".npz":
        raise SortFacesError(f"{path}: a cache is named *.npz; name it last, behind the photos")
    scan = scan_sources(sources, options)
    if options.passes.decode == "nvjpeg" and not crew.elsewhere:
        companion("nvjpeg").decoder()  # refuses where there is none
    if not cache_exists(path):
        crew = crew.with_spec(replace(crew.spec, model=crew.spec.model or EngineSpec.model))
        _ = crew.facts  # nothing is written before the models are known to work
    make_folder(path.absolute().parent)
    with locked_cache(path):
        run = EmbedRun(path, crew, options, scan, only)
        run.execute()
        films = run.films
        if decisions_path(path).exists():
            companion("drawn_faces").add_again(path, run.crew)
        cache = run.finish()
        tags = companion("sources_word").take_in(path, options.tags, cache)
    return {
        "cache": str(path),
        "photos": len(scan.files),
        "unchanged": len(scan.files) - len(run.todo) - len(run.raws),
        "new": run.new,
        "copies": int(np.count_nonzero(cache.is_copy)),
        "raw_of_pairs": int(np.count_nonzero(~cache.is_copy)),
        "moved_or_gone": len(run.forgotten),
        "faces": cache.faces,
        "without_face": int(np.count_nonzero(cache.file_status == STATUS_NO_FACE)),
        "unreadable": len(scan.files) - run.usable(cache),
        "damaged": len(cache.damaged),
        **({"redated": run.redated} if options.redate else {}),
        **run.door.counts,
        **films,
        **tags,
        **({"filtered": run.filtered} if run.filter is not None else {}),
        "failed": run.failed[:20],
        "folders_unreadable": len(scan.unreadable),
        "other_files": dict(scan.others.most_common()),
    }


def scan_sources(sources: Sequence[Path], options: ScanOptions) -> ScanReport:
    """The photos to look at. Raises SortFacesError where there is not a single one."""
    scan = scan_photos(source_roots(sources), options.include, options.exclude)
    for line in scan.unreadable:
        log.warning("%s", line)
    for folder in scan.skipped_outputs:
        log.info("%s: skipped, an output of this tool", folder)
    kinds = companion("kinds")
    passed_over = kinds.summary(scan.others, 0 if options.films.films else len(scan.films))
    if not scan.files and not (scan.films and options.films.films):
        told = f": {passed_over}" if passed_over else "; name the photos' folder"
        raise SortFacesError(f"{', '.join(map(str, sources))}: no photos found there{told}")
    for line in kinds.told(scan.others, scan.examples):
        log.warning("%s", line)
    if passed_over:
        log.info("passed over: %s", passed_over)
    return scan


def source_roots(sources: Sequence[Path]) -> list[Path]:
    """Absolute source paths. Raises SortFacesError for one that is missing or our own output."""
    roots = []
    for source in sources:
        root = source.expanduser().absolute()
        if not root.exists():
            raise SortFacesError(f"{source}: no such file or folder; name the photos' folder")
        if is_own_output(str(root)):
            raise SortFacesError(f"{source}: is an output of this tool; name the photos' folder")
        roots.append(Path(os.path.normpath(root)))
    return roots


class EmbedRun:
    """One pass over a library: which files are new, whose bytes are known, what to compute."""

    def __init__(
        self,
        path: Path,
        crew: Crew,
        options: ScanOptions,
        scan: ScanReport,
        only: ReferenceOptions = ReferenceOptions(),
    ) -> None:
        self.path, self.options = path, options
        self.roots, self.files, self.folders = scan.roots, scan.files, scan.folders
        self.scan, self.films = scan, {}  # what came of films, by name as embed tells it
        self.held: FaceCache | None = None  # the .npz, from the first new photo on
        if cache_exists(path):
            self.cache = load_photos(path)
        else:
            self.cache = empty_cache(as_record(CacheMeta, crew.facts["meta"]))
        self.crew = crew.with_spec(with_model_of(crew.spec, self.cache.meta))
        check_model(self.cache, path, self.crew.spec)
        self.door = Doorkeeper(path, self.cache.meta)
        self.passed_over: set[str] = set()  # paths of what was forgotten
        self.filter = companion("reference_filter").filter_of(only, self.crew, self.cache.meta)
        self.passes = passes_label(self.crew.spec, options.passes) + filter_mark(self.filter)
        self.filtered: Counter[str] = Counter()  # faces left out, by the reason
        self.mounted = [root for root in self.roots if self.has_photos(root)]
        self.forgotten: set[str] = set()
        self.noted: set[str] = set()  # photos whose known paths were looked at
        self.new = 0
        self.failed: list[str] = []
        self.told = companion("dating").read_told(options.dates, self.roots)
        self.redated = 0
        self.paths = known_paths(self.cache)
        self.pairs: dict[str, str] = companion("kinds").pairs_of(scan.files)
        self.seen: dict[str, str] = {}  # {path: sha256} of what this run looked at
        self.unread: set[str] = set()  # paths of what it could not read
        self.redo = set(self.cache.file_sha256[self.wants_redo()].tolist())
        self.redo |= companion("sidecar_turn").otherwise(self.cache, scan.sidecars, path)
        plain = (file for file in scan.files if file.path not in self.pairs)
        self.changed = {file.path for file in plain if not self.is_unchanged(file)}
        self.todo, self.raws = self.sort_out()
        self.journal = Journal(path, self.cache.meta)

    @functools.cached_property
    def paths_of(self) -> dict[str, list[str]]:
        """{sha256: paths that hold these bytes}, as known so far."""
        found = defaultdict(list)
        for name, (sha, _, _) in self.paths.items():
            found[sha].append(name)
        return found

    def has_photos(self, root: Path) -> bool:
        """Whether a photo lies below a root."""
        inside = os.path.join(root, "")
        for files in (self.files, self.scan.films):
            first = bisect.bisect_left(files, inside, key=operator.attrgetter("path"))
            if first < len(files) and files[first].path.startswith(inside):
                return True
        return False

    def wants_redo(self) -> np.ndarray:
        """(f,) bool: photos that must be looked at again though they did not change."""
        status, options = self.cache.file_status, self.options
        other_settings = self.cache.file_passes != self.passes
        filtered = np.char.find(self.cache.file_passes, FILTER_MARK) >= 0
        again = filtered | options.rescan
        blind = (status == STATUS_NO_FACE) | (again & (status != STATUS_UNREADABLE))
        return (other_settings & blind) | (options.retry_errors & (status == STATUS_UNREADABLE))

    def execute(self) -> None:
        """Work through the files; every finished photo is in the journal at once."""
        try:
            self.work_on(self.todo)
            self.work_on(self.note_raws())
            if self.options.redate:
                self.redated = companion("dating").read_again(self)
            if self.scan.films or self.options.films.motion:
                self.films = companion("film_source").take_films(self)
            self.forget_missing()
        finally:
            self.journal.close()
            self.door.close()
        if self.new and not self.crew.elsewhere:
            log.info("time of %d threads: %s", self.crew.threads, SPENT.shares())

    def number_to_look_at(self) -> int:
        """How many files a run would look at: those forgotten as a whole are told by their hash."""
        if not self.door.photos:
            return len(self.todo)
        hashed = ordered_map(hash_file, self.todo, self.crew.threads)
        return sum(not (sha and self.door.refuses(sha)) for _, sha, _ in hashed)

    def work_on(self, files: list[FoundFile]) -> None:
        """Hash files and find the faces of those whose bytes are new."""
        crew, folder, todo = self.crew, queue_folder(self.path), len(files)
        hashed = ordered_map(hash_file, files, crew.threads)
        if crew.elsewhere:  # hashed here first; the long wait is for the results
            items = list(self.new_items(progress(hashed, todo, "hash", "photo")))
            results = crew.run("embed", items, folder)
            results = progress(results, len(items), "embed", "photo")
        else:
            items = self.new_items(progress(hashed, todo, "embed", "photo"))
            results = crew.run("embed", items, folder)
        for item, result in results:
            with SPENT.on("write"):
                self.store(item, result)

    def is_unchanged(self, file: FoundFile) -> bool:
        sha, *facts = self.paths.get(file.path, (None,))
        same = facts == [file.size, file.mtime_ns] and sha not in self.redo
        return same and not self.is_other_raw(file.path, sha)

    def is_other_raw(self, path: str, sha: str) -> bool:
        """Whether a RAW stands for a photo that was beside it and is no more."""
        kinds = companion("kinds")
        others = [kinds.suffix_of(other) for other in self.paths_of[sha] if other != path]
        raw = kinds.suffix_of(path) in kinds.RAW_SUFFIXES
        return raw and any(suffix not in kinds.RAW_SUFFIXES for suffix in others)

    def sort_out(self) -> tuple[list[FoundFile], list[FoundFile]]:
        """(files to look at, RAWs that lie beside a photo of the same moment)."""
        todo, raws = [], []
        for file in self.files:
            beside = self.pairs.get(file.path, "")
            if beside and not self.is_settled(file, beside):
                if companion("kinds").is_one_photo(file.path, beside):
                    raws.append(file)
                    continue
            elif beside:
                continue
            if not self.is_unchanged(file):
                todo.append(file)
        return todo, raws

    def is_settled(self, raw: FoundFile, beside: str) -> bool:
        """Whether a RAW is known as one more path of the photo beside it, and that is unchanged."""
        sha, *facts = self.paths.get(raw.path, (None,))
        known = self.paths.get(beside, ("",))[0] == sha and beside not in self.changed
        return known and facts == [raw.size, raw.mtime_ns]

    def note_raws(self) -> list[FoundFile]:
        """Note the RAWs of photos that could be read; the others are to be looked at."""
        damaged = self.cache.file_sha256[self.cache.file_status == STATUS_UNREADABLE].tolist()
        left = []
        for file in self.raws:
            beside = self.pairs[file.path]
            sha = self.seen.get(beside) or self.paths.get(beside, ("",))[0]
            if beside in self.unread or not sha or (sha in damaged and beside not in self.seen):
                left += [] if self.is_unchanged(file) else [file]
            elif beside not in self.passed_over:
                self.note_path(file, sha)
        return left

    def new_items(
        self, hashed: Iterable[tuple[FoundFile, str | None, str]]
    ) -> Iterator[dict[str, Any]]:
        """Queue items for bytes never seen; paths of known bytes are only noted."""
        pending: set[str] = set()
        for file, sha, error in hashed:
            if sha is None:
                self.fail(file.path, error)
            elif self.door.refuses(sha):
                self.passed_over.add(file.path)
            elif sha in pending or (sha in self.paths_of and sha not in self.redo):
                self.note_path(file, sha)
            else:
                if not pending:
                    self.check_cache()  # before anything is computed in vain
                pending.add(sha)
                self.redo.discard(sha)
                how = {"passes": self.told_passes(), "landmarks": self.crew.spec.landmarks}
                yield {"sha256": sha, **msgspec.structs.asdict(file), **how}

    def told_passes(self) -> dict[str, Any]:
        """The passes as items tell them, which name a worker's results: as before --decode came."""
        told = asdict(self.options.passes)
        return {name: how for name, how in told.items() if (name, how) != ("decode", "full")}

    def note_path(self, file: FoundFile, sha: str) -> None:
        """Record one more path of known bytes; paths they moved away from are forgotten."""
        self.journal.append("path", sha256=sha, **msgspec.structs.asdict(file))
        self.seen[file.path] = sha
        if sha not in self.noted:  # what was noted since then is there
            self.noted.add(sha)
            for old in self.paths_of[sha]:
                if old != file.path and self.is_gone(old):
                    self.forget(old)
        self.paths_of[sha].append(file.path)

    def store(self, item: dict[str, Any], result: dict[str, Any]) -> None:
        """Journal the result of one photo."""
        if "failed" in result:
            self.fail(item["path"], result["failed"])
            return
        if result["status"] == STATUS_UNREADABLE:
            self.fail(item["path"], result["error"])
        if wrong := result.get("note", ""):
            if wrong.startswith(DAMAGED):
                log.warning("%s: %s", item["path"], wrong)
            else:
                note(f"{item['path']}: {wrong}")
        faces = self.door.admitted(item["sha256"], result["faces"])
        if result["faces"] and not faces:
            self.shut_out(item)
            return
        if self.filter is not None:
            faces, taken = self.filter.admitted(faces)
            self.filtered.update(taken)
        result = {**result, "faces": faces}
        self.journal.append("photo", **{**item, **result, "passes": self.passes})
        self.paths_of[item["sha256"]].append(item["path"])
        self.seen[item["path"]] = item["sha256"]
        self.new += 1

    def shut_out(self, item: dict[str, Any]) -> None:
        """Pass over a photo in which nobody else is, now and from now on."""
        self.door.shut(item["sha256"])
        self.passed_over.add(item["path"])
        for path in self.paths_of[item["sha256"]]:
            self.forget(path)

    def fail(self, path: str, reason: str) -> None:
        log.warning("%s: %s", path, reason)
        self.unread.add(path)
        self.failed.append(f"{path}: {reason}")

    def usable(self, cache: FaceCache) -> int:
        """How many of the scanned files the cache knows with or without faces, or must not know."""
        damaged = set(cache.file_sha256[cache.file_status == STATUS_UNREADABLE].tolist())
        paths = self.paths if cache is self.cache else known_paths(cache)
        found = (file.path for file in self.files)
        return sum(
            path in self.passed_over or (path in paths and paths[path][0] not in damaged)
            for path in found
        )

    def forget_missing(self) -> None:
        """Forget paths that no longer exist, below the roots or whose bytes still lie elsewhere."""
        if not self.options.prune:
            return
        for path, (sha, _, _) in self.paths.items():
            if is_missing(path):
                elsewhere = any(os.path.lexists(file_of(other)) for other in self.paths_of[sha])
                if elsewhere or self.is_gone(path):
                    self.forget(path)

    def is_gone(self, path: str) -> bool:
        """Whether a known path no longer exists below a scanned root, as its listing shows.

        Where its folder is gone, too, the next one above must have been listed. A root without a
        single photo is taken for an unmounted disk: nothing below it is gone.
        """
        parents = PurePath(path).parents
        if not is_missing(path) or not any(root in parents for root in self.mounted):
            return False
        above = next((str(folder) for folder in parents if os.path.lexists(folder)), "")
        return above in self.folders

    def forget(self, path: str) -> None:
        if path not in self.forgotten:
            self.forgotten.add(path)
            self.journal.append("gone", path=path)

    def check_cache(self) -> None:
        """Read all of the cache, and compare the model with the one it was made with.

        The same name may hide other weights.
        """
        self.held = read_npz(self.path) if self.path.exists() else None
        own, made_with = self.crew.facts["meta"]["recognizer"], self.cache.meta.recognizer
        if own != made_with:
            raise SortFacesError(
                f"{self.path}: made with another {self.cache.meta.model} recogniser "
                f"({made_with}, not {own}); use another cache"
            )

    def finish(self) -> FaceCache:
        """Compact the journal into the cache and remember where the photos lie."""
        roots = {str(root.resolve()) for root in self.roots}
        written = journal_path(self.path).exists()
        if not written and not self.cache.files and self.failed:
            raise SortFacesError(f"{self.failed[0]}; no file could be read, no cache was written")
        dating = companion("dating")
        dates = {} if written else dating.changes(self.cache, roots, self.told)
        if not written and not dates and roots <= set(self.cache.meta.roots):
            return self.cache
        held, self.held, self.paths = self.held, None, {}  # room for what is built now
        vars(self).pop("paths_of", None)
        cache = load_cache(self.path, held) if cache_exists(self.path) else self.cache
        roots |= set(cache.meta.roots)
        meta = msgspec.structs.replace(cache.meta, roots=sorted(roots))
        if written:
            dates = dating.changes(cache, roots, self.told)
        cache = replace(cache, meta=meta, **dates)
        save_cache(self.path, cache)
        return cache


def hash_file(file: FoundFile) -> tuple[FoundFile, str | None, str]:
    """(file, sha256 or None, why not)."""
    try:
        with SPENT.on("read"):
            return file, sha256_of_file(file.path), ""
    except OSError as error:
        return file, None, error.strerror or str(error)


# ============================================================================
# Command: cluster
# ============================================================================


@dataclass(frozen=True)
class ClusterParams:
    """What `cluster` decides by; stored in the raw manifest."""

    threshold: float = model_distance("cluster", "average linkage stops at this distance")
    linkage: str = linkage_option()
    strictness: float = strictness_option()

    def grouping(self, model: str) -> Linkage:
        limits = thresholds_for(model)
        kind = self.linkage or "average"
        return Linkage(kind, self.threshold, limits.merge, limits.copy, self.strictness)


def add_cluster_options(p: argparse.ArgumentParser) -> None:
    add_cache_argument(p)
    p.add_argument("out", type=Path, metavar="OUT", help="folder for person_NNN/")
    add_fields(p, ClusterParams)
    add_fields(p, TreeOptions)


def cmd_cluster(args: argparse.Namespace) -> Outcome:
    """sort the photos into person_NNN/, _singletons/ and _noface/"""
    params, tree = of_args(ClusterParams, args), of_args(TreeOptions, args)
    return Outcome(cluster_library(args.cache, args.out, params, tree))


def cluster_library(
    cache_path: Path, out: Path, params: ClusterParams, tree: TreeOptions
) -> dict[str, Any]:
    """Cluster every face of a cache and write the raw tree; returns the counts."""
    cache = load_cache(cache_path)
    check_output(out, cache.meta.roots, RawManifest)
    library = Library(cache, cache_path)
    params = for_model(with_linkage(params, "threshold"), cache.meta.model)
    rows = library.word.faces
    grouped = group_faces(cache, rows, params.grouping(cache.meta.model), library.word)
    sorting = sorted_out(library.word, [rows[some] for some in groups_of(grouped.labels)])
    params = replace(params, linkage=grouped.linkage)
    manifest, wanted = raw_manifest(library, asdict(params), sorting)
    plan = write_tree(library, out, manifest, wanted, tree)
    return {"out": str(out), **grouped.facts(), **manifest.counts, **plan.counts()}


# ============================================================================
# Command: refine
# ============================================================================


REFINE_GATES = {  # what refine counts as dropped: the parameters that decide it
    "small": "min_short",
    "blurred": "min_blur",
    "low_score": "min_det_score",
    "weak": "min_length",
    "weak_set": "min_length",
    OUTLIER: "outlier_spreads outlier_threshold",
    "too_few_images": "min_faces",
}


def add_refine_options(p: argparse.ArgumentParser) -> None:
    add_cache_argument(p)
    p.add_argument("out", type=Path, metavar="OUT", help="folder for faceset_NNN/")
    add_fields(p, RefineParams)
    add_fields(p, TreeOptions)


def cmd_refine(args: argparse.Namespace) -> Outcome:
    """keep the clean, large identities as faceset_NNN/"""
    params, tree = of_args(RefineParams, args), of_args(TreeOptions, args)
    return Outcome(refine_library(args.cache, args.out, params, tree))


def refine_library(
    cache_path: Path,
    out: Path,
    params: RefineParams,
    tree: TreeOptions,
) -> dict[str, Any]:
    """Refine every face of a cache and write the face sets; returns the counts."""
    cache = load_cache(cache_path)
    check_output(out, cache.meta.roots, RefinedManifest)
    library = Library(cache, cache_path)
    params = with_linkage(params, "initial_threshold", "merge_threshold")
    params = for_model(params, cache.meta.model)
    rows = library.word.faces
    refined = refine_identities(cache, rows, params, word=library.word)
    params = replace(params, linkage=refined.grouped.linkage)
    facesets = numbered_groups("faceset", refined.identities, library.word)
    rules, others = companion("purity"), other_groups(refined, rows)
    lost = dict(zip(facesets, refined.lost, strict=True))
    purity = rules.purities(cache, facesets, refined.usual, others, lost)
    manifest, wanted = refined_manifest(
        library, params, facesets, purity, refined.dropped, refined.usual
    )
    plan = write_tree(library, out, manifest, wanted, tree)
    columns = ("id", "face_count", "image_count", "alias_count")
    summary = [
        {**{key: getattr(entry, key) for key in columns}, "purity": entry.purity.verdict}
        for entry in manifest.facesets
    ]
    gates = gate_rows(REFINE_GATES, asdict(params), refined.dropped)
    return {
        "out": str(out),
        **refined.grouped.facts(),
        **manifest.counts,
        **plan.counts(),
        "purity": rules.totals(purity),
        "gates": gates,
        "facesets": summary,
        "in_question": rules.in_question(purity),
    }


def other_groups(refined: Refined, rows: np.ndarray) -> list[np.ndarray]:
    """Those of the grouped rows, by group, that became no identity."""
    used = np.concatenate([rows[:0], *refined.identities])
    groups = [rows[some] for some in groups_of(refined.grouped.labels)]
    return [some for some in groups if not np.isin(some, used).any()]


# ============================================================================
# Command: dedup
# ============================================================================


@dataclass(frozen=True)
class DedupParams:
    """What `dedup` decides by."""

    threshold: float = model_distance("duplicate", "faces this close are one picture")


def add_dedup_options(p: argparse.ArgumentParser) -> None:
    add_cache_argument(p)
    add_fields(p, DedupParams)


def cmd_dedup(args: argparse.Namespace) -> Outcome:
    """report byte-identical files and near-duplicate faces beside the cache"""
    return Outcome(dedup_library(args.cache, of_args(DedupParams, args)))


class DuplicatesReport(Manifest, tag="duplicates", kw_only=True):
    """<cache>.duplicates.json."""

    params: DedupParams
    byte_groups: list[dict[str, Any]]
    visual_groups: list[dict[str, Any]]


def dedup_library(cache_path: Path, params: DedupParams) -> dict[str, Any]:
    """Write the duplicates report beside the cache; returns the counts."""
    cache = load_cache(cache_path)
    params = for_model(params, cache.meta.model)
    byte_groups = [
        {"sha256": str(cache.file_sha256[row]), "paths": paths}
        for row, paths in enumerate(cache.copies)
        if len(paths) > 1
        and cache.file_status[row] != STATUS_UNREADABLE
        and not film_of(paths[0])  # nobody deletes a film for a frame
    ]
    frame = np.array([bool(film_of(path)) for path in cache.file_path.tolist()], bool)
    photos = np.flatnonzero(~frame[cache.face_file])
    labels = near_duplicate_labels(cache.unit[photos], params.threshold, cache.bbox[photos])
    worth = cache.det_score * cache.face_short * np.maximum(cache.blur, 1.0)
    visual_groups = [
        {
            "faces": face_names(cache, rows),
            "paths": [str(cache.file_path[file]) for file in cache.face_file[rows]],
            "keep": cache.face_ids[rows[worth[rows].argmax()]],
        }
        for rows in (photos[group] for group in groups_of(labels))
        if len(np.unique(cache.face_file[rows])) > 1
    ]
    target = cache_path.with_suffix(".duplicates.json")
    remove_unfinished_file(target)
    record = DuplicatesReport(
        **manifest_head(Library(cache, cache_path)),
        params=params,
        byte_groups=byte_groups,
        visual_groups=visual_groups,
    )
    write_file(target, record)
    return {
        "report": str(target),
        "byte_groups": len(byte_groups),
        "byte_copies": sum(len(group["paths"]) - 1 for group in byte_groups),
        "visual_groups": len(visual_groups),
        "visual_faces": sum(len(group["faces"]) for group in visual_groups),
    }


# ============================================================================
# Command: extend
# ============================================================================


Unlike = dict[int, str]  # {cache row: why a reference filter keeps it out}


@dataclass(frozen=True)
class ExtendParams:
    """What `extend` decides by, beside what the trees were made with."""

    threshold: float = model_distance("cluster", "new faces join a centroid this close")


def add_extend_options(p: argparse.ArgumentParser) -> None:
    """What to extend, and whose faces may join."""
    add_cache_argument(p)
    p.add_argument("raw_out", type=Path, metavar="RAW_OUT", help="folder that cluster wrote")
    p.add_argument(
        "--refine-out", type=Path, metavar="DIR", help="folder that refine wrote, to extend as well"
    )
    add_fields(p, ExtendParams)
    add_fields(p, ReferenceOptions)
    add_save_filtered(p)
    add_fields(p, TreeOptions)
    add_engine_and_work(p, detector=False)


def cmd_extend(args: argparse.Namespace) -> Outcome:
    """fold new faces into existing persons and face sets; nothing is renumbered"""
    cache = load_cache(args.cache)
    raw = load_manifest(args.raw_out / "manifest.json", RawManifest, cache)
    refined = None
    if args.refine_out is not None:
        path = args.refine_out / "refine_manifest.json"
        refined = load_manifest(path, RefinedManifest, cache)
    tree = of_args(TreeOptions, args)
    library, filters = Library(cache, args.cache), companion("reference_filter")
    how = linkage_of(raw, of_args(ExtendParams, args), cache.meta.model)
    usual = None if refined is None else refined.usual
    options, crew = of_args(ReferenceOptions, args), crew_of(args, False)
    unlike = filters.unlike(library, filters.filter_of(options, crew, cache.meta, usual))
    apart = None if tree.dry_run else args.save_filtered
    result = extend_raw(library, args.raw_out, raw, how, tree, unlike)
    result |= companion("set_apart").save_new(library, raw, unlike, apart) if unlike else {}
    if refined is not None:
        result |= extend_refined(library, args.refine_out, refined, tree, unlike)
    return Outcome(result)


def linkage_of(raw: RawManifest, params: ExtendParams, model: str) -> Linkage:
    """How a raw tree was grouped; average linkage where it does not say or a distance is given."""
    kind = raw.params.get("linkage") or "average"
    kind = "average" if params.threshold is not None else kind
    limits, strictness = thresholds_for(model), raw.params.get("strictness", 0.0)
    rough = for_model(params, model).threshold
    return Linkage(kind, rough, limits.merge, limits.copy, strictness)


def extend_raw(
    library: Library,
    out: Path,
    old: RawManifest,
    how: Linkage,
    tree: TreeOptions,
    unlike: Unlike,
) -> dict[str, Any]:
    """Add faces the raw manifest does not know: to persons, as new persons, or as singletons.

    An old singleton may found a new person together with a new face; its file stays where it is.
    What the operator has said since counts: people may be joined and parted.
    """
    cache, word = library.cache, library.word
    before = {entry.id: rows_of_faces(cache, entry.faces) for entry in old.persons}
    known = rows_of_faces(cache, [*old.singletons, *old.ignored])
    new = np.setdiff1d(word.faces, np.concatenate([known, *before.values()]))
    kept_out = np.intersect1d(new, [*unlike])
    new = np.setdiff1d(new, kept_out)
    persons, parts = obeyed(cache.unit, before, word)
    loose = np.setdiff1d(word.faces, np.concatenate([new, kept_out, *persons.values()]))
    joined, groups, facts = fold_in(library, persons, new, loose, how)
    strangers = rows_of_faces(cache, old.ignored)  # perhaps not any more
    fresh = np.concatenate([new, *parts, strangers, np.flatnonzero(word.vouched)])
    found = [np.isin(rows, fresh).any() for rows in groups]
    stay = [rows for rows, founds in zip(groups, found, strict=True) if not founds]
    rest = np.concatenate([new[:0], *stay])[:, None]
    persons = {name: np.concatenate([rows, joined[name]]) for name, rows in persons.items()}
    groups = [*itertools.compress(groups, found), *rest]
    sorting = sorted_out(word, groups, persons, before)
    manifest, wanted = raw_manifest(library, {**old.params, "extend_threshold": how.rough}, sorting)
    changed = changed_folders(before, sorting.persons, word)
    plan = write_tree(library, out, manifest, wanted, tree, changed)
    return {
        "raw_out": str(out),
        **facts,
        "new_faces": len(new),
        "joined_persons": sum(map(len, joined.values())),
        "new_persons": len(sorting.persons.keys() - before.keys()),
        **({"filtered": Counter(unlike[row] for row in kept_out.tolist())} if unlike else {}),
        **plan.counts(),
    }


def fold_in(
    library: Library,
    persons: dict[str, np.ndarray],
    new: np.ndarray,
    loose: np.ndarray,
    how: Linkage,
) -> tuple[dict[str, np.ndarray], list[np.ndarray], dict[str, str]]:
    """Which faces join each person, and the groups of the others, all cache rows; and what results
    say of how. Of the loose faces those join that the operator gave to somebody."""
    cache, word = library.cache, library.word
    rows = np.concatenate([*persons.values(), new, loose])
    ends = np.cumsum([len(members) for members in persons.values()], dtype=np.intp)
    labels, kind, why = None, "average", ""
    if how.kind == "identity":
        standing = np.split(np.arange(len(rows)), ends)[: len(persons)]
        labels, why = identity_labels(cache, rows, how, word.of_rows(rows), standing)
    if labels is not None:
        kind = how.kind
    else:
        labels = labels_by_centroid(cache, persons, new, loose, how.rough)
    labels = settle(rows_of(cache.unit, rows), labels, word.of_rows(rows))
    label_of = np.full(cache.faces, -1)
    label_of[rows] = labels
    able = np.concatenate([new, loose[word.person[loose] >= 0]])
    joined = {name: able[np.isin(label_of[able], label_of[own])] for name, own in persons.items()}
    rest = np.setdiff1d(np.concatenate([new, loose]), np.concatenate([new[:0], *joined.values()]))
    groups = [rest[group] for group in groups_of(label_of[rest])]
    return joined, groups, Grouped(labels, kind, why).facts()


def labels_by_centroid(
    cache: FaceCache,
    persons: dict[str, np.ndarray],
    new: np.ndarray,
    loose: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Labels of the rows of persons, then new and loose ones: new faces join a centroid within the
    threshold, what is left is grouped by average linkage."""
    joined, rest = join_centroids(cache, new, persons, threshold)
    label_of = np.full(cache.faces, -1)
    for label, (name, members) in enumerate(persons.items()):
        label_of[members] = label_of[joined.get(name, new[:0])] = label
    free = np.concatenate([rest, loose])
    label_of[free] = len(persons) + average_linkage(cache.unit[free], threshold)
    return label_of[np.concatenate([*persons.values(), new, loose])]


def joining(
    library: Library,
    facesets: dict[str, np.ndarray],
    rows: np.ndarray,
    params: RefineParams,
    usual: Usual,
) -> dict[str, np.ndarray]:
    """Which of new rows join each face set: by what the operator said, else the nearest; who looks
    like a stranger he ignores joins none."""
    cache, word = library.cache, library.word
    home = {
        int(person): name
        for name, own in facesets.items()
        for person in np.unique(word.person[own])
        if person >= 0
    }
    told = np.flatnonzero(np.isin(word.person, [*home]))
    told = np.setdiff1d(told, np.concatenate([rows[:0], *facesets.values()]))
    told, _ = gate_faces(cache, told, params, usual.length, word)
    strangers = np.flatnonzero(np.isin(word.person, [*word.ignored]))
    groups = facesets | ({"": strangers} if len(strangers) else {})
    limits = set_limits(cache.unit, groups.values(), params, usual)
    joined, _ = join_centroids(cache, rows[word.person[rows] < 0], groups, limits)
    joined.pop("", None)
    for row in told:
        name = home[int(word.person[row])]
        joined[name] = np.append(joined.get(name, rows[:0]), row)
    return joined


def lost_before(entry: Group) -> Counter[str]:
    """What a face set has lost already, as refine counts it."""
    known = entry.purity or Purity()
    return Counter(outlier=known.outliers, same_photo=known.doubles)


def extend_refined(
    library: Library, out: Path, old: RefinedManifest, tree: TreeOptions, unlike: Unlike
) -> dict[str, Any]:
    """Add faces of photos the refine manifest has not seen: to face sets, or as new ones."""
    cache, word = library.cache, library.word
    params = old.params
    before = {entry.id: rows_of_faces(cache, entry.faces) for entry in old.facesets}
    standing, parts = obeyed(cache.unit, before, word)
    owned = np.concatenate([np.zeros(0, np.intp), *standing.values()])
    seen = set(old.seen)
    unseen = np.array([sha[:16] not in seen for sha in cache.file_sha256.tolist()], dtype=bool)
    new = np.setdiff1d(word.faces[unseen[cache.face_file[word.faces]]], owned)
    kept_out = np.intersect1d(new, [*unlike])
    new = np.setdiff1d(new, kept_out)
    good, dropped = gate_faces(cache, new, params, old.usual.length, word)
    dropped.update(unlike[row] for row in kept_out.tolist())
    joined = joining(library, standing, good, params, old.usual)
    facesets = dict(standing)
    for name, rows in joined.items():
        centre = centroid(cache.unit[standing[name]])
        kept = one_face_per_photo(cache, rows, params.copy_threshold, centre)
        facesets[name] = np.concatenate([standing[name], kept])
    facesets, more = obeyed(cache.unit, facesets, word)
    added = sum(map(len, facesets.values())) - len(owned)
    fresh = np.concatenate([new, *parts, *more])
    free = np.setdiff1d(word.faces, np.concatenate([owned, kept_out, *facesets.values()]))
    found = []
    if len(fresh):
        found = refine_identities(cache, free, params, old.usual, word).identities
    founders = [rows for rows in found if np.isin(rows, fresh).any()]
    facesets = {name: rows for name, rows in facesets.items() if not word.is_ignored(rows)}
    facesets |= numbered_groups("faceset", founders, word, before)
    lost = {entry.id: lost_before(entry) for entry in old.facesets}
    purity = companion("purity").purities(cache, facesets, old.usual, lost=lost)
    dropped_before = old.counts.get("dropped", {})
    manifest, wanted = refined_manifest(
        library, params, facesets, purity, dropped_before, old.usual, True
    )
    again = {cache.face_ids[row].partition(":")[0] for row in kept_out}  # without the filter
    manifest.seen[:] = [photo for photo in manifest.seen if photo not in again]
    changed = changed_folders(before, facesets, word)
    plan = write_tree(library, out, manifest, wanted, tree, changed)
    return {
        "refine_out": str(out),
        "joined_facesets": added,
        "new_facesets": len(founders),
        "failed_gates": dict(dropped),
        "gates": gate_rows(REFINE_GATES, asdict(params), dropped),
        "refined": plan.counts(),
    }


# ============================================================================
# Command: export-swap
# ============================================================================


EXPORT_GATES = {  # the same of export-swap's reasons
    "face too small": "min_face_short",
    OUTLIER: "outlier_threshold outlier_spreads",
    "not like --filter": "ref_threshold",
    "like --nfilter": "ref_threshold",
    "small for its photo": "min_scale",
    "large for its photo": "max_scale",
    "far from the mean face": "max_mean_distance",
    "its points are rolled": "max_points_roll",
}


def add_export_swap_options(p: argparse.ArgumentParser) -> None:
    """What to export, from where to where, and how."""
    add_cache_argument(p)
    p.add_argument("refined", type=Path, metavar="REFINE_MANIFEST", help="refine_manifest.json")
    p.add_argument("out", type=Path, metavar="OUT", help="folder for the swap-ready face sets")
    p.add_argument(
        "--raw-manifest",
        type=Path,
        metavar="FILE",
        help="manifest.json of the raw tree; --candidates takes its singletons",
    )
    add_fields(p, ExportParams)
    add_fields(p, ToOptions)
    add_save_filtered(p)
    add_dry_run(p)
    add_engine_and_work(p, detector=False)


def cmd_export_swap(args: argparse.Namespace) -> Outcome:
    """crop, rank and bundle every face set for face-swap programs"""
    if args.candidates and args.raw_manifest is None:
        raise SortFacesError("--candidates: needs --raw-manifest, which lists the singletons")
    to = of_args(ToOptions, args)
    places = (args.cache, args.refined, args.raw_manifest, args.out)
    paths = ExportPaths(*places, to, args.save_filtered)
    result = export_library(paths, of_args(ExportParams, args), crew_of(args, False), args.dry_run)
    return Outcome(result, bool(result["facesets"]))


@dataclass(frozen=True)
class ExportPaths:
    """What an export reads and where it writes."""

    cache: Path
    refined: Path  # refine_manifest.json
    raw: Path | None  # manifest.json of the raw tree, for candidates
    out: Path
    to: ToOptions = ToOptions()  # for which other programs as well
    filtered: Path | None = None  # where crops of what filters took go


@dataclass(frozen=True)
class FacesetPlan:
    """The faces of one set in rank order, and every face left out with its reason."""

    name: str  # faceset_NNN
    folder: str  # where it goes: its name, or a place on a shelf
    rows: np.ndarray  # (k,) cache rows, best first
    distance: np.ndarray  # (k,) to the centroid
    kept_because: list[str]
    left: list[Left]  # by this export
    gone: list[Left]  # by earlier runs


class Export:
    """One export: what it works on, and what decides."""

    def __init__(
        self, library: Library, out: Path, params: ExportParams, crew: Crew, **names: str
    ) -> None:
        """names: of the options, as in add_fields."""
        self.library, self.out, self.params, self.crew = library, out, params, crew
        self.names, self.to = names, ToOptions()
        self.cache = cache = library.cache
        self.terms = cached_quality_terms(cache)  # (n, 7)
        self.quality = composite_quality(self.terms, params.weights)  # (n,)
        self.head = manifest_head(library)
        self.purity: dict[str, Purity] = {}  # by face set, as refine found it
        self.usual: Usual | None = None  # likewise, of the library
        self.least = params.min_survivors  # faces of a set in use
        order = np.argsort(cache.face_file, kind="stable")
        self.faces_by_file = order, cache.face_file[order]

    def neighbours(self, row: int) -> np.ndarray:
        """(k, 4) boxes of the other faces in the photo of a face."""
        order, files = self.faces_by_file
        low, high = np.searchsorted(
            files, [self.cache.face_file[row], self.cache.face_file[row] + 1]
        )
        return self.cache.bbox[[other for other in order[low:high] if other != row]]

    @property
    def word(self) -> Word:
        return self.library.word

    @functools.cached_property
    def references(self) -> Any:
        """The ReferenceFilter the options ask for, if any."""
        wanted, filters = self.params.references, companion("reference_filter")
        return filters.filter_of(wanted, self.crew, self.cache.meta, self.usual)

    def faults(self, rows: np.ndarray) -> list[tuple[str, float]]:
        """(why a filter leaves it out, the value) of each of these faces; "" where none does.

        What the operator keeps passes. Landmarks that shall only be warned of are told.
        """
        found = [("", 0.0)] * len(rows)
        limits, kept = self.params.landmarks, self.word.keep[rows] > 0
        if limits.false_positives != "off":
            odd = companion("landmark_filter").faults(self.cache, rows, limits)
            if limits.false_positives == "drop":
                found = odd
            for row, (reason, value) in zip(rows, odd, strict=True):
                if reason and limits.false_positives == "warn":
                    log.warning("%s: %s (%.3g)", self.cache.face_ids[row], reason, value)
        if self.references is not None:
            unlike = self.references.faults(self.cache.unit[rows])
            found = [a if a[0] else b for a, b in zip(found, unlike, strict=True)]
        return [("", 0.0) if keep else one for keep, one in zip(kept, found, strict=True)]

    @functools.cached_property
    def looks(self) -> str:
        return looks_mark(self.crew.spec)

    def crop_key(self, row: int) -> str:
        """Names the crop of a face by what it shows and how it is judged."""
        params = self.params
        facts = (
            self.photo(row)[1],
            self.cache.bbox[row].tolist(),
            self.neighbours(row).tolist(),
            (params.pad_ratio, params.out_size, params.same_face_threshold),
            (self.cache.meta.recognizer, self.looks),
            (CROP_VARIANTS, CROP_FACE_IOU, PAINT_MARGIN),
        )
        if len(self.neighbours(row)):
            facts += ("inpainted",)  # crops of before, with grey patches, are cut anew
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    def photo(self, row: int) -> tuple[str, str]:
        """(path, sha256) of the photo of a face."""
        file = int(self.cache.face_file[row])
        return str(self.cache.file_path[file]), str(self.cache.file_sha256[file])


def cached_quality_terms(cache: FaceCache) -> np.ndarray:
    """Quality terms of every face, (n, 7); without landmarks from the five key points."""
    pose = cache.pose.copy()
    for row in np.flatnonzero(~cache.enriched):
        wh = tuple(cache.file_wh[cache.face_file[row]].tolist())
        pose[row] = pose_from_kps(cache.kps[row : row + 1], wh)[0]
    symmetry = landmark_symmetry(cache.kps, cache.kps)
    for points in (cache.landmark_3d_68[..., :2], cache.landmark_2d_106):
        have = np.isfinite(points).all(axis=(1, 2))
        symmetry[have] = landmark_symmetry(points[have], cache.kps[have])
    own = quality_terms(pose, cache.det_score, symmetry, cache.face_short, cache.blur)
    return np.column_stack([own, length_term(cache.embedding), rank_term(cache.learned_quality)])


def export_library(
    paths: ExportPaths, params: ExportParams, crew: Crew, dry_run: bool, **names: str
) -> dict[str, Any]:
    """Write the swap-ready corpus of a refine manifest; returns the counts. names: as in Export."""
    cache, out = load_cache(paths.cache), paths.out
    refined = load_manifest(paths.refined, RefinedManifest, cache)
    raw = load_manifest(paths.raw, RawManifest, cache) if paths.raw is not None else None
    check_output(out, cache.meta.roots, SwapManifest)
    params = for_model(params, cache.meta.model)
    if params.min_face_short is None:
        params = replace(params, min_face_short=refined.params.min_short)
    crew = crew.with_spec(as_consumer(crew.spec, cache.meta))
    check_model(cache, paths.cache, crew.spec)
    if params.weights.learned_quality:
        companion("quality_model").check_scored(paths.cache, cache)
    export = Export(Library(cache, paths.cache), out, params, crew, **names)
    export.to = paths.to
    export.usual = refined.usual
    export.least = min(params.min_survivors, refined.params.min_faces)
    if dry_run:
        return planned_export(export, *plan_facesets(export, refined, earlier_corpus(export)))
    make_folder(out)
    with locked(out / LOCK_NAME, str(out)):
        recover_folders(out)
        recover_runs(out)
        remove_unfinished(out)
        corpus = earlier_corpus(export)
        if export.word.names:
            companion("decisions").take_names(export.library, corpus)
        if corpus.repairs():
            carry_out(corpus, by_hand(corpus))
            corpus = earlier_corpus(export)
        plans, heritage = plan_facesets(export, refined, corpus)
        result = write_corpus(export, plans, heritage, raw)
        if paths.filtered is not None:
            result["saved_apart"] = companion("set_apart").save(export, plans, paths.filtered)
        extend_eras(earlier_corpus(export), crew)
        return result


def earlier_corpus(export: Export) -> Corpus:
    """What lies in the output folder, under the head of this export; perhaps nothing yet."""
    path = export.out / "manifest.json"
    master = SwapManifest(**export.head, facesets=[])
    if path.exists():
        master = msgspec.structs.replace(read_file(path, SwapManifest), **export.head)
    if export.to.to or master.exports:
        exports = companion("consumers").wanted(master, export.to)
        master = msgspec.structs.replace(master, exports=exports)
    return Corpus(export.out, master)


def planned_export(
    export: Export, plans: Sequence[FacesetPlan], heritage: Heritage
) -> dict[str, Any]:
    """What a dry run says: the sets there will be, and what becomes of earlier ones."""
    store = CropStore(export, heritage.corpus)
    rows = [int(row) for plan in plans for row in plan.rows]
    return {
        "out": str(export.out),
        "to_cut": sum(store.get(row) is None for row in rows),
        "merged_as_before": [f"{name} into {into}" for name, into in heritage.merged.items()],
        "set_aside": [faceset.folder for faceset in heritage.retired()],
        "gates": export_gates(export, [left for plan in plans for left in plan.left]),
        "facesets": [
            {"id": plan.name, "faces": len(plan.rows), "left_out": len(plan.left)} for plan in plans
        ],
    }


def export_gates(export: Export, dropped: Iterable[Left]) -> list[dict[str, Any]]:
    """What each gate of an export took."""
    reasons = [left.reason for left in dropped if left.run is UNSET]
    took = Counter(re.split(r" \(|:", reason)[0] for reason in reasons)
    params = asdict(export.params)
    return gate_rows(
        EXPORT_GATES, params | params["references"] | params["landmarks"], took, **export.names
    )


THIN_EXPORT = "left by export-swap"  # ends the reason of a set that it puts on the shelf


class Heritage:
    """What the sets of an earlier export hand down to those of a new one.

    A new set is the heir of the old set it shares most faces with: it takes over its place (on a
    shelf, too), what maintenance dropped from it, the operator's PNGs and files, and its eras. The
    heirs of sets that were merged are one set again.
    """

    def __init__(
        self,
        corpus: Corpus,
        groups: dict[str, list[str]],
        parted: Container[tuple[str, str]] = (),
    ) -> None:
        """groups: {id of a new set: its face ids}; parted: pairs of these that are two people."""
        self.corpus, self.groups = corpus, groups
        self.whole = {f: faceset for f, faceset in corpus.sets.items() if not faceset.is_era}
        self.heirs = best_matches(
            {folder: faceset.known() for folder, faceset in self.whole.items()},
            {name: set(faces) for name, faces in groups.items()},
        )  # {folder of an old set: id of the new one}
        self.held = Counter(  # in how many sets a face is; the PNGs of a merged one are in another
            face
            for faceset in self.whole.values()
            if faceset.shelf != "_merged"
            for face in {face.face for face in faceset.manifest.faces}
        )
        self.taken_out = [  # by runs
            (faceset, gone)
            for faceset in self.whole.values()
            for gone in faceset.manifest.dropped
            if gone.run is not UNSET
        ]
        self.old: dict[str, FaceSet] = {}  # {id of a new set: the old one whose place it takes}
        self.merged: dict[str, str] = {}  # {id of a new set: the one it is part of}
        leader: dict[str, str] = {}  # {survivor without an heir: the heir of its first part}
        for folder, name in self.heirs.items():
            survivor = self.survivor(folder)
            into = self.heirs.get(survivor) or name
            if survivor and survivor not in self.heirs:
                into = leader.setdefault(survivor, name)
            if into != name:
                self.merged |= {} if (name, into) in parted else {name: into}
            elif survivor or not folder.startswith("_merged/"):
                self.old[name] = self.whole[survivor or folder]

    def survivor(self, folder: str) -> str:
        """The folder of the set an old one was merged into, "" if it was not."""
        for _ in self.whole:
            reason = self.corpus.note(folder)["reason"]
            found = re.fullmatch(r"same person as (\S+)", reason)
            if not found:
                break
            named = [
                f for f, faceset in self.whole.items() if faceset.id == found[1] and f != folder
            ]
            folder = min(named, key=lambda f: f.startswith("_merged/"), default="")
        return folder if folder in self.whole and not folder.startswith("_merged/") else ""

    def merge_notes(self, there: Container[str]) -> dict[str, dict[str, str]]:
        """{folder of a merged set: why it lies there}, with the present number of its survivor.

        there: ids of the sets that are exported; a number of one that is gone may come again.
        """
        number = {old.folder: name for name, old in self.old.items() if name in there}
        notes = {}
        for folder in self.whole:
            note, survivor = self.corpus.note(folder), self.survivor(folder)
            if survivor == folder:  # it was not merged
                continue
            if survivor in number:
                reason = f"same person as {number[survivor]}"
            elif survivor and not self.whole[survivor].shelf:
                reason = f"{note['reason']}, which is gone"
            else:
                continue
            notes[folder] = {**note, "reason": reason}
        return notes

    def folder(self, name: str) -> str:
        """Where a new set goes: in use, or to the shelf its old self lies on; but an export that
        found too few faces decides anew."""
        old = self.old.get(name)
        if old is None or not old.shelf or self.is_thin_export(old):
            return name
        return self.on_shelf(old.shelf, name)

    def on_shelf(self, shelf: str, name: str) -> str:
        """A new set's place on a shelf: that of its old self, if it lies there under this id."""
        old = self.old.get(name)
        stays = old is not None and old.shelf == shelf and old.id == name
        return old.folder if stays else free_shelf(self.corpus.root, f"{shelf}/{name}")

    def is_thin_export(self, old: FaceSet) -> bool:
        """Whether an export took a set out of use because too few faces were left."""
        return old.shelf == "_thin" and self.corpus.note(old.folder)["reason"].endswith(THIN_EXPORT)

    def dropped(self, name: str) -> dict[str, Left]:
        """{face id: its entry} of what runs took out of the old selves of a new set."""
        own = self.old.get(name)
        own_faces = {face.face for face in own.manifest.faces} if own else set()
        parts = [some for n, some in self.groups.items() if self.merged.get(n, n) == name]
        here = {f for some in parts for f in some if self.held[f] == (f in own_faces)}
        found = {
            gone.face: msgspec.structs.replace(gone, file="")
            for faceset, gone in self.taken_out
            if faceset is not own and gone.face in here
        }
        return found | {gone.face: gone for faceset, gone in self.taken_out if faceset is own}

    def retired(self) -> list[FaceSet]:
        """Sets in use that no new set takes the place of, and the eras of none."""
        taken = {faceset.folder for faceset in self.old.values()}
        families = {faceset.id for faceset in self.old.values()}
        return [
            faceset
            for folder, faceset in self.corpus.sets.items()
            if (
                faceset.shelf in ("", "_thin") and faceset.family not in families
                if faceset.is_era
                else not faceset.shelf and folder not in taken
            )
        ]


def best_matches(olds: dict[str, set[str]], news: dict[str, set[str]]) -> dict[str, str]:
    """{old: new} of sets that share elements, one to one, the pairs that share most first."""
    homes: dict[str, list[str]] = defaultdict(list)  # of an element, among the new
    for right, new in news.items():
        for element in new:
            homes[element].append(right)
    shared = Counter(
        (left, right)
        for left, old in olds.items()
        for element in old & homes.keys()
        for right in homes[element]
    )
    pairs: dict[str, str] = {}
    for left, right in sorted(shared, key=lambda pair: (-shared[pair], pair)):
        if left not in pairs and right not in pairs.values():
            pairs[left] = right
    return pairs


def plan_facesets(
    export: Export, refined: RefinedManifest, corpus: Corpus
) -> tuple[list[FacesetPlan], Heritage]:
    """Choose and rank the faces of every set; sets that were merged before are one again."""
    listed = {entry.id: rows_of_faces(export.cache, entry.faces) for entry in refined.facesets}
    groups, _ = obeyed(export.cache.unit, listed, export.word)
    groups = {name: rows for name, rows in groups.items() if not export.word.is_ignored(rows)}
    named = {name: face_names(export.cache, rows) for name, rows in groups.items()}
    heritage = Heritage(corpus, named, parted_sets(groups, export.word))
    export.purity = {
        entry.id: entry.purity
        for entry in refined.facesets
        if entry.purity and entry.id in groups and entry.id not in heritage.merged.values()
    }
    for name, survivor in heritage.merged.items():
        groups[survivor] = np.concatenate([groups[survivor], groups.pop(name)])
    limits = set_limits(export.cache.unit, groups.values(), export.params, refined.usual)
    plans = [
        plan_faceset(export, name, rows, heritage, float(limit))
        for (name, rows), limit in zip(groups.items(), limits, strict=True)
    ]
    return plans, heritage


def parted_sets(groups: dict[str, np.ndarray], word: Word) -> set[tuple[str, str]]:
    """Pairs of groups, either way round, that the operator said are two people."""
    home = np.full(len(word.person), -1)
    for at, rows in enumerate(groups.values()):
        home[rows] = at
    names = list(groups)
    named = [at for at, rows in enumerate(groups.values()) if word.of_group(rows) in word.names]
    pairs = {(left, right) for left, right in home[word.apart].tolist() if min(left, right) >= 0}
    pairs |= set(itertools.combinations(named, 2))
    return {
        (names[a], names[b]) for left, right in pairs for a, b in ((left, right), (right, left))
    }


def plan_faceset(
    export: Export, name: str, rows: np.ndarray, heritage: Heritage, outlier: float
) -> FacesetPlan:
    """Choose and rank the faces of one identity: size gate, choose_faces, what was dropped."""
    cache, params, word = export.cache, export.params, export.word
    unwanted = word.keep[rows] < 0
    left = [left_out(export, row, BY_OPERATOR) for row in rows[unwanted]]
    rows = rows[~unwanted]
    faults = export.faults(rows)
    left += [
        left_out(export, row, *fault) for row, fault in zip(rows, faults, strict=True) if fault[0]
    ]
    rows = rows[[not reason for reason, _ in faults]]
    short = cache.face_short[rows]
    small = (short < params.min_face_short) & (word.keep[rows] <= 0)
    left += [
        left_out(export, row, "face too small", short)
        for row, short in zip(rows[small], short[small], strict=True)
    ]
    rows = rows[~small]
    rows = rows[np.lexsort((-export.quality[rows], -word.best[rows]))]  # best first
    photos = cache.face_file[rows]
    chosen = choose_faces(cache.unit[rows], photos, outlier, params.duplicate_threshold)
    kept = set(face_names(cache, rows[word.keep[rows] > 0]))
    gone = {face: entry for face, entry in heritage.dropped(name).items() if face not in kept}
    keep = []
    for at, (row, reason) in enumerate(zip(rows.tolist(), chosen.reason, strict=True)):
        if cache.face_ids[row] in gone:
            continue
        if not reason or cache.face_ids[row] in kept or (word.vouched[row] and reason == OUTLIER):
            keep.append(at)
            continue
        value = chosen.distance[at] if reason == OUTLIER else export.quality[row]
        left.append(left_out(export, row, reason, value))
    return FacesetPlan(
        name=name,
        folder=heritage.folder(name),
        rows=rows[keep],
        distance=chosen.distance[keep],
        kept_because=[
            "kept by the operator" * (cache.face_ids[rows[at]] in kept)
            or chosen.because[at]
            or "passes every gate"
            for at in keep
        ],
        left=left,
        gone=list(gone.values()),
    )


def left_out(export: Export, row: int, reason: str, value: float | None = None) -> Left:
    """What a manifest tells of a face that an export leaves out."""
    value = UNSET if value is None else round(float(value), 4)
    source, _ = export.photo(row)
    return Left(face=export.cache.face_ids[row], source=source, reason=reason, value=value)


class CropNote(Record, kw_only=True):
    """What came of cutting a face; kept by a key of all that decides it."""

    key: str
    sha256: str  # of the PNG, "" if it was not accepted
    reason: str = ""  # why not
    pad: float = 0.0
    painted: bool = False  # neighbours were painted over


@dataclass(frozen=True)
class Crop:
    """A face cut out of its photo."""

    row: int
    png: Path | None  # None if it was not accepted
    note: CropNote
    window: tuple[int, int, int] = (0, 0, 0)  # x, y, side in photo pixels
    final: bool = True  # another try would give the same
    fresh: bool = True  # cut just now
    retouched: bool = False  # by the operator

    @property
    def reason(self) -> str:
        return self.note.reason


PHOTO_GONE = "photo gone or changed since embed"
CROPS_FOLDER = f"{SCORES_FOLDER}/crops"  # finished crops until their face set is there
PHOTOS_HELD = 2  # decoded photos kept for the next faces cut from them


class CropStore:
    """Finished crops: notes in _scores/crops.jsonl, PNGs in the sets or in CROPS_FOLDER."""

    def __init__(self, export: Export, corpus: Corpus) -> None:
        self.export, self.corpus = export, corpus
        self.audits = kept_audits(corpus, export.crew.spec, export.cache)
        known = self.audits.known  # those of version 0.1.0 tell no boxes
        self.audits.known = {sha: seen for sha, seen in known.items() if seen.boxes is not UNSET}
        self.lines = AppendOnly(place_in(corpus.root, f"{CROPS_FOLDER}.jsonl"))
        self.notes = {note.key: note for note in read_crop_notes(self.lines.path)}
        left = (corpus.root / CROPS_FOLDER).glob("*.png")  # by a killed export, perhaps not whole
        self.pngs = {path.stem: path for path in left if sha256_of_file(path) == path.stem}
        candidates = corpus.root / "_candidates"
        manifest = read_if_sound(candidates / "manifest.json", CandidatesManifest)
        for face in manifest.faces if manifest else ():
            self.pngs[face.sha256] = candidates / face.file
        for folder, faceset in corpus.sets.items():
            for face in (*faceset.manifest.faces, *faceset.manifest.dropped):
                if face.sha256 and face.file:
                    self.pngs[face.sha256] = corpus.root / folder / face.file
        self.retouched = {
            face.face: (face, corpus.root / folder / face.file)
            for folder, faceset in corpus.sets.items()
            for face in faceset.faces
            if face.retouched is True and not faceset.is_era
        }

    def get(self, row: int) -> Crop | None:
        """The crop of a face, if it was cut before and its PNG is there."""
        face, png = self.retouched.get(self.export.cache.face_ids[row], (None, None))
        if face is not None:
            pad, painted = face.pad or 0.0, face.neighbours_painted or False
            note = CropNote(key="", sha256=face.sha256, pad=pad, painted=painted)
            return Crop(row, png, note, fresh=False, retouched=True)
        note = self.notes.get(self.export.crop_key(row))
        png = self.pngs.get(note.sha256) if note else None
        if note is None or (note.sha256 and not (png and png.is_file())):
            return None
        return Crop(row, png, note, fresh=False)

    def add(self, crop: Crop) -> None:
        if crop.final:
            self.notes[crop.note.key] = crop.note
            if crop.png is not None:
                self.pngs[crop.note.sha256] = crop.png
            self.lines.append(as_json(crop.note))

    def close(self) -> None:
        self.lines.close()
        self.audits.close()


def read_crop_notes(path: Path) -> Iterator[CropNote]:
    """The notes of finished crops; a damaged line costs that crop, which is then cut again."""
    for _, value in json_lines(path):
        with contextlib.suppress(msgspec.ValidationError):
            yield as_record(CropNote, value)


def cut_faces(store: CropStore, rows: Sequence[int]) -> dict[int, Crop]:
    """The crops of faces by row; only those not cut before are cut."""
    export = store.export
    crops = {row: crop for row in rows if (crop := store.get(row)) is not None}
    todo = sorted({*rows} - crops.keys(), key=lambda row: export.cache.face_file[row])
    if todo:
        check_recognizer(store.corpus, export.crew)
    try:
        fitted = Cutter(export, store, todo).crops()
        for crop in progress(fitted, len(todo), "cutting faces", "face"):
            crops[crop.row] = crop
    finally:
        store.close()
    return crops


@dataclass(frozen=True)
class Attempt:
    """A crop to be cut."""

    row: int
    variant: int  # of CROP_VARIANTS
    others: np.ndarray  # (k, 4) boxes of other faces in the photo, to be painted over


class Cutter:
    """Cuts faces and has the crops looked at until a consumer finds exactly that one face.

    CROP_VARIANTS are tried in turn. A refused crop's next attempt joins the stream of those still
    to be cut, so that nobody who looks waits for a round to end.
    """

    def __init__(self, export: Export, store: CropStore, rows: Sequence[int]) -> None:
        self.export, self.store = export, store
        self.attempts = deque(Attempt(row, 0, export.neighbours(row)) for row in rows)
        self.shown: dict[str, list[tuple[Attempt, Crop]]] = {}  # by sha256; in somebody's hands
        self.finished: deque[Crop] = deque()
        self.photo = functools.lru_cache(PHOTOS_HELD)(self.read)

    def crops(self) -> Iterator[Crop]:
        """The crops of all faces as they are finished; each is noted at once."""
        look = crew_work(self.store.corpus, "audit", self.export.crew)
        while self.attempts:
            for item, result in look(self.items()):
                audit = self.store.audits.add(item, result)
                for attempt, crop in self.shown.pop(item["sha256"], ()):
                    self.settle(attempt, crop, audit)
                yield from self.drain()
            yield from self.drain()

    def drain(self) -> Iterator[Crop]:
        while self.finished:
            crop = self.finished.popleft()
            self.store.add(crop)
            yield crop

    def items(self) -> Iterator[Item]:
        """Queue items for the crops nobody has looked at yet."""
        while self.attempts:
            attempt = self.attempts.popleft()
            crop = self.cut(attempt)
            sha = crop.note.sha256
            if crop.png is None:
                self.finished.append(crop)
            elif sha in self.store.audits.known:
                self.settle(attempt, crop, self.store.audits.known[sha])
            else:
                alike = self.shown.setdefault(sha, [])
                alike.append((attempt, crop))
                if len(alike) == 1:
                    yield {"path": str(crop.png.resolve()), "sha256": sha}

    def settle(self, attempt: Attempt, crop: Crop, audit: Audit | None) -> None:
        """Take a crop, or try the next variant with the strangers it showed painted over."""
        reason, strangers = judge_crop(self.export, crop, audit)
        if not reason:
            self.finished.append(crop)
        elif audit is not None and attempt.variant + 1 < len(CROP_VARIANTS):
            others = np.concatenate([attempt.others, strangers])
            self.attempts.appendleft(Attempt(attempt.row, attempt.variant + 1, others))
        else:
            self.finished.append(self.refused(attempt.row, reason, audit is not None))

    def refused(self, row: int, reason: str, final: bool = False) -> Crop:
        """The crop of a face that could not be cut."""
        note = CropNote(key=self.export.crop_key(row), sha256="", reason=reason)
        return Crop(row, None, note, final=final)

    def read(self, file: int) -> Photo | str:
        """A photo of the cache, or why there is none."""
        path = self.export.library.live_path(file)
        try:
            sha = str(self.export.cache.file_sha256[file])
            return read_photo(path, sha) if path else PHOTO_GONE
        except PhotoError as error:
            return f"photo unreadable: {error}"

    def cut(self, attempt: Attempt) -> Crop:
        """Cut a face out of its photo into CROPS_FOLDER; what goes wrong costs this face only."""
        import cv2

        export, row = self.export, attempt.row
        photo = self.photo(int(export.cache.face_file[row]))
        if isinstance(photo, str):
            return self.refused(row, photo)
        scale, margin = CROP_VARIANTS[attempt.variant]
        bbox, pad = export.cache.bbox[row], export.params.pad_ratio * scale
        window = x, y, side = crop_square(bbox, photo.wh, pad)
        crop = photo.cut(window, export.params.out_size)
        if margin is not None:
            zoom, corner = len(crop) / side, (x, y, x, y)
            clear = (grow_box(bbox, margin) - corner) * zoom
            crop = paint_over(crop, (attempt.others - corner) * zoom, clear)
        data = cv2.imencode(".png", crop, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
        sha = hashlib.sha256(data).hexdigest()
        png = place_in(export.out, f"{CROPS_FOLDER}/{sha}.png")
        with writing(png, sync=False) as part:
            part.write_bytes(data)
        key, painted = export.crop_key(row), margin is not None
        return Crop(row, png, CropNote(key=key, sha256=sha, pad=pad, painted=painted), window)


def judge_crop(export: Export, crop: Crop, audit: Audit | None) -> tuple[str, np.ndarray]:
    """Look at a crop as a consumer does: ("" or why it is refused, strangers' boxes (k, 4)).

    At every detector size consumers offer there must be one face, in the right place, and it must
    be the cached face. The strangers' boxes are in photo pixels, to be painted over next time.
    """
    nobody = np.zeros((0, 4))
    if audit is None or audit.error:
        return "engine failed: the crop could not be looked at", nobody
    x, y, side = crop.window
    scale = export.params.out_size / side
    expected = (export.cache.bbox[crop.row] - (x, y, x, y)) * scale
    for size, boxes in zip(CONSUMER_DET_SIZES, audit.boxes, strict=True):
        found = np.array(boxes, np.float64).reshape(-1, 4)
        right = box_iou(expected, found) >= CROP_FACE_IOU
        strangers = found[~right] / scale + (x, y, x, y)
        if len(found) != 1:
            return f"{len(found) or 'no'} faces in the crop at detector size {size}", strangers
        if not right[0]:
            return "another face stands in its place", strangers
    seen = unit_rows(unpack_floats(audit.embedding, (1, -1)))[0]
    away = 1.0 - float(seen @ export.cache.unit[crop.row])
    if away > export.params.same_face_threshold:
        return f"the crop looks like someone else (distance {away:.2f})", nobody
    return "", nobody


def write_corpus(
    export: Export, plans: Sequence[FacesetPlan], heritage: Heritage, raw: RawManifest | None
) -> dict[str, Any]:
    """Cut what is new and bring the corpus to what is planned, as one run; returns the counts."""
    corpus, out = heritage.corpus, export.out
    rows = [int(row) for plan in plans for row in plan.rows]
    files = {int(export.cache.face_file[row]) for row in rows}
    if files and not any(export.library.live_path(file) for file in files):
        raise SortFacesError(f"{out}: none of the photos is there; mount their disk and run again")
    names = operator_names(corpus, plans, export.cache, export.word)
    store = CropStore(export, corpus)
    crops = cut_faces(store, rows)
    drafts = [draft_of(export, plan, crops, heritage, names) for plan in plans]
    gates = export_gates(export, [left for draft in drafts for left in draft.dropped])
    for draft in drafts:
        if not draft.faces:
            log.warning("%s: no face passed; nothing exported", draft.folder)
    drafts = [draft for draft in drafts if draft.faces]
    thin = thin_drafts(drafts, heritage, export.least)
    groups = {}
    if export.params.candidates and raw is not None:
        groups = companion("candidates").candidate_groups(export, drafts, raw)
        singles = [int(row) for some, _ in groups.values() for row in some]
        crops |= cut_faces(store, singles)
    with new_run(out, next_run(out, "export-swap")) as run:
        after, notes = stage_sets(run, heritage, drafts)
        exported = [after[draft.folder] for draft in drafts]
        notes |= {
            place: {"reason": why, "run": run.name}
            for place, why in thin.items()
            if corpus.note(place)["reason"] != why
        }
        counts = {
            "facesets": len(exported) - len(thin),
            **({"thin": len(thin)} if thin else {}),
            "faces": sum(len(faceset.manifest.faces) for faceset in exported),
            "left_out": sum(len(faceset.manifest.dropped) for faceset in exported),
            "cut": sum(crop.fresh for crop in crops.values()),
        }
        if export.params.candidates and raw is not None:
            counts |= companion("candidates").stage_candidates(run, export, groups, crops)
        params, lists = as_json(asdict(export.params)), corpus.lists(after, notes)
        if corpus.exports:
            companion("consumers").export_corpus(run, corpus, after)
        if run.steps or corpus.differs(lists) or not (out / "manifest.json").exists():
            master = msgspec.structs.replace(corpus.master, params=params)
            about = {"command": "export-swap", "params": params, "counts": counts}
            stage_master(run, master, lists, about)
            run.commit({folder: faceset.name for folder, faceset in after.items()} | NAMELESS)
    shutil.rmtree(out / CROPS_FOLDER, ignore_errors=True)
    (out / NAMES_PENDING).unlink(missing_ok=True)
    table = [listed(faceset.folder, faceset.manifest, faceset.name) for faceset in exported]
    columns = ("id", "name", "face_count", "left_out", "best", "bundle")
    rows_shown = [{key: getattr(entry, key) for key in columns} for entry in table]
    halved = companion("halved_sets").halved(export, [one.manifest for one in exported])
    return {"out": str(out), **counts, "gates": gates, **halved, "facesets": rows_shown}


def thin_drafts(drafts: Sequence[Draft], heritage: Heritage, least: int) -> dict[str, str]:
    """Send to the shelf what gates have brought below `least` faces; {its place there: why}.

    What is small by the operator's doing, or was so before, stays in use.
    """
    found = {}
    for draft in drafts:
        dropped = (left for left in draft.dropped if left.run is UNSET)
        took = Counter(re.split(r" \(|:", left.reason)[0] for left in dropped)
        del took[BY_OPERATOR]
        few = len(draft.faces) < least <= len(draft.faces) + took.total()
        if "/" in draft.folder or not few:
            continue
        why = ", ".join(f"{reason} {count}" for reason, count in took.most_common(2))
        draft.folder = heritage.on_shelf("_thin", draft.folder)
        found[draft.folder] = f"{len(draft.faces)} of {least} faces ({why}) {THIN_EXPORT}"
        log.warning("%s: %s", draft.folder, found[draft.folder])
    return found


NOWHERE = f"{RUNS_FOLDER}/nowhere"  # where a set lies that is new
NAMES_PENDING = "names.pending"  # what a killed export of version 0.1.0 had noted


def operator_names(
    corpus: Corpus, plans: Sequence[FacesetPlan], cache: FaceCache, word: Word
) -> dict[str, str]:
    """{id: name}: what was decided, else what the operator wrote into NAME.txt, which goes where
    most of its faces went."""
    decided = {plan.name: word.names.get(word.of_group(plan.rows), "") for plan in plans}
    decided = {name: text for name, text in decided.items() if text}
    whole = [faceset for faceset in corpus.sets.values() if not faceset.is_era]
    present = {faceset.folder: faceset for faceset in whole if faceset.shelf != "_merged"}
    texts = {folder: faceset.name for folder, faceset in present.items()}
    faces = {folder: faceset.known() for folder, faceset in present.items()}
    sets = {plan.name: set(face_names(cache, plan.rows)) for plan in plans}
    pairs = best_matches({f: some for f, some in faces.items() if texts[f] != UNNAMED}, sets)
    names = {name: texts[folder] for folder, name in pairs.items()} | decided
    for folder, faceset in present.items():
        renamed = pairs.get(folder) in decided
        if not (faceset.shelf or renamed) and faceset.name not in (UNNAMED, *names.values()):
            log.warning("the name %r fits no face set any more", faceset.name)
    earlier = defaultdict(set)
    for text, some in earlier_names(corpus):
        earlier[text] |= some
    free = {name: some for name, some in sets.items() if name not in names}
    return names | {name: text for text, name in best_matches(earlier, free).items()}


def earlier_names(corpus: Corpus) -> Iterator[tuple[str, set[str]]]:
    """(name, its faces) of sets that were merged or set aside, and of a killed export."""
    for faceset in corpus.sets.values():
        if faceset.shelf == "_merged" and not faceset.is_era and faceset.name != UNNAMED:
            yield faceset.name, faceset.known()
    for folder in sorted((corpus.root / REMOVED_FOLDER).glob("faceset_*")):
        manifest = read_if_sound(folder / "manifest.json", FacesetManifest)
        if manifest is not None and manifest.era is UNSET and read_name(folder) != UNNAMED:
            yield read_name(folder), {f.face for f in (*manifest.faces, *manifest.dropped)}
    yield from names_pending(corpus.root)


def names_pending(root: Path) -> Iterator[tuple[str, set[str]]]:
    """(name, its faces) that an export of version 0.1.0 had noted when it was killed."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        for note in json.loads((root / NAMES_PENDING).read_bytes())["names"]:
            yield str(note["name"]), set(map(str, note["faces"]))


def draft_of(
    export: Export,
    plan: FacesetPlan,
    crops: dict[int, Crop],
    heritage: Heritage,
    names: dict[str, str],
) -> Draft:
    """What a planned set will be: its crops, and what its old self hands down."""
    old = heritage.old.get(plan.name)
    known = {face.face: face.file for face in old.manifest.faces} if old else {}
    faces, refused = [], []
    for row, away, because in zip(plan.rows, plan.distance, plan.kept_because, strict=True):
        crop = crops[int(row)]
        if crop.reason:
            refused.append(left_out(export, row, crop.reason))
        else:
            face = face_entry(export, crop, float(away), because)
            file = known.get(face.face, "")  # a PNG keeps its name as long as they sort by rank
            faces.append((msgspec.structs.replace(face, file=file), crop.png))
    manifest = FacesetManifest(
        **export.head,
        id=plan.name,
        params=export.params,
        quality_terms=list(told_terms(np.zeros(len(QUALITY_TERMS)), export.params.weights)),
        faces=[],
        dropped=[*plan.left, *refused, *plan.gone],
        purity=export.purity.get(plan.name, UNSET),
    )
    broken = plan.folder in heritage.corpus.broken  # its files are all that can be taken over
    lies = old.folder if old else plan.folder if broken else NOWHERE
    draft = Draft(export.out, plan.folder, manifest, names.get(plan.name, UNNAMED), lies)
    if old and old.name == names.get(plan.name) != UNNAMED:
        draft.name = (export.out / lies / "NAME.txt").read_bytes()  # in his encoding
    faces.sort(key=lambda pair: rank_of(pair[0]))
    yours = [face for face in old.faces if face.face.endswith(ADOPTED)] if old else []
    draft.faces = faces + [(face, export.out / lies / face.file) for face in yours]
    return draft


def face_entry(export: Export, crop: Crop, away: float, because: str) -> Face:
    """What a manifest tells of one exported face."""
    cache, row = export.cache, crop.row
    source, photo = export.photo(row)
    file = int(cache.face_file[row])
    taken = export.word.taken.get(file, float(cache.file_taken[file]))
    kind, precision = str(cache.file_taken_kind[file]), str(cache.file_taken_precision[file])
    if file in export.word.taken:
        kind, precision = "decision", ""
    return Face(
        face=cache.face_ids[row],
        file="",
        source=source,
        photo_sha256=photo,
        sha256=crop.note.sha256,
        bbox=[round(value, 1) for value in cache.bbox[row].tolist()],
        taken=None if math.isnan(taken) else taken,
        taken_kind=kind or UNSET,
        taken_precision=precision or UNSET,
        quality=round(float(export.quality[row]), 4),
        terms=told_terms(export.terms[row].round(4), export.params.weights),
        distance=round(away, 4),
        pad=round(crop.note.pad, 3),
        neighbours_painted=crop.note.painted,
        kept_because=because,
        retouched=crop.retouched or UNSET,
        chosen=bool(export.word.best[row]) or UNSET,
    )


def stage_sets(
    run: Run, heritage: Heritage, drafts: Sequence[Draft]
) -> tuple[dict[str, FaceSet], dict[str, dict[str, str]]]:
    """Build the face sets that change; (all sets there will be, notes on those on shelves)."""
    corpus, after, notes = heritage.corpus, dict(heritage.corpus.sets), {}
    drafted = {draft.manifest.id: draft for draft in drafts}
    for faceset in heritage.retired():
        log.info("%s: no longer a face set, moved to %s", faceset.folder, REMOVED_FOLDER)
        run.set_aside(faceset.folder)
        del after[faceset.folder]
    notes |= heritage.merge_notes(drafted)
    renamed = []
    for name, faceset in heritage.old.items():
        draft = drafted.get(name)
        if draft is None and not faceset.shelf:
            run.set_aside(faceset.folder)
            del after[faceset.folder]
        elif draft is not None and draft.folder != faceset.folder:
            run.clear(faceset.folder)
            after.pop(faceset.folder, None)
            notes[draft.folder] = corpus.note(faceset.folder)
            renamed += [
                renamed_era(corpus, era, faceset.id, name) for era in corpus.eras_of(faceset)
            ]
    for draft in renamed:
        run.clear(draft.lies)
        after.pop(draft.lies, None)
        notes[draft.folder] = corpus.note(draft.lies)
    staged = {}
    for draft in [*drafts, *renamed]:
        old = corpus.sets.get(draft.folder)
        fault = old and corpus.exports and companion("consumers").fault_of_set(corpus, old)
        if old is None or fault or not draft.is_like(old):
            staged[draft.folder] = draft, run.place(draft.folder)
            if draft.lies != draft.folder:  # NOWHERE, too
                run.before[draft.folder] = draft.lies
    return after | build_sets(staged, corpus), notes


def renamed_era(corpus: Corpus, era: FaceSet, old: str, new: str) -> Draft:
    """An era of a person whose set gets another number."""
    name = new + era.id.removeprefix(old)
    folder = f"{era.shelf}/{name}" if era.shelf else name
    mark = msgspec.structs.replace(era.manifest.era, of=new)
    manifest = msgspec.structs.replace(era.manifest, id=name, era=mark)
    return Draft(corpus.root, folder, manifest, era.name, era.folder)


# ============================================================================
# Command: bundle
# ============================================================================


def add_bundle_options(p: argparse.ArgumentParser) -> None:
    """Which corpus, and what it is to be written as, or no more."""
    add_corpus_argument(p)
    add_fields(p, ToOptions)
    p.add_argument(
        "--off",
        type=Names("KIND[,KIND...]", EXPORT_KINDS),
        action=Repeated,
        default=[],
        metavar="KIND[,KIND...]",
        help="write these no more, and take away what there is of them",
    )
    add_fields(p, PlanOptions)


def cmd_bundle(args: argparse.Namespace) -> Outcome:
    """write the sets of a corpus for other programs as well"""
    to, off = of_args(ToOptions, args), list(itertools.chain.from_iterable(args.off))
    rules = companion("consumers")
    result = maintain(args, lambda corpus: rules.decide(corpus, to, off))
    with opened_corpus(args.corpus) as corpus:
        return Outcome({**result, "exports": rules.overview(corpus)})


# ============================================================================
# Command: occlusion
# ============================================================================


def add_occlusion_options(p: argparse.ArgumentParser) -> None:
    """The steps: score, look, apply; prepare once where CLIP shall run without torch."""
    steps = {
        "prepare": (add_occlusion_prepare_options, cmd_occlusion_prepare),
        "score": (add_occlusion_score_options, cmd_occlusion_score),
        "report": (add_occlusion_report_options, cmd_occlusion_report),
        "apply": (add_occlusion_apply_options, cmd_occlusion_apply),
        "fit": (add_occlusion_fit_options, cmd_occlusion_fit),
    }
    add_steps(p, steps)


def cmd_occlusion(args: argparse.Namespace) -> Outcome:
    """find masks and sunglasses on exported faces"""
    return args.step_handler(args)


def add_occlusion_score_options(p: argparse.ArgumentParser) -> None:
    """What scores, and who does the work."""
    add_corpus_argument(p)
    p.add_argument(
        "--scorer",
        metavar="NAME|FILE",
        help="net: the small network that comes along; landmarks: colours and edges around the key "
        "points; clip: zero-shot; FILE.onnx: another classifier; FILE.json: of occlusion fit "
        "(default: net, clip where --clip is named)",
    )
    p.add_argument(
        "--clip",
        metavar="NAME/WEIGHTS",
        help=f"open_clip model, or the folder of occlusion prepare (default: {CLIP_MODEL})",
    )
    add_engine_and_work(p, detector=False)


def cmd_occlusion_score(args: argparse.Namespace) -> Outcome:
    """score every face for mask and sunglasses; only new faces are worked on"""
    crew = crew_of(args, False)
    with opened_corpus(args.corpus) as corpus:
        faces = faces_of(corpus.active.values())
        scorer = args.scorer or ("clip" if args.clip else "net")
        if scorer == "clip":
            clip = args.clip or CLIP_MODEL
            name, results = companion("clip_scorer").score_by_clip(corpus, crew, clip)
        else:
            name, results = companion("occlusion_net").score_by_crops(corpus, crew, scorer)
        with contextlib.suppress(OSError):
            os.utime(scores_path(corpus, name))  # apply takes the scores asked for last
        failed = [file for file, sha in faces if sha not in results or results[sha].error]
        for file in failed:
            log.warning("%s: no score", file)
    result = {
        "corpus": str(args.corpus),
        "scores": str(scores_path(corpus, name)),
        "faces": len(faces),
        "without_score": len(failed),
    }
    return Outcome(result, not faces or len(failed) < len(faces))


def add_occlusion_report_options(p: argparse.ArgumentParser) -> None:
    """Which scores to show, against which thresholds."""
    add_corpus_argument(p)
    add_fields(p, VerdictRules)
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the pages (default: CORPUS-occlusion)"
    )
    add_threads(p)


@dataclass(frozen=True)
class VerdictRules:
    """The decision rules of occlusion; the reference's clip-occlusion-filter."""

    scores: str = option(str, "file in _scores (default: the newest)", "", unit="NAME")
    threshold: float = option(SHARE, "from here on a face is occluded", 0.7, unit="P")
    dominance: float = option(SHARE, "of one attribute: _masked", 0.4)
    min_survivors: int = option(COUNT, "with fewer left after losses: _thin", 5)


def cmd_occlusion_report(args: argparse.Namespace) -> Outcome:
    """show the faces sorted by score, with the threshold drawn"""
    with opened_corpus(args.corpus) as corpus:
        scores = load_scores(corpus, args.scores)
        out = args.out or beside(args.corpus, "-occlusion")
        rules = of_args(VerdictRules, args)
        result = companion("pages").occlusion_pages(corpus, scores, rules, out, args.threads)
    return Outcome({"corpus": str(args.corpus), **result})


def add_occlusion_apply_options(p: argparse.ArgumentParser) -> None:
    add_corpus_argument(p)
    add_fields(p, VerdictRules)
    add_fields(p, PlanOptions)


def cmd_occlusion_apply(args: argparse.Namespace) -> Outcome:
    """drop occluded faces; whole sets of masks or sunglasses go to _masked"""
    rules = of_args(VerdictRules, args)

    def decide(corpus: Corpus) -> Decision:
        scores = load_scores(corpus, rules.scores)
        found = [
            occlusion_moves(corpus, faceset, scores, rules) for faceset in corpus.active.values()
        ]
        moves = [move for _, some in found for move in some]
        counts = dict(Counter(verdict for verdict, _ in found))
        params = {**asdict(rules), "scores": scores.name}
        return Decision(moves, params, notes={"scores": scores.name, "verdicts": counts})

    return Outcome(maintain(args, decide))


@dataclass(frozen=True)
class OcclusionScores:
    """One file of scores: P(mask), P(sunglasses) of faces by PNG sha256."""

    name: str
    results: dict[str, Scores]

    def of(self, faceset: FaceSet) -> np.ndarray:
        """(n, 2) float64 of a set's faces, 0 where a face could not be read."""
        width = len(ATTRIBUTES)
        found = (self.results.get(face.sha256) for face in faceset.faces)
        rows = [(scores.scores if scores else None) or [0.0] * width for scores in found]
        return np.array(rows, np.float64).reshape(len(rows), width)


def load_scores(corpus: Corpus, name: str) -> OcclusionScores:
    """Scores of every active face. Raises SortFacesError where some are missing."""
    folder = corpus.root / SCORES_FOLDER
    files = sorted(folder.glob(f"{OCCLUSION_SCORES}*.jsonl"), key=lambda path: path.stat().st_mtime)
    if name:
        files = [path for path in files if path.stem == name.removesuffix(".jsonl")]
    if not files:
        raise SortFacesError(f"{folder / name}: no scores; run occlusion score {corpus.root}")
    results = read_results(files[-1])
    missing = [pair for pair in faces_of(corpus.active.values()) if pair[1] not in results]
    unscored = [file for file, sha in missing if sha256_of_file(corpus.root / file) == sha]
    if unscored:
        raise SortFacesError(
            f"{files[-1]}: faces without a score: {len(unscored)}; "
            f"run occlusion score {corpus.root}"
        )
    for file, _ in missing:
        log.warning("%s: is not the listed PNG, stays; run verify --fix", file)
    return OcclusionScores(files[-1].stem, results)


def occlusion_moves(
    corpus: Corpus, faceset: FaceSet, scores: OcclusionScores, rules: VerdictRules
) -> tuple[str, list[Move]]:
    """(occlusion_verdict, what it means for a face set)."""
    values = scores.of(faceset)
    flagged = values >= rules.threshold
    verdict, what = occlusion_verdict(flagged, rules.dominance, rules.min_survivors)
    attributes = list(ATTRIBUTES)
    if verdict == "masked":
        shares = zip(attributes, flagged.mean(axis=0), strict=True)
        words = ", ".join(f"{100 * share:.0f} % {attribute}" for attribute, share in shares)
        return verdict, [shelve(corpus, faceset, "_masked", words)]
    if verdict == "thin":
        left = int(np.count_nonzero(~what))
        reason = f"{left} of {len(what)} faces are not occluded"
        return verdict, [shelve(corpus, faceset, "_thin", reason)]
    return verdict, [
        drop(faceset, face, attributes[row.argmax()], score=round(float(row.max()), 4))
        for face, row, hidden in zip(faceset.faces, values, what, strict=True)
        if hidden
    ]


def add_occlusion_fit_options(p: argparse.ArgumentParser) -> None:
    """Whose answers, and where the result goes."""
    add_corpus_argument(p)
    p.add_argument(
        "--answers",
        type=Path,
        required=True,
        metavar="FILE.csv",
        help="face, attribute, answer: what you see on faces of the corpus, yes or no",
    )
    p.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="a new file for --scorer"
    )
    add_engine_and_work(p, detector=False)


def cmd_occlusion_fit(args: argparse.Namespace) -> Outcome:
    """fit the network's last layer to your own answers, and check it on answers left out"""
    with opened_corpus(args.corpus) as corpus:
        fit = companion("occlusion_fit").fit
        return Outcome(fit(corpus, crew_of(args, False), args.answers, args.out))


def add_occlusion_prepare_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("out", type=Path, metavar="OUT", help="folder for image.onnx and prompts.npz")
    p.add_argument(
        "--clip",
        default=CLIP_MODEL,
        metavar="NAME/WEIGHTS",
        help="open_clip model and weights, or NAME/FILE (default: %(default)s)",
    )


def cmd_occlusion_prepare(args: argparse.Namespace) -> Outcome:
    """turn an open_clip model into ONNX plus prompt vectors, and compare the two"""
    return Outcome(companion("clip_torch").export_clip(args.clip, args.out))


# ============================================================================
# Command: consolidate
# ============================================================================


def add_consolidate_options(p: argparse.ArgumentParser) -> None:
    """When two sets are one person, and what the operator says to it."""
    add_corpus_argument(p)
    p.add_argument(
        "--edge",
        type=Number(float, -1.0, 1.0, "a cosine from -1 to 1", "COS"),
        metavar="COS",
        help="least cosine between the centroids of any two sets of one person "
        f"(default: {1 - Thresholds.consolidate:.2f}; dlib: {1 - DLIB_THRESHOLDS.consolidate:.2f})",
    )
    p.add_argument(
        "--accept",
        type=Path,
        metavar="FILE",
        help="pairs.json of a review with your answers, yes or no",
    )
    p.add_argument(
        "--review",
        type=Path,
        metavar="DIR",
        help="where pairs.json and the contact sheet of almost-pairs go "
        "(default: CORPUS-consolidate)",
    )
    add_fields(p, PlanOptions)
    add_engine_and_work(p, detector=False)


def cmd_consolidate(args: argparse.Namespace) -> Outcome:
    """merge face sets of the same person, and show the pairs that almost are"""
    review = args.review or beside(args.corpus, "-consolidate")
    noted = read_answers(review / "pairs.json") if (review / "pairs.json").exists() else {}
    accepted = read_answers(args.accept) if args.accept else {}
    answers = {pair: answer for pair, answer in noted.items() if answer == "no"}
    answers |= {pair: answer for pair, answer in accepted.items() if answer}
    blank = {pair for pair, answer in noted.items() if not answer} - answers.keys()

    def decide(corpus: Corpus) -> Decision:
        looker, said = Looker(corpus, crew_of(args, False)), answers
        if corpus.cache is not None and (
            answers or decisions_path(Path(corpus.master.cache)).exists()
        ):
            rules = companion("decisions")
            if not args.dry_run:
                rules.take_answers(corpus, answers, blank)
            said = rules.answers_of(corpus) | answers
        edge = 1.0 - looker.thresholds.consolidate if args.edge is None else args.edge
        moves, pairs = consolidate(corpus, looker, edge, said)
        write_review(corpus, review, pairs, answers, args.threads, chosen_again(args))
        told = [[*pair, answer] for pair, answer in answers.items()]
        params = {"accept": told, "edge": round(edge, 4)}
        return Decision(
            moves, params, notes={"almost": len(pairs), "look_at": str(review / "index.html")}
        )

    return Outcome(maintain(args, decide))


def chosen_again(args: argparse.Namespace) -> list[object]:
    """The options of a review that decide what it shows, for the next run to have them, too."""
    chosen = [] if args.edge is None else ["--edge", args.edge]
    chosen += ["--model", model_source(args.model)] if args.model else []
    return chosen + (["--review", args.review] if args.review else [])


class Pair(Record, kw_only=True):
    """Two face sets that are nearly the same person, and what the operator says to it."""

    a: str  # ids
    b: str
    cosine: float | Maybe = UNSET  # between their centroids
    why: str | Maybe = UNSET
    answer: str | None = ""  # yes, no or nothing


class PairsFile(OwnFile, tag="pairs", kw_only=True):
    """pairs.json of a review."""

    pairs: list[Pair]


def read_answers(path: Path) -> dict[tuple[str, str], str]:
    """{(id, id): yes, no or ""} of a pairs.json. Raises SortFacesError for any other answer."""
    answers = {}
    for number, pair in enumerate(read_file(path, PairsFile).pairs, 1):
        answer = (pair.answer or "").strip().lower()
        if answer not in ("", "yes", "no"):
            raise SortFacesError(f"{path}: pair {number}: answer yes, no or nothing")
        answers[pair.a, pair.b] = answer
    return answers


@dataclass(frozen=True)
class AlmostPair:
    """Two face sets the operator should look at."""

    a: FaceSet
    b: FaceSet
    cosine: float
    why: str


def consolidate(
    corpus: Corpus, looker: Looker, edge: float, answers: dict[tuple[str, str], str]
) -> tuple[list[Move], list[AlmostPair]]:
    """Which sets are one person, and which pairs are close to it.

    Sets the operator gave different names stay apart unless he says yes.
    """
    sets = [faceset for faceset in corpus.active.values() if not faceset.is_era and faceset.faces]
    vectors = looker.vectors(sets)
    sets = [faceset for faceset in sets if vectors[faceset.folder].any()]
    if not sets:
        return [], []
    centres = np.stack([centroid(vectors[faceset.folder]) for faceset in sets])
    cosine = centres @ centres.T
    yes, no = (answer_matrix(sets, answers, wanted) for wanted in ("yes", "no"))
    named = np.array([faceset.name if faceset.name != UNNAMED else "" for faceset in sets])
    differ = (named[:, None] != named) & (named[:, None] != "") & (named != "")
    groups = complete_linkage_groups(cosine, edge, yes, (no | differ) & ~yes)
    moves = []
    label = np.arange(len(sets))
    for rows in groups:
        label[rows] = rows[0]
        moves += merge_moves(corpus, [sets[row] for row in rows], vectors, looker)
    apart = label[:, None] != label
    for a, b in np.argwhere(np.triu(yes & apart, 1)):
        log.warning("%s and %s: your yes meets a no; they stay apart", sets[a].id, sets[b].id)
    pairs = []
    for a, b in np.argwhere(np.triu(apart & ~no & (cosine >= edge - ALMOST_MARGIN), 1)):
        why = "different names" if differ[a, b] else "below the edge"
        why = "not all of their group" if cosine[a, b] >= edge and not differ[a, b] else why
        pairs.append(AlmostPair(sets[a], sets[b], float(cosine[a, b]), why))
    return moves, sorted(pairs, key=lambda pair: -pair.cosine)[:ALMOST_PAIRS]


def answer_matrix(
    sets: Sequence[FaceSet], answers: dict[tuple[str, str], str], wanted: str
) -> np.ndarray:
    """(n, n) bool: the pairs the operator answered so."""
    at = {faceset.id: row for row, faceset in enumerate(sets)}
    matrix = np.zeros((len(sets), len(sets)), dtype=bool)
    for (a, b), answer in answers.items():
        if answer == wanted and a in at and b in at and a != b:
            matrix[at[a], at[b]] = matrix[at[b], at[a]] = True
    return matrix


def merge_moves(
    corpus: Corpus, group: list[FaceSet], vectors: dict[str, np.ndarray], looker: Looker
) -> list[Move]:
    """Unite face sets of one person: the largest stays and takes the best faces of the others."""
    group = sorted(group, key=lambda faceset: (-len(faceset.faces), natural(faceset.folder)))
    survivor, others = group[0], group[1:]
    pool = [(faceset, face, at) for faceset in group for at, face in enumerate(faceset.faces)]
    pool.sort(key=lambda entry: -entry[1].quality)
    unit = np.stack([vectors[faceset.folder][at] for faceset, _, at in pool])
    photos = np.array([face.photo for _, face, _ in pool])
    limits = looker.thresholds
    chosen = choose_faces(unit, photos, limits.outlier, limits.duplicate)
    moves = []
    for row, (faceset, face, _) in enumerate(pool):
        reason, number = chosen.reason[row], round(float(chosen.distance[row]), 4)
        if reason and faceset is survivor:
            reason += " of the merged set" * (reason == OUTLIER)
            moves.append(drop(faceset, face, reason, distance=number))
        elif not reason and faceset is not survivor:
            because = f"merged from {faceset.id}"
            moves.append(copy_into(survivor.folder, faceset, face, because, {"distance": number}))
    centres = {faceset.folder: centroid(vectors[faceset.folder]) for faceset in group}
    for faceset in others:
        cosine = round(float(centres[faceset.folder] @ centres[survivor.folder]), 4)
        because = f"same person as {survivor.id}"
        moves.append(shelve(corpus, faceset, "_merged", because, cosine=cosine))
        eras = corpus.eras_of(faceset)
        moves += [shelve(corpus, era, "_merged", f"era of {faceset.id}, {because}") for era in eras]
    name = next((faceset for faceset in group if faceset.name != UNNAMED), survivor)
    if name is not survivor:
        source, target = (f"{faceset.folder}/NAME.txt" for faceset in (name, survivor))
        reason = f"named in {name.id}"
        moves.append(Move(action="name", source=source, target=target, reason=reason))
    return moves


def write_review(
    corpus: Corpus,
    folder: Path,
    pairs: Sequence[AlmostPair],
    answers: dict[tuple[str, str], str],
    threads: int,
    chosen: Sequence[object],
) -> None:
    """Write pairs.json for the operator's answers, and the pages to answer by.

    chosen: chosen_again.
    """
    path = folder / "pairs.json"
    noted = read_answers(path) if path.exists() else {}
    told = {pair: answer for pair, answer in noted.items() if answer} | answers  # none is ever lost
    new = []
    for pair in pairs:
        both = (pair.a.id, pair.b.id)
        answer = told.pop(both, "") or told.pop(both[::-1], "")
        cosine = round(pair.cosine, 4)
        new.append(Pair(a=both[0], b=both[1], cosine=cosine, why=pair.why, answer=answer))
    old = [Pair(a=a, b=b, answer=answer) for (a, b), answer in told.items()]
    companion("pages").review_pages(corpus, pairs, path, threads, chosen)
    write_file(path, PairsFile(pairs=[*new, *old]))


# ============================================================================
# Command: era
# ============================================================================


def add_era_options(p: argparse.ArgumentParser) -> None:
    steps = {
        "split": (add_era_split_options, cmd_era_split),
        "extend": (add_era_step_options, cmd_era_extend),
    }
    add_steps(p, steps)


def cmd_era(args: argparse.Namespace) -> Outcome:
    """split one person's face set by age"""
    return args.step_handler(args)


def add_era_split_options(p: argparse.ArgumentParser) -> None:
    """What an era is, beside what both steps need."""
    add_era_step_options(p)
    add_fields(p, EraParams)


def add_era_step_options(p: argparse.ArgumentParser) -> None:
    add_corpus_argument(p)
    p.add_argument("faceset", metavar="NAME", help="the face set: its folder or its NAME.txt")
    add_fields(p, PlanOptions)
    add_engine_and_work(p, detector=False)


def cmd_era_split(args: argparse.Namespace) -> Outcome:
    """copy a face set into one set per era of its person's life"""
    params, rule = of_args(EraParams, args), companion("eras")

    def decide(corpus: Corpus) -> Decision:
        faceset = corpus.get(args.faceset)
        eras = [era.manifest.era for era in corpus.eras_of(faceset)]
        if eras and all(rule.is_so_split(era, params) for era in eras):
            log.info("%s: is split like this already", faceset.id)
            return Decision([], {"faceset": args.faceset, **asdict(params)})
        if eras:
            raise SortFacesError(
                f"{faceset.id}: has eras already; use era extend, or restore first"
            )
        looker = Looker(corpus, crew_of(args, False))
        unit = looker.vectors([faceset])[faceset.folder]
        decision = rule.split_decision(faceset, unit, params)
        return replace(decision, params={"faceset": args.faceset, **asdict(params)})

    return Outcome(maintain(args, decide))


def cmd_era_extend(args: argparse.Namespace) -> Outcome:
    """put new faces of a face set into its existing eras"""

    def decide(corpus: Corpus) -> Decision:
        faceset = corpus.get(args.faceset)
        looker = Looker(corpus, crew_of(args, False))
        unit = looker.vectors([faceset])[faceset.folder]
        moves, notes = companion("eras").extend_era_moves(corpus, faceset, unit)
        return Decision(moves, {"faceset": args.faceset}, notes=notes)

    return Outcome(maintain(args, decide))


# ============================================================================
# Command: optimize
# ============================================================================


@dataclass(frozen=True)
class OptimizeOptions:
    """The three passes of `optimize`, each of which can be left out."""

    twin_distance: float = option(COSINE, "near-duplicates within a face set", 0.05)  # cosine .95
    no_bytes: bool = option(bool, "leave byte-identical PNGs of different people alone", False)
    no_near: bool = option(bool, "leave near-duplicates within a face set alone", False)
    no_audit: bool = option(bool, "do not look for PNGs without exactly one face", False)


def add_optimize_options(p: argparse.ArgumentParser) -> None:
    add_corpus_argument(p)
    add_fields(p, OptimizeOptions)
    add_fields(p, PlanOptions)
    add_engine_and_work(p, detector=False)


def cmd_optimize(args: argparse.Namespace) -> Outcome:
    """drop byte duplicates across people, near-duplicates, and PNGs without exactly one face"""
    options, rules = of_args(OptimizeOptions, args), companion("optimize")
    passes = {
        "bytes": not options.no_bytes,
        "near": not options.no_near,
        "audit": not options.no_audit,
    }

    def decide(corpus: Corpus) -> Decision:
        sets = [faceset for faceset in corpus.active.values() if faceset.faces]
        looker = Looker(corpus, crew_of(args, False))
        vectors = looker.vectors(sets) if passes["bytes"] or passes["near"] else {}
        moves: dict[str, Move] = {}  # by the PNG they take away: once is enough
        unseen = 0
        if passes["bytes"]:
            moves |= {move.source: move for move in rules.byte_duplicates(sets, vectors)}
        if passes["audit"]:
            audits = looker.audits(sets)
            found = [move for faceset in sets for _, move in face_count_findings(faceset, audits)]
            unseen = found.count(None)
            moves = {move.source: move for move in found if move is not None} | moves
        if passes["near"]:
            found = rules.near_duplicates(sets, vectors, options.twin_distance, moves)
            moves |= {move.source: move for move in found}
        params = {"passes": passes, "twin_distance": options.twin_distance}
        notes = {"not_looked_at": unseen} if unseen else {}
        return Decision(list(moves.values()), params, notes=notes)

    return Outcome(maintain(args, decide))


# ============================================================================
# Command: arrange
# ============================================================================


FACE_KEYS = ("face", "identity", "yaw", "pitch", "roll", "size", "blur", "quality", "mean-face")
ARRANGE_KEYS = (*FACE_KEYS, "time", "brightness", "saturation", "hue")


@dataclass(frozen=True)
class ArrangeOptions:
    """What `arrange` orders and groups by, and where what it makes goes."""

    by: str = option(("none", *ARRANGE_KEYS), "order of the files; none: names stay", "face")
    group: str = option(
        ("none", *ARRANGE_KEYS), "folders by this; with a number or border alone by --by", "none"
    )
    groups: int | None = option(COUNT, "so many groups; of faces there are as many as people")
    threshold: tuple[str, ...] = option(
        str,
        "border between two groups, a number, of time a date; repeatable; of faces the cosine "
        "distance that parts people",
        (),
        unit="X",
    )
    reference: Path | None = option(
        Path, "identity is measured from these faces (default: from the middle of all)", unit="PATH"
    )
    copy: Path | None = option(Path, "put copies there", unit="DIR")
    in_place: bool = option(bool, "rename the files themselves; restore takes it back", False)
    reverse: bool = option(bool, "the last one first", False)
    subfolders: bool = option(bool, "each sub-folder on its own", False)
    cache: Path | None = option(
        Path, "a cache that knows these pictures, so that none is looked at again", unit="FILE"
    )
    dry_run: bool = option(bool, "say what would be done and stop", False)

    def __post_init__(self) -> None:
        if self.grouped_by == "none" and (self.groups or self.threshold):
            raise SortFacesError("--groups and --threshold: need --group or another --by than none")
        if self.grouped_by == "face" and (self.groups or len(self.threshold) > 1):
            raise SortFacesError("groups by face: takes one --threshold and no --groups")
        if self.copy is not None and self.in_place:
            raise SortFacesError("--copy and --in-place: choose one of them")

    @property
    def grouped_by(self) -> str:
        """The key of the groups; numbers without one mean that of the order."""
        return self.by if self.group == "none" and (self.groups or self.threshold) else self.group


def add_arrange_options(p: argparse.ArgumentParser) -> None:
    """Which pictures, in which order."""
    text = "a folder of crops, a corpus or one of its face sets"
    p.add_argument("folder", type=Path, metavar="FOLDER", help=text)
    add_fields(p, ArrangeOptions)
    add_engine_and_work(p, own_model=f"the cache's, else {EngineSpec.model}")


def cmd_arrange(args: argparse.Namespace) -> Outcome:
    """put crops in order and into groups, by face, pose, sharpness and more"""
    options = of_args(ArrangeOptions, args)
    return Outcome(companion("arrange").arrange(args.folder, options, crew_of(args, True)))


# ============================================================================
# Command: verify
# ============================================================================


@dataclass(frozen=True)
class VerifyOptions:
    """What to look at, and what to do about it."""

    gate: float = model_distance("outlier", "farthest a face may lie from its set's centroid")
    no_faces: bool = option(
        bool, "check files and manifests only, without detector and recogniser", False
    )
    fix: bool = option(
        bool, "write a plan that mends what can be mended (default: to CORPUS-verify.json)", False
    )


def add_verify_options(p: argparse.ArgumentParser) -> None:
    add_corpus_argument(p)
    add_fields(p, VerifyOptions)
    add_fields(p, PlanOptions)
    add_engine_and_work(p, detector=False)


def cmd_verify(args: argparse.Namespace) -> Outcome:
    """check every file of a corpus as the programs that load it will meet it"""
    if args.apply is not None:
        return Outcome(maintain(args, lambda corpus: Decision([])))
    with opened_corpus(args.corpus) as corpus:
        rules, options = companion("verify"), of_args(VerifyOptions, args)
        looker = Looker(corpus, crew_of(args, False))
        found = list(rules.corpus_findings(corpus, options, looker))
        plan = Plan("verify", {}, with_empty_shelved(corpus, rules.mending(found)))
        if (args.fix or args.plan) and not args.dry_run:
            path = args.plan or beside(args.corpus, "-verify.json")
            remove_unfinished_file(path)
            write_file(path, plan_file(plan, corpus))
            apply = own_command("verify", args.corpus, "--apply", path)
            log.info("plan: %s; carry it out: %s", path, apply)
        findings = [finding for finding, _ in found]
        result = {
            "corpus": str(args.corpus),
            "facesets": len(corpus.active),
            "shelved": len(corpus.sets) - len(corpus.active),
            "faces": sum(len(faceset.faces) for faceset in corpus.active.values()),
            "wrong": len(findings),
            "can_be_mended": len(plan.moves),
            "rules": dict(Counter(finding.rule for finding in findings)),
            "findings": [asdict(finding) for finding in findings],
        }
        if not options.no_faces:  # a doubt, and no fault: the exit code does not ask
            result["in_question"] = rules.corpus_doubts(corpus, looker)
    return Outcome(result, not findings)


# ============================================================================
# Command: restore
# ============================================================================


def add_restore_options(p: argparse.ArgumentParser) -> None:
    add_corpus_argument(p)
    p.add_argument(
        "run", nargs="?", metavar="RUN", help="undo back to this run (default: the last)"
    )
    add_dry_run(p)


def cmd_restore(args: argparse.Namespace) -> Outcome:
    """undo maintenance runs, the last first, to the byte"""
    root, undoing, crops = args.corpus, companion("restore"), companion("arrange")
    is_arranged = crops.is_arranged(root)
    with crops.held(root, undoing=True) if is_arranged else held_corpus(root):
        begun = begun_restore(root)
        if begun is None and not is_arranged:
            read_file(root / "manifest.json", SwapManifest)  # what is damaged is not made worse
        elif begun and args.run and not (undoing.is_run(begun[0], args.run) or args.dry_run):
            end_restore(root)
        undo, left = undoing.runs_to_undo(root, args.run)
        run = "" if args.dry_run else undoing.undo_all(root, undo)
    result = {"corpus": str(root), "undone": [folder.name for folder in undo]}
    result |= {"taken_in": run} if run else {}
    return Outcome({**result, "left": [folder.name for folder in left]})


# ============================================================================
# Command: forget
# ============================================================================


@dataclass(frozen=True)
class ForgetOptions:
    """What is to be forgotten: one of person, photo and face."""

    GROUP: ClassVar[str] = "what is forgotten"

    person: str = option(
        str, "a person: a name, faceset_NNN or person_NNN", "", unit="NAME|faceset_NNN"
    )
    photo: str = option(
        str, "a photo with all its copies: a path, or 16 digits and more of its sha256", "",
        unit="PATH|SHA256",
    )  # fmt: skip
    face: str = option(str, "one face, as manifests name it", "", unit="ID")
    keep_out: str = option(
        str,
        "the person once more: refuse new photos, too; one embedding, which is biometric data, is "
        "kept beside the cache for that",
        "",
        unit="NAME",
    )


def add_forget_options(p: argparse.ArgumentParser) -> None:
    """What to forget, where, and who looks at what is left."""
    p.add_argument(
        "outs", nargs="+", type=Path, metavar="OUT",
        help="folders the tool wrote, or one that holds them: trees, corpora, video work, clips",
    )  # fmt: skip
    p.add_argument(
        "--cache", type=Path, required=True, metavar="FILE", help="the cache they are made from"
    )
    add_fields(p, ForgetOptions)
    text = "what the closing scan finds (default: CACHE.forget-report.json)"
    p.add_argument("--report", type=Path, metavar="FILE", help=text)
    add_fields(p, PlanOptions)
    add_engine_and_work(p, detector=False)


def cmd_forget(args: argparse.Namespace) -> Outcome:
    """remove a person, a photo or a face from all that was made, and prove it by a scan"""
    where = ForgetPaths(args.outs, args.cache, args.report)
    what, how = of_args(ForgetOptions, args), of_args(PlanOptions, args)
    return companion("forget").forget(where, what, how, crew_of(args, False))


@dataclass(frozen=True)
class ForgetPaths:
    """Where to forget, and where to tell about it."""

    outs: list[Path]
    cache: Path
    report: Path | None


# ============================================================================
# Command: report
# ============================================================================


def add_report_options(p: argparse.ArgumentParser) -> None:
    """What to show, where to, and from which cache."""
    p.add_argument("path", type=Path, metavar="PATH", help="a raw, refined or swap-ready output")
    text = "folder of the pages (default: PATH-report)"
    p.add_argument("--out", type=Path, metavar="DIR", help=text)
    text = "the cache the faces come from (default: the one its manifest names)"
    p.add_argument("--cache", type=Path, metavar="FILE", help=text)
    add_threads(p)


def cmd_report(args: argparse.Namespace) -> Outcome:
    """show an output as HTML pages: every person, every face, what was left out and why"""
    out = args.out or beside(args.path, "-report")
    return Outcome(companion("pages").report_pages(args.path, out, args.cache, args.threads))


# ============================================================================
# Command: review
# ============================================================================


def listen_address(text: str) -> str:
    """The type of --listen: one address of this machine."""
    import ipaddress

    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text)
        if not address.is_unspecified:
            return str(address)
    raise argparse.ArgumentTypeError(f"{text!r} is not one address of this machine")


def add_review_options(p: argparse.ArgumentParser) -> None:
    """What to review, and who may see the page."""
    p.add_argument("path", type=Path, metavar="CACHE|OUT", help="a cache or an output of it")
    port = Number(int, 1024, 65535, "a port from 1024 to 65535", "N")
    text = "serve on this port (default: the one of the last time, else a free one)"
    p.add_argument("--port", type=port, metavar="N", help=text)
    text = "only print the address"
    p.add_argument("--no-browser", action="store_true", help=text)
    text = "serve on this address as well, unencrypted (default: only this machine gets in)"
    p.add_argument("--listen", type=listen_address, metavar="ADDRESS", help=text)


def cmd_review(args: argparse.Namespace) -> Outcome:
    """look through the people in a browser and set right what is wrong, with undo"""
    return companion("review/review").cmd_review(args)


# ============================================================================
# Command: decisions
# ============================================================================


def add_decisions_options(p: argparse.ArgumentParser) -> None:
    """What to do with what the operator has said of a library."""
    steps = {
        "list": (add_cache_argument, cmd_decisions_list),
        "undo": (add_decisions_undo_options, cmd_decisions_undo),
        "redo": (add_decisions_undo_options, cmd_decisions_redo),
        "import": (add_decisions_import_options, cmd_decisions_import),
        "export": (add_decisions_export_options, cmd_decisions_export),
        "from-faces": (add_decisions_from_faces_options, cmd_decisions_from_faces),
    }
    add_steps(p, steps)


def cmd_decisions(args: argparse.Namespace) -> Outcome:
    """show, take back and exchange what you have said of a library"""
    return args.step_handler(args)


def cmd_decisions_list(args: argparse.Namespace) -> Outcome:
    """show every decision, and which contradict each other"""
    return Outcome(companion("decisions").told(args.cache))


def add_decisions_undo_options(p: argparse.ArgumentParser) -> None:
    add_cache_argument(p)
    text = "the act, as list calls it (default: the last one)"
    p.add_argument("act", nargs="?", metavar="ACT", help=text)
    text = "all that came from one source instead: tags, or a word of the author list shows"
    p.add_argument("--source", metavar="WORD", help=text)


def cmd_decisions_undo(args: argparse.Namespace) -> Outcome:
    """take a decision back; it stays in the file"""
    there = companion("decisions")
    return Outcome(by_act_or_source(args, there.undo, there.undo_source))


def cmd_decisions_redo(args: argparse.Namespace) -> Outcome:
    """let a decision that was taken back count again"""
    there = companion("decisions")
    return Outcome(by_act_or_source(args, there.redo, there.redo_source))


def by_act_or_source(
    args: argparse.Namespace, of_act: Callable[..., Any], of_source: Callable[..., Any]
) -> Any:
    """What comes of an act or of all that came from a --source; one of them is named."""
    if args.source is None:
        return of_act(args.cache, args.act)
    if args.act:
        raise SortFacesError("name an act or a --source, not both")
    return of_source(args.cache, args.source)


def add_decisions_import_options(p: argparse.ArgumentParser) -> None:
    add_cache_argument(p)
    text = "CSV or JSON: a row a face with path or sha256, its box and a name (docs/decisions.md)"
    p.add_argument("file", nargs="?", type=Path, metavar="FILE", help=text)
    text = "read what new and changed photos say, as `embed` does (docs/sources.md)"
    p.add_argument("--from-photos", action="store_true", help=text)
    add_dry_run(p)


def cmd_decisions_import(args: argparse.Namespace) -> Outcome:
    """take in names of faces from another program, or decisions from another machine"""
    if args.from_photos == (args.file is not None) or (args.from_photos and args.dry_run):
        raise SortFacesError("name a FILE, or say --from-photos, which has no dry run")
    if args.from_photos:
        with locked_cache(args.cache):
            return Outcome(companion("sources_word").take_in(args.cache) or {"tagged_faces": 0})
    found = companion("decisions_exchange").take_in(args.cache, args.file, args.dry_run)
    return Outcome(found, not found["not_found"])


def add_decisions_export_options(p: argparse.ArgumentParser) -> None:
    add_cache_argument(p)
    p.add_argument("file", type=Path, metavar="FILE", help="NAME.json or NAME.csv")


def cmd_decisions_export(args: argparse.Namespace) -> Outcome:
    """write the decisions that count, for another machine or program"""
    return Outcome(companion("decisions_exchange").write_out(args.cache, args.file))


@dataclass(frozen=True)
class FromFacesOptions:
    """How a folder of crops is read back."""

    all: bool = option(
        bool, "drop what is missing of every set, however few of its faces are there", False
    )
    dry_run: bool = option(bool, "say what would be done and stop", False)


def add_decisions_from_faces_options(p: argparse.ArgumentParser) -> None:
    """Which crops, and of which corpus."""
    add_cache_argument(p)
    add_corpus_argument(p)
    text = "crops of its face sets as you have sorted and thinned them out"
    p.add_argument("folder", type=Path, metavar="FOLDER", help=text)
    add_fields(p, FromFacesOptions)
    add_engine_and_work(p, detector=False)


def cmd_decisions_from_faces(args: argparse.Namespace) -> Outcome:
    """read back a folder of crops that you have thinned out or sorted by hand"""
    options, there = of_args(FromFacesOptions, args), companion("from_faces")
    found = there.take_in(args.cache, args.corpus, args.folder, crew_of(args, False), options)
    return Outcome(found, not found["unknown"])


# ============================================================================
# Command: video
# ============================================================================
# WORK holds what each step leaves for the next: videos.json (scan), scenes/ (scenes), queue.json
# (stage), results.jsonl (detect), frames.npz (merge), tracks.json (track), plan.json (score and
# cut), people.json (score), clips.jsonl (cut), report/ (report). docs/video.md describes them.

CHUNK_SAMPLES = 64  # frames per queue item; what is lost when a worker dies
SAME_VIDEO = "the same video as"  # why a file is left out, and no fault
REPORT_FRAMES = 5  # thumbnails per strip
CLIP_SPACE = "6f1c2f0e-8e0b-5d0a-9d3b-3a3b1f6f7c11"  # of the names of clips


def pattern(text: str) -> re.Pattern[str]:
    """An argparse type: a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


@dataclass(frozen=True)
class VideoChoice:
    """Which videos of the input folder."""

    GROUP: ClassVar[str] = "videos"

    filter_from: str = option(str, "only files whose name is NAME or later", "", unit="NAME")
    skip_pattern: re.Pattern[str] | None = option(
        pattern, "no files whose name this regular expression finds", unit="REGEX"
    )


@dataclass(frozen=True)
class Sampling:
    """How often a film is looked at; the reference's `stage`."""

    sample_rate: float = option(
        PER_SECOND, "frames per second looked at, fewer where nothing changes", 2.0
    )
    every_sample: bool = option(bool, "look at all of them, whatever changes", False)
    no_pad_retry: bool = option(
        bool,
        "do not look again with a border where no face is found, for faces that fill the picture",
        False,
    )


@dataclass(frozen=True)
class Decoding:
    """What decodes films."""

    hwaccel: str = option(
        str,
        "decode films on this kind of device (cuda, qsv, vaapi, videotoolbox, ...), where PyAV "
        "and the machine have it; default: on the CPU",
        "",
        unit="KIND",
    )
    network: Any = None  # transnet.Network, of soft_cuts
    soft_cuts: Path | None = option(
        Path,
        "TransNetV2 as ONNX: asked as well where a dissolve or a fade may be; see docs/video.md",
        unit="MODEL.onnx",
    )


faceset_option = functools.partial(option, Path, default=(), unit="FACESET")


@dataclass(frozen=True)
class IdentityChoice:
    """Whose segments are kept."""

    GROUP: ClassVar[str] = "identity"

    identity: tuple[Path, ...] = faceset_option(
        "keep only segments with this person: a .fsz, a folder of crops, or with --corpus the name "
        "of a face set; repeatable"
    )
    exclude_identity: tuple[Path, ...] = faceset_option(
        "drop segments in which this person is seen; repeatable"
    )
    identity_distance: float = model_distance("candidate", "farthest a track may be")


who_option = functools.partial(option, str, default=(), unit="NAME")


@dataclass(frozen=True)
class ClipChoice:
    """Which segments become clips: by whom they show, and by how well they suit a swap.

    A NAME is that of an --identity or a face set of the corpus, or an id of the page.
    """

    GROUP: ClassVar[str] = "which clips"

    corpus: Path | None = option(
        Path, "swap-ready folder whose face sets say what people are called", unit="READY"
    )
    only: tuple[str, ...] = who_option(
        "only clips in which nobody is seen but this person, by name or by the id on the page; "
        "repeatable: nobody but these"
    )
    with_: tuple[str, ...] = who_option(
        "only clips in which this person is seen, too; repeatable", name="with"
    )
    without: tuple[str, ...] = who_option("no clips in which this person is seen; repeatable")
    alone: bool = option(bool, "only clips in which one person is seen, whoever it is", False)
    max_faces: int = option(ANY_COUNT, "most faces in a frame, known or not; 0: any", 0)
    occlusion: str = option(
        ("off", "rank", "drop"),
        "look for masks and sunglasses in a few frames of each segment, and let them count for its "
        "rank; drop: and no clips whose face they hide",
        "off",
    )
    top: int = option(ANY_COUNT, "only the best N clips; 0: all", 0)
    total: float = option(
        AT_LEAST_0, "only the best clips that fit in so many; 0: all", 0.0, unit="MINUTES"
    )


@dataclass(frozen=True)
class ClipOptions:
    """How clips are made."""

    GROUP: ClassVar[str] = "clips"

    cut: str = option(
        ("copy", "smart", "encode"),
        "copy whole packets from the key frame before; smart: encode up to the next key "
        "frame and copy the rest; encode everything",
        "smart",
    )
    compatible: bool = option(
        bool, "make clips that everything plays: 8-bit 4:2:0 H.264 with AAC sound", False
    )
    write_sidecar: bool = option(bool, "write what plan.json says of a clip beside it, too", False)
    dry_run: bool = option(bool, "say what would be done and stop", False)

    @property
    def asked(self) -> str:
        """How a clip is to be made, as its line of clips.jsonl remembers it."""
        return f"{self.cut}, compatible" if self.compatible else self.cut


LIST_KINDS = ("edl", "otio", "fcpxml", "csv", "concat", "chapters")  # work/clip_lists.py


@dataclass(frozen=True)
class ListOptions:
    """In which forms the plan is handed to other programs."""

    GROUP: ClassVar[str] = "lists"

    to: tuple[str, ...] = option(
        Names("KIND[,KIND...]", LIST_KINDS),
        f"which lists: {', '.join(LIST_KINDS)} (default: all)",
        (),
    )
    order: str = option(
        ("time", "rank"), "of the clips: as in the films, or the best first", "time"
    )
    in_file: bool = option(bool, "also copy each film, with its clips as chapters", False)


class WorkHead(OwnFile, tag="videos", kw_only=True):
    """Of videos.json what tells whose work folder it is."""

    input: str  # folder of videos, or one video


class Scanned(Record):
    """What `scan` found in one file: a usable video, or why it is none."""

    path: str
    facts: Video | None = None
    error: str = ""


class VideoList(WorkHead, tag="videos", kw_only=True):
    """The videos of a folder, usable or not, in the order of their paths."""

    videos: list[Scanned]


class Stretch(Record, omit_defaults=True):
    """Frames of a video to look at, near each other: an item of the queue."""

    video: PlainName  # id
    path: str
    pts: Annotated[list[Pts], msgspec.Meta(min_length=1)]  # rising
    sar: PositiveAmount
    joined: Joined | None = None
    padded: list[Pts] = []  # of those the ones looked at with a border, too


class Staged(OwnFile, tag="staged", kw_only=True):
    """The frames to look at, as far as that follows from what is known of them."""

    rate: PositiveAmount  # frames per second looked at
    every_sample: bool = True  # as Sampling says
    no_pad_retry: bool = True
    items: list[Stretch]

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.rate, self.every_sample, self.no_pad_retry)


class FrameMeta(Record, kw_only=True):
    """Which models looked at frames, and how; of a CacheMeta what concerns them."""

    rate: float = 0.0  # frames per second looked at; 0 while they are not gathered
    schema: int = CACHE_SCHEMA
    tool: str = TOOL
    version: str = VERSION
    model: str
    model_source: str = ""  # what --model has to say to name it
    recognizer: str
    dim: PositiveInt  # of an embedding
    det_size: int  # px
    det_threshold: float
    roots: list[str] = []


FACE_FLOATS = 20  # of a face of a frame beside its embedding


class SeenFace(Record):
    """A face of a frame, in upright pixels."""

    bbox: tuple[float, float, float, float]
    det_score: float
    pose: packed(3)  # degrees
    embedding: bytes  # float32
    look: packed(2) | None = None  # light and sharpness; this and kps: None in older results
    kps: packed(5, 2) | None = None

    def measured(self) -> bytes:
        """bbox, score, pose, look, kps: FACE_FLOATS float32, NaN where not known."""
        unknown = np.full(FACE_FLOATS, np.nan, "<f4").tobytes()
        parts = (
            np.array([*self.bbox, self.det_score], "<f4").tobytes(),
            self.pose,
            self.look,
            self.kps,
        )
        return b"".join(
            part or unknown[: 4 * n] for part, n in zip(parts, (5, 3, 2, 10), strict=True)
        )


class FrameLine(Record):
    """A line of results.jsonl: what was found in one frame. The first tells of the models."""

    id: str  # frame_name
    meta: FrameMeta | None = None
    failed: str | None = None
    wh: tuple[int, int] | None = None  # px; upright
    padded: bool = False  # looked at with a border, too
    faces: list[SeenFace] = []


class TrackedVideo(Record):
    """Of a video what `score` needs."""

    path: str
    fps: Amount
    start: Pts
    tick: PositiveAmount  # s per pts
    scenes: int


class Tracks(OwnFile, tag="tracks", kw_only=True):
    """All that `score` needs."""

    period: PositiveAmount  # s between the frames looked at
    meta: FrameMeta
    reach: Reach | None = None
    videos: dict[str, TrackedVideo]
    tracks: list[Track]

    def __post_init__(self) -> None:
        dim = self.meta.dim
        if any(t.video not in self.videos or t.centre.shape != (dim,) for t in self.tracks):
            raise ValueError("a track is of an unlisted video or another model")

    def save(self, path: Path) -> None:
        """Write it on one line: it is mostly numbers."""
        head = as_json(msgspec.structs.replace(self, tracks=[]))
        data = {"tool": TOOL, **head, "tracks": [track_json(track) for track in self.tracks]}
        write_bytes(path, json.dumps(data).encode())


def track_json(track: Track) -> dict[str, Any]:
    """A track as tracks.json holds it; an unknown pose is null."""
    known = {
        name: [
            [v if math.isfinite(v) else None for v in row] for row in getattr(track, name).tolist()
        ]
        for name in ("pose", "look")
    }
    told = {**as_json(track), **known, "centre": pack_floats(track.centre)}
    if not np.isfinite(track.look).any():  # of frames that an older version looked at
        del told["look"]
    return told


class Checked(Record):
    """What decoding a written clip has shown."""

    first_frame: int  # number of its first frame in the source
    start: float  # s; of that frame
    frames: int
    last_time: float  # s; of the last frame, in the source
    duration: float  # s
    difference: float  # mean grey levels between its frames and the source's, at most
    changes: tuple[float, ...] = ()  # s; where it shows another scene, though it should not
    fault: str = ""  # a clip with one is not kept


FrameBox = tuple[float, float, float, float]  # upright pixels of a frame


class PlannedClip(Record):
    """A segment of the plan; what became of it is there once it was cut."""

    uuid: PlainName
    video: PlainName
    source: str
    start: Amount  # s
    end: Amount  # s
    pts: tuple[Pts, Pts]  # of the first frame, and from where on frames are beyond
    frames: tuple[int, int]  # numbers at the average rate
    tracks: list[str]
    identity: list[str]  # what the people of its tracks are called
    quality: dict[str, int | float]  # medians, and the mean score
    strip: list[Amount]  # s; of its thumbnails
    boxes: list[list[FrameBox]] = []  # of its faces in each of them
    people: list[str] = []  # ids of people.json: all that are seen in it, the longest first
    envelope: dict[str, tuple[float | None, float | None]] = {}  # median and worst; None unknown
    terms: dict[str, float] = {}  # of what it is expected to be worth to a swap, each 0 to 1
    expected: float = 0.0  # their product
    rank: int = 0  # 1 is the best of the plan; 0 in plans of before there was one
    clip: str | msgspec.UnsetType | None = msgspec.UNSET  # its file below OUT; None: failed
    mode: str | msgspec.UnsetType = msgspec.UNSET
    fallback: str | msgspec.UnsetType = msgspec.UNSET
    checked: Checked | msgspec.UnsetType = msgspec.UNSET
    notes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET  # what of the source it lacks
    failed: str | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.clip and msgspec.UNSET in (self.mode, self.fallback, self.checked):
            raise ValueError("a clip, but not how it was made")

    def cut(self, **facts: Any) -> PlannedClip:
        """The segment with what became of it now; of an earlier try nothing is left."""
        late = ("clip", "mode", "fallback", "checked", "notes", "failed")
        return msgspec.structs.replace(self, **{**dict.fromkeys(late, msgspec.UNSET), **facts})


class LeftOut(Record):
    """A track, or a segment, that becomes no clip."""

    name: PlainName
    video: PlainName
    start: Amount  # s
    end: Amount  # s
    reason: str
    strip: list[Amount]
    boxes: list[list[FrameBox]] = []


class ClipPlan(OwnFile, tag="segments", kw_only=True):
    """The segments that become clips, and what is left out."""

    gates: Gates
    identities: dict[str, dict[str, str | float]]  # whom it was made for: file, distance
    segments: list[PlannedClip]
    rejected: list[LeftOut]
    out: str | msgspec.UnsetType = msgspec.UNSET  # where it was last cut to

    def __post_init__(self) -> None:
        if not self.out and any(segment.clip for segment in self.segments):
            raise ValueError("clips, but not where they are")


class Person(Record, kw_only=True):
    """Tracks of one person through scenes and films."""

    id: PlainName
    name: str = ""  # of whom it resembles: a face set of the corpus, or an --identity
    faceset: str = ""  # the id of that set
    distance: float | None = None  # cosine, to it
    seconds: Amount  # in sight
    videos: int
    tracks: list[str]
    face: tuple[PlainName, Amount, FrameBox]  # the clearest: video, s, box
    centre: bytes  # float32 of length 1; mean direction


class People(OwnFile, tag="people", kw_only=True):
    """Who is seen in the films, the longest seen first."""

    recognizer: str
    corpus: str = ""  # whose sets gave names
    people: list[Person]


class Identities(OwnFile, tag="identities", kw_only=True):
    """Embeddings of the pictures that identities were given by."""

    recognizer: str
    faces: dict[str, bytes]  # sha256 of a picture: float32 embedding of its face, "" if none


FRAME_ARRAYS = ("video", "pts", "bbox", "det", "pose", "embedding", "look", "kps")
LATER_ARRAYS = {"look": (2,), "kps": (5, 2)}  # what older results lack, and its shape in a row


@dataclass(frozen=True)
class Frames:
    """The faces of all frames, one a row."""

    meta: FrameMeta
    video: np.ndarray  # (n,) its id
    pts: np.ndarray  # (n,) int64
    bbox: np.ndarray  # (n, 4) float32 upright pixels
    det: np.ndarray  # (n,) float32 in [0, 1]
    pose: np.ndarray  # (n, 3) float32 degrees; NaN unknown
    embedding: np.ndarray  # (n, d) float32
    look: np.ndarray  # (n, 2) float32 light and sharpness; NaN unknown
    kps: np.ndarray  # (n, 5, 2) float32 upright pixels; NaN unknown

    def take(self, rows: np.ndarray | slice) -> Frames:
        return replace(self, **{name: getattr(self, name)[rows] for name in FRAME_ARRAYS})

    def save(self, path: Path) -> None:
        """Write all of it to a .npz."""
        arrays = {name: getattr(self, name) for name in FRAME_ARRAYS}
        with writing(path) as part, open(part, "wb") as stream:
            np.savez(stream, meta=np.array(json.dumps(as_json(self.meta))), **arrays)

    @classmethod
    def load(cls, path: Path) -> Frames:
        """What `save` has written. Raises SortFacesError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                meta = as_record(FrameMeta, json.loads(str(archive["meta"])))
                n = len(archive["video"])
                unknown = {k: np.full((n, *row), np.nan) for k, row in LATER_ARRAYS.items()}
                found = {**unknown, **{k: archive[k] for k in archive.files}}
            frames = cls(meta, *(found[name] for name in FRAME_ARRAYS))
            shapes = [(n,), (n,), (n, 4), (n,), (n, 3), (n, meta.dim), (n, 2), (n, 5, 2)]
            if [getattr(frames, name).shape for name in FRAME_ARRAYS] != shapes or meta.rate <= 0:
                raise ValueError("its arrays do not fit together")
        except (*npz_errors(), msgspec.ValidationError) as error:
            raise SortFacesError(
                f"{path}: cannot be read ({one_line(error)}); run `video merge` again"
            ) from None
        return frames


WORK_FILES: dict[type, tuple[str, str]] = {  # (name, the step that writes it)
    VideoList: ("videos.json", "scan"),
    Staged: ("queue.json", "stage"),
    Frames: ("frames.npz", "merge"),
    Tracks: ("tracks.json", "track"),
    ClipPlan: ("plan.json", "score"),
    People: ("people.json", "score"),
    Identities: ("identities.json", "score"),
}


STEP_FILES = {  # what each step leaves, and the steps whose files it reads
    "scan": ("videos.json",),
    "scenes": ("scenes", "scan"),
    "stage": ("queue.json", "scenes"),
    "detect": ("results.jsonl", "stage"),
    "merge": ("frames.npz", "stage", "detect"),
    "track": ("tracks.json", "merge"),
    "score": ("plan.json", "track"),
}
WorkFile = TypeVar("WorkFile")


class VideoWork:
    """The work folder of one input folder; what is written to a draft of it stays in memory."""

    def __init__(self, folder: Path, draft: bool = False) -> None:
        self.folder, self.draft = folder, draft
        self.drafts: dict[type, Any] = {}
        self.results = folder / "results.jsonl"  # what FrameLog writes
        self.clips = folder / "clips.jsonl"  # WrittenClip a line
        self.report = folder / "report"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; one that is not there is not made, its steps say what is missing."""
        if self.draft or not self.folder.is_dir():
            yield
            return
        with locked(self.folder / LOCK_NAME, f"work folder {self.folder}"):
            remove_unfinished(self.folder)
            yield

    def path(self, kind: type) -> Path:
        return self.folder / WORK_FILES[kind][0]

    def read(self, kind: type[WorkFile]) -> WorkFile:
        """One of the WORK_FILES."""
        if kind in self.drafts:
            return self.drafts[kind]
        path = needed(self.path(kind), WORK_FILES[kind][1])
        try:
            return kind.load(path) if hasattr(kind, "load") else read_file(path, kind)
        except SortFacesError:
            if kind is VideoList:
                head_of(path)  # where that is lost `scan` cannot mend it
            raise

    def write(self, content: Any) -> None:
        """Write one of them."""
        path = self.path(type(content))
        if self.draft:
            self.drafts[type(content)] = content
        elif hasattr(content, "save"):
            content.save(path)
        else:
            write_file(path, content)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for a while, where a worker finds it, too."""
        place = None if self.draft else self.folder
        with tempfile.TemporaryDirectory(dir=place, prefix=PART_PREFIX) as folder:
            yield Path(folder)

    def list_videos(self) -> list[Video]:
        """The usable videos, in the order of their paths."""
        return [entry.facts for entry in self.read(VideoList).videos if entry.facts]

    def scene_file(self, video: Video) -> Path:
        return place_in(self.folder, f"scenes/{video.id}.json")

    def pass_log(self, video: Video, network: Any) -> Any:
        """How far the decode of a video has come (film_pass.PassLog)."""
        path = self.scene_file(video).with_suffix(".part.jsonl")
        return companion("film_pass").PassLog(path, network.name if network else "")

    def scenes_of(self, video: Video) -> Scenes | None:
        """Scenes and frame times of a video; None while they are not known, or damaged."""
        return read_if_sound(self.scene_file(video), Scenes)


def needed(path: Path, step: str) -> Path:
    """A file of a work folder that an earlier step writes."""
    if not path.exists():
        first = first_to_run(path.parent, step)
        also = "" if first == step else f" to `{step}`"
        raise SortFacesError(f"{path}: not found; run `video {first}`{also} first")
    return path


def first_to_run(folder: Path, step: str) -> str:
    """The step to begin with in a work folder so that `step` finds what it reads."""
    for before in STEP_FILES[step][1:]:
        if not (folder / STEP_FILES[before][0]).exists():
            return first_to_run(folder, before)
    return step


def head_of(path: Path) -> WorkHead:
    """Whose work folder it is. Raises SortFacesError where videos.json does not tell."""
    head = read_if_sound(path, WorkHead)
    if head is None:
        raise SortFacesError(f"{path}: is damaged; use another work folder, or remove this one")
    return head


def scan_videos(
    work: VideoWork, source: Path, choice: VideoChoice, required: bool = False
) -> Outcome:
    """list the videos of a folder and what they are"""
    if not source.exists():
        raise SortFacesError(f"{source}: no such file or folder; name a folder of videos")
    root = source.resolve()
    known, skip = known_entries(work, str(root)), choice.skip_pattern
    found = [
        path
        for path in find_videos(root)
        if path.name >= choice.filter_from and not (skip and skip.search(path.name))
    ]
    if not found:
        raise SortFacesError(f"{source}: no videos found there; name a folder that holds some")
    entries: list[Scanned] = []
    ids: dict[str, str] = {}
    for path in map(str, progress(found, len(found), "scan")):
        entry = scan_video(path, known.get(path))
        same = ids.setdefault(entry.facts.id, path) if entry.facts else path
        if same != path:
            entry = Scanned(path, error=f"{SAME_VIDEO} {same}")
        if entry.error:
            log.warning("%s: %s", path, entry.error)
        entries.append(entry)
    work.write(VideoList(input=str(root), videos=entries))
    usable = work.list_videos()
    left_out = [f"{entry.path}: {entry.error}" for entry in entries if entry.error]
    if required and not usable:
        raise SortFacesError(f"{source}: no usable video; {left_out[0]}")
    hours = round(sum(video.duration for video in usable) / 3600, 2)
    result = {"work": str(work.folder), "videos": len(usable), "hours": hours}
    return Outcome({**result, "left_out": left_out}, bool(usable))


def known_entries(work: VideoWork, root: str) -> dict[str, Video]:
    """{path: facts} of an earlier scan. Raises SortFacesError if the folder is not for `root`."""
    path = work.path(VideoList)
    if not path.exists():
        others = [work.results, work.clips, work.report, *map(work.path, WORK_FILES)]
        for file in filter(Path.exists, others):
            raise SortFacesError(
                f"{work.folder}: holds {file.name} of something else; use another work folder"
            )
        return {}
    head = head_of(path)
    if head.input != root:
        raise SortFacesError(
            f"{work.folder}: belongs to the videos in {head.input}; use another work folder"
        )
    old = read_if_sound(path, VideoList)  # of a damaged one all is looked at anew
    return {entry.path: entry.facts for entry in old.videos if entry.facts} if old else {}


def find_videos(root: Path) -> list[Path]:
    """All files below a folder that are named like videos, in path order; or the one file."""
    missed = ScanReport()
    names = (path for path, _ in walk_files(str(root), set(), missed))
    found = [Path(name) for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES]
    for line in missed.unreadable:
        log.warning("%s", line)
    return [root] if root.is_file() else sorted(found)


def scan_video(path: str, known: Video | None) -> Scanned:
    """What is in one file; it is opened only where it is not the `known` one."""
    film_reading = companion("film_reading")
    try:
        with film_reading.film_faults():
            now = os.stat(path)
            if known is None or (known.size, known.mtime_ns) != facts_of(now):
                known = film_reading.video_facts(path, *facts_of(now))
        return Scanned(path, known)
    except VideoError as error:
        return Scanned(path, error=str(error))


def find_scenes(
    work: VideoWork,
    decoding: Decoding,
    sampling: Sampling = Sampling(),
    crew: Crew | None = None,
) -> Outcome:
    """find the cuts of every video; cached in WORK/scenes"""
    companion("hardware").accelerator(decoding.hwaccel)  # refuses what is not offered
    if decoding.soft_cuts:
        decoding = replace(decoding, network=companion("transnet").load(decoding.soft_cuts, crew))
    if crew is None or crew.elsewhere:
        return pass_over_videos(work, decoding, sampling, None)
    with contextlib.closing(FrameLog(work.results, crew)) as frames:  # one decode finds faces, too
        frames.begin()
        return pass_over_videos(work, decoding, sampling, frames)


def pass_over_videos(
    work: VideoWork, decoding: Decoding, sampling: Sampling, frames: FrameLog | None
) -> Outcome:
    """Decode every video once whose scenes are not known; with `frames` look for faces, too."""
    videos, failed, rate = work.list_videos(), [], sampling.sample_rate
    todo = videos_to_decode(work, decoding)
    ahead = frames and companion("film_ahead").LookAhead(frames, sampling)
    passed, label = decode_videos(work, todo, rate, ahead, failed, decoding), "scenes"
    if ahead is not None:
        passed, label = ahead.look(passed), "decode and detect"
    for _ in progress(passed, round(sum(video.duration for video in todo) * rate), label):
        pass
    known = [scenes for scenes in map(work.scenes_of, videos) if scenes]
    result = {
        "videos": len(known),
        "decoded": len(todo) - len(failed),
        "scenes": sum(len(scenes.scenes) for scenes in known),
        "failed": failed,
        **({} if frames is None else {"frames": frames.counts["frames"]}),
    }
    return Outcome(result, bool(known) and not failed)


def videos_to_decode(work: VideoWork, decoding: Decoding) -> list[Video]:
    """Those whose scenes are not known, or were found with another --soft-cuts."""
    model = companion("transnet").name_of(decoding.soft_cuts) if decoding.soft_cuts else ""
    known = [(video, work.scenes_of(video)) for video in work.list_videos()]
    others = sum(scenes is not None and scenes.soft_cuts != model for _, scenes in known)
    if others:
        log.warning("%s: %d films have scenes of another --soft-cuts", work.folder, others)
    return [video for video, scenes in known if scenes is None or scenes.soft_cuts != model]


Sample = tuple[Video, int, Any]  # (video, pts, upright picture unless it is known)


def decode_videos(
    work: VideoWork,
    todo: list[Video],
    rate: float,
    ahead: Any,
    failed: list[str],
    decoding: Decoding,
) -> Iterator[Sample]:
    """The sampled frames of videos; the scenes of each are written once it is through.

    Pictures only where `ahead` (film_ahead.LookAhead) is there to choose among them. failed:
    collects what cannot be decoded.
    """
    film_reading, film_pass = companion("film_reading"), companion("film_pass")
    skip = None if ahead is None else lambda _: False
    for video in todo:
        try:
            known = work.pass_log(video, decoding.network)
            with film_reading.film_faults(), contextlib.closing(known) as so_far:
                video = checked_source(video)
                once = film_pass.VideoPass(video, rate, skip, so_far, decoding.network)
                once.hwaccel = decoding.hwaccel
                if ahead is not None:
                    ahead.begin(once)
                for pts, image in once.samples():
                    yield video, pts, image
                scenes = once.result()
        except VideoError as error:
            log.warning("%s: %s", video.path, error)
            failed.append(f"{video.path}: {error}")
            continue
        if scenes.error:
            log.warning("%s: %s; using what came before", video.path, scenes.error)
        write_file(work.scene_file(video), scenes)
        so_far.forget()


def checked_source(video: Video) -> Video:
    """The video, if its file is still the one that was scanned. Raises VideoError otherwise."""
    try:
        now = os.stat(video.path)
    except OSError as error:
        raise VideoError(error.strerror or str(error)) from None
    if facts_of(now) != (video.size, video.mtime_ns):
        raise VideoError("changed since the scan; run all steps again, from `video scan` on")
    return video


def stage_frames(work: VideoWork, sampling: Sampling, known: Any = None) -> Outcome:
    """choose the frames to look at and write them to WORK/queue.json"""
    film_sampling = companion("film_sampling")
    known = known or film_sampling.Sightings(work.results)
    items, left, unknown = [], 0, 0
    for video in work.list_videos():
        scenes = work.scenes_of(video)  # has the frame times: nothing is decoded
        unknown += scenes is None
        if scenes:
            chosen, missing = film_sampling.choose(video, scenes, sampling, known.of(video.id))
            items += film_sampling.stretches(video, scenes, chosen)
            left += len(missing)
    if not items:
        raise SortFacesError(
            f"{work.folder}: no scenes known yet; run `video scenes`, which says of which and why"
        )
    how = {"every_sample": sampling.every_sample, "no_pad_retry": sampling.no_pad_retry}
    work.write(Staged(rate=sampling.sample_rate, **how, items=items))
    frames = sum(len(item.pts) for item in items)
    counts = {"items": len(items), "frames": frames, "to_look_at": left}
    return Outcome({**counts, "videos_without_scenes": unknown or None})


def sampled_pts(video: Video, scenes: Scenes | None, rate: float) -> np.ndarray:
    """(n,) pts of the frames to look at, `rate` a second; none while scenes are not known."""
    return sample_times(scenes.pts, 1.0 / (rate * video.tick)) if scenes else np.zeros(0, np.int64)


def frame_name(video: str, pts: int) -> str:
    return f"{video}:{pts}"


def frame_lines(path: Path) -> Iterator[FrameLine]:
    """The lines of results.jsonl; the first has `meta`, the others have not.

    A damaged line costs that frame, which is looked at again.
    """
    meta: FrameMeta | None = None

    def read(value: dict[str, Any]) -> FrameLine:
        nonlocal meta
        found = as_record(FrameLine, value if value.get("schema") in (1, RECORD_SCHEMA) else None)
        if (found.meta is None) == (meta is None):
            raise msgspec.ValidationError("the first line, and no other, tells of the models")
        meta = meta or found.meta
        check_embeddings(found.faces, meta.dim)
        return found

    again = "remove the file to look at all frames again"
    yield from sound_lines(path, read, "that frame is looked at again", again)


Frame = tuple[str, int]  # id of the video, pts


class FrameLog(AppendOnly):
    """results.jsonl: what a crew finds in each frame, appended as it comes."""

    def __init__(self, path: Path, crew: Crew) -> None:
        super().__init__(path)
        self.crew = crew
        self.meta: FrameMeta | None = None
        self.known = companion("film_sampling").Sightings()
        self.failed: set[str] = set()  # frames that are looked at again, once
        self.counts: Counter[str] = Counter()
        for line in frame_lines(path):
            self.meta = line.meta or self.meta
            if line.meta is None:
                self.known.add(line)
                (self.failed.discard if line.failed is None else self.failed.add)(line.id)
        self.refuse_others({"model": model_label(crew.spec.model)})

    def begin(self) -> None:
        """Load the models and take results of theirs from now on."""
        meta = self.crew.facts["meta"]
        self.refuse_others({key: meta[key] for key in ("recognizer", "det_size", "det_threshold")})
        if self.is_new():
            self.append({"schema": RECORD_SCHEMA, "id": "meta", "meta": meta})

    def refuse_others(self, asked: dict[str, Any]) -> None:
        """Raise SortFacesError where the results so far are of other models than `asked`."""
        for key, value in asked.items() if self.meta else ():
            own = getattr(self.meta, key)
            if own != value:
                made = own if key == "model" else f"{self.meta.model}, {key} {own}"
                raise SortFacesError(
                    f"{self.path}: made with {made}, not {value}; use another work folder, "
                    "or remove that file to begin again"
                )

    def lacks(self, video: str, pts: int, padded: bool) -> bool:
        """Whether a frame must be looked at: it was not, not so, or without success."""
        sight = self.known.of(video).get(pts)
        blind = sight is None or (padded and not sight.padded and not len(sight.rows))
        return blind or frame_name(video, pts) in self.failed

    def store(self, video: str, pts: int, result: Result) -> None:
        """Append the result of one frame."""
        name = frame_name(video, pts)
        if "failed" in result:
            log.warning("%s: %s", name, result["failed"])
        self.counts.update(frames=1, failed="failed" in result, faces=len(result.get("faces", [])))
        self.append(line := {"schema": RECORD_SCHEMA, "id": name, **result})
        self.known.add(as_record(FrameLine, line))
        self.failed.discard(name)  # in this run it is not tried again

    def look(self, samples: Iterable[Sample], padded: Container[Frame]) -> Iterator[None]:
        """Find the faces of frames as they are decoded; yields once per frame, in their order."""
        engine, landmarks = self.crew.engine(), self.crew.spec.landmarks

        def see(sample: Sample) -> tuple[str, int, Result]:
            video, pts, image = sample
            border = (video.id, pts) in padded
            return video.id, pts, frame_result(engine, image, landmarks, border)

        for found in ordered_map(see, samples, self.crew.threads):
            self.store(*found)
            yield None

    def look_elsewhere(self, items: Sequence[Item], folder: Path) -> Iterator[None]:
        """Send stretches to a worker or a cluster, which decode them there; yields once a frame."""
        for item, result in self.crew.run("frames", items, folder):
            given_up = [{"pts": pts, "failed": result.get("failed")} for pts in item["pts"]]
            for found in result.get("frames", given_up):
                self.store(item["video"], found.pop("pts"), found)
                yield None


def detect_frames(work: VideoWork, crew: Crew) -> Outcome:
    """find and embed the faces of the chosen frames; here, on a worker or on a cluster"""
    videos = {video.id: video for video in work.list_videos()}
    staged, tried = work.read(Staged), set()
    with contextlib.closing(FrameLog(work.results, crew)) as frames:
        while items := missing_items(staged, videos, frames, tried):
            if not tried:
                frames.begin()
            look_at_items(work, videos, frames, items)
            tried |= {(i["video"], pts, pts in i["padded"]) for i in items for pts in i["pts"]}
            with contextlib.suppress(SortFacesError):  # what was found may ask for more
                stage_frames(work, staged.sampling, frames.known)
            staged = work.read(Staged)
    wanted = {(item.video, pts) for item in staged.items for pts in item.pts}
    already, counts = len(wanted - {frame[:2] for frame in tried}), frames.counts
    usable = counts["frames"] - counts["failed"] + already
    result = {
        "wanted": len(wanted),
        "frames": counts["frames"],
        "already_known": already,
        "faces": counts["faces"],
        "failed": counts["failed"],
        "usable": usable,
    }
    return Outcome(result, bool(usable or not wanted))


def missing_items(
    staged: Staged, videos: dict[str, Video], frames: FrameLog, tried: set[tuple[str, int, bool]]
) -> list[Item]:
    """The stretches of the queue that `frames` lacks something of, without the rest.

    tried: (video, pts, whether with a border) of what need not be tried again.
    """
    items = []
    for stretch in staged.items:
        asked = [(stretch.video, at, at in stretch.padded) for at in stretch.pts]
        pts = [look[1] for look in asked if look not in tried and frames.lacks(*look)]
        if pts and stretch.video in videos:
            border = [at for at in pts if at in stretch.padded]
            path = videos[stretch.video].path
            stretch = msgspec.structs.replace(stretch, path=path, pts=pts, padded=border)
            items.append({**as_json(stretch), "padded": border, "landmarks": True})
    return items


def look_at_items(
    work: VideoWork, videos: dict[str, Video], frames: FrameLog, items: Sequence[Item]
) -> None:
    """Look at stretches, here or elsewhere."""
    count = sum(len(item["pts"]) for item in items)
    if frames.crew.elsewhere:
        looked = frames.look_elsewhere(items, work.folder / "workers")
    else:
        padded = {(item["video"], pts) for item in items for pts in item["padded"]}
        looked = frames.look(decode_stretches(videos, items), padded)
    for _ in progress(looked, count, "detect"):
        pass


def decode_stretches(videos: dict[str, Video], items: Sequence[Item]) -> Iterator[Sample]:
    """The frames of some items, in their order."""

    def together(item: Item) -> tuple[str, Any]:
        """Decoded in one go: those of a video, but stretches of a joined one are sought alone."""
        return item["video"], item.get("joined") and item["pts"]

    for (name, _), some in itertools.groupby(items, key=together):
        some = list(some)
        video, wanted = videos[name], [pts for item in some for pts in item["pts"]]
        joined = some[0].get("joined") and as_record(Joined, some[0].get("joined"))
        try:
            path, frames_at = checked_source(video).path, companion("film_reading").frames_at
            for pts, image in frames_at(path, wanted, video.sar, joined):
                yield video, pts, image
        except VideoError as error:
            log.warning("%s: %s", video.path, error)


def merge_frames(work: VideoWork) -> Outcome:
    """gather the results of all frames into WORK/frames.npz"""
    staged = work.read(Staged)
    meta: FrameMeta | None = None
    data, rows = bytearray(), 0  # faces as they come, each FACE_FLOATS + dim float32
    rows_of: dict[str, range] = {}  # of each frame
    failed: set[str] = set()
    bordered: set[str] = set()  # looked at with a border, too
    for line in frame_lines(needed(work.results, "detect")):
        if line.meta is not None:
            meta = line.meta
            continue
        for face in line.faces:
            data += face.measured() + face.embedding
        rows_of[line.id] = range(rows, rows + len(line.faces))
        rows += len(line.faces)
        (failed.discard if line.failed is None else failed.add)(line.id)
        (bordered.add if line.padded else bordered.discard)(line.id)
    if meta is None:
        raise SortFacesError(f"{work.results}: is empty; run `video detect` again")
    order = [(item, pts) for item in staged.items for pts in item.pts]
    names = [frame_name(item.video, pts) for item, pts in order]
    asked = {name for name, (item, pts) in zip(names, order, strict=True) if pts in item.padded}
    found = [range(0) if n in bordered - asked else rows_of.get(n, range(0)) for n in names]
    faces = np.frombuffer(data, "<f4").reshape(-1, FACE_FLOATS + meta.dim)
    meta = msgspec.structs.replace(meta, rate=staged.rate)
    chosen = np.array([*itertools.chain(*found)], np.int64)
    if not np.array_equal(chosen, np.arange(len(faces))):  # else they need no second copy
        faces = faces[chosen]
    frame = np.repeat(np.arange(len(order)), [*map(len, found)])
    looked = [name in rows_of for name in names]
    empty = companion("film_sampling").without_face(order, looked, frame)
    video = np.array([item.video for item, _ in order], "U16")[frame]
    pts = np.array([pts for _, pts in order], np.int64)[frame]
    if not staged.every_sample:
        even = companion("film_sampling").Even(work, staged, order, looked)
        video, pts, faces = even.filled(video, pts, faces)
    bbox, det, pose, look, kps, embedding = np.split(faces, [4, 5, 8, 10, FACE_FLOATS], axis=1)
    places = kps.reshape(-1, 5, 2)
    work.write(Frames(meta, video, pts, bbox, det[:, 0], pose, embedding, look, places))
    result = {"frames": sum(looked), "faces": len(faces), "failed": len(failed & {*names})}
    about = {"missing": len(names) - sum(looked), **({"without_face": empty} if empty else {})}
    return Outcome({**result, **about}, any(looked))


def track_faces(work: VideoWork, reach: Reach) -> Outcome:
    """stitch the faces of each scene into tracks: WORK/tracks.json"""
    faces = work.read(Frames)
    meta, reach = faces.meta, for_model(reach, faces.meta.model)
    faces = faces.take(np.lexsort((faces.pts, faces.video)))
    tracks: list[Track] = []
    listed = {}
    videos = work.list_videos()
    for video in progress(videos, len(videos), "track"):
        own = faces.take(slice(*np.searchsorted(faces.video, [video.id, video.id + "~"])))
        scenes = work.scenes_of(video)
        spans = scenes.scenes if scenes else []
        listed[video.id] = TrackedVideo(video.path, video.fps, video.start, video.tick, len(spans))
        tracks += video_tracks(video, spans, sampled_pts(video, scenes, meta.rate), own, reach)
    work.write(Tracks(period=1.0 / meta.rate, meta=meta, reach=reach, videos=listed, tracks=tracks))
    return Outcome({"faces": len(faces.pts), "tracks": len(tracks)})


TRACK_DIGITS = {"time": 7, "bbox": 1, "det": 3, "pose": 1, "look": 1}  # decimals kept


def video_tracks(
    video: Video, scenes: list[tuple[int, int]], samples: np.ndarray, faces: Frames, reach: Reach
) -> list[Track]:
    """The tracks of one video from its sampled frames (pts) and its faces, sorted by time."""
    tracks: list[Track] = []
    unit, length = unit_rows(faces.embedding), np.linalg.norm(faces.embedding, axis=1)
    measured = {"time": video.seconds(faces.pts), **vars(faces)}
    values = {
        key: np.round(np.asarray(measured[key], np.float64), digits)
        for key, digits in TRACK_DIGITS.items()
    }
    for low, high in scenes:
        rows = np.arange(*np.searchsorted(faces.pts, [low, high]))
        scene = video.seconds(low), video.seconds(high)
        looked = video.seconds(samples[(samples >= low) & (samples < high)])
        sampled = np.round(looked[[0, -1]] if len(looked) else scene, TRACK_DIGITS["time"])
        labels = stitch_tracks(measured["time"][rows], faces.bbox[rows], unit[rows], reach)
        for label in range(labels.max(initial=-1) + 1):
            own = rows[labels == label]
            parts = {key: array[own] for key, array in values.items()}
            name = f"{video.id}-{len(tracks):04d}"
            about = name, video.id, scene, tuple(sampled.tolist())
            whose = {"centre": centroid(unit[own]), "length": round(float(length[own].mean()), 3)}
            tracks.append(Track(*about, **parts, **whose))
    return tracks


def score_tracks(
    work: VideoWork,
    gates: Gates,
    choice: IdentityChoice,
    only: ReferenceOptions,
    clips: ClipChoice,
    crew: Crew,
) -> Outcome:
    """choose the segments in which a face is usable: WORK/plan.json, and say who is seen:
    WORK/people.json; reads tracks.json alone"""
    data = work.read(Tracks)
    choice, ranking = for_model(choice, data.meta.model), companion("clip_ranking")
    cast = companion("video_people").cast_for(work, data, choice, clips, crew)
    filtered = companion("reference_filter").unlike_tracks(data.tracks, only, crew, data.meta)
    merged, left_out = usable_segments(data, gates, cast, filtered)
    sightings = companion("video_people").Sightings(data, cast, gates.min_det)
    merged = [sightings.judged(segment, clips) for segment in merged]
    good = [segment for segment in merged if not segment.reason]
    look = crew if clips.occlusion != "off" else None
    masks = companion("clip_occlusion").masks_of(work, data, good, look)
    planned = [
        planned_clip(s, data.videos[s.video], cast, ranking.envelope_of(s, sightings, masks))
        for s in good
    ]
    segments, late = ranking.ranked(planned, clips)
    rejected = [rejected_row(s) for s in (*left_out, *merged) if s.reason] + late
    rejected.sort(key=lambda row: (row.video, row.start, row.name))
    asked = {
        one.name: {"file": str(one.path), "distance": choice.identity_distance}
        for one in cast.asked
    }
    work.write(ClipPlan(gates=gates, identities=asked, segments=segments, rejected=rejected))
    result = {
        "frames": sum(len(track.time) for track in data.tracks),
        "tracks": len(data.tracks),
        "people": len(cast.people),
        "accepted_tracks": len(data.tracks) - len(left_out),
        "segments": len(segments),
        "seconds": round(sum(segment.end - segment.start for segment in segments), 1),
    }
    return Outcome(result, bool(segments))


def usable_segments(
    data: Tracks, gates: Gates, cast: Any, filtered: dict[str, str]
) -> tuple[list[Segment], list[Segment]]:
    """(segments, those that cannot be used with a reason; tracks left out, likewise).

    cast: a Cast (work/video_people.py); filtered: {track: why --filter leaves it out}.
    """
    passed: list[Track] = []
    left_out: list[Segment] = []
    for track in data.tracks:
        reason = track_fault(track, gates) or filtered.get(track.name, "")
        if not reason and not cast.is_wanted(track):
            reason = "another person"
        if reason:
            beyond = math.nextafter(track.time[-1], math.inf)
            left_out.append(Segment(track.video, track.time[0], beyond, (track,), reason))
        else:
            passed.append(track)
    banned = [track for track in data.tracks if cast.is_banned(track)]
    merged: list[Segment] = []
    for _, some in itertools.groupby(passed, key=lambda track: (track.video, track.scene)):
        parts = [s for track in some for s in track_segments(track, gates, data.period)]
        merged += merge_segments(parts, gates)
    return [drop_banned(segment, banned, data.period) for segment in merged], left_out


def drop_banned(segment: Segment, banned: Sequence[Track], period: float) -> Segment:
    """The segment, rejected where somebody unwanted is seen in it."""
    for track in banned:
        inside = (track.time > segment.start - period) & (track.time < segment.end)
        if track.video == segment.video and inside.any() and not segment.reason:
            return replace(segment, reason="shows an excluded person")
    return segment


def planned_clip(segment: Segment, video: TrackedVideo, cast: Any, about: dict) -> PlannedClip:
    """One segment of the plan with where it comes from and how good it is.

    cast: a Cast (work/video_people.py); about: what clip_ranking.py knows of it.
    """
    from uuid import UUID, uuid5

    span = segment.start, segment.end
    low, high = (video.start + round(time / video.tick) for time in span)
    pitch, yaw = np.nanmedian(np.abs(segment.seen("pose")[:, :2]), axis=0).tolist()
    return PlannedClip(
        uuid=str(uuid5(UUID(CLIP_SPACE), f"{segment.video}:{low}:{high}")),
        video=segment.video,
        source=video.path,
        start=round(segment.start, 4),
        end=round(segment.end, 4),
        pts=(low, high),
        frames=(round(segment.start * video.fps), round(segment.end * video.fps)),
        tracks=[track.name for track in segment.tracks],
        identity=cast.names_of(segment.tracks),
        quality={
            "samples": len(segment.seen("time")),
            "yaw": round(yaw, 1),
            "pitch": round(pitch, 1),
            "short": round(float(np.median(segment.seen("short")))),
            "det": round(float(np.mean(segment.seen("det"))), 3),
        },
        **about,
        **strip_of(segment),
    )


def strip_of(segment: Segment) -> dict[str, list[Any]]:
    """Sampled times spread over a segment, for its thumbnails, and the boxes of its faces then."""
    seen, boxes = segment.seen("time"), segment.seen("bbox").astype(np.float64)
    times = np.unique(seen)
    spread = np.linspace(0, len(times) - 1, min(REPORT_FRAMES, len(times)))
    times = times[np.round(spread).astype(int)]
    found = [np.round(boxes[seen == time], TRACK_DIGITS["bbox"]).tolist() for time in times]
    return {"strip": times.tolist(), "boxes": found}


def rejected_row(segment: Segment) -> LeftOut:
    """What the plan tells of a track, or of a segment, that becomes no clip."""
    span = round(float(segment.start), 4), round(float(segment.end), 4)
    name = "+".join(track.name for track in segment.tracks)
    return LeftOut(name, segment.video, *span, segment.reason, **strip_of(segment))


def cut_clips(work: VideoWork, out: Path, options: ClipOptions) -> Outcome:
    """write the segments of the plan as clips and check each against its source"""
    plan = work.read(ClipPlan)
    check_clip_folder(out, work.folder, Path(work.read(VideoList).input))
    return companion("clips").cut_plan(work, plan, out, options)


def check_clip_folder(out: Path, work: Path, source: Path) -> None:
    """Refuse to write clips where the next scan would take them for videos."""
    there = out.resolve()
    if there == source or source in there.parents:
        raise SortFacesError(f"{out}: lies inside the videos {source}; choose a folder outside it")
    if there == work.resolve():
        raise SortFacesError(f"{out}: is the work folder; choose another one for the clips")
    if source.parent == there:
        raise SortFacesError(
            f"{out}: holds the videos {source}, a clip's folder may be the same; choose another"
        )
    if out.exists() and not out.is_dir():
        raise SortFacesError(f"{out}: is a file; name a folder")


def show_videos(work: VideoWork) -> Outcome:
    """show people, segments and rejected tracks on an HTML page: WORK/report/index.html"""
    plan = as_json(work.read(ClipPlan))
    return Outcome(companion("video_page").video_pages(work, plan, work.list_videos()))


def list_clips(work: VideoWork, out: Path, options: ListOptions) -> Outcome:
    """write edit lists, a table, ffmpeg's lists or chapters of the plan"""
    check_clip_folder(out, work.folder, Path(work.read(VideoList).input))
    return companion("clip_lists").write_lists(work, out, options)


PLACES = {
    "input": ("INPUT", "folder of videos, or one video"),
    "work": ("WORK", "folder for what the steps leave"),
    "out": ("OUT", "folder for what is written"),
}


def add_step_options(
    p: argparse.ArgumentParser, places: str, taken: Sequence[type], look: bool
) -> None:
    """The folders a step names, and the options of each type it takes."""
    for name in places.split():
        metavar, text = PLACES[name]
        p.add_argument(name, type=Path, metavar=metavar, help=text)
    p.set_defaults(dry_run=False)
    for kind in taken:
        if kind is Crew:
            add_engine_and_work(p, detector=look)
        else:
            add_fields(p, kind)


def video_step(
    step: Callable[..., Outcome], places: str = "work", *taken: type, look: bool = False
) -> tuple[Callable, Callable]:
    """(what adds its options, its handler) of a step, whose docstring is the help.

    step: called with the work folder, the other places, and of each type in `taken` what the
    options say: a dataclass of options, or the crew; look: with models of one's own choice.
    """

    @functools.wraps(step)
    def handler(args: argparse.Namespace) -> Outcome:
        work = VideoWork(args.work, args.dry_run)
        values = [getattr(args, name) for name in places.split() if name != "work"]
        for kind in taken:
            values.append(crew_of(args, look) if kind is Crew else of_args(kind, args))
        if "input" in places:  # the others begin no work folder
            make_folder(work.folder)
        with work.lock():
            return step(work, *values)

    return functools.partial(add_step_options, places=places, taken=taken, look=look), handler


def add_video_run_options(p: argparse.ArgumentParser) -> None:
    """Those of every step."""
    taken = (
        *(ClipOptions, VideoChoice, Sampling, Decoding, Crew, Reach, Gates),
        *(IdentityChoice, ReferenceOptions, ClipChoice),
    )
    add_step_options(p, "input work out", taken, look=True)


def cmd_video_run(args: argparse.Namespace) -> Outcome:
    """do all of it in one go, with one decode of each video"""
    work, crew = VideoWork(args.work, args.dry_run), crew_of(args, True)
    clips, sampling, gates = (of_args(kind, args) for kind in (ClipOptions, Sampling, Gates))
    whose = (IdentityChoice, ReferenceOptions, ClipChoice)
    check_clip_folder(args.out, work.folder, args.input.resolve())
    steps: dict[str, Callable[[], Outcome]] = {
        "scan": lambda: scan_videos(work, args.input, of_args(VideoChoice, args), required=True),
        "scenes": lambda: some_decoded(find_scenes(work, of_args(Decoding, args), sampling, crew)),
        "stage": lambda: stage_frames(work, sampling),
        "detect": lambda: detect_frames(work, crew),
        "merge": lambda: merge_frames(work),
        "track": lambda: track_faces(work, of_args(Reach, args)),
        "score": lambda: score_tracks(work, gates, *(of_args(kind, args) for kind in whose), crew),
        "cut": lambda: cut_clips(work, args.out, clips),
        "report": lambda: show_videos(work),
    }
    if args.dry_run:
        return foresee_run(work, steps, of_args(Decoding, args))
    make_folder(work.folder)
    with work.lock():
        table, results = run_steps(
            {name: lambda step=step: step().result for name, step in steps.items()}
        )
    unread = [line for line in results["scan"]["left_out"] if SAME_VIDEO not in line]
    failed = [*unread, *results["scenes"]["failed"], *results["cut"]["failed"]]
    result = {
        "out": str(args.out),
        "look_at": results["report"]["look_at"],
        "steps": table,
        "left_out": [*results["scan"]["left_out"], *results["scenes"]["failed"]],
        "without_face": results["merge"].get("without_face", []),
        "clips": results["cut"]["clips"],
        "not_kept": results["cut"]["not_kept"],
        "failed": failed,
    }
    return Outcome(result, bool(result["clips"]) and not failed)


def some_decoded(found: Outcome) -> Outcome:
    """What find_scenes found. Raises SortFacesError where the steps after it have nothing to do."""
    if not found.result["videos"]:
        raise SortFacesError(f"no video could be decoded; {found.result['failed'][0]}")
    return found


def foresee_run(
    work: VideoWork, steps: dict[str, Callable[[], Outcome]], decoding: Decoding
) -> Outcome:
    """What a run would do, from a draft of its work folder: nothing is decoded.

    The clips are those of the videos, and of the frames, that are known so far.
    """
    found = steps["scan"]().result
    todo = [video.path for video in videos_to_decode(work, decoding)]
    result = {"videos": found["videos"], "left_out": found["left_out"], "would_decode": todo}
    if len(todo) == found["videos"] or not work.results.exists():
        return Outcome(result)
    told = {name: steps[name]().result for name in ("stage", "merge", "track", "score")}
    clips = steps["cut"]()
    result |= {"would_look_at_frames": told["merge"]["missing"], **clips.result}
    return Outcome(result, clips.ok or bool(todo))


VIDEO_STEPS: Steps = {  # in pipeline order
    "scan": video_step(scan_videos, "input work", VideoChoice),
    "scenes": video_step(find_scenes, "work", Decoding),
    "stage": video_step(stage_frames, "work", Sampling),
    "detect": video_step(detect_frames, "work", Crew, look=True),
    "merge": video_step(merge_frames),
    "track": video_step(track_faces, "work", Reach),
    "score": video_step(
        *(score_tracks, "work", Gates, IdentityChoice, ReferenceOptions, ClipChoice, Crew)
    ),
    "cut": video_step(cut_clips, "work out", ClipOptions),
    "report": video_step(show_videos),
    "lists": video_step(list_clips, "work out", ListOptions),
    "run": (add_video_run_options, cmd_video_run),
}


def add_video_options(p: argparse.ArgumentParser) -> None:
    add_steps(p, VIDEO_STEPS)


def cmd_video(args: argparse.Namespace) -> Outcome:
    """cut the parts of videos in which a face is usable into clips"""
    return args.step_handler(args)


# ============================================================================
# Command: run
# ============================================================================

EXPORT_NAMES = {  # refine has the plain names
    "outlier_threshold": "export_outlier_threshold",
    "outlier_spreads": "export_outlier_spreads",
}
ChainSteps = dict[str, Callable[[], dict[str, Any]]]  # name: does the step, returns its counts


def add_run_options(p: argparse.ArgumentParser) -> None:
    """What `run` takes: its own few words, then the options of all its steps."""
    p.add_argument("sources", nargs="+", type=Path, metavar="SRC", help="folders of photos")
    p.add_argument("out", type=Path, metavar="OUT", help="folder for the cache and all three trees")
    p.add_argument("--cache", type=Path, metavar="FILE", help="the cache (default: OUT/faces.npz)")
    p.add_argument(
        "--each",
        action="store_true",
        help="every folder in SRC is a source of its own, with outputs in OUT/<its name>; with "
        "--films every film there, too",
    )
    add_fields(p, ScanOptions)
    add_engine_and_work(p, own_model=MODEL_OF_CACHE)
    add_chain_options(p)


def add_chain_options(p: argparse.ArgumentParser) -> None:
    """Options of the steps after embed."""
    add_quality_model(p)
    add_fields(p, ClusterParams)
    add_fields(p, RefineParams, skip=("linkage", "strictness"))  # ClusterParams made them
    add_fields(p, ExportParams, **EXPORT_NAMES)
    add_fields(p, ToOptions)
    add_fields(p, TreeOptions)


def cmd_run(args: argparse.Namespace) -> Outcome:
    """do the whole photo chain in one go: embed to swap-ready face sets"""
    if args.each:
        return companion("run_each").run_each(args)
    result = run_chain(args, args.sources, args.out, args.cache or args.out / "faces.npz")
    return Outcome(result, args.dry_run or bool(result["facesets"]))


def run_chain(
    args: argparse.Namespace,
    sources: Sequence[Path],
    out: Path,
    cache: Path,
    steps: ChainSteps | None = None,
) -> dict[str, Any]:
    """Run every photo step over one cache; returns what the closing tables show.

    steps: in place of the usual ones.
    """
    roots = [str(root.resolve()) for root in source_roots(sources)]
    for kind, name in RUN_TREES.items():
        check_output(out / name, roots, kind)
    steps = steps or chain_steps(args, sources, out, cache)
    if args.quality_model or args.weight_learned_quality:
        companion("quality_model").check_chain(crew_of(args, False), args.quality_model, cache)
    about = {"out": str(out), "cache": str(cache)}
    if args.dry_run:
        return {**about, **preview_chain(args, sources, cache, steps)}
    companion("consumers").check_chain(crew_of(args, False), of_args(ToOptions, args).to)
    table, results = run_steps(steps)
    ready = out / RUN_TREES[SwapManifest]
    return {
        **about,
        "steps": table,
        "left_out": gates_table(results),
        "facesets": results["export-swap"]["facesets"],
        "look_at": str(ready),
        "next": own_command("report", ready),
        "set_right": own_command("review", out),
    }


def chain_steps(
    args: argparse.Namespace, sources: Sequence[Path], out: Path, cache: Path
) -> ChainSteps:
    """The steps of a chain in order."""
    raw, refined, ready = (out / folder for folder in RUN_TREES.values())
    manifests = refined / RefinedManifest.FILE, raw / RawManifest.FILE
    paths = ExportPaths(cache, *manifests, ready, of_args(ToOptions, args))
    scan, tree = of_args(ScanOptions, args), of_args(TreeOptions, args)
    export = of_args(ExportParams, args, **EXPORT_NAMES)
    return {
        "embed": lambda: embed_library(sources, cache, crew_of(args, True), scan),
        "enrich": lambda: enrich_and_score(cache, crew_of(args, True), False, args.quality_model),
        "cluster": lambda: cluster_library(cache, raw, of_args(ClusterParams, args), tree),
        "refine": lambda: refine_library(cache, refined, of_args(RefineParams, args), tree),
        "dedup": lambda: dedup_library(cache, DedupParams(None)),
        "export-swap": lambda: export_library(
            paths, export, crew_of(args, False), tree.dry_run, **EXPORT_NAMES
        ),
    }


def preview_chain(
    args: argparse.Namespace, sources: Sequence[Path], cache: Path, steps: ChainSteps
) -> dict[str, Any]:
    """What a chain would do, as far as it can be known without looking at a photo."""
    scan = of_args(ScanOptions, args)
    found = scan_sources(sources, scan)
    new, films = len(found.files), len(found.films) if scan.films.films else 0
    if cache_exists(cache):
        run = EmbedRun(cache, crew_of(args, True), scan, found)
        new = run.number_to_look_at()
        films = companion("film_source").number_to_look_at(run) if scan.films.wanted else 0
    result = {"photos": len(found.files), "photos_to_look_at": new, "run": "none: dry run"}
    result |= {"films_to_look_at": films} if scan.films.wanted else {}
    if new or films:
        return {**result, "trees": "brought up to date with what the new photos show"}
    table, results = run_steps({name: steps[name] for name in ("cluster", "refine")})
    result |= {"steps": table, "left_out": gates_table(results)}
    if any(results["refine"][f"files_{done}"] for done in ("placed", "moved", "removed")):
        return {**result, "export-swap": "follows the face sets of refine"}
    return {**result, "facesets": steps["export-swap"]()["facesets"]}


def gates_table(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """How many faces each gate of each step took, and the option that moves it."""
    gates = {step: result.get("gates", []) for step, result in results.items()}
    return [{"step": step, **row} for step, rows in gates.items() for row in rows]


# ============================================================================
# Command: demo
# ============================================================================

DEMO_MIN_FACES = 4  # several variants turn out to be near-duplicates of each other, as they should


def add_demo_options(p: argparse.ArgumentParser) -> None:
    """Those of `run`, with the offline engine and a set size that suits the few made photos."""
    p.add_argument(
        "out",
        nargs="?",
        type=Path,
        default=Path("work/demo"),
        metavar="OUT",
        help="folder for the made photos and all results (default: %(default)s)",
    )
    add_fields(p, ScanOptions)
    add_engine_and_work(p)
    add_chain_options(p)
    p.set_defaults(model=DLIB_MODEL, min_faces=DEMO_MIN_FACES)


def cmd_demo(args: argparse.Namespace) -> Outcome:
    """make a small photo library and run the whole chain on it, offline"""
    photos, out = args.out / "photos", args.out / "out"
    library = companion("demo_library")
    missing = library.missing_pictures(photos)
    if args.dry_run and missing:
        about = {"photos_to_make": len(missing), "photos": str(photos)}
        return Outcome({**about, "run": "none: dry run"})
    for path, data in missing.items():
        write_bytes(path, data)
    about = {"photos_made": library.PICTURES, "photos": str(photos)}
    result = run_chain(args, [photos], out, out / "faces.npz")
    grids = sorted((out / RUN_TREES[SwapManifest]).glob("*/previews/*.jpg"))
    return Outcome({**about, **result, **({"look_at": str(grids[0])} if grids else {})})


# ============================================================================
# Command: status
# ============================================================================


def add_status_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("path", type=Path, metavar="CACHE|OUT", help="a cache or an output folder")


def cmd_status(args: argparse.Namespace) -> Outcome:
    """say what is in a cache or an output folder"""
    result = companion("status").status_of(args.path)
    about = {"config": str(args.config), "settings": args.settings} if args.settings else {}
    return Outcome({**result, **about})


# ============================================================================
# Command: doctor
# ============================================================================


def add_doctor_options(p: argparse.ArgumentParser) -> None:
    add_engine_and_work(p)


def cmd_doctor(args: argparse.Namespace) -> Outcome:
    """check engines, providers and tools, and say what to do about what is missing"""
    return companion("doctor").examine(args)


# ============================================================================
# Entry point
# ============================================================================

COMMANDS: Steps = {  # in pipeline order
    "embed": (add_embed_options, cmd_embed),
    "cluster": (add_cluster_options, cmd_cluster),
    "refine": (add_refine_options, cmd_refine),
    "dedup": (add_dedup_options, cmd_dedup),
    "extend": (add_extend_options, cmd_extend),
    "enrich": (add_enrich_options, cmd_enrich),
    "export-swap": (add_export_swap_options, cmd_export_swap),
    "bundle": (add_bundle_options, cmd_bundle),
    "occlusion": (add_occlusion_options, cmd_occlusion),
    "consolidate": (add_consolidate_options, cmd_consolidate),
    "era": (add_era_options, cmd_era),
    "optimize": (add_optimize_options, cmd_optimize),
    "arrange": (add_arrange_options, cmd_arrange),
    "verify": (add_verify_options, cmd_verify),
    "restore": (add_restore_options, cmd_restore),
    "forget": (add_forget_options, cmd_forget),
    "report": (add_report_options, cmd_report),
    "review": (add_review_options, cmd_review),
    "decisions": (add_decisions_options, cmd_decisions),
    "video": (add_video_options, cmd_video),
    "run": (add_run_options, cmd_run),
    "demo": (add_demo_options, cmd_demo),
    "status": (add_status_options, cmd_status),
    "doctor": (add_doctor_options, cmd_doctor),
}
LOGGED_COMMANDS = frozenset(COMMANDS) - {"status", "doctor", "forget", "decisions"}  # name people


def build_parser(words: Container[str] = COMMANDS) -> argparse.ArgumentParser:
    """The command line, from the registry of commands; options only of those among the words."""
    parser = OneLineParser(
        prog=TOOL,
        description=__doc__.split("\n\nContents", 1)[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 done, 1 ran and found something wrong, 2 bad usage or input, "
        "70 a bug of ours, 130 or 143 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"{TOOL} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_options, handler) in COMMANDS.items():
        p = parser.steps[name] = commands.add_parser(
            name, help=handler.__doc__, description=handler.__doc__
        )
        if name in words:
            add_options(p)
        add_output_options(p, False)
        p.set_defaults(handler=handler, log_file=name in LOGGED_COMMANDS, settings={})
    return parser


def parse_command_line(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says, else the settings file, else the defaults."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(build_parser())
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(argv).parse_args(argv)
    path = args.config or os.environ.get("SORT_FACES_CONFIG")
    if not path:
        return args
    parser = build_parser()
    try:
        settings = companion("settings_file").apply(parser, Path(path))
    except SortFacesError as error:
        raise SystemExit(complain(f"{TOOL} {args.command}", str(error))) from None
    args = parser.parse_args(argv)
    args.config, args.settings = Path(path), settings
    return args


def main(argv: Sequence[str] | None = None, listen: Callable[[], None] = lambda: None) -> int:
    """Run one command; returns the exit code.

    listen: called when all that takes long to load is loaded and the work begins.
    """
    program, args = TOOL, None
    try:
        args = parse_command_line(argv)
        program = f"{TOOL} {args.command}"
        load_numpy()
        listen()
        return run_command(args)
    except SortFacesError as error:
        return complain(program, str(error))
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - `| head` has what it wanted
        return EXIT_OK
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return complain(program, f"{where}{error.strerror or error}; mend that and run again")
    except KeyboardInterrupt as stop:
        complain(program, "interrupted; run the same command again to go on")
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
    except Exception as error:
        return report_bug(program, error, args)


def load_numpy() -> None:
    """Load what imported_late put off, before there are threads."""
    try:
        np.ndarray  # noqa: B018
    except ImportError as error:
        raise SortFacesError(package_hint(error)) from error


def run_command(args: argparse.Namespace) -> int:
    """Do what a command line says and show the result; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # paths may hold what the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.umask(0o077)  # photos of faces are nobody else's business
    start_logging(args)
    outcome = args.handler(args)
    show_result(outcome.result, args.json)
    sys.stdout.flush()
    return EXIT_OK if outcome.ok else EXIT_FOUND_WRONG


def own_stderr() -> None:
    """Let our lines go through a descriptor of their own.

    What libraries in C write to 2 is caught (work/hush.py), by a thread at any moment: a line of
    ours on its way there would be caught, too.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):
        if sys.stderr.fileno() == 2:
            about = {"encoding": sys.stderr.encoding, "errors": "backslashreplace"}
            sys.stderr = open(os.dup(2), "w", 1, **about)  # noqa: SIM115


def run_as_program() -> None:
    """main, for a process of its own: signals end it with one line at any moment."""

    def terminated(_number: int, _frame: Any) -> None:
        raise Terminated

    def swallowed(what: Any) -> None:
        """A signal that came in a callback whose errors Python drops comes again after it."""
        if isinstance(what.exc_value, KeyboardInterrupt):
            ended = isinstance(what.exc_value, Terminated)
            number = signal.SIGTERM if ended else signal.SIGINT
            threading.Timer(0.05, signal.raise_signal, (number,)).start()
        else:
            sys.__unraisablehook__(what)

    def listen() -> None:
        sys.unraisablehook = swallowed
        signal.signal(signal.SIGTERM, terminated)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    own_stderr()
    code = EXIT_INTERRUPTED
    try:
        code = main(listen=listen)
    except KeyboardInterrupt as stop:  # between two lines of the above, or a second one
        code = EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, stop_at_once)
        signal.signal(signal.SIGINT, stop_at_once)
    sys.exit(code)


if __name__ == "__main__":
    run_as_program()
