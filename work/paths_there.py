"""Paths as whoever does the work opens them: on Windows beside WSL, or on other machines.

Loaded by worker_process.py and dask_cluster.py, on the side that sends the work.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import replace

import sort_faces as sf

# WSL sees drive E: as /mnt/e; Windows sees the WSL files as \\wsl.localhost\<distro>. Characters
# Windows forbids in names appear there 0xF000 higher, as WSL's own file server presents them.

DRIVE_MOUNT = re.compile(r"^/mnt/([a-z])(?=/|\Z)")
FORBIDDEN_UP = {ord(c): ord(c) + 0xF000 for c in '<>:"|?*\\'} | {
    c: c + 0xF000 for c in range(1, 32)
}
ODD_NAME = re.compile(
    r"[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE
)  # not in \\?\
LONG_PATH = 248  # characters; beyond, Windows wants the \\?\ form (CreateDirectory's limit)


def to_windows_path(path: str, distro: str) -> str:
    r"""Absolute WSL path as Windows opens it: `/mnt/e/x` -> `E:\x`, else `\\wsl.localhost\...`.

    Raises SortFacesError for a relative path, PhotoError for a name that is no Unicode.
    """
    if not path.startswith("/"):
        raise sf.SortFacesError(f"{path}: is no absolute path")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise sf.PhotoError("its name is no UTF-8, Windows cannot open it; rename it") from None
    drive = DRIVE_MOUNT.match(path)
    names = (path[drive.end() :] if drive else path).split("/")
    tail = "\\".join(name.translate(FORBIDDEN_UP) for name in names)
    if drive:
        whole, long = f"{drive[1].upper()}:{tail or chr(92)}", "\\\\?\\"
    else:
        whole, long = f"\\wsl.localhost\\{distro}{tail}", "\\\\?\\UNC"
    if len(whole.encode("utf-16-le")) // 2 >= LONG_PATH or any(map(ODD_NAME.search, names)):
        return long + whole
    return whole if drive else "\\" + whole


@functools.cache
def distro_name() -> str:
    """Name of the WSL distribution we run in. Raises SortFacesError outside WSL."""
    name = os.environ.get("WSL_DISTRO_NAME", "")
    if not name and shutil.which("wslpath"):
        shown = subprocess.run(["wslpath", "-w", "/"], capture_output=True, text=True).stdout
        name = shown.strip().strip("\\").split("\\")[-1]
    if not name:
        raise sf.SortFacesError(
            "--worker: no WSL distribution found; set WSL_DISTRO_NAME to what `wsl -l` shows"
        )
    return name


def path_there(crew: sf.Crew, path: str) -> str:
    """A path of ours as whoever does the work opens it."""
    local, remote = crew.work.path_map or ("", "")
    if local and (path + "/").startswith(local.rstrip("/") + "/"):
        return remote.rstrip("/") + path[len(local.rstrip("/")) :]
    if crew.work.worker.lower().endswith(".exe") and os.name != "nt":
        return to_windows_path(os.path.abspath(path), distro_name())
    return path


def item_there(crew: sf.Crew, item: sf.Item) -> sf.Item:
    """An item with its path as whoever does the work opens it."""
    return {**item, "path": path_there(crew, item["path"])} if "path" in item else item


def spec_there(crew: sf.Crew) -> sf.EngineSpec:
    """A crew's spec with the paths it names as whoever does the work opens them."""
    named = {key: getattr(crew.spec, key) for key in ("model", "model_root", "clip", "quality")}
    there = {
        key: path_there(crew, os.path.abspath(value))
        for key, value in named.items()
        if os.sep in value and not value.startswith("~") and os.path.exists(value)
    }
    return replace(crew.spec, **there)
