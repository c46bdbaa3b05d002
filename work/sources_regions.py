"""Face regions and names that other programs wrote into a photo or beside it, as they are written.

XMP packets are taken out of the photo by Pillow (of a JPEG with what Adobe calls extended XMP, of a
PNG wherever they stand) and read by the standard library's ElementTree, without document types, so
without entities. What a region means for a face is decided in sources_word.py.

Contents
    Names
    Packets
    XMP
    Regions
    Picasa
"""

from __future__ import annotations

import codecs
import configparser
import contextlib
import html
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sort_faces as sf

decisions = sf.companion("decisions")

# ============================================================================
# Names
# ============================================================================

# What programs write where nobody was named; SOURCES.md, sections 2 and 6, and the translations of
# digiKam, Immich and Windows.
NOBODY = frozenset(
    """
    unknown|unknown person|unknown face|ignored|ignored person|unconfirmed|unnamed|unnamed person
    untitled|no name|nobody|none|null|?|??|-|person|face|add a name|add name
    unbekannt|unbekannte person|ignoriert|ignorierte person|unbestätigt|nicht bestätigt|unbenannt
    inconnu|inconnue|personne inconnue|ignoré|ignorée|non confirmé|sans nom
    desconocido|desconocida|persona desconocida|ignorado|ignorada|sin confirmar|no confirmado
    sin nombre|desconhecido|desconhecida|não confirmado|não confirmada|sem nome
    desconegut|desconeguda|ignorat|sense confirmar|sense nom
    sconosciuto|sconosciuta|persona sconosciuta|ignorato|ignorata|non confermato|senza nome
    onbekend|onbekende persoon|genegeerd|onbevestigd|niet bevestigd|naamloos
    nieznany|nieznana|nieznana osoba|zignorowany|zignorowana|ignorowany|niepotwierdzony
    niepotwierdzona|bez nazwy|neznámý|neznámá|neznámá osoba|ignorovaný|ignorováno|nepotvrzeno
    nepotvrzený|bez názvu|beze jména|okänd|okänd person|ignorerad|obekräftad|namnlös
    ukendt|ukendt person|ignoreret|ubekræftet|ukjent|ukjent person|ignorert|ubekreftet|navnløs
    tuntematon|ohitettu|vahvistamaton|nimetön|ismeretlen|mellőzött|nem megerősített|névtelen
    necunoscut|ignorată|neconfirmat|bilinmeyen|bilinmeyen kişi|yok sayılan|onaylanmamış|adsız
    неизвестно|неизвестный|неизвестен|неизвестный человек|игнорируется|игнорировано|проигнорировано
    не подтверждено|неподтверждённый|неподтвержденный|без имени|невідомо|невідомий|невідома особа
    проігноровано|не підтверджено|άγνωστο|άγνωστος|不明|不明な人|無視|未確認|名前なし|未知|未知人物
    陌生人|忽略|已忽略|未确认|未確認的|未命名|알 수 없음|무시됨|미확인|이름 없음
    """.strip().replace("\n", "|").replace("    ", "").casefold().split("|")
)  # fmt: skip
NO_CONTACT = re.compile(r"f{16}|0{16}|ffffffff|0+")


def clean_name(text: Any) -> str:
    """The name of a person as decisions keep names, "" where nobody is named."""
    name = decisions.plain_name(text) if isinstance(text, str) else ""
    plain = name.casefold().strip("_[]()<>. ")  # osxphotos writes _UNKNOWN_
    return "" if not plain or plain in NOBODY or NO_CONTACT.fullmatch(plain) else name


# ============================================================================
# Packets
# ============================================================================

XMP_HEAD, MORE_HEAD = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
PNG_HEAD, PNG_KEY = b"\x89PNG\r\n\x1a\n", b"XML:com.adobe.xmp\0"
LOOKED_THROUGH = 1 << 20  # bytes of a format Pillow does not open; cameras write XMP at the front
LONGEST = 1 << 24  # bytes of a packet
BOXED = (b"JXL ", b"jP  ")  # kinds of the first box of JPEG XL and of JPEG 2000
XMP_BOX, EXIF_BOX = b"xml ", b"Exif"
UUID_BYTES = 16  # say what a box of kind uuid is
UUIDS = {
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): XMP_BOX,  # XMP specification, part 3
    b"JpgTiffExif->JP2": EXIF_BOX,
}


def packets_of(path: str) -> list[bytes]:
    """The XMP packets in a photo, each whole; none where there are none or it cannot be read.

    Costs the header of the file: Pillow decodes no picture for it.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(16)
            if head.startswith(PNG_HEAD):
                return list(png_packets(stream))
            if head[4:8] in BOXED:
                return [body for kind, body in boxes(stream) if kind == XMP_BOX]
            packets = packets_by_pillow(stream)
            return [raw_packet(stream)] if packets is None else packets
    except (OSError, ValueError, struct.error):
        return []


def packets_by_pillow(stream: Any) -> list[bytes] | None:
    """None where Pillow does not know the format."""
    import PIL.Image

    sf.register_heif()
    stream.seek(0)
    try:
        formats = [*sf.OPENCV_FORMATS, *sf.PILLOW_FORMATS]
        picture = PIL.Image.open(stream, formats=formats)
        if hasattr(picture, "applist"):
            return jpeg_packets([data for name, data in picture.applist if name == "APP1"])
        told = picture.info.get("xmp") or b""
        if picture.format == "GIF":
            told = raw_packet(stream)
        tags = getattr(picture, "tag_v2", None)
        told = told or (tags.get(700) if tags is not None else b"") or b""
        told = told.encode("latin-1", "replace") if isinstance(told, str) else bytes(told)
    except (*sf.PILLOW_ERRORS, PIL.Image.DecompressionBombError):
        return None
    return [told] if told else []


def orientation_of(path: str) -> int:
    """The orientation, 1 to 8, by which a reader of the tag turns a photo; 1 where none is told."""
    import PIL.Image

    sf.register_heif()
    try:
        with PIL.Image.open(path, formats=[*sf.OPENCV_FORMATS, *sf.PILLOW_FORMATS]) as header:
            return sf.companion("consumers_xmp").told_orientation(header)
    except (*sf.PILLOW_ERRORS, PIL.Image.DecompressionBombError):
        return 1


def jpeg_packets(segments: Iterable[bytes]) -> list[bytes]:
    """The packet of a JPEG and, put together, the one that was too long for a segment.

    Parts of an extended packet have its MD5 (32 letters), its length and their place in it.
    """
    packets, parts = [], {}
    for data in segments:
        if data.startswith(XMP_HEAD):
            packets.append(data[len(XMP_HEAD) :])
        elif data.startswith(MORE_HEAD):
            at = len(MORE_HEAD)
            whole, place = struct.unpack(">II", data[at + 32 : at + 40])
            parts.setdefault((data[at : at + 32], whole), {})[place] = data[at + 40 :]
    for (_, whole), pieces in parts.items():
        joined = b"".join(pieces[place] for place in sorted(pieces))
        if len(joined) == whole <= LONGEST:
            packets.append(joined)
    return packets


def png_packets(stream: Any) -> Iterator[bytes]:
    """What a PNG holds as iTXt; exiftool writes it behind the picture, where Pillow would have to
    decode all of it."""
    import zlib

    stream.seek(len(PNG_HEAD))
    while len(head := stream.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind != b"iTXt" or size > LONGEST:
            stream.seek(size + 4, 1)
            continue
        data = stream.read(size)
        stream.seek(4, 1)
        if data.startswith(PNG_KEY) and len(data) > len(PNG_KEY):
            packed, rest = data[len(PNG_KEY)], data[len(PNG_KEY) + 2 :]
            text = rest.split(b"\0", 2)[-1]  # behind the language and the translated key
            with contextlib.suppress(zlib.error):
                yield zlib.decompressobj().decompress(text, LONGEST) if packed else text


def boxes(stream: Any) -> Iterator[tuple[bytes, bytes]]:
    """(XMP_BOX or EXIF_BOX, content) of a JPEG XL or JPEG 2000 file (ISO/IEC 15444-1, I.4)."""
    stream.seek(0)
    while len(head := stream.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        rest = int.from_bytes(stream.read(8), "big") - 16 if size == 1 else size - 8
        if size and rest < (UUID_BYTES if kind == b"uuid" else 0):
            return
        if kind == b"uuid":
            kind, rest = UUIDS.get(stream.read(UUID_BYTES), kind), rest - UUID_BYTES
        if kind in (XMP_BOX, EXIF_BOX) and rest <= LONGEST:
            yield kind, stream.read(rest if size else LONGEST)
        elif size:
            stream.seek(rest, 1)
        else:  # the last one, up to the end of the file
            return


def raw_packet(stream: Any) -> bytes:
    """The first packet that stands as it is near the front of a file of any format."""
    stream.seek(0)
    data = stream.read(LOOKED_THROUGH)
    start = data.find(b"<x:xmpmeta")
    end = data.find(b"</x:xmpmeta>", start)
    return data[start : end + 12] if 0 <= start < end else b""


def read_sidecar(path: Path) -> bytes:
    """The bytes of a sidecar. Raises OSError where it cannot be read, ValueError if too long."""
    with path.open("rb") as stream:
        data = stream.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError("too long for a sidecar")
    return data


# ============================================================================
# XMP
# ============================================================================

MARKS = (  # a packet without any of these tells nothing of people
    *(b"mwg-rs", b"metadataworkinggroup", b"/RegionInfo", b"acdsee-rs", b"acdsee.com/regions"),
    *(b"ImageRegion", b"PersonInImage", b"TagsList", b"hierarchicalSubject"),
)
DATE_MARKS = (b"DateTimeOriginal", b"DateCreated", b"CreateDate", b"DateTimeDigitized", b"Modify")
ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
DEEPEST = 24  # structures in structures; a region takes six
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


class Malformed(ValueError):
    """A packet that is no XMP, or more than that."""


def tells_of(packet: bytes, marks: Iterable[bytes]) -> bool:
    """Whether it is worth parsing a packet."""
    return b"\0<" in packet[:8] or b"<\0" in packet[:8] or any(mark in packet for mark in marks)


def as_text(packet: bytes) -> str:
    """The letters of a packet in any of the encodings XMP allows."""
    name = next((name for mark, name in ENCODINGS if packet.startswith(mark)), "utf-8")
    try:
        text = packet.decode(name)
    except UnicodeDecodeError:
        text = packet.decode("latin-1")
    return NOT_IN_XML.sub("", text.lstrip("\ufeff"))


def parse(packet: bytes) -> dict[str, Any]:
    """The properties of a packet: {"{namespace}name": text, list or {name: ...}}.

    Attributes and elements, the two ways to write a property, come out as the same; `toolkit` is
    what wrote it. Raises Malformed for what is no XMP; a document type is refused unread, as its
    entities can fill the memory or name files.
    """
    text = as_text(packet)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise Malformed("holds a document type, which XMP has not")
    text = re.sub(r"^\s*<\?xml [^>]*\?>", "", text).strip()
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise Malformed(sf.one_line(error)) from None
    values: dict[str, Any] = {"toolkit": root.get("{adobe:ns:meta/}xmptk", "")}
    for whole in root.iter(f"{RDF}RDF"):
        for about in whole.findall(
            f"{RDF}Description"
        ):  # rdf:about, which has to be there, may lack
            values |= structure(about, 0)
    return values


def structure(element: ET.Element, depth: int) -> dict[str, Any]:
    """The fields of a structure, by their full names."""
    own = element.attrib.items()
    found: dict[str, Any] = {
        name: value for name, value in own if not name.startswith(RDF) and name != XML_LANG
    }
    for child in element:
        found[child.tag] = value_of(child, depth + 1)
    return found


def value_of(element: ET.Element, depth: int) -> Any:
    """The value of a property: text, a list, or a structure."""
    if depth > DEEPEST:
        raise Malformed("nested too deeply")
    inner = list(element)
    if len(inner) == 1 and inner[0].tag in (f"{RDF}Bag", f"{RDF}Seq", f"{RDF}Alt"):
        return [value_of(item, depth + 1) for item in inner[0]]
    if len(inner) == 1 and inner[0].tag == f"{RDF}Description":
        return structure(inner[0], depth + 1)
    if f"{RDF}resource" in element.attrib and not inner:
        return element.get(f"{RDF}resource", "")
    if inner or any(not name.startswith(RDF) and name != XML_LANG for name in element.attrib):
        return structure(element, depth)
    return (element.text or "").strip()


def local(value: Any) -> dict[str, Any]:
    """A structure by its names without namespaces; writers differ in the latter."""
    if not isinstance(value, dict):
        return {}
    return {name.rpartition("}")[2]: part for name, part in value.items()}


def items(value: Any) -> list[Any]:
    """A list, also of what was written as a single value."""
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


def text_of(value: Any) -> str:
    """A text, also of alternatives in several languages: the first."""
    value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, dict):
        value = value.get(f"{RDF}value", "")
    return value if isinstance(value, str) else ""


# ============================================================================
# Regions
# ============================================================================

MWG = "{http://www.metadataworkinggroup.com/schemas/regions/}"
MICROSOFT = "{http://ns.microsoft.com/photo/1.2/}"
ACDSEE = "{http://ns.acdsee.com/regions/}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
DIGIKAM, LIGHTROOM = "{http://www.digikam.org/ns/1.0/}", "{http://ns.adobe.com/lightroom/1.0/}"
CAMERA_RAW = "{http://ns.adobe.com/camera-raw-settings/1.0/}"
TIFF, EXIF = "{http://ns.adobe.com/tiff/1.0/}", "{http://ns.adobe.com/exif/1.0/}"
XAP, PHOTOSHOP = "{http://ns.adobe.com/xap/1.0/}", "{http://ns.adobe.com/photoshop/1.0/}"
DATES = (  # property, what capture_time calls it in a sidecar
    (f"{EXIF}DateTimeOriginal", "sidecar_original"),
    (f"{PHOTOSHOP}DateCreated", "sidecar_photoshop"),
    (f"{EXIF}DateTimeDigitized", "sidecar_digitized"),
    (f"{XAP}CreateDate", "sidecar_create"),
    (f"{XAP}ModifyDate", "sidecar_modify"),
)
PEOPLE_TAGS = frozenset(  # tags under which digiKam and Lightroom keep people
    re.findall(
        r"\w+",
        "people personen personnes personas persone pessoas ludzie lidé människor люди 人物 人",
    )
)
WRITERS = (  # what tells a writer, in the order in which it counts
    ("digiKam", ("digikam",)),
    ("Lightroom", ("lightroom",)),
    ("Picasa", ("picasa",)),
    ("osxphotos", ("osxphotos",)),
    ("ACDSee", ("acdsee",)),
    ("Windows", ("windows photo", "windows live", "microsoft windows", "windows")),
    ("PhotoPrism", ("photoprism",)),
    ("Tag That Photo", ("tag that photo",)),
    ("Mylio", ("mylio",)),
    ("Photoshop", ("photoshop",)),
    ("darktable", ("darktable",)),
    ("Synology", ("synology",)),
    ("exiftool", ("exiftool",)),
)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A face somebody marked."""

    name: str  # "" where nobody was named
    box: Box  # x1 y1 x2 y2 in shares of the picture in the writer's frame; `pixels`: in its pixels
    writer: str
    place: str  # where it stands: "in the photo", or the sidecar's name
    size: tuple[float, float] = (0.0, 0.0)  # width and height of the picture it was drawn in
    pixels: bool = False


@dataclass
class Told:
    """What one packet, sidecar or list says."""

    regions: list[Region] = field(default_factory=list)
    people: dict[str, str] = field(default_factory=dict)  # names without a box: writer
    dates: list[tuple[str, str]] = field(default_factory=list)  # (where, text)
    orientation: int = 0  # 1 to 8; 0: says nothing
    extension: str = ""  # of the photo that a sidecar is for, in small letters
    notes: list[str] = field(default_factory=list)


def told_by(values: dict[str, Any], place: str) -> Told:
    """What the properties of a packet say of people, dates and orientation; place: where it is."""
    found, writer = Told(), writer_of(values)
    for read in (mwg_regions, microsoft_regions, acdsee_regions, iptc_regions):
        read(values, writer, place, found)
    for name in people_tags(values):
        found.people.setdefault(name, writer)
    for name in {region.name for region in found.regions} & found.people.keys():
        del found.people[name]
    texts = ((where, text_of(values.get(name))) for name, where in DATES)
    found.dates = [(where, text) for where, text in texts if text]
    turned = text_of(values.get(f"{TIFF}Orientation"))
    found.orientation = int(turned) if turned in set("12345678") else 0
    found.extension = text_of(values.get(f"{PHOTOSHOP}SidecarForExtension")).casefold()
    return found


def writer_of(values: dict[str, Any]) -> str:
    """The program that wrote a packet, as far as it can be told."""
    tools = (values.get("toolkit"), values.get(f"{XAP}CreatorTool"), values.get(f"{TIFF}Software"))
    texts = [text_of(tool).casefold() for tool in tools]
    for writer, words in WRITERS:
        if any(word in text for word in words for text in texts) and writer != "exiftool":
            return writer
    spaces = {name.partition("}")[0] + "}" for name in values}
    if DIGIKAM in spaces:
        return "digiKam"
    if f"{ACDSEE}Regions" in values:
        return "ACDSee"
    if spaces & {LIGHTROOM, CAMERA_RAW}:
        return "Lightroom"
    if f"{MICROSOFT}RegionInfo" in values and f"{MWG}Regions" not in values:
        return "Windows"
    return "exiftool" if "exiftool" in "".join(texts) else "another program"


def numbers(values: Iterable[Any]) -> list[float] | None:
    """Finite numbers of texts, None where one is none."""
    try:
        found = [float(text_of(value)) for value in values]
    except ValueError:
        return None
    return found if all(abs(value) < 1e6 for value in found) else None


def around(area: dict[str, Any], found: Told) -> Box | None:
    """The box of an area that is told by its centre; a circle's is the square around it."""
    keys = "xywh" if "w" in area or "d" not in area else "xydd"
    told = numbers(area.get(key) for key in keys)
    if told is None or min(told[2:]) <= 0:
        found.notes.append("a region without a box that can be read")
        return None
    x, y, w, h = told
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def size_of(value: Any) -> tuple[float, float]:
    """Width and height of AppliedToDimensions, 0 where it says nothing."""
    told = local(value)
    found = numbers((told.get("w"), told.get("h")))
    return (found[0], found[1]) if found and min(found) > 0 else (0.0, 0.0)


def mwg_regions(values: dict[str, Any], writer: str, place: str, found: Told) -> None:
    """Regions of the Metadata Working Group: digiKam, Lightroom, Picasa, osxphotos, Immich."""
    told = local(values.get(f"{MWG}Regions"))
    size = size_of(told.get("AppliedToDimensions"))
    for region in map(local, items(told.get("RegionList"))):
        if text_of(region.get("Type")) not in ("", "Face"):
            continue
        area = local(region.get("Area"))
        name = clean_name(text_of(region.get("Name")))
        if not area and name:
            found.people.setdefault(name, writer)
        elif area and (box := around(area, found)):
            pixels = text_of(area.get("unit")).startswith("pixel")
            one = "Lightroom" if "Rotation" in region and writer == "another program" else writer
            found.regions.append(Region(name, box, one, place, size, pixels))


def microsoft_regions(values: dict[str, Any], writer: str, place: str, found: Told) -> None:
    """Regions of Windows: the corner and the size; digiKam writes them beside the others."""
    known = {region.name for region in found.regions if region.name}
    for region in map(local, items(local(values.get(f"{MICROSOFT}RegionInfo")).get("Regions"))):
        name = clean_name(text_of(region.get("PersonDisplayName")))
        told = text_of(region.get("Rectangle"))
        if name in known and name:  # osxphotos swaps the sides of these
            continue
        box = numbers(told.split(",")) if told else None
        if not told and name:
            found.people.setdefault(name, writer)
        elif box and len(box) == 4 and min(box[2:]) > 0:
            x, y, w, h = box
            found.regions.append(Region(name, (x, y, x + w, y + h), writer, place))
        elif told:
            found.notes.append(f"a region without a box that can be read ({told[:40]!r})")


def acdsee_regions(values: dict[str, Any], writer: str, place: str, found: Told) -> None:
    """Regions of ACDSee; what was drawn by hand (DLYArea) counts more than what was found."""
    told = local(values.get(f"{ACDSEE}Regions"))
    size = size_of(told.get("AppliedToDimensions"))
    for region in map(local, items(told.get("RegionList"))):
        area = local(region.get("DLYArea")) or local(region.get("ALYArea"))
        if text_of(region.get("Type")) in ("", "Face") and area and (box := around(area, found)):
            name = clean_name(text_of(region.get("Name")))
            found.regions.append(Region(name, box, writer, place, size))


def iptc_regions(values: dict[str, Any], writer: str, place: str, found: Told) -> None:
    """Regions of the IPTC Photo Metadata Standard 2019: rectangles, circles and polygons."""
    for region in map(local, items(values.get(f"{IPTC}ImageRegion"))):
        edge = local(region.get("RegionBoundary"))
        named = [text_of(one) for one in items(region.get("PersonInImage"))]
        name = clean_name(named[0] if named else text_of(region.get("Name")))
        box = boundary_box({key.casefold(): value for key, value in edge.items()})
        if box and name:
            pixels = text_of(edge.get("RbUnit") or edge.get("rbUnit")) == "pixel"
            found.regions.append(Region(name, box, writer, place, pixels=pixels))
        elif name:
            found.people.setdefault(name, writer)


def boundary_box(edge: dict[str, Any]) -> Box | None:
    """The box around an IPTC boundary: a corner and a size, a centre and a radius, or corners."""
    corners = [local(one) for one in items(edge.get("rbvertices"))]
    if corners:
        low = [{key.casefold(): part for key, part in one.items()} for one in corners]
        told = numbers(one.get(key) for one in low for key in ("rbx", "rby"))
        return (min(told[::2]), min(told[1::2]), max(told[::2]), max(told[1::2])) if told else None
    if "rbrx" in edge:
        told = numbers(edge.get(key) for key in ("rbx", "rby", "rbrx"))
        x, y, r = told or (0.0, 0.0, 0.0)
        return (x - r, y - r, x + r, y + r) if told else None
    told = numbers(edge.get(key) for key in ("rbx", "rby", "rbw", "rbh"))
    return (told[0], told[1], told[0] + told[2], told[1] + told[3]) if told else None


def people_tags(values: dict[str, Any]) -> Iterator[str]:
    """Names that stand without a box: PersonInImage, and tags below People."""
    for name in items(values.get(f"{IPTC}PersonInImage")):
        yield from filter(None, [clean_name(text_of(name))])
    for key, mark in ((f"{DIGIKAM}TagsList", "/"), (f"{LIGHTROOM}hierarchicalSubject", "|")):
        for tag in map(text_of, items(values.get(key))):
            root, found, rest = tag.partition(mark)
            name = clean_name(rest.rpartition(mark)[2])
            if found and root.strip().casefold() in PEOPLE_TAGS and name:
                yield name


# ============================================================================
# Picasa
# ============================================================================

INI_NAMES = (".picasa.ini", "picasa.ini")
RECTANGLE = re.compile(r"rect64\(([0-9a-f]{1,16})\)\s*,\s*([0-9a-f]*)", re.IGNORECASE)


def read_ini(data: bytes) -> configparser.RawConfigParser:
    """A .picasa.ini. Raises ValueError for one that cannot be read."""
    ini = configparser.RawConfigParser(
        strict=False,
        delimiters=("=",),
        comment_prefixes=(),
        allow_no_value=True,
        default_section="\0",
    )
    ini.optionxform = str.casefold
    try:
        ini.read_string(data.decode("utf-8-sig", "replace"))
    except configparser.Error as error:
        raise ValueError(sf.one_line(error)) from None
    return ini


def contacts_of(ini: configparser.RawConfigParser) -> dict[str, str]:
    """{id: name} of the contacts that an ini lists."""
    found = {}
    for section in ("Contacts", "Contacts2"):
        if ini.has_section(section):
            told = ini.items(section)
            found |= {key: html.unescape(text or "").split(";")[0] for key, text in told}
    return found


def contacts_in(data: bytes) -> dict[str, str]:
    """{id: name} of Picasa's contacts.xml. Raises ValueError for one that cannot be read."""
    text = as_text(data)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("holds a document type")
    try:
        root = ET.fromstring(re.sub(r"^\s*<\?xml [^>]*\?>", "", text).strip())
    except ET.ParseError as error:
        raise ValueError(sf.one_line(error)) from None
    named = ((one.get("id", "").casefold(), one.get("name", "")) for one in root.iter("contact"))
    return {key: html.unescape(name) for key, name in named if key}


def picasa_regions(faces: str, contacts: dict[str, str], place: str) -> list[Region]:
    """The faces of one photo in a .picasa.ini: left, top, right and bottom as 16-bit numbers, all
    together without leading zeros."""
    regions = []
    for digits, contact in RECTANGLE.findall(faces):
        whole = digits.zfill(16)
        box = tuple(int(whole[at : at + 4], 16) / 0xFFFF for at in (0, 4, 8, 12))
        if box[0] < box[2] and box[1] < box[3]:
            name = clean_name(contacts.get(contact.casefold(), ""))
            regions.append(Region(name, box, "Picasa", place))
    return regions
