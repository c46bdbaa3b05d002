"""Cuts in the frames of a film: PySceneDetect's AdaptiveDetector, and what goes over slowly.

Cuts are those of PySceneDetect reading the film itself (docs/analysis/video.md).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

import sort_faces as sf

try:
    from scenedetect.common import FrameTimecode, Timecode
    from scenedetect.detectors import AdaptiveDetector
except ImportError as error:
    raise sf.SortFacesError(sf.package_hint(error)) from None

film_pass, film_reading = sf.companion("film_pass"), sf.companion("film_reading")
soft_cuts = sf.companion("soft_cuts")

if TYPE_CHECKING:
    from av import VideoFrame

JUMP = 27.0  # content score; ContentDetector's threshold for a cut on its own


class Cuts(AdaptiveDetector):
    """The detector with the same score, whose sums its own takes three times as long for."""

    parts: tuple[np.ndarray, ...] | None = None  # hue, saturation, value of the frame before

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: np.ndarray) -> float:
        before, self.parts = self.parts, cv2.split(cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV))
        if before is None:
            return 0.0
        pairs = zip(self.parts, before, strict=True)
        means = [cv2.norm(one, two, cv2.NORM_L1) / one.size for one, two in pairs]
        return sum(means) / len(means)


class SceneFinder:
    """Takes small pictures of frames and their times.

    soft: the same for what goes over slowly (soft_cuts.SoftCuts).
    """

    def __init__(self, video: sf.Video, network: Any = None) -> None:
        """network: transnet.Network, where one is asked for transitions, too."""
        base, rate = Fraction(*video.time_base), Fraction(video.fps or 25.0)
        self.timecode = lambda pts: FrameTimecode(Timecode(pts - video.start, base), rate)
        self.detector = Cuts(min_scene_len=film_pass.SCENE_LENGTH)
        known = hasattr(AdaptiveDetector, "_calculate_frame_score")
        if not known or not hasattr(self.detector, "_frame_score"):  # public ones cost edges
            raise sf.SortFacesError(
                "this scenedetect is not known to us; pip install scenedetect==0.7.2"
            )
        self.start = video.start
        self.soft = soft_cuts.SoftCuts(video)
        if network is not None:
            self.soft.windows = sf.companion("transnet").Windows(network)
        self.shape: tuple[int, ...] | None = None
        self.cuts: list[int] = []  # pts of the first frame of each scene but the first
        self.jumps: list[int] = []  # pts of frames unlike the one before, cut or not

    def feed(self, frame: VideoFrame, soft_only: bool = False) -> None:
        """Take the next frame in display order."""
        small = film_reading.small_picture(frame)
        self.shape = self.shape or small.shape
        if small.shape != self.shape:  # the picture size changed on the way
            small = cv2.resize(small, self.shape[1::-1])
        self.soft.feed(frame.pts, small)
        if soft_only:
            return
        cuts = self.detector.process_frame(self.timecode(frame.pts), small)
        self.cuts += [cut.pts + self.start for cut in cuts]
        if (self.detector._frame_score or 0.0) >= JUMP:
            self.jumps.append(frame.pts)
