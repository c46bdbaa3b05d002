"""Which pairs of faces are close, computed by torch on a GPU.

Loaded by sort_faces.py for GPU_FACES faces and more. Needs torch with CUDA (or ROCm, which torch
calls cuda, too); without it, or without the card's driver, the CPU computes as ever.
CUDA_VISIBLE_DEVICES= (empty) keeps a run off the GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import sort_faces as sf

# Cosines this near the limit are left to the CPU. Rounding of 512 float32 products of unit rows
# stays below 512 * 2^-24 * sum |u v| <= 3.1e-5 whatever the order (Higham 2002, "Accuracy and
# Stability of Numerical Algorithms", 3.5), on both sides, and TF32 is off.
ROUNDING = 2.0**-24  # of one float32 operation
DRIVERS = {"win32": ("nvcuda.dll",), "linux": ("libcuda.so.1", "libamdhip64.so")}

Closeness = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def closeness(unit: np.ndarray, min_cosine: float, on_cpu: Closeness) -> Closeness:
    """As sf.closeness, on the first GPU, or `on_cpu` itself where there is none that serves."""
    torch = torch_with_gpu()
    if torch is None:
        return on_cpu
    try:
        result = closeness_on(torch, "cuda", unit, min_cosine, on_cpu)
    except (torch.OutOfMemoryError, RuntimeError) as error:  # another process may hold the card
        sf.note(f"the GPU does not take {len(unit)} faces, the CPU does: {sf.one_line(error)}")
        return on_cpu
    sf.note(f"{len(unit)} faces are compared on {torch.cuda.get_device_name(0)}")
    return result


def torch_with_gpu() -> Any:
    """The package torch if it is there and sees a GPU, else None. Loading it takes seconds, so
    that is left alone where the card has no driver."""
    if importlib.util.find_spec("torch") is None or not has_driver():
        return None
    import torch

    return torch if torch.cuda.is_available() else None


@functools.cache
def has_driver() -> bool:
    """Whether a GPU's driver can be loaded."""
    for name in DRIVERS.get(sys.platform, ()):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


def closeness_on(
    torch: Any, device: str, unit: np.ndarray, min_cosine: float, on_cpu: Closeness
) -> Closeness:
    """A function of rows (r,), columns (c,) and labels (n,) to (r, c) bool, cosine >= min_cosine.

    unit: (n, d) float32, held on `device` as a whole. Where a pair of different labels is too near
    the limit to be sure of, on_cpu computes the block: so labels come out as on the CPU.
    """
    there = torch.from_numpy(np.ascontiguousarray(unit)).to(device)
    slack = 2 * unit.shape[1] * ROUNDING * norm_limit(unit)

    def on_gpu(rows: np.ndarray, columns: np.ndarray, labels: np.ndarray) -> np.ndarray:
        with full_precision(torch):
            cosine = taken(torch, there, rows) @ taken(torch, there, columns).T
        sure = cosine >= min_cosine + slack
        doubt = (cosine >= min_cosine - slack) ^ sure
        row, column = torch.nonzero(doubt).cpu().numpy().T
        if (labels[rows[row]] != labels[columns[column]]).any():
            return on_cpu(rows, columns, labels)
        return sure.cpu().numpy()

    return on_gpu
