"""What lies beside the PNGs of a face set: its bundles, and the contact sheet of its best faces.

A set that is built anew takes over what its earlier self has already: a bundle of the same PNGs is
the same file under two names, and a face that was on the contact sheet is not decoded again.
"""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

import sort_faces as sf

LABEL_WH = 86, 20  # px; rank and score, at the lower left of a cell


def members_of(manifest: sf.FacesetManifest) -> dict[str, list[str]]:
    """{name: its files} of the bundles of a face set: its PNGs, and where it is exported for
    FaceSet V2 their metadata.json, one for all bundles of the same PNGs."""
    told = {file for exported in manifest.exports for file in exported.files}
    bundles = sf.bundles_of(manifest)
    return {
        name: [*files, *({metadata_of(bundles, name)} & told)] for name, files in bundles.items()
    }


def metadata_of(bundles: Mapping[str, Sequence[str]], name: str) -> str:
    """Where the FaceSet V2 metadata of a bundle lies within its face set."""
    first = next(one for one, files in bundles.items() if files == bundles[name])
    return f"{sf.EXPORTS_FOLDER}/fsz2/{Path(first).stem}/metadata.json"


def write_bundles(
    stage: Path, bundles: Mapping[str, Sequence[str]], earlier: Path | None = None
) -> list[str]:
    """Write {name: its PNGs} as flat, stored zips; returns their names.

    earlier: a folder whose bundles are taken over where they hold the same bytes. Those are hard
    links, as are two bundles of the same PNGs: a bundle is only ever replaced, never written to.
    """
    made: dict[tuple[str, ...], Path] = {}
    for name, files in bundles.items():
        same = made.get(tuple(files))
        if same is None and earlier is not None and not bundle_fault(earlier / name, stage, files):
            same = earlier / name
        (stage / name).unlink(missing_ok=True)  # it may be one file with another
        if same is None or not linked(same, stage / name):
            write_bundle(stage / name, stage, files)
        made[tuple(files)] = stage / name
    return list(bundles)


def write_bundle(bundle: Path, folder: Path, files: Sequence[str]) -> None:
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            info = zipfile.ZipInfo(PurePosixPath(file).name, sf.ZIP_DATE)
            info.external_attr = 0o600 << 16
            archive.writestr(info, (folder / file).read_bytes())


def linked(source: Path, target: Path) -> bool:
    """Give a file a second name, where its file system can."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def bundle_fault(bundle: Path, folder: Path, files: Sequence[str]) -> str:
    """Why a .fsz is not the flat, stored zip of exactly these PNGs of a folder, or ""."""
    if not bundle.is_file():
        return "is missing"
    try:
        with zipfile.ZipFile(bundle) as archive:
            if archive.namelist() != [PurePosixPath(file).name for file in files]:
                return "holds other files than the manifest lists"
            for info, file in zip(archive.infolist(), files, strict=True):
                if info.compress_type != zipfile.ZIP_STORED:
                    return f"{info.filename} is compressed"
                if (folder / file).is_file() and archive.read(info) != (folder / file).read_bytes():
                    return f"{info.filename} differs from the one on disk"
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, zlib.error) as error:
        return f"damaged: {sf.one_line(error)}"
    return ""


def contact_sheet(stage: Path, faces: Sequence[sf.Face], earlier: Path | None = None) -> bytes:
    """JPEG grid of the best faces, each with its rank and score.

    earlier: a folder on whose contact sheet some of them are.
    """
    import cv2

    shown = faces[: sf.GRID_COLUMNS * sf.GRID_ROWS]
    known = cells_of(earlier) if earlier is not None else {}
    sheet = np.full((*sheet_shape(len(shown)), 3), 32, np.uint8)
    for rank, face in enumerate(shown):
        cell = known.get(face.sha256)
        if cell is None:
            cell = cell_of(stage / face.file)
        if cell is None:
            continue  # damaged; verify says so
        target = sheet[cell_at(rank)]
        target[:] = cell
        label(target, f"{rank}  {face.quality:.2f}")
    whole_colour = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, 90, *whole_colour]
    return cv2.imencode(".jpg", sheet, options)[1].tobytes()


def sheet_shape(cells: int) -> tuple[int, int]:
    """(height, width) in pixels of a contact sheet."""
    return math.ceil(cells / sf.GRID_COLUMNS) * sf.GRID_CELL, sf.GRID_COLUMNS * sf.GRID_CELL


def cell_at(rank: int) -> tuple[slice, slice]:
    """Where on a contact sheet a face is."""
    y, x = (at * sf.GRID_CELL for at in divmod(rank, sf.GRID_COLUMNS))
    return slice(y, y + sf.GRID_CELL), slice(x, x + sf.GRID_CELL)


def cell_of(png: Path) -> np.ndarray | None:
    """A PNG in the size of a cell, None where it is damaged."""
    import cv2

    try:
        image = sf.decode_photo(png.read_bytes()).image
    except sf.PhotoError:
        return None
    return cv2.resize(image, (sf.GRID_CELL, sf.GRID_CELL), interpolation=cv2.INTER_AREA)


def cells_of(folder: Path) -> dict[str, np.ndarray]:
    """{sha256 of a PNG: its cell} of the contact sheet in the folder of a face set.

    Cells are whole blocks of the JPEG, with all of their colour, so that writing them again loses
    next to nothing (65 dB after ten times; docs/analysis/corpus.md); labels are painted over.
    """
    import cv2

    manifest = sf.read_if_sound(folder / "manifest.json", sf.FacesetManifest)
    shown = manifest.faces[: sf.GRID_COLUMNS * sf.GRID_ROWS] if manifest else []
    sheet = None
    with contextlib.suppress(OSError, cv2.error):
        data = np.fromfile(folder / "previews" / "top_20_grid.jpg", np.uint8)
        sheet = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if sheet is None or sheet.shape[:2] != sheet_shape(len(shown)):
        return {}
    return {face.sha256: sheet[cell_at(rank)] for rank, face in enumerate(shown)}


def label(cell: np.ndarray, text: str) -> None:
    import cv2

    bottom, (width, height) = len(cell), LABEL_WH
    cv2.rectangle(cell, (0, bottom - height), (width, bottom), (0, 0, 0), -1)
    font, white = cv2.FONT_HERSHEY_SIMPLEX, (255, 255, 255)
    cv2.putText(cell, text, (4, bottom - 5), font, 0.45, white, 1, cv2.LINE_AA)
