"""`video --soft-cuts MODEL.onnx`: transitions that a network finds, beside our own finder's.

TransNetV2 (Soucek and Lokoc, 2020, arXiv:2008.04838; github.com/soCzech/TransNetV2, MIT) looks at
windows of 100 frames of 48 x 27 px and says of each of the 50 in its middle how likely it is to lie
in a transition. It costs a hundred times what decoding a small film does, so it is asked only about
frames near which pictures a few seconds apart have nothing in common (`mark`).

The file is written by transnet_export.py.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import cv2
import numpy as np

import sort_faces as sf

soft_cuts = sf.companion("soft_cuts")

SHAPE = (1, 100, 27, 48, 3)  # float32 RGB, levels 0 to 255
BESIDE, STEP = 25, 50  # frames of a window on each side that do not count, and those that do
LIKELY = 0.5  # probability of the likeliest frame of a transition at least
LOW = 0.2  # of all of them
MARGINS = (0.12, 0.04)  # s given up before and after; it sees where they begin late
SHORTEST = 4  # frames; fewer are a cut
LATE = soft_cuts.KEEP  # thumbnails after which nothing marks a block any more
WANTED = (
    "TransNetV2 takes 1 x 100 x 27 x 48 x 3 floats and gives two times 1 x 100 x 1; "
    f"python {sf.part_of_work('transnet_export.py')} OUT.onnx writes it"
)

Hot = tuple[sf.Pts, sf.Pts, float, sf.PositiveInt]  # first pts, pts behind, peak, frames


class Network:
    """The model; name: its sha256."""

    def __init__(self, path: Path, spec: sf.EngineSpec, threads: int) -> None:
        """Load it and try it out. Raises SortFacesError for a file that is no such model."""
        self.path, self.name = path, name_of(path)
        models = sf.companion("onnx_models")
        try:
            self.session = models.Model(str(path), spec, threads)
        except (*models.model_errors(), *sf.engine_errors()) as error:
            raise self.refusal(f"no sound ONNX model ({sf.one_line(error)})") from None
        wants = self.session.get_inputs()
        shape = list(wants[0].shape) if len(wants) == 1 else []
        fits = len(shape) == len(SHAPE) and all(
            own == size or not isinstance(own, int) for own, size in zip(shape, SHAPE, strict=True)
        )
        if not fits or wants[0].type != "tensor(float)":
            inputs = ", ".join(f"{one.name} {one.type} {one.shape}" for one in wants)
            raise self.refusal(f"takes {inputs or 'nothing'}")
        self.input = wants[0].name
        self.likely(np.zeros(SHAPE[1:], np.uint8))

    def refusal(self, why: str) -> sf.SortFacesError:
        return sf.SortFacesError(f"--soft-cuts {self.path}: {why}; {WANTED}")

    def likely(self, window: np.ndarray) -> np.ndarray:
        """(100,) probability of each frame to lie in a transition; (100, 27, 48, 3) uint8."""
        try:
            outputs = self.session.run(None, {self.input: window[None].astype(np.float32)})
        except sf.engine_errors() as error:
            raise self.refusal(f"does not run ({sf.one_line(error)})") from None
        told = [np.ravel(one) for one in outputs if np.size(one) == SHAPE[1]]
        if len(told) != len(outputs) or len(told) != 2:
            shapes = ", ".join(str(list(np.shape(one))) for one in outputs)
            raise self.refusal(f"gives {shapes}")
        many = told[1]
        if not (np.abs(many - 0.5) <= 0.5).all():
            raise self.refusal("gives no probabilities")
        return many


def name_of(path: Path) -> str:
    """What scenes say of the network they were found with: the sha256 of its file."""
    if not path.is_file():
        raise sf.SortFacesError(f"--soft-cuts {path}: no such file; {WANTED}")
    return sf.sha256_of_file(path)


def load(path: Path, crew: sf.Crew | None) -> Network:
    """The network, on what the crew computes on where it works here."""
    here = crew is not None and not crew.elsewhere
    return Network(path, crew.spec if here else sf.EngineSpec(), crew.threads if here else 1)


class Windows:
    """Asks a network about the frames of a film, fed in display order, 50 at a time.

    found: runs of frames that may lie in a transition, block by block.
    """

    # (s, frames): what marks the blocks that are not decided yet, as soft_cuts.MEMORY
    MEMORY = tuple(2 * part for part in soft_cuts.MEMORY)

    def __init__(self, network: Network) -> None:
        self.network, self.asleep = network, False
        self.frames: deque[tuple[int, np.ndarray]] = deque()  # (pts, picture)
        self.base = 0  # number of the first of them
        self.thumbs: deque[int] = deque(maxlen=LATE)  # numbers of the newest with a thumbnail
        self.block = 0  # the next that is decided
        self.marked: set[int] = set()
        self.found: list[Hot] = []
        self.asked = 0  # frames

    def sleep(self, marking: int) -> int:
        """Ask nothing until `wake`; the number of the first frame that has to be fed again.

        marking: that of the first that may mark a block that is not decided yet.
        """
        self.base = max(0, marking - BESIDE - 2 * STEP)
        self.block, self.asleep = -(-self.base // STEP), True
        return self.base

    def wake(self, found: list[Hot]) -> None:
        """Go on from what was found before."""
        self.found, self.asleep = found, False

    def feed(self, pts: int, small: np.ndarray) -> None:
        """Take the next frame; small (h, w, 3) uint8 BGR."""
        picture = cv2.resize(small, SHAPE[3:1:-1], interpolation=cv2.INTER_AREA)
        self.frames.append((pts, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)))

    def thumbnail(self) -> None:
        """The newest frame has a thumbnail; decide what nothing can mark any more."""
        self.thumbs.append(self.base + len(self.frames) - 1)
        while len(self.thumbs) == LATE and self.thumbs[0] >= (self.block + 1) * STEP:
            self.decide()

    def mark(self, first: int, last: int) -> None:
        """Ask about the frames between two thumbnails, counted back from the newest, 0."""
        ends = (self.thumbs[-1 - back] // STEP for back in (first, last))
        self.marked.update(range(next(ends), next(ends) + 1))

    def finish(self) -> None:
        """Decide what is left at the end of the film."""
        while self.base + len(self.frames) > self.block * STEP:
            self.decide()

    def decide(self) -> None:
        """Ask about the next block, if it is marked, and let go of its frames."""
        first = self.block * STEP - self.base  # in self.frames; those before it have been dropped
        if self.block in self.marked and not self.asleep:
            self.ask(first)
        self.marked.discard(self.block)
        self.block += 1
        for _ in range(min(len(self.frames), max(0, self.block * STEP - BESIDE - self.base))):
            self.frames.popleft()
            self.base += 1

    def ask(self, first: int) -> None:
        """Note the runs of likely frames in the block that begins at self.frames[first]."""
        wanted = np.arange(first - BESIDE, first + STEP + BESIDE)
        last = len(self.frames) - 1
        window = np.stack([self.frames[at][1] for at in wanted.clip(0, last).tolist()])
        many = self.network.likely(window)[BESIDE : BESIDE + STEP]
        hot = many[: last + 1 - first] >= LOW
        self.asked += len(hot)
        edges = np.flatnonzero(np.diff([False, *hot, False])).reshape(-1, 2)
        for low, high in edges.tolist():
            over = first + high > last
            behind = self.frames[last][0] + 1 if over else self.frames[first + high][0]
            peak = round(float(many[low:high].max()), 3)
            self.found.append((self.frames[first + low][0], behind, peak, high - low))

    def transitions(self, tick: float) -> list[tuple[int, int]]:
        """(first frame, frame behind the last) in pts of each; tick: s per pts."""
        before, after = (round(margin / tick) for margin in MARGINS)
        runs: list[Hot] = []
        for low, high, peak, frames in self.found:
            if runs and low <= runs[-1][1]:
                start, _, highest, count = runs.pop()
                low, peak, frames = start, max(peak, highest), frames + count
            runs.append((low, high, peak, frames))
        return [
            (low - before, high + after)
            for low, high, peak, frames in runs
            if peak >= LIKELY and frames >= SHORTEST
        ]
