"""What a photo's own bytes say about when it was taken: EXIF, GPS, XMP, IPTC and PNG's texts.

Only headers are read. Nothing is decided here: work/capture_time.py does.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import sort_faces as sf

capture_time, regions = sf.companion("capture_time"), sf.companion("sources_regions")
Statement, Camera = capture_time.Statement, capture_time.Camera

MAKE, MODEL, SOFTWARE = 0x010F, 0x0110, 0x0131  # EXIF tags, CIPA DC-008
GPS_IFD, XMP_TAG = 0x8825, 700
GPS_TIME, GPS_DAY = 7, 29
EXIF_DATES = {  # tag in the EXIF directory: (where it stands, tag of its zone)
    sf.EXIF_ORIGINAL: ("exif_original", 0x9011),
    sf.EXIF_DIGITIZED: ("exif_digitized", 0x9012),
}
CHANGED_ZONE = 0x9010
IPTC_DAY, IPTC_TIME = (2, 55), (2, 60)  # IIM 4.2: DateCreated, TimeCreated
LONGEST_XMP = 1 << 24  # bytes
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf")
PNG_WHEN = frozenset({"creation time", "creationtime", "create date", "date created"})
PNG_XMP = "XML:com.adobe.xmp"
LONGEST_TEXT = 1 << 22  # bytes of a PNG's text that are read
ENCODINGS = ("utf-8", "gb18030", "cp949", "cp932")  # of phones that write their language into EXIF
DAMAGE = (  # what Pillow and the parsers raise on files that are broken
    *sf.PILLOW_ERRORS, UnicodeError, AttributeError, KeyError, zlib.error,
    struct.error, ZeroDivisionError,
)  # fmt: skip


def dates_of(header: Any, stream: BinaryIO) -> str:
    """What a photo says, as the text of FaceCache.file_dates.

    header: Pillow's view of it, None where Pillow does not know the format; stream: its bytes.
    Damage costs what is damaged.
    """
    statements: list[Any] = []
    camera = Camera()
    if header is not None:
        if header.format != "PNG" or "exif" in header.info:  # else Pillow decodes it to look on
            with contextlib.suppress(*DAMAGE):
                statements, camera = exif_dates(header.getexif())
        for read in (iptc_dates, xmp_dates):
            with contextlib.suppress(*DAMAGE):
                statements += read(header)
    for more in (png_dates, gif_dates):
        with contextlib.suppress(*DAMAGE):
            statements += more(stream)
    if header is not None and header.format == "JPEG2000":
        statements += box_dates(stream)[0]
    return capture_time.stored(statements, camera)


def dates_in_file(path: str) -> str:
    """The same of a file. Raises OSError for one that cannot be read, PhotoError for no photo."""
    with open(path, "rb") as stream:
        head = stream.read(1 << 16)
        kind = sf.companion("kinds").special_kind(head, path)
        if kind:  # a camera RAW or JPEG XL
            data, opened = head + stream.read(), sf.companion("raw_photos").opened
            return sf.companion("hush").hushed.heard(lambda: opened(data, kind).dates())[0]
        stream.seek(0)
        header = sf.open_with_pillow(stream)
        return dates_of(header, stream)


def exif_dates(exif: Any) -> tuple[list[Any], Any]:
    """(statements, camera) of Pillow's Exif. A change that is no other moment is left out."""
    camera = Camera(*(exif_text(exif.get(tag)) for tag in (MAKE, MODEL, SOFTWARE)))
    changed = exif_text(exif.get(sf.EXIF_DATETIME))
    statements: list[Any] = []
    with contextlib.suppress(*DAMAGE):
        inner = exif.get_ifd(sf.EXIF_IFD)
        for tag, (where, zone) in EXIF_DATES.items():
            text = exif_text(inner.get(tag))
            if changed == text:
                changed = ""
            if text:
                statements.append(Statement(where, zoned(text, exif_text(inner.get(zone)))))
        changed = changed and zoned(changed, exif_text(inner.get(CHANGED_ZONE)))
    with contextlib.suppress(*DAMAGE):
        gps = exif.get_ifd(GPS_IFD)
        day = exif_text(gps.get(GPS_DAY))
        if day:
            clock = ":".join(map(gps_field, gps.get(GPS_TIME) or ()))
            statements.append(Statement("gps", f"{day} {clock}".strip()))
    if changed:
        statements.append(Statement("exif_modify", changed))
    return statements, camera


def gps_field(value: Any) -> str:
    """An hour, minute or second; of what is no number (0/0) one that cannot be."""
    with contextlib.suppress(TypeError, ValueError, OverflowError, ZeroDivisionError):
        return f"{int(value):02d}"
    return "99"


def exif_text(value: Any) -> str:
    """A text of EXIF, which Pillow reads as Latin-1 and phones write in their own encodings."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    text = str(value or "").strip("\0 ")
    if text.isascii():
        return text
    raw = text.encode("latin-1", "replace")
    for encoding in ENCODINGS:
        with contextlib.suppress(UnicodeDecodeError):
            found = raw.decode(encoding)
            if any(
                half in found for half in capture_time.dates_in_text.HALF_OF if not half.isascii()
            ):
                return found
    return text


def zoned(text: str, zone: str) -> str:
    """A date with the zone that stands in a tag of its own; one that cannot be is left out."""
    told = len(text) > 10 and zone and capture_time.dates_in_text.zone_of(zone) is not None
    return f"{text}{zone}" if told else text


def iptc_dates(header: Any) -> list[Any]:
    """DateCreated and TimeCreated of IPTC, in JPEG and TIFF."""
    if header.format not in ("JPEG", "MPO", "TIFF"):
        return []
    from PIL import IptcImagePlugin

    info = IptcImagePlugin.getiptcinfo(header) or {}
    day, clock = (
        (value[0] if isinstance(value, list) else value or b"").decode("latin-1")
        for value in (info.get(IPTC_DAY), info.get(IPTC_TIME))
    )
    return [Statement("iptc", f"{day} {clock}".strip())] if day else []


def xmp_dates(header: Any) -> list[Any]:
    """Dates of the XMP packet that Pillow found."""
    packet = header.info.get("xmp") or b""
    if not packet and header.format == "TIFF":
        packet = header.tag_v2.get(XMP_TAG) or b""
    return packet_dates(packet.encode() if isinstance(packet, str) else bytes(packet))


def packet_dates(packet: bytes) -> list[Any]:
    """Dates of an XMP packet. Raises ValueError for what is no XMP."""
    if len(packet) > LONGEST_XMP or not regions.tells_of(packet, regions.DATE_MARKS):
        return []
    values = regions.parse(packet)
    told = ((where, regions.text_of(values.get(name))) for name, where in regions.DATES)
    return [Statement(where.replace("sidecar", "xmp"), text) for where, text in told if text]


def box_dates(stream: BinaryIO) -> tuple[list[Any], Any]:
    """(statements, camera) of a JPEG XL or JPEG 2000 file: EXIF and XMP lie in boxes."""
    from PIL.Image import Exif

    statements, camera = [], Camera()
    with contextlib.suppress(*DAMAGE):
        for kind, body in regions.boxes(stream):
            with contextlib.suppress(*DAMAGE):
                if kind == regions.XMP_BOX:
                    statements += packet_dates(body)
                    continue
                plain = body[:2] in (b"II", b"MM")  # else it tells where in it TIFF begins
                exif = Exif()
                exif.load(b"Exif\0\0" + body[0 if plain else 4 + int.from_bytes(body[:4], "big") :])
                more, camera = exif_dates(exif)
                statements += more
    return statements, camera


def gif_dates(stream: BinaryIO) -> list[Any]:
    """Dates of the XMP in a GIF; of other files nothing."""
    stream.seek(0)
    return packet_dates(regions.raw_packet(stream)) if stream.read(4) == b"GIF8" else []


def png_dates(stream: BinaryIO) -> Iterator[Any]:
    """Creation Time, tIME and what follows the pixels of a PNG; of other files nothing."""
    from PIL.Image import Exif

    stream.seek(0)
    if stream.read(len(PNG_START)) != PNG_START:
        return
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind not in PNG_CHUNKS or length > LONGEST_TEXT:
            stream.seek(length + 4, 1)
            continue
        data = stream.read(length)
        stream.seek(4, 1)
        if kind == b"tIME" and length == 7:
            year, *rest = struct.unpack(">H5B", data)
            yield Statement(
                "png_modify", "{}:{:02d}:{:02d} {:02d}:{:02d}:{:02d}".format(year, *rest)
            )
            continue
        with contextlib.suppress(*DAMAGE):
            if kind == b"eXIf":
                exif = Exif()
                exif.load(data)
                yield from exif_dates(exif)[0]
                continue
            key, text = png_text(kind, data)
            if key.lower() in PNG_WHEN:
                yield Statement("png_text", text)
            elif key == PNG_XMP:
                yield from packet_dates(text.encode())


def png_text(kind: bytes, data: bytes) -> tuple[str, str]:
    """(keyword, text) of a text chunk (PNG, third edition, 11.3.3)."""
    key, _, rest = data.partition(b"\0")
    encoding = "latin-1"
    if kind == b"zTXt":
        rest = unpacked(rest[1:])
    elif kind == b"iTXt":
        packed, encoding = rest[0], "utf-8"
        _language, _, rest = rest[2:].partition(b"\0")
        _translated, _, rest = rest.partition(b"\0")
        rest = unpacked(rest) if packed else rest
    return key.decode("latin-1"), rest.decode(encoding)


def unpacked(data: bytes) -> bytes:
    """Compressed text, as much as is read of one."""
    return zlib.decompressobj().decompress(data, LONGEST_TEXT)
