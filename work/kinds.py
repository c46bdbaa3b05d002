"""What files are: which are photos though their names do not say so, and what the others are.

A companion of sort_faces.py, loaded by the scan. Names decide where they can; the first bytes are
read only of files with an unknown ending or none.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import stat
from collections import Counter
from datetime import datetime, timezone
from pathlib import PurePath
from typing import Any

import sort_faces as sf

RAW, JPEG_XL = "camera RAW", "JPEG XL"
READERS = {RAW: "rawpy", JPEG_XL: "pylibjxl"}  # the package that reads a kind
HEAD = 32  # bytes that tell a format

RAW_NAMES = (
    "3fr arw cr2 cr3 crw dcr dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2"
    " srf srw x3f"
)
RAW_SUFFIXES = frozenset(f".{name}" for name in RAW_NAMES.split())
JXL_SUFFIXES = frozenset({".jxl"})
OTHERS = {  # kind: endings of files nobody looks into
    "videos": "mp4 m4v mov mkv webm avi wmv flv mpg mpeg ts mts m2ts vob 3gp 3g2 ogv mp mv lrv insv"
    " asf divx rm rmvb",
    "sound": "mp3 m4a wav flac ogg opus aac wma aiff aif amr mid",
    "documents": "pdf doc docx odt rtf txt md xls xlsx ods csv tsv ppt pptx odp epub htm html css"
    " tex log nfo url lnk pages numbers key srt vtt",
    "sidecars of photos": "xmp json aae thm pp3 dop cos on1 photo-edit picasa ini xml yaml yml vrd"
    " acr lrtemplate xcf-meta",
    "archives": "zip rar 7z tar gz bz2 xz zst tgz iso dmg",
    "Photoshop and other layers": "psd psb xcf kra afphoto ai svg eps ps cdr indd",
    "pictures of kinds that are not read": "ppm pgm pbm pnm pam tga ico icns cur hdr exr dds jxr"
    " wdp hdp pcx sgi ras xbm xpm wbmp bpg flif emf wmf pct pict djvu",
    "databases": "db sqlite sqlite3 npz lrcat lrdata lrprev photoslibrary fsz npy pkl safetensors"
    " onnx pt pth",
    "programs": "exe dll so py js ts sh bat ps1 c h cpp java class jar msi apk app bin dat",
    "left by systems": "ds_store tmp part crdownload bak lock",
}
KIND_OF = {f".{end}": kind for kind, ends in reversed(OTHERS.items()) for end in ends.split()}

SIGNATURES: tuple[tuple[int, bytes], ...] = (  # (where, which bytes) begin a photo
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF87a"),
    (0, b"GIF89a"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (0, b"II+\0"),
    (0, b"MM\0+"),
    (8, b"WEBP"),
    (0, b"\0\0\0\x0cjP  "),
    (0, b"\xff\x4f\xff\x51"),  # JPEG 2000 without boxes
)
HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"msf1", b"avif", b"avis", b"hevc"}
)
RAW_MARKS: tuple[tuple[int, bytes], ...] = (
    *((0, b"FUJIFILMCCD"), (0, b"IIU\0"), (0, b"IIRO"), (0, b"IIRS"), (0, b"MMOR")),
    *((4, b"ftypcrx"), (8, b"CR\2\0"), (6, b"HEAPCCDR"), (0, b"FOVb"), (0, b"\0MRM")),
)
JXL_MARKS = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LARGEST_POINTER = 1024  # bytes
EMPTY, IN_CLOUD = "empty files", "placeholders of files that lie in a cloud"
POINTERS = "Git LFS pointers"
WHAT_TO_DO = {
    EMPTY: "not yet downloaded, or a copy that failed",
    IN_CLOUD: "let them be downloaded, then run this again",
    POINTERS: "git lfs pull",
}
# FILE_ATTRIBUTE_OFFLINE, _RECALL_ON_OPEN, _RECALL_ON_DATA_ACCESS (learn.microsoft.com, File
# Attribute Constants) and SF_DATALESS (sys/stat.h of macOS)
NOT_HERE_WINDOWS, NOT_HERE_MACOS = 0x1000 | 0x40000 | 0x400000, 0x40000000

# Pixel phones: X.RAW-01.COVER.jpg beside X.RAW-02.ORIGINAL.dng
PIXEL_PART = re.compile(r"\.RAW-\d\d(\.MP)?\.(COVER|ORIGINAL)$", re.IGNORECASE)
PAIRED = frozenset({".jpg", ".jpeg", ".jpe", ".heic", ".heif", ".hif"})  # what lies beside a RAW
PAIR_SECONDS = 2.0  # two counters that rolled over give the same name to two photos


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def read_suffixes() -> frozenset[str]:
    """Endings of photos that this installation reads."""
    more = {RAW: RAW_SUFFIXES, JPEG_XL: JXL_SUFFIXES}
    here = (some for kind, some in more.items() if importlib.util.find_spec(READERS[kind]))
    return sf.PHOTO_SUFFIXES.union(*here)


def kind_by_name(name: str) -> str:
    """What a file is by its ending; "" if that does not tell."""
    suffix = suffix_of(name)
    if suffix in RAW_SUFFIXES:
        return RAW
    return JPEG_XL if suffix in JXL_SUFFIXES else KIND_OF.get(suffix, "")


def kind_by_bytes(head: bytes) -> str:
    """`photo`, `camera RAW`, `JPEG XL`, or "" for what begins with such bytes."""
    if any(head.startswith(mark, at) for at, mark in RAW_MARKS):
        return RAW
    if head.startswith(JXL_MARKS):
        return JPEG_XL
    if any(head.startswith(mark, at) for at, mark in SIGNATURES):
        return "photo"
    if head[4:8] == b"ftyp":
        return "photo" if head[8:12] in HEIF_BRANDS else "videos"
    return ""


def special_kind(data: bytes, name: str) -> str:
    """RAW, JPEG_XL or "" of a whole file: a TIFF by its name, or by what only a DNG says."""
    if data.startswith(TIFF_MARKS):
        by_name = suffix_of(name) in RAW_SUFFIXES
        mark = data.startswith(b"CR", 8) and data.startswith(b"II")
        return RAW if by_name or mark or sf.companion("odd_tiffs").is_dng(data) else ""
    kind = kind_by_bytes(data[:HEAD])
    return "" if kind == "photo" or kind not in READERS else kind


def head_of(path: str, size: int = HEAD) -> bytes:
    """The first bytes of a file; b"" where it cannot be read."""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as stream:
        return stream.read(size)
    return b""


def other_kind(path: str, name: str, readable: frozenset[str]) -> str:
    """What a file is whose ending is none of those read; `photo` if its bytes say so."""
    kind = kind_by_name(name)
    if kind:
        return kind
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait
            return "no files"
    found = kind_by_bytes(head_of(path))
    if found in READERS:  # a kind this installation may read, under a name that does not say so
        return "photo" if (RAW_SUFFIXES if found == RAW else JXL_SUFFIXES) <= readable else found
    return found or "others"


def absence(path: str, facts: os.stat_result) -> str:
    """Why the photo of a file is not on this disk; "" if it is there.

    Nothing is opened that its own attributes tell of: opening would download it.
    """
    if facts.st_size == 0:
        return EMPTY
    if getattr(facts, "st_file_attributes", 0) & NOT_HERE_WINDOWS:
        return IN_CLOUD
    if getattr(facts, "st_flags", 0) & NOT_HERE_MACOS:
        return IN_CLOUD
    if getattr(facts, "st_blocks", 1) == 0 and not head_of(path, 64).strip(b"\0"):
        return IN_CLOUD  # a sparse file: some file systems tell 0 blocks of all files
    if facts.st_size < LARGEST_POINTER and head_of(path, 64).startswith(LFS_POINTER):
        return POINTERS
    return ""


def is_icloud_stub(name: str) -> bool:
    """`.IMG_1.HEIC.icloud`: what macOS leaves of a file it has sent away."""
    return name.startswith(".") and name.endswith(".icloud")


def told(counts: Counter[str], examples: dict[str, str]) -> list[str]:
    """A line for each kind of what was passed over that somebody may want to do something about."""
    lines = []
    for kind, advice in WHAT_TO_DO.items():
        if counts[kind]:
            first = f", such as {examples[kind]}" if kind in examples else ""
            lines.append(f"{counts[kind]} {kind} passed over{first}: {advice}")
    return lines


def summary(counts: Counter[str], films: int) -> str:
    """What was passed over, in one line: `9 camera RAW: pip install rawpy; 3 documents`."""
    parts, readable = [], read_suffixes()
    for kind, count in counts.most_common():
        advice = WHAT_TO_DO.get(kind, "")
        if kind in READERS and not (RAW_SUFFIXES if kind == RAW else JXL_SUFFIXES) <= readable:
            advice = f"pip install {READERS[kind]}"
        parts.append(f"{count} {kind}" + (f": {advice}" if advice else ""))
    return "; ".join([*parts, *([f"{films} films; --films takes them"] if films else [])])


# --- RAW and JPEG of one photo ----------------------------------------------


def pair_key(path: str) -> tuple[str, str]:
    """What the two files of one photo have in common: folder and stem in any case."""
    place = PurePath(path)
    return str(place.parent), PIXEL_PART.sub("", place.stem).lower()


def pairs_of(files: list[sf.FoundFile]) -> dict[str, str]:
    """{path of a RAW: path of the JPEG or HEIC beside it}, by their names alone."""
    raws = [file.path for file in files if suffix_of(file.path) in RAW_SUFFIXES]
    if not raws:
        return {}
    wanted = {pair_key(path) for path in raws}
    beside: dict[tuple[str, str], str] = {}
    for file in files:
        if suffix_of(file.path) in PAIRED and (key := pair_key(file.path)) in wanted:
            beside.setdefault(key, file.path)  # the first by name where there are several
    return {path: beside[key] for path in raws if (key := pair_key(path)) in beside}


def is_one_photo(raw: str, beside: str) -> bool:
    """Whether two files of one name were taken at the same time, as far as both tell."""
    heard = sf.companion("hush").hushed.heard
    times = heard(lambda: [capture_time(path) for path in (raw, beside)])[0]
    return None in times or abs(times[0] - times[1]) <= PAIR_SECONDS


def capture_time(path: str) -> float | None:
    """Seconds, the local clock read as UTC, as the file itself tells; None if it does not."""
    import PIL.Image

    sf.register_heif()
    with contextlib.suppress(*sf.PILLOW_ERRORS), PIL.Image.open(path) as header:
        return original_time(header)
    if suffix_of(path) not in RAW_SUFFIXES or not importlib.util.find_spec("rawpy"):
        return None
    import rawpy

    raw_photos = sf.companion("raw_photos")
    with contextlib.suppress(rawpy.LibRawError, *sf.PILLOW_ERRORS), rawpy.imread(path) as raw:
        preview = raw_photos.preview_of(raw)
        found = original_time(preview[1]) if preview else None
        seconds = raw_photos.taken_of(raw) if found is None else found
        return None if math.isnan(seconds) else seconds
    return None


def original_time(header: Any) -> float | None:
    """The capture time in the EXIF of an opened Pillow image, seconds; None without one."""
    exif = header.getexif()
    inner = exif.get_ifd(sf.EXIF_IFD)
    texts = (inner.get(sf.EXIF_ORIGINAL), inner.get(sf.EXIF_DIGITIZED), exif.get(sf.EXIF_DATETIME))
    for text in filter(None, texts):
        with contextlib.suppress(ValueError):
            when = datetime.strptime(str(text).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")
            return when.replace(tzinfo=timezone.utc).timestamp()
    return None
