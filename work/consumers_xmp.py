"""Face regions with names as XMP sidecars: what Immich, digiKam, Lightroom and PhotoPrism read.

Each photo that shows somebody with a name gets one sidecar with the regions in both spellings
(mwg-rs of the Metadata Working Group, MPRI/MPReg of Microsoft), in a tree that mirrors the sources
or, when asked for, beside the photos; never into them. A region is told in the picture as it is
stored, so that a reader that turns it by the photo's orientation gets the upright box back.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any
from xml.sax.saxutils import escape, unescape

import numpy as np

import sort_faces as sf

consumers = sf.companion("consumers")
Subject = consumers.Subject

NO_SIDECAR = "a film; its frames get no sidecars"
# Why a face that is the person's may not be among those exported; of all other reasons it may be
# somebody else's, and no photo is told a name that is in doubt.
STILL_THEIRS = re.compile(
    r"face too small|not the best of the near-duplicates|photo (gone|unreadable)"
    r"|(no|\d+) faces in the crop|mask|sunglasses|same bytes"
)
MARK = f'x:xmptk="{sf.TOOL}"'  # tells our sidecars from those of others
LONGEST_HEAD = 1 << 14  # bytes that are looked at for it; a path may have 4096
OWNER = 'sort_faces:Corpus="{place}" sort_faces:Made="{made}"'
OTHERS = "beside it is"  # part of the reasons that say whose sidecar keeps ours away
QUOTE = {'"': "&quot;"}
ENDING = ".xmp"
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
DIGITS = 8  # of a share of an edge: a hundredth of a pixel of any camera
INSIDE = 0.25  # px between a pixel's edge and a region's: programs round, and some round down

SIDECAR = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" {mark}>
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:sort_faces="urn:sort_faces:1:" {owner}
    xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
    xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
    xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
    xmlns:MP="http://ns.microsoft.com/photo/1.2/"
    xmlns:MPRI="http://ns.microsoft.com/photo/1.2/t/RegionInfo#"
    xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#">
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:AppliedToDimensions stDim:w="{w}" stDim:h="{h}" stDim:unit="pixel"/>
    <mwg-rs:RegionList>
     <rdf:Bag>
{mwg}
     </rdf:Bag>
    </mwg-rs:RegionList>
   </mwg-rs:Regions>
   <MP:RegionInfo rdf:parseType="Resource">
    <MPRI:Regions>
     <rdf:Bag>
{microsoft}
     </rdf:Bag>
    </MPRI:Regions>
   </MP:RegionInfo>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
AREA = 'stArea:x="{x}" stArea:y="{y}" stArea:w="{w}" stArea:h="{h}"'
RECTANGLE = "<MPReg:Rectangle>{left}, {top}, {w}, {h}</MPReg:Rectangle>"
REGIONS = re.compile(r" *<rdf:li rdf:parseType.*?</rdf:li>\n", re.DOTALL)
MWG_REGION = f"""\
      <rdf:li rdf:parseType="Resource">
       <mwg-rs:Area {AREA} stArea:unit="normalized"/>
       <mwg-rs:Name>{{name}}</mwg-rs:Name>
       <mwg-rs:Type>Face</mwg-rs:Type>
      </rdf:li>"""
MICROSOFT_REGION = f"""\
      <rdf:li rdf:parseType="Resource">
       {RECTANGLE}
       <MPReg:PersonDisplayName>{{name}}</MPReg:PersonDisplayName>
      </rdf:li>"""


@dataclass(frozen=True)
class Region:
    """A named face of a photo."""

    name: str
    box: tuple[float, float, float, float]  # x1 y1 x2 y2, shares of the upright picture


@dataclass(frozen=True)
class Owner:
    """The corpus a sidecar was written for; without one by a version that noted none."""

    place: str = ""  # its folder, as XML may hold it
    made: str = ""  # when it was begun, by its manifest


NOBODY = Owner()


# --- pure -------------------------------------------------------------------


def region_of(name: str, bbox: np.ndarray, wh: tuple[int, int]) -> Region:
    """A region of a box (4,) in pixels of the upright picture; what sticks out is cut off.

    Its edges lie INSIDE whole pixels. digiKam makes pixels of both kinds of regions, which differ
    in their last digits, and has two faces where these are not the same: so it was of edges in the
    middle of a pixel, as dlib's are.
    """
    limit = np.array([*wh, *wh])
    x1, y1, x2, y2 = np.clip(np.rint(np.asarray(bbox, float)), 0, limit)
    x1, y1 = min(x1, wh[0] - 1), min(y1, wh[1] - 1)
    edges = x1 + INSIDE, y1 + INSIDE, max(x2, x1 + 1) - INSIDE, max(y2, y1 + 1) - INSIDE
    return Region(name, tuple((edges / limit).tolist()))


def exact_region(bbox: np.ndarray, wh: tuple[int, int]) -> Region:
    """The region as it was written before edges were whole pixels."""
    limit = np.array([*wh, *wh], float)
    return Region("", tuple(np.clip(np.asarray(bbox, float) / limit, 0, 1).tolist()))


def turned_back(
    box: tuple[float, float, float, float], orientation: int
) -> tuple[float, float, float, float]:
    """A box of the upright picture, in shares, as a box of the picture as it is stored.

    Undoes what turn_upright does for an EXIF orientation 1 to 8.
    """
    x1, y1, x2, y2 = box
    if orientation in (3, 4, 7, 8):
        y1, y2 = 1 - y2, 1 - y1
    if orientation in (2, 3, 6, 7):
        x1, x2 = 1 - x2, 1 - x1
    return (y1, x1, y2, x2) if orientation in (5, 6, 7, 8) else (x1, y1, x2, y2)


def turned(
    box: tuple[float, float, float, float], orientation: int
) -> tuple[float, float, float, float]:
    """A box of the picture as it is stored, in shares, as a box of the upright picture."""
    return turned_back(box, {6: 8, 8: 6}.get(orientation, orientation))


def sidecar(
    regions: Iterable[Region], wh: tuple[int, int], orientation: int, owner: Owner = NOBODY
) -> bytes:
    """The XMP of a photo's regions; wh: width and height of the upright picture."""
    stored = wh[::-1] if orientation in (5, 6, 7, 8) else wh
    mwg, microsoft = [], []
    for region in regions:
        facts = shares_of(turned_back(region.box, orientation))
        facts["name"] = escape(region.name)
        mwg.append(MWG_REGION.format(**facts))
        microsoft.append(MICROSOFT_REGION.format(**facts))
    lists = {"mwg": "\n".join(mwg), "microsoft": "\n".join(microsoft)}
    lists["owner"] = OWNER.format(place=escape(owner.place, QUOTE), made=escape(owner.made, QUOTE))
    return SIDECAR.format(mark=MARK, w=stored[0], h=stored[1], **lists).encode()


def shares_of(box: tuple[float, float, float, float]) -> dict[str, str]:
    """The numbers that tell of a box (x1, y1, x2, y2), as they are written."""
    x1, y1, x2, y2 = box
    shares = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "w": x2 - x1, "h": y2 - y1}
    shares |= {"left": x1, "top": y1}
    return {key: f"{share:.{DIGITS}f}" for key, share in shares.items()}


def plain_name(name: str) -> str:
    """A name as XML may hold it: one line, composed letters, nothing XML forbids."""
    return " ".join(unicodedata.normalize("NFC", NOT_IN_XML.sub("", name)).split())


def one_spelling(names: Mapping[str, str]) -> dict[str, str]:
    """{set: name as it is written everywhere}; sets without a name are not there.

    names: {set: name}. Names that differ in case or blanks alone are one person's, as Immich has
    it, and are spelled as most of the sets spell them, the first of those where it is a tie.
    """
    plain = {key: plain_name(name) for key, name in names.items() if name != sf.UNNAMED}
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for name in plain.values():
        spellings[name.casefold()][name] += 1
    return {
        key: spellings[name.casefold()].most_common(1)[0][0] for key, name in plain.items() if name
    }


# --- photos -----------------------------------------------------------------


def stored_orientation(data: bytes) -> int:
    """The orientation, 1 to 8, that a reader of the tag turns a photo by.

    Unlike orientation_of also of HEIC, where libheif turns the picture by other means.
    """
    return told_orientation(sf.open_with_pillow(data))


def told_orientation(header: Any) -> int:
    """The same of an opened Pillow image, 1 for None."""
    orientation = 1
    with contextlib.suppress(*sf.PILLOW_ERRORS):
        told = (getattr(header, "info", None) or {}).get("original_orientation")
        orientation = told or header.getexif().get(sf.EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def photo_regions(
    cache: sf.FaceCache, sets: Mapping[str, Iterable[int]], names: Mapping[str, str]
) -> dict[int, list[Region]]:
    """{photo: its named faces from left to right}; sets: {set: rows}, names: {set: its name}.

    A face of two sets, a person and one of its eras, is one region.
    """
    spelled, regions, told = one_spelling(names), defaultdict(list), set()
    for key, rows in sets.items():
        for row in map(int, rows):
            if key in spelled and (row, spelled[key]) not in told:
                told.add((row, spelled[key]))
                file = int(cache.face_file[row])
                wh = tuple(cache.file_wh[file].tolist())
                regions[file].append(region_of(spelled[key], cache.bbox[row], wh))
    return {file: sorted(some, key=lambda region: region.box) for file, some in regions.items()}


def sidecars(
    library: sf.Library,
    regions: Mapping[int, list[Region]],
    left: dict[str, str],
    owner: Owner = NOBODY,
) -> dict[str, bytes]:
    """{photo's path: its sidecar}, for every copy of each photo; `left` gets {path: why not}."""
    cache, made = library.cache, {}
    for file, some in regions.items():
        if film := sf.film_of(str(cache.file_path[file])):
            left[film] = NO_SIDECAR
            continue
        path = library.live_path(file)
        try:
            data = Path(path).read_bytes() if path else b""
        except OSError as error:
            data, path = b"", ""
            sf.log.info("%s: %s", cache.file_path[file], error)
        if not path:
            left[str(cache.file_path[file])] = sf.PHOTO_GONE
            continue
        wh = tuple(cache.file_wh[file].tolist())
        turn = sf.companion("sidecar_turn").noted(str(cache.file_note[file]))
        text = sidecar(some, wh, turn if turn > 1 else stored_orientation(data), owner)
        made.update(dict.fromkeys(cache.paths[file], text))
    return made


def mirrored(path: str, roots: Iterable[str]) -> str:
    """Where a photo's sidecar lies in the mirrored tree, with forward slashes.

    Below the folder it was scanned from, and below that folder's flattened name where there are
    several; a photo of none of them by its own flattened name.
    """
    roots = list(roots)
    above = [root for root in roots if PurePath(path).is_relative_to(root) and path != root]
    if not above:
        return sf.safe_dst_name(path) + ENDING
    root = max(above, key=len)
    inside = PurePath(path).relative_to(root).as_posix() + ENDING
    return f"{sf.safe_dst_name(root)}/{inside}" if len(roots) > 1 else inside


def write_mirror(folder: Path, made: Mapping[str, bytes], roots: Iterable[str]) -> dict[str, str]:
    """Write sidecars {photo's path: text} into a mirrored tree; {file: photo's path}."""
    written = {}
    for path, text in made.items():
        name = mirrored(path, roots)
        sf.write_part(sf.place_in(folder, name), text)
        written[name] = path
    return written


def is_ours(path: Path) -> bool:
    """Whether a sidecar is one that this tool has written."""
    return owner_in(path) is not None


def owner_in(path: Path) -> Owner | None:
    """Whose a sidecar of ours is; None where it is another program's, or not there."""
    try:
        with path.open("rb") as stream:
            head = stream.read(LONGEST_HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    if MARK not in head:
        return None
    told = re.search(OWNER.format(place='([^"]*)', made='([^"]*)'), head)
    back = {entity: letter for letter, entity in QUOTE.items()}
    return Owner(*(unescape(text, back) for text in told.groups())) if told else NOBODY


def owner_of(corpus: sf.Corpus) -> Owner:
    return Owner(NOT_IN_XML.sub("", str(corpus.root.resolve())), corpus.master.created)


@dataclass(frozen=True)
class Claims:
    """Which sidecars beside photos a corpus may touch: those that it wrote itself."""

    own: Owner
    mirror: Set[str] = frozenset()  # photos that its tree had a sidecar of before
    there: dict[Owner, bool] = field(default_factory=dict)  # what is_there has found

    def is_mine(self, photo: str) -> bool:
        """Whether the sidecar of a photo is this corpus's, from wherever it lay then.

        One without an owner is its own where its tree has one of that photo.
        """
        told = owner_in(Path(photo + ENDING))
        if told is None or told == NOBODY:
            return told is not None and photo in self.mirror
        moved = told.made == self.own.made and not self.is_there(told)
        return told.place == self.own.place or moved

    def hindrance(self, photo: str) -> str:
        """Why no sidecar is written beside a photo, as one of somebody else lies there, or ""."""
        target = Path(photo + ENDING)
        for ending in (ENDING, ENDING.upper()):
            for path in (Path(photo + ending), Path(photo).with_suffix(ending)):
                if os.path.lexists(path) and not is_ours(path):
                    return f"{path.name} {OTHERS} another program's"
        told = owner_in(target)
        if told in (None, NOBODY) or told.place == self.own.place or not self.is_there(told):
            return ""
        return f"{target.name} {OTHERS} of the corpus {told.place}"

    def is_there(self, owner: Owner) -> bool:
        """Whether another corpus lies where a sidecar says."""
        if owner not in self.there:
            told = sf.read_if_sound(Path(owner.place) / "manifest.json", sf.SwapManifest)
            self.there[owner] = told is not None and told.created == owner.made
        return self.there[owner]


def write_beside(made: Mapping[str, bytes], left: dict[str, str], claims: Claims) -> list[str]:
    """Write sidecars {photo's path: text} beside the photos; the files written or in place.

    One by another program, or of another corpus, stays as it is, and the former keeps ours away in
    the form PHOTO.xmp, too, which readers would no longer look at: `left` gets {photo's path: why
    not}.
    """
    done = []
    for path, text in made.items():
        photo, target = Path(path), Path(path + ENDING)
        if why := claims.hindrance(path):
            left[path] = why
        elif not photo.exists():
            left[path] = sf.PHOTO_GONE
        else:
            try:
                if not target.exists() or target.read_bytes() != text:
                    sf.write_bytes(target, text)
                done.append(str(target))
            except OSError as error:  # a disk that may only be read
                left[path] = f"no sidecar beside it: {error.strerror or error}"
    return done


def with_ours(paths: Iterable[str]) -> Iterator[str]:
    """The photos of `paths` beside which a sidecar of ours lies.

    Their folders are listed: of most photos there is none, and to ask of each takes long elsewhere.
    """
    there: dict[str, set[str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in there:
            there[folder] = set()
            with contextlib.suppress(OSError):
                there[folder] = {found for found in os.listdir(folder) if found.endswith(ENDING)}
        if name + ENDING in there[folder] and is_ours(Path(path + ENDING)):
            yield path


def remove_beside(paths: Iterable[str], left: dict[str, str], claims: Claims) -> list[str]:
    """Remove the corpus's own sidecars beside the photos `paths`; the files removed.

    `left` gets {photo's path: why not} where that cannot be.
    """
    gone = []
    for path in filter(claims.is_mine, with_ours(paths)):
        target = Path(path + ENDING)
        try:
            target.unlink()
            gone.append(str(target))
        except OSError as error:  # a disk that may only be read
            left[path] = f"the sidecar beside it stays: {error.strerror or error}"
    return gone


def without(
    text: str, boxes: Iterable[Sequence[float]], wh: tuple[int, int], names: Iterable[str]
) -> str:
    """A sidecar of ours without the regions of these faces, or of people called so; "" if none
    is left.

    boxes: (4,) each, pixels of the upright picture. However that is turned, one of eight regions
    is the face's.
    """
    kinds = functools.partial(region_of, ""), exact_region
    faces = [region(np.asarray(box), wh) for box in boxes for region in kinds]
    places = [shares_of(turned_back(face.box, turn)) for face in faces for turn in range(1, 9)]
    gone = {
        *(AREA.format(**place) for place in places),
        *(RECTANGLE.format(**place) for place in places),
        *(f">{escape(plain_name(name))}</" for name in names if plain_name(name)),
    }
    stay = REGIONS.sub(lambda found: "" if any(one in found[0] for one in gone) else found[0], text)
    return stay if REGIONS.search(stay) else ""


# --- the kind of export -----------------------------------------------------


def write_xmp(folder: Path, subjects: Sequence[Subject], options: dict[str, Any]) -> dict[str, str]:
    """The sidecars of all photos that show people with names."""
    corpus, left = subjects[0].corpus, {}
    if corpus.cache is None:
        return {"": consumers.NO_CACHE}
    whole = [subject for subject in subjects if subject.manifest.era is sf.UNSET]
    sets = {
        one.manifest.id: sf.rows_of_faces(corpus.cache, faces_of(one.manifest)) for one in whole
    }
    names = {one.manifest.id: person_of(one) for one in whole}
    regions = photo_regions(corpus.cache, sets, names)
    made = sidecars(consumers.library_of(corpus), regions, left, owner_of(corpus))
    roots = corpus.cache.meta.roots
    write_mirror(folder, made, roots)
    earlier = subjects[0].earlier
    if options.get("xmp_beside"):
        wanted = made if options["xmp_beside"] == "yes" else {}
        before = earlier / folder.name if earlier else folder
        known = {path for paths in corpus.cache.paths for path in paths}
        claims = Claims(owner_of(corpus), photos_of(before, roots).keys())
        gone = {*claims.mirror, *made, *known} - wanted.keys()
        remove_beside(sorted(gone), left, claims)
        write_beside(wanted, left, claims)
        warn_of_others(left)
    if not made:
        left[""] = "nobody has a name yet; write names into NAME.txt, or give them in `review`"
    return left


def warn_of_others(left: Mapping[str, str]) -> None:
    """Say once of each other corpus how many photos have its sidecar and not ours."""
    mark = f" {OTHERS} of the corpus "
    places = Counter(why.partition(mark)[2] for why in left.values() if mark in why)
    for place, count in places.items():
        take_away = sf.own_command("bundle", place, "--to", "xmp", "--xmp-beside", "no")
        sf.log.warning(
            "xmp: beside %d photos the sidecars are of the corpus %s, and stay; ours are in "
            "exports/xmp alone; to have ours there: %s", count, place, take_away,
        )  # fmt: skip


def faces_of(manifest: sf.FacesetManifest) -> list[str]:
    """The faces that are this person's, whether they were good enough to be exported or not."""
    dropped = (face for face in manifest.dropped if STILL_THEIRS.match(face.reason))
    return sorted({face.face for face in (*manifest.faces, *dropped)})


def told_faces(
    corpus: sf.Corpus, manifest: sf.FacesetManifest
) -> list[tuple[str, list[str]]] | None:
    """(face, where its photo lies) of a set; None where the cache is not there to tell."""
    cache = corpus.cache
    if cache is None:
        return None
    rows = sf.rows_of_faces(cache, faces_of(manifest))
    return [(cache.face_ids[row], cache.paths[cache.face_file[row]]) for row in rows]


def place(corpus: sf.Corpus, _manifest: sf.FacesetManifest) -> str:
    """Where a corpus lies, which its sidecars name."""
    return str(corpus.root.resolve())


def person_of(subject: Subject) -> str:
    """The name somebody gave it, without what tells it from others of that name."""
    own = subject.manifest.id
    return sf.UNNAMED if subject.name == own else subject.name.removesuffix(f" {own}")


def photos_of(folder: Path, roots: Sequence[str]) -> dict[str, Path]:
    """{photo: its sidecar in a mirrored tree}; only those below their source."""
    above = {sf.safe_dst_name(root): root for root in roots} if len(roots) > 1 else {}
    found = {}
    for path in folder.rglob("*" + ENDING):
        inside = path.relative_to(folder)
        root = above.get(inside.parts[0]) if above else roots[0]
        if root is not None:
            place = Path(root, *inside.parts[1:]) if above else Path(root) / inside
            found[str(place).removesuffix(ENDING)] = path
    return found


def fault_beside(corpus: sf.Corpus, left: Mapping[str, str]) -> str:
    """Why what of ours lies beside the photos is not what the mirrored tree has, or "".

    left: photos whose sidecar is not as it should be, as the manifest says why. `restore` brings
    back the tree alone.
    """
    if corpus.cache is None:
        return ""
    mirror = photos_of(corpus.root / sf.EXPORTS_FOLDER / "xmp", corpus.cache.meta.roots)
    claims = Claims(owner_of(corpus), mirror.keys())
    for photo, path in mirror.items():
        beside = Path(photo + ENDING)
        if not Path(photo).exists():
            continue
        if photo in left:
            if OTHERS in left[photo] and not claims.hindrance(photo):
                return f"{beside}: nobody else's sidecar is there any more"
            continue
        if not beside.is_file() or (is_ours(beside) and beside.read_bytes() != path.read_bytes()):
            return f"{beside} is not what exports/xmp has"
    known = (path for paths in corpus.cache.paths for path in paths)
    rest = with_ours(path for path in known if path not in mirror and path not in left)
    photo = next(filter(claims.is_mine, rest), "")
    return f"{photo}{ENDING} is not in exports/xmp" if photo else ""
