"""`--hwaccel`: decoding on a device, where PyAV offers it and the device works."""

from __future__ import annotations

from typing import Any

import sort_faces as sf


def accelerator(kind: str) -> Any:
    """What av.open takes to decode on a kind of device; None for "". Raises SortFacesError.

    A film that the device cannot decode is decoded on the CPU.
    """
    if not kind:
        return None
    from av.codec import hwaccel

    offered = hwaccel.hwdevices_available()
    if kind not in offered:
        raise sf.SortFacesError(
            f"--hwaccel {kind}: this PyAV offers {', '.join(offered) or 'no device'}; leave it out "
            "to decode on the CPU"
        )
    return hwaccel.HWAccel(kind, allow_software_fallback=True)


def refused(kind: str, error: Exception) -> sf.SortFacesError:
    """What to raise where a device cannot be opened."""
    return sf.SortFacesError(
        f"--hwaccel {kind}: the device does not open ({sf.one_line(error)}); leave it out to "
        "decode on the CPU"
    )
