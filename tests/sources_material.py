"""Photos as other programs leave them: regions of each writer, sidecars, and a cache that knows the
faces."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import PIL.Image
from conftest import make_cache, sf

Box = tuple[float, float, float, float]  # x1 y1 x2 y2, shares of the upright picture
xmp = sf.companion("consumers_xmp")
word = sf.companion("sources_word")
decisions = sf.companion("decisions")

LEFT, RIGHT = (0.1, 0.2, 0.35, 0.7), (0.6, 0.1, 0.8, 0.5)
SPACES = """
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
 xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
 xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:MP="http://ns.microsoft.com/photo/1.2/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:MPRI="http://ns.microsoft.com/photo/1.2/t/RegionInfo#"
 xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#"
 xmlns:acdsee-rs="http://ns.acdsee.com/regions/"
 xmlns:acdsee-stDim="http://ns.acdsee.com/sType/Dimensions#"
 xmlns:acdsee-stArea="http://ns.acdsee.com/sType/Area#"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:digiKam="http://www.digikam.org/ns/1.0/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" """


def packet(*parts: str, tool: str = "XMP Core 4.4.0-Exiv2", head: str = "") -> bytes:
    """An XMP packet with these properties; head: attributes of the description."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="{tool}"><rdf:RDF{SPACES}>'
        f'<rdf:Description rdf:about="" {head}>{"".join(parts)}</rdf:Description></rdf:RDF>'
        '</x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode()


def mwg(faces: dict[str, Box], size: tuple[int, int] | None = (400, 300), more: str = "") -> str:
    """Regions as digiKam writes them: elements, the centre."""
    told = ""
    for name, (x1, y1, x2, y2) in faces.items():
        told += (
            '<rdf:li><rdf:Description mwg-rs:Type="Face" '
            f'mwg-rs:Name="{escape(name, {chr(34): "&quot;"})}">'
            f'<mwg-rs:Area stArea:x="{(x1 + x2) / 2}" stArea:y="{(y1 + y2) / 2}" '
            f'stArea:w="{x2 - x1}" stArea:h="{y2 - y1}" stArea:unit="normalized"/>{more}'
            "</rdf:Description></rdf:li>"
        )
    where = size and (
        f'<mwg-rs:AppliedToDimensions stDim:w="{size[0]}" stDim:h="{size[1]}" stDim:unit="pixel"/>'
    )
    return (
        f'<mwg-rs:Regions rdf:parseType="Resource">{where or ""}'
        f"<mwg-rs:RegionList><rdf:Bag>{told}</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
    )


def microsoft(faces: dict[str, Box]) -> str:
    """Regions as Windows writes them: the corner and the size, commas between."""
    told = "".join(
        '<rdf:li rdf:parseType="Resource">'
        f"<MPReg:Rectangle>{x1}, {y1}, {x2 - x1}, {y2 - y1}</MPReg:Rectangle>"
        f"<MPReg:PersonDisplayName>{escape(name)}</MPReg:PersonDisplayName></rdf:li>"
        for name, (x1, y1, x2, y2) in faces.items()
    )
    inside = f"<MPRI:Regions><rdf:Bag>{told}</rdf:Bag></MPRI:Regions>"
    return f'<MP:RegionInfo rdf:parseType="Resource">{inside}</MP:RegionInfo>'


def acdsee(faces: dict[str, Box]) -> str:
    """Regions as ACDSee writes them: a square it found, and the area that was drawn."""
    told = ""
    for name, (x1, y1, x2, y2) in faces.items():
        middle = f'acdsee-stArea:x="{(x1 + x2) / 2}" acdsee-stArea:y="{(y1 + y2) / 2}"'
        told += (
            '<rdf:li rdf:parseType="Resource">'
            f'<acdsee-rs:ALYArea {middle} acdsee-stArea:w="0.01" acdsee-stArea:h="0.01"/>'
            f'<acdsee-rs:DLYArea {middle} acdsee-stArea:w="{x2 - x1}" acdsee-stArea:h="{y2 - y1}"/>'
            f"<acdsee-rs:Name>{escape(name)}</acdsee-rs:Name>"
            "<acdsee-rs:Type>Face</acdsee-rs:Type></rdf:li>"
        )
    inside = f"<acdsee-rs:RegionList><rdf:Bag>{told}</rdf:Bag></acdsee-rs:RegionList>"
    return f'<acdsee-rs:Regions rdf:parseType="Resource">{inside}</acdsee-rs:Regions>'


def iptc(faces: dict[str, Box], unit: str = "relative", size: tuple[int, int] = (1, 1)) -> str:
    """Image regions of the IPTC standard."""
    told = ""
    for name, box in faces.items():
        x1, y1, x2, y2 = np.array(box) * [*size, *size]
        told += (
            '<rdf:li rdf:parseType="Resource"><Iptc4xmpExt:RegionBoundary '
            f'rdf:parseType="Resource"><Iptc4xmpExt:rbShape>rectangle</Iptc4xmpExt:rbShape>'
            f"<Iptc4xmpExt:rbUnit>{unit}</Iptc4xmpExt:rbUnit>"
            f"<Iptc4xmpExt:rbX>{x1}</Iptc4xmpExt:rbX><Iptc4xmpExt:rbY>{y1}</Iptc4xmpExt:rbY>"
            f"<Iptc4xmpExt:rbW>{x2 - x1}</Iptc4xmpExt:rbW>"
            f"<Iptc4xmpExt:rbH>{y2 - y1}</Iptc4xmpExt:rbH></Iptc4xmpExt:RegionBoundary>"
            f"<Iptc4xmpExt:PersonInImage><rdf:Bag><rdf:li>{escape(name)}</rdf:li></rdf:Bag>"
            "</Iptc4xmpExt:PersonInImage></rdf:li>"
        )
    return f"<Iptc4xmpExt:ImageRegion><rdf:Bag>{told}</rdf:Bag></Iptc4xmpExt:ImageRegion>"


def picasa(faces: dict[str, Box], contacts: dict[str, str]) -> str:
    """The value of `faces=` in a .picasa.ini: numbers without leading zeros; {id: box}."""
    told = []
    for contact, box in faces.items():
        whole = "".join(f"{round(share * 0xFFFF):04x}" for share in box)
        told.append(f"rect64({whole.lstrip('0')}),{contact}")
    names = "".join(f"{key}={name};;\n" for key, name in contacts.items())
    return f"faces={';'.join(told)}\n", f"[Contacts2]\n{names}" if names else ""


def stored(faces: dict[str, Box], orientation: int) -> dict[str, Box]:
    """Upright boxes as boxes of the picture as it is stored."""
    return {name: xmp.turned_back(box, orientation) for name, box in faces.items()}


def jpeg(orientation: int = 1, told: bytes = b"", wh: tuple[int, int] = (400, 300)) -> bytes:
    """A JPEG whose upright size is `wh`; no two are the same."""
    if orientation > 4:
        wh = wh[::-1]
    noise = np.frombuffer(np.random.default_rng().bytes(27), np.uint8).reshape(3, 3, 3)
    picture = PIL.Image.fromarray(noise).resize(wh)
    exif = PIL.Image.Exif()
    if orientation > 1:
        exif[sf.EXIF_ORIENTATION] = orientation
    stream = io.BytesIO()
    picture.save(stream, "JPEG", exif=exif, xmp=told)
    return stream.getvalue()


class Tagged:
    """A folder of photos, each with the faces LEFT and RIGHT, and the cache that knows them."""

    def __init__(self, folder: Path) -> None:
        self.photos, self.cache_path = folder / "photos", folder / "lib.npz"
        self.faces: dict[str, Sequence[Box]] = {}
        self.photos.mkdir()

    def put(self, name: str, data: bytes, faces: Sequence[Box] = (LEFT, RIGHT)) -> Path:
        """Write a photo; faces: where it shows some."""
        path = self.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.faces[name] = faces
        return path

    def beside(self, name: str, data: bytes | str) -> Path:
        """Write a file that is no photo."""
        path = self.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def save(self, people: Sequence[int] | None = None) -> sf.FaceCache:
        """Write the cache; people: who each face is, everybody else by default."""
        paths = [self.photos / name for name in self.faces]
        whs = [sf.read_photo(str(path)).wh for path in paths]
        boxes = [
            np.array(face) * [*wh, *wh]
            for wh, faces in zip(whs, self.faces.values(), strict=True)
            for face in faces
        ]
        counts = [len(faces) for faces in self.faces.values()]
        total, files = sum(counts), len(paths)
        who = list(range(total)) if people is None else list(people)
        cache = make_cache(max(max(who), files) + 1, total + 1, root=str(self.photos))
        rows = [person * (total + 1) + at for at, person in enumerate(who)]
        facts = [path.stat() for path in paths]
        columns = {
            name: getattr(cache, name)[rows if about.rows == "n" else slice(files)]
            for name, about in sf.COLUMNS.items()
            if about.rows != "a"
        }
        columns |= {
            "file_path": np.array([str(path) for path in paths]),
            "file_sha256": np.array([sf.sha256_of_file(str(path)) for path in paths]),
            "file_size": np.array([fact.st_size for fact in facts], np.int64),
            "file_mtime_ns": np.array([fact.st_mtime_ns for fact in facts], np.int64),
            "file_wh": np.array(whs, np.int32),
            "face_file": np.repeat(np.arange(files, dtype=np.int32), counts),
            "face_index": np.concatenate([np.arange(n) for n in counts]).astype(np.int16),
            "bbox": np.array(boxes, np.float32).reshape(-1, 4),
        }
        cache = replace(cache, **columns)
        sf.save_cache(self.cache_path, cache)
        return cache

    def read(self, tags: str = "read") -> dict[str, int]:
        """What `embed` does with tags at its end."""
        return word.take_in(self.cache_path, tags)

    def names(self) -> dict[str, list[str]]:
        """{photo: the names of its faces from left to right, "" for none} as the word has them."""
        cache = sf.load_cache(self.cache_path)
        told = sf.operators_word(self.cache_path, cache)
        found: dict[str, list[str]] = {name: [] for name in self.faces}
        for row in range(cache.faces):
            path = Path(cache.file_path[cache.face_file[row]])
            name = path.relative_to(self.photos).as_posix()
            found[name].append(told.names.get(int(told.person[row]), ""))
        return found

    def authors(self) -> set[str]:
        """Who said what stands."""
        return {line.author for line in decisions.Book(self.cache_path).standing()}
