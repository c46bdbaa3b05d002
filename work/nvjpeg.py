"""JPEGs decoded by an NVIDIA GPU: `--decode nvjpeg`.

A companion of sort_faces.py, loaded for that option. nvImageCodec
(docs.nvidia.com/cuda/nvimagecodec) decodes what several threads ask for in one call. What it cannot
decode OpenCV does.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

import numpy as np

import sort_faces as sf

batches, hush = sf.companion("batches"), sf.companion("hush")

MOST = 32  # JPEGs a call; an H100 decodes 796 photos/s of 12 megapixels by 32
NEEDS = "needs an NVIDIA GPU and `pip install nvidia-nvimgcodec-cu12[all]`, or -cu13 for CUDA 13"
LOADING = threading.Lock()


class JpegDecoder:
    """nvImageCodec on one device: the current GPU, or the CPU to try it without one."""

    def __init__(self, on_cpu: bool = False) -> None:
        """Raises SortFacesError where the library or the GPU is missing."""
        try:
            with hush.hushed():
                from nvidia import nvimgcodec as codec
        except ImportError as error:
            raise sf.SortFacesError(f"--decode nvjpeg: {NEEDS} ({error})") from None
        cpu = {
            "device_id": codec.NVIMGCODEC_DEVICE_CPU_ONLY,
            "backends": [codec.Backend(codec.BackendKind.CPU_ONLY)],
        }
        try:
            with hush.hushed():
                self.decoder = codec.Decoder(**(cpu if on_cpu else {}))
        except RuntimeError as error:
            raise sf.SortFacesError(f"--decode nvjpeg: {NEEDS} ({sf.one_line(error)})") from None
        self.how = codec.DecodeParams(
            apply_exif_orientation=False,  # decode_photo turns all photos alike
            color_spec=codec.ColorSpec.SRGB,
            sample_format=codec.SampleFormat.I_BGR,
        )
        self.ask = batches.Shared(self.decode_all, MOST)

    def decode_all(self, files: Sequence[bytes]) -> list[np.ndarray | None]:
        """(h, w, 3) uint8 BGR of each, not turned; None for what is not decoded."""
        with hush.hushed():
            found = self.decoder.decode(list(files), params=self.how)
        return [None if image is None else np.array(image.cpu()) for image in found]


@functools.cache
def decoder() -> JpegDecoder:
    return JpegDecoder()


def decode(data: bytes) -> np.ndarray | None:
    """(h, w, 3) uint8 BGR of a JPEG, not turned, or None. Raises SortFacesError without a GPU."""
    with LOADING:
        there = decoder()
    return there.ask([data])[0]
