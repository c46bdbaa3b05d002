"""One line of time for every film: stamps that rise from its first frame to its last.

Recorders leave films that were joined byte by byte, and whose time begins anew with each part.
Every part continues right behind the one before, so what was there keeps its times. Which part a
packet is of is told by where it lies in the file: a seek, which lands on bytes, finds the same
times.

AVI says when a packet is decoded, never when it is shown. The n-th frame shown takes the time of
the n-th packet, counted from the last key frame.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import sort_faces as sf

if TYPE_CHECKING:
    from av import Packet, Stream, VideoFrame, VideoStream
    from av.container import InputContainer

RESTART = 1.0  # s; time that falls by more begins anew
UNSURE = 5.0  # s; the same where a packet only says when it is shown: frames come out of order
LEAP = 10.0  # s ahead, in formats whose time may leap: ffmpeg's -dts_delta_threshold
BY_BYTES = frozenset({"mpegts", "mpeg"})  # formats that can be read from any byte on
UNORDERED = frozenset({"h264", "hevc"})  # codecs whose packets in AVI say nothing of their order
SEEK_BACK = 5.0  # s; where a seek lands too late, the next goes back so much more, then twice
BROKEN_PACKETS = 200  # in a row, after which the rest of a video is given up
LEADING = (
    16  # frames shown before a key frame that follow it in the file, at most: x264's --bframes
)


class Timeline:
    """The packets of an open film, from where it stands, with the times of one line.

    joined: where its time begins anew, as far as that is known; more is found on the way.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, joined: sf.Joined | None = None
    ) -> None:
        self.container, self.stream = container, stream
        self.joins = [*joined.joins] if joined else []
        self.keys = [*joined.keys] if joined else []  # (pts, byte) of key frames
        self.indexed = joined is not None  # time may begin anew, so that it cannot be sought
        self.bytes_seek = container.format.name in BY_BYTES
        self.part = 0  # 0 up to the first join
        self.newest: float = -math.inf  # stamp of the last packet of the picture
        self.end = 0  # pts behind the last frame shown so far
        self.ends: dict[int, int] = {}  # of each sound, by its index
        self.byte = 0  # where the last packet of the picture with a place was
        self.slots: list[int] = []  # in AVI: when each packet is decoded
        self.shown: dict[int, int] | None = None  # {slot: pts of the frame}, where asked for
        name = stream.codec_context.name
        self.unordered = container.format.name == "avi" and name in UNORDERED

    def joined(self) -> sf.Joined | None:
        """Where time begins anew, to find the same times after a seek; None if it never does."""
        return sf.Joined(self.joins, self.keys) if self.joins else None

    def seek(self, pts: int) -> None:
        """Stand on a key frame before `pts`, as well as the file knows."""
        self.forget()
        if not self.indexed or not (self.bytes_seek or self.joins):
            seek_to(self.container, self.stream, pts)
            return
        # One key frame more: where reading begins in the middle, the first stamps may be wrong.
        at = bisect.bisect_right(self.keys, (pts, math.inf)) - 2 if self.bytes_seek else -1
        if at < 0:
            self.restart()
            return
        byte = self.keys[at][1]
        self.part = self.part_at(byte)
        self.container.seek(byte, unsupported_byte_offset=True)

    def forget(self) -> None:
        """Know nothing of what was read before."""
        self.newest, self.ends, self.part = -math.inf, {}, 0
        self.slots.clear()
        if self.shown is not None:
            self.shown.clear()

    def begin(self) -> None:
        """Stand at the beginning of a film of which nothing is known."""
        self.joins, self.keys, self.indexed = [], [], False
        self.restart()

    def restart(self) -> None:
        """Stand at the beginning."""
        self.forget()
        if self.bytes_seek:
            self.container.seek(0, unsupported_byte_offset=True)
            return
        start = (self.stream.start_time or 0) * self.stream.time_base
        early = round((start - 2 * SEEK_BACK) / self.stream.time_base)
        seek_to(self.container, self.stream, early)

    def part_at(self, byte: int) -> int:
        return bisect.bisect_right(self.joins, byte, key=lambda join: join.pos)

    def shift(self, part: int) -> int:
        """What is added to the stamps of a part, in units of the picture's time base."""
        return self.joins[part - 1].shift if part else 0

    def packets(self, *tracks: Stream) -> Iterator[Packet]:
        """The packets of the picture and of other tracks, stamped."""
        for packet in self.container.demux(self.stream, *tracks):
            if packet.pts is not None or packet.dts is not None:
                if packet.stream_index == self.stream.index:
                    self.place(packet)
                elif self.joins:
                    self.place_beside(packet)
            yield packet

    def place(self, packet: Packet) -> None:
        """Stamp a packet of the picture; notices where time begins anew."""
        if packet.pos is not None:
            self.byte = packet.pos
            self.part = max(self.part, self.part_at(packet.pos))
        if self.part == len(self.joins):
            self.notice(packet)
        shift = self.shift(self.part)
        if packet.dts is not None:
            packet.dts += shift
        if self.unordered:
            self.slots.append(packet.dts)
            packet.pts = packet.dts  # tells which packet a frame is of, until it is shown
        elif packet.pts is not None:
            packet.pts += shift
        self.newest = packet.pts if packet.dts is None else packet.dts
        if packet.pts is not None:
            self.end = max(self.end, packet.pts + (packet.duration or self.usual_length()))
            if packet.is_keyframe and self.bytes_seek and packet.pts > self.last_key():
                self.keys.append((packet.pts, self.byte))

    def last_key(self) -> float:
        return self.keys[-1][0] if self.keys else -math.inf

    def usual_length(self) -> int:
        """Of a frame, by the average rate."""
        return max(1, round(1 / (self.stream.average_rate or 25) / self.stream.time_base))

    def notice(self, packet: Packet) -> None:
        """Begin a part where the time of a packet has little to do with the one before."""
        import av

        stamp = packet.pts if packet.dts is None else packet.dts
        step = float((stamp + self.shift(self.part) - self.newest) * self.stream.time_base)
        back = UNSURE if packet.dts is None else RESTART
        leaps = self.container.format.flags & av.format.Flags.ts_discont.value
        if math.isfinite(step) and (step < -back or (leaps and step > LEAP)):
            first = stamp if packet.pts is None else packet.pts
            byte = self.byte + 1 if packet.pos is None else packet.pos
            self.joins.append(sf.Join(byte, self.end - first, self.end))
            self.part = len(self.joins)

    def place_beside(self, packet: Packet) -> None:
        """Stamp a packet of another track: as the part it lies in, or the one it continues."""
        index, stamp = packet.stream_index, packet.dts if packet.pts is None else packet.pts
        part = self.part if packet.pos is None else self.part_at(packet.pos)
        ratio = self.stream.time_base / packet.time_base
        end = self.ends.get(index)
        if end is not None:  # tracks are interleaved: at a join they do not end at one byte
            near = range(max(0, part - 1), min(len(self.joins), part + 1) + 1)
            part = min(near, key=lambda p: abs(stamp + round(self.shift(p) * ratio) - end))
        shift = round(self.shift(part) * ratio)
        self.ends[index] = stamp + shift + (packet.duration or 0)
        if packet.pts is not None:
            packet.pts += shift
        if packet.dts is not None:
            packet.dts += shift

    def frames(self) -> Iterator[VideoFrame]:
        """The decoded frames in the order they are shown, each with its pts if any is known.

        Packets that cannot be decoded are passed over; too many in a row raise VideoError.
        """
        import av

        broken = 0
        for packet in self.packets():
            try:
                frames = packet.decode()
                broken = 0
            except av.error.InvalidDataError:
                broken += 1
                if broken > BROKEN_PACKETS:
                    raise sf.VideoError("damaged: nothing more can be decoded") from None
                continue
            for frame in frames:
                if frame.pts is None:
                    frame.pts = frame.dts
                yield frame

    def rising(self, lost: Counter | None = None) -> Iterator[VideoFrame]:
        """The frames whose time stamps rise; the others are counted in `lost`."""
        newest = -math.inf
        for frame in self.in_order() if self.unordered else self.frames():
            if frame.pts is not None and frame.pts > newest:
                newest = frame.pts
                yield frame
            elif lost is not None:
                lost["frames"] += 1

    def in_order(self) -> Iterator[VideoFrame]:
        """Frames that come with the slot of their packet as pts, with their time instead."""
        ahead: deque[VideoFrame] = deque()
        rank = 0
        for frame in itertools.chain(self.frames(), itertools.repeat(None, 2 * LEADING)):
            ahead.append(frame)
            if len(ahead) <= 2 * LEADING or ahead[0] is None:
                continue
            first = ahead.popleft()
            if first.key_frame or not rank:
                rank = self.rank_of_key(first, {other.pts for other in ahead if other})
            slot, first.pts = first.pts, self.time_of(rank)
            rank += 1
            if self.shown is not None:
                self.shown[slot] = first.pts
            yield first

    def rank_of_key(self, key: VideoFrame, later: set[int]) -> int:
        """How many frames of this reading are shown before a key frame.

        Those that lie before it in the file, and those behind it that are not shown later.
        """
        at = bisect.bisect_left(self.slots, key.pts)
        return at + sum(slot not in later for slot in self.slots[at + 1 : at + 1 + LEADING])

    def time_of(self, rank: int) -> int:
        """When the frame of a rank is shown: a packet late where there are B frames, as MPEG-4."""
        rank += bool(self.stream.codec_context.reorder_depth)
        beyond = rank - len(self.slots) + 1
        return self.slots[rank] if beyond <= 0 else self.slots[-1] + beyond * self.usual_length()


def sought(line: Timeline, start: int) -> Iterator[VideoFrame]:
    """Frames from `start` (pts) on: one seek to a key frame before it, then in sequence."""
    stream, back = line.stream, 0.0
    lowest = (stream.start_time or 0) - round(SEEK_BACK / stream.time_base)
    while True:
        at = start - round(back / stream.time_base)
        line.seek(at)
        frames = line.rising()
        first = next(frames, None)
        if (first is not None and first.pts <= start) or at < lowest:
            break
        back = 2 * back or SEEK_BACK  # some files list key frames by another time
    for frame in itertools.chain([first] if first is not None else [], frames):
        if frame.pts >= start:
            yield frame


def seek_to(container: InputContainer, stream: VideoStream, pts: int) -> None:
    """Stand on a key frame before `pts`, or on the first one: some formats refuse to go before."""
    import av

    try:
        container.seek(pts, stream=stream)
    except av.error.FFmpegError:
        container.seek(pts, stream=stream, backward=False)
