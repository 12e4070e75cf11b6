"""What is known of a camera while its bag is read: which frame is taken, and the camera_info that goes with it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np

from dsca_ros.depth import units
from dsca_ros.depth.camera_scaling import CameraNumbers
from dsca_ros.depth.image_layout import BadMessage
from dsca_ros.replay import wire
from dsca_ros.replay.bags import Bag, Message
from dsca_ros.replay.settings import ReplaySettings, Report
from dsca_ros.replay.topics import Camera

#: Infos kept: those of one stamp come close to each other.
KEPT = 16


@dataclass
class Work:
    """What follows from one message of the bag.

    Attributes:
        time: to be logged, ns.
        plain: topics, the bag's own by number and others by name, and bytes that need no engine.
        frame: a depth frame to be super-resolved; None for none.
        camera: whose frame it is.
        numbers: of the result's camera, for points.
        wanted: of the frame's outputs, image and points, those that are not there already.
        result: of the frame, once it is computed.
    """

    time: int
    plain: list[tuple[int | str, bytes | memoryview]] = field(default_factory=list)
    frame: wire.DepthFrame | None = None
    camera: Camera | None = None
    numbers: CameraNumbers | None = None
    wanted: tuple[bool, bool] = (False, False)
    result: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Bytes held."""
        held = sum(len(data) for _, data in self.plain)
        if self.frame is not None:
            held += self.frame.depth.nbytes
        return held if self.result is None else held + self.result.nbytes


class CameraState:
    """One camera of a bag.

    Every camera_info gives one that is scaled, at its own time, and every depth image a result at its own: both have
    the stamps by which they belong together, as they came.

    Args:
        camera: its topics.
        bag: the bag, open.
        settings: what to do.
        report: counts what is left out.
    """

    def __init__(self, camera: Camera, bag: Bag, settings: ReplaySettings, report: Report) -> None:
        self.camera = camera
        self._settings, self._report = settings, report
        self._count = 0
        self._infos: OrderedDict[tuple[int, int], CameraNumbers] = OrderedDict()
        self._first: CameraNumbers | None = None
        first = bag.first(camera.info.number) if camera.info is not None else None
        if first is not None:
            # For frames before the first info, which mostly comes some moments after its image.
            try:
                self._first = CameraNumbers.of(wire.read(first.data, wire.CAMERA_INFO))
            except BadMessage:
                self._first = None

    def take(self, message: Message, work: Work) -> None:
        """Adds to ``work`` what follows from a message, where it is this camera's."""
        if self.camera.info is not None and message.topic == self.camera.info.number:
            self._take_info(message, work)
        if message.topic == self.camera.image.number:
            self._take_image(message, work)

    def _take_info(self, message: Message, work: Work) -> None:
        try:
            info = wire.read(message.data, wire.CAMERA_INFO)
        except BadMessage as error:
            _count(self._report.incomplete, error.cause)
            return
        stamp = info.header.stamp.sec, info.header.stamp.nanosec
        self._infos.pop(stamp, None)
        self._infos[stamp] = CameraNumbers.of(info)
        while len(self._infos) > KEPT:
            self._infos.popitem(last=False)
        work.plain.append((self.camera.info_out, wire.write_scaled_info(info, self._settings.scale)))

    def _take_image(self, message: Message, work: Work) -> None:
        self._report.frames_in += 1
        self._count += 1
        if (self._count - 1) % self._settings.every:
            _count(self._report.skipped, "every")
            return
        try:
            work.frame = wire.read_depth(message.data, self.camera.image.msgtype)
        except BadMessage as error:
            _count(self._report.skipped, error.cause)
            return
        depth, unit = work.frame.depth, self._settings.depth_unit
        if depth.dtype == np.uint16 and not units.is_millimetre(unit):
            work.frame = replace(work.frame, depth=units.to_metres(depth, unit))
        work.camera = self.camera
        work.numbers = self._numbers(work.frame)
        work.wanted = True, self._settings.points and work.numbers is not None

    def _numbers(self, frame: wire.DepthFrame) -> CameraNumbers | None:
        """The scaled camera of a frame; None, and it is counted, where there is none that fits."""
        if self.camera.info is None:
            _count(self._report.incomplete, "no_camera_info")
            return None
        newest = next(reversed(self._infos.values()), self._first)
        numbers = self._infos.get(frame.stamp, newest)
        if numbers is None:
            _count(self._report.incomplete, "no_camera_info")
            return None
        height, width = frame.depth.shape
        try:
            numbers.check_size(width, height)
            numbers.check_plausible()
        except BadMessage as error:
            _count(self._report.incomplete, error.cause)
            return None
        if not numbers.is_calibrated:
            _count(self._report.incomplete, "not_calibrated")
            return None
        return numbers.scaled(self._settings.scale)


def _count(counts: dict[str, int], cause: str) -> None:
    counts[cause] = counts.get(cause, 0) + 1
