"""Which pairs of faces are close, computed by torch on a GPU.

Loaded by sort_faces.py for GPU_FACES faces and more. Needs torch with CUDA (or ROCm, which torch
calls cuda, too); without it, or without the card's driver, the CPU computes as ever.
CUDA_VISIBLE_DEVICES= (empty) keeps a run off the GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import sort_faces as sf

# Cosines this near the limit are left to the CPU. The rounding of a float32 sum of d products of
# unit rows stays, in all likelihood, below 5 * sqrt(d) * 2^-24 (Higham and Mary 2019, "A new
# approach to probabilistic rounding error analysis"): 7e-6 for d = 512. It is checked, too.
SLACK = 1e-5
TRUSTED_ERROR = 2e-6  # of a device's first block; TF32 has a thousand times that of float32
DRIVERS = {"win32": ("nvcuda.dll",), "linux": ("libcuda.so.1", "libamdhip64.so")}

Closeness = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def closeness(unit: np.ndarray, min_cosine: float, on_cpu: Closeness) -> Closeness:
    """As sf.closeness, on the first GPU, or `on_cpu` itself where there is none that serves."""
    torch = torch_with_gpu()
    if torch is None:
        return on_cpu
    result = OnDevice(torch, "cuda", unit, min_cosine, on_cpu)
    if result.there is not None:
        sf.log.info("%d faces are compared on %s", len(unit), torch.cuda.get_device_name(0))
    return result


def torch_with_gpu() -> Any:
    """The package torch if it is there and sees a GPU, else None. Loading it takes seconds, so
    that is left alone where there is no driver."""
    if importlib.util.find_spec("torch") is None or not has_driver():
        return None
    import torch

    return torch if torch.cuda.is_available() else None


def has_driver() -> bool:
    """Whether a GPU's driver can be loaded."""
    for name in DRIVERS.get(sys.platform, ()):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


class OnDevice:
    """A function of rows (r,), columns (c,) and labels (n,) to (r, c) bool, cosine >= min_cosine.

    unit: (n, d) float32, held on `device` as a whole. Where a pair of different labels is too near
    the limit to be sure of, on_cpu computes the block, so that labels come out as on the CPU. A
    device that fails or is not exact enough is given up; `there` is None then.
    """

    def __init__(
        self, torch: Any, device: str, unit: np.ndarray, min_cosine: float, on_cpu: Closeness
    ) -> None:
        self.torch, self.min_cosine, self.on_cpu = torch, min_cosine, on_cpu
        self.there = None
        torch.set_float32_matmul_precision("highest")  # no TF32
        try:
            self.there = torch.from_numpy(np.ascontiguousarray(unit)).to(device)
            block = np.arange(min(len(unit), sf.LINK_BLOCK))
            here = sf.rows_of(unit, block)
            error = np.abs(self.cosines(block, block).cpu().numpy() - here @ here.T).max()
        except RuntimeError as problem:  # out of memory is one, too
            self.give_up(sf.one_line(problem))
            return
        if not error <= TRUSTED_ERROR:
            self.give_up(f"its products are wrong by {error:.1e}")

    def __call__(self, rows: np.ndarray, columns: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if self.there is not None:
            try:
                sure, doubt = self.close(rows, columns)
            except RuntimeError as problem:
                self.give_up(sf.one_line(problem))
            else:
                if (labels[rows[doubt[0]]] == labels[columns[doubt[1]]]).all():
                    return sure
        return self.on_cpu(rows, columns, labels)

    def cosines(self, rows: np.ndarray, columns: np.ndarray) -> Any:
        """The product of two blocks, a tensor on the device."""
        return sf.rows_of(self.there, rows) @ sf.rows_of(self.there, columns).T

    def close(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(r, c) bool, surely close; and (2, p) places of the pairs that may be."""
        cosine = self.cosines(rows, columns)
        sure = cosine >= self.min_cosine + SLACK
        doubt = self.torch.nonzero((cosine >= self.min_cosine - SLACK) ^ sure)
        return sure.cpu().numpy(), doubt.T.cpu().numpy()

    def give_up(self, why: str) -> None:
        self.there = None
        sf.log.warning("the GPU is not used to compare faces, the CPU is: %s", why)
