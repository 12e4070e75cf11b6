"""What happens to a frame: a message in, an image, its camera_info and points out, in a thread of its own.

The newest frame is kept and the callback returns at once. A frame that comes while the thread is busy replaces the
one that waits, so a result is never late by more than one frame.

Copies of the image: none of the camera's bytes (the engine reads the message's own), one of the result (into the
message that is published), none of the points.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from dsca_ros.depth import holes, units
from dsca_ros.engine.base import KEPT_SIZES, EngineError, EngineNotReady
from dsca_ros.ros import messages
from dsca_ros.ros.camera_infos import CameraInfos
from dsca_ros.ros.diagnostics import FrameTimes, Health
from dsca_ros.ros.parameters import Settings
from dsca_ros.upsampler import Upsampler

#: How long the end waits for a frame that is in work, seconds.
END_WITHIN = 1.5
#: What the first frame of a size may take at least, seconds: engines get ready for it.
FIRST_WITHIN = 120.0
#: How often a change of networks looks whether the engine hangs, seconds.
LOOK_EVERY = 0.1


@dataclass(frozen=True)
class Frame:
    """An image that waits, and when it came, on the steady clock."""

    image: Image | CompressedImage
    arrived: float


@dataclass(frozen=True)
class Call:
    """A frame that the engine is at, since when on the steady clock, and whether it is the first of its size."""

    frame: Frame
    since: float
    first: bool


@dataclass(frozen=True)
class Outputs:
    """Where results go."""

    image: Publisher
    compressed: Publisher
    camera_info: Publisher
    points: Publisher

    def any_listener(self, points: bool) -> bool:
        """Whether anyone listens; to points only if they are published."""
        wanted = [self.image, self.compressed, self.camera_info, *([self.points] if points else [])]
        return any(publisher.get_subscription_count() > 0 for publisher in wanted)


class Pipeline:
    """The thread and all it needs.

    Args:
        upsampler: the network; the pipeline closes it.
        settings: may be replaced at any time, and count from the next frame on.
        outputs: where results go.
        infos: camera infos that came in.
        health: told of everything.
        warn: logs a warning; of a cause and a text.
        now: the node's clock, seconds.
    """

    def __init__(
        self,
        upsampler: Upsampler,
        settings: Settings,
        outputs: Outputs,
        infos: CameraInfos,
        health: Health,
        warn: Callable[[str, str], None],
        now: Callable[[], float],
    ) -> None:
        self.upsampler, self.settings = upsampler, settings
        self._outputs, self._infos, self._health = outputs, infos, health
        self._warn, self._now = warn, now
        self._points = messages.PointsBuffer()
        #: Whether the network that runs has been given a frame; a slow one is built only then.
        self.began = False
        self._next: Upsampler | None = None
        self._slot: Frame | None = None
        self._in_work: Frame | None = None
        self._call: Call | None = None
        #: The frame that the engine took too long for; it is dropped when it comes back.
        self._late: Frame | None = None
        #: What the engine is ready for; the newest last, and no more than it keeps.
        self._sizes: list[tuple[tuple[int, ...], str]] = []
        self._wake, self._publishing = threading.Condition(), threading.Lock()
        self._stopping, self._ended = False, threading.Event()
        self._thread = threading.Thread(target=self._work, name="dsca_worker", daemon=True)
        self._thread.start()

    def put(self, image: Image | CompressedImage) -> None:
        """Takes a frame; the one that waits is dropped."""
        with self._wake:
            if self._slot is not None:
                self._health.count("dropped_busy")
            self._slot = Frame(image, time.monotonic())
            self._wake.notify_all()

    def forget(self) -> None:
        """Drops the frame that waits and the one in work: nothing is published of what came before."""
        with self._publishing, self._wake:
            if self._slot is not None:
                self._health.count("dropped_forgotten")
            self._slot = self._in_work = None

    def overdue(self) -> float | None:
        """Seconds that the engine has been at a frame, where that is longer than it may take: the frame is given up."""
        call, limit = self._call, self.settings.engine_timeout
        if call is None or limit == 0:
            return None
        seconds = time.monotonic() - call.since
        if seconds <= (max(limit, FIRST_WITHIN) if call.first else limit):
            return None
        with self._publishing, self._wake:
            if self._in_work is call.frame:
                self._late, self._in_work = call.frame, None
                self._health.count("dropped_engine_timeout")
        return seconds

    def exchange(self, upsampler: Upsampler) -> bool:
        """Goes on with another network from the next frame on, and closes the old one; one thread at a time.

        Returns:
            False if the engine hangs: then nothing has changed, and the network is the caller's still.
        """
        with self._wake:
            old, self._next = self.upsampler, upsampler
            self._wake.notify_all()
        while True:
            hangs = self.overdue() is not None
            with self._wake:
                if not hangs and not self._wake.wait_for(lambda: self._next is None or self._stopping, LOOK_EVERY):
                    continue
                taken, self._next = self._next is None, None
                break
        if hangs and not taken and not self._stopping:
            return False
        # Not in the worker: to end a build takes long, and frames go on meanwhile.
        self._close(old if taken else upsampler)
        return True

    def close(self) -> None:
        """Ends the thread, which frees the network; a frame that hangs is not waited for, and not published."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._ended.wait(END_WITHIN):
            self._thread.join()
        else:
            self.forget()

    def _close(self, upsampler: Upsampler) -> None:
        try:
            upsampler.close()
        except Exception as error:  # of an engine that is broken: nothing more can be done for it
            self._warn("close", f"{upsampler.engine} did not close, {type(error).__name__}: {error}")

    # --- in the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._slot is not None or self._next is not None or self._stopping)
                if self._stopping:
                    break
                if self._next is not None:
                    self.upsampler, self._next, self.began = self._next, None, False
                    self._sizes.clear()
                    self._wake.notify_all()
                frame, self._slot = self._slot, None
                self._in_work = frame
            if frame is not None:
                self._try(frame)
        # Here, where no frame can be in work: an engine is not closed while it runs.
        self._ended.set()
        self._close(self.upsampler)

    def _try(self, frame: Frame) -> None:
        try:
            self._process(frame)
        except messages.BadMessage as error:
            self._reject(error)
        except EngineNotReady:
            self._health.count("dropped_building")  # the log tells of the build
        except Exception as error:  # whatever an engine raises: the next frame gets its chance
            if not self._stopping:
                self._health.failed(f"{type(error).__name__}: {error}")
                self._warn("engine_error", f"frame lost, {type(error).__name__}: {error}")

    def _process(self, frame: Frame) -> None:
        settings, image, upsampler = self.settings, frame.image, self.upsampler
        started = time.monotonic()
        depth, came_as = messages.decode(image, settings.max_pixels)
        encoding = came_as if settings.output_encoding == "passthrough" else settings.output_encoding
        other_unit = not units.is_millimetre(settings.depth_unit)
        if depth.dtype == np.uint16 and (other_unit or messages.DEPTH_ENCODINGS[encoding] == np.float32):
            depth = units.to_metres(depth, settings.depth_unit)
        decoded = time.monotonic()
        upsampler.depth_range = settings.depth_range
        upsampler.fill_holes = holes.hole_size(settings.fill_holes)
        self.began = True
        result = self._infer(frame, depth)
        inferred = time.monotonic()
        if result.dtype == np.float32 and not np.isfinite(result).all():
            raise EngineError("the engine's result is not finite")

        if messages.DEPTH_ENCODINGS[encoding] == np.uint16 and result.dtype != np.uint16:
            result = units.to_millimetres(result)
        invalid = 1.0 - np.count_nonzero(result) / result.size
        info, lacks = self._info_for(image, depth, result)
        out = self._outputs
        cloud = None
        if info is not None and settings.publish_points and out.points.get_subscription_count() > 0:
            cloud, lacks = self._cloud(result, info, settings)
        compressed = None
        if out.compressed.get_subscription_count() > 0:
            compressed = messages.encode_compressed(
                result, image.header, encoding, settings.compressed_format, settings.max_depth
            )
        larger = messages.encode_depth(result, image.header, encoding)
        encoded = time.monotonic()
        # What is published together is published back to back.
        with self._publishing:
            if self._in_work is not frame:
                if self._late is not frame:  # that has been counted
                    self._health.count("dropped_forgotten")
                return
            out.image.publish(larger)
            if info is not None:
                out.camera_info.publish(info)
            if compressed is not None:
                out.compressed.publish(compressed)
            if cloud is not None:
                out.points.publish(cloud)
        finished = time.monotonic()
        marks = (frame.arrived, started, decoded, inferred, encoded, finished)
        times = FrameTimes(*(end - begin for begin, end in itertools.pairwise(marks)))
        # Not through rclpy's Time: it takes no negative stamp, and cameras send what they like.
        stamp = image.header.stamp.sec + image.header.stamp.nanosec * 1e-9
        self._health.published(times, self._now() - stamp, invalid, lacks)

    def _infer(self, frame: Frame, depth: np.ndarray) -> np.ndarray:
        """The network's result; meanwhile `overdue` sees how long it takes."""
        size = depth.shape, depth.dtype.name
        self._call = Call(frame, time.monotonic(), size not in self._sizes)
        try:
            result = self.upsampler(depth)
        finally:
            self._call = None
        self._sizes = [*(other for other in self._sizes if other != size), size][-KEPT_SIZES:]
        return result

    def _info_for(
        self, image: Image | CompressedImage, depth: np.ndarray, result: np.ndarray
    ) -> tuple[CameraInfo | None, str]:
        """The scaled camera_info of an image; or None, and why there is none, which is told and counted."""
        info = self._infos.find(image)
        if info is None:
            return None, self._lacks(
                "no_camera_info", "no camera_info yet: the image is published, camera_info and points are not"
            )
        height, width = depth.shape
        try:
            messages.check_camera_info(info, width, height)
        except messages.BadMessage as error:
            return None, self._lacks(f"rejected_{error.cause}", f"{error} (left out; counted in /diagnostics)")
        # The scale of this very result: the parameter may have changed meanwhile.
        return messages.scale_camera_info(info, result.shape[1] // width, image.header), ""

    def _cloud(self, result: np.ndarray, info: CameraInfo, settings: Settings) -> tuple[PointCloud2 | None, str]:
        """The points; or None, and why there are none, which is told and counted."""
        if not messages.is_calibrated(info):
            return None, self._lacks(
                "not_calibrated", "camera_info has no focal length (K is zero): no points are published"
            )
        if any(info.d):
            self._warn("distorted", "camera_info has distortion: points take the depth image for rectified")
        camera = messages.to_intrinsics(info)
        return self._points.cloud(camera, result, info.header, settings.points_stride, settings.points_organized), ""

    def _lacks(self, cause: str, text: str) -> str:
        """Tells and counts what does not go with an image that is published; the text."""
        self._health.count(cause)
        self._warn(cause, text)
        return text

    def _reject(self, error: messages.BadMessage) -> None:
        self._health.rejected(error.cause, str(error))
        self._warn(error.cause, f"{error} (left out; counted in /diagnostics)")
