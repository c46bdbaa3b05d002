"""What Windows makes of sf.to_windows_path: the way back, for the tests alone."""

from __future__ import annotations

import re

WSL_SHARE = re.compile(r"^//wsl\.localhost/([^/]+)(/.*)?$")
FORBIDDEN_DOWN = {ord(c) + 0xF000: ord(c) for c in '<>:"|?*\\'} | {
    c + 0xF000: c for c in range(1, 32)
}


def from_windows_path(path: str) -> str:
    r"""The WSL path of what to_windows_path made."""
    text = path.removeprefix("\\\\?\\UNC").removeprefix("\\\\?\\").replace("\\", "/")
    if path.startswith("\\\\?\\UNC"):
        text = "/" + text
    share = WSL_SHARE.match(text)
    if share:
        text = share[2] or "/"
    else:
        assert re.match(r"^[A-Z]:/", text), path
        text = f"/mnt/{text[0].lower()}{text[2:].rstrip('/') if len(text) == 3 else text[2:]}"
    return text.translate(FORBIDDEN_DOWN)
