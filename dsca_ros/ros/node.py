"""The node: depth_sr/image_raw, camera_info and points from depth/image_raw and camera_info.

The callback keeps the newest frame and returns; one worker thread does the rest. A frame that
comes while the worker is busy replaces the one that waits, so the result is never late by more
than one frame.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dsca_ros.depth import holes, units
from dsca_ros.engine.base import EngineNotReady
from dsca_ros.engine.starting import BUILDING, RUNNING
from dsca_ros.ros import messages, parameters
from dsca_ros.ros.diagnostics import FrameTimes, Health
from dsca_ros.ros.qos import INPUT_QOS, OUTPUT_QOS, publisher_events, subscription_events
from dsca_ros.ros.run import ClosableNode, run
from dsca_ros.upsampler import Upsampler

#: Camera infos kept by stamp: they may come before or after their image.
KEPT_INFOS = 16
#: The same warning is logged at most once in this time, seconds.
WARN_PERIOD = 5.0


@dataclass(frozen=True)
class Frame:
    """An image that waits for the worker, and when it came, on the steady clock."""

    image: Image
    arrived: float


class DscaNode(ClosableNode):
    """Publishes super-resolved depth of the camera it subscribes to.

    Args:
        options: passed on to `rclpy.node.Node`, such as ``context`` and ``parameter_overrides``.

    Raises:
        ValueError: if a parameter's initial value is refused.
        EngineError: if the model or the engine cannot be had.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("dsca_node", **options)
        self.settings = parameters.declare(self)
        self.health = Health(precision=self.settings.precision)
        self._warned: dict[str, float] = {}
        self._infos: OrderedDict[tuple[int, int], CameraInfo] = OrderedDict()
        self._points_buffer: np.ndarray | None = None

        s = self.settings
        # Results are copied into messages before the next frame: no need of memory of their own.
        self.upsampler = Upsampler(
            *(s.model, s.scale, s.engine, s.precision, s.threads, s.depth_range),
            background=True,
            warm_start=s.warm_start and not s.build_only,
            share_memory=True,
        )
        self._engine_told = ""
        self._tell_engine()

        self._slot: Frame | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._worker = threading.Thread(target=self._work, name="dsca_worker", daemon=True)

        # Set last: a request that comes in a half-built node would find nothing to change.
        self._subscriptions_to_camera: list[Subscription] = []
        self._image = self._publisher(Image, "depth_sr/image_raw")
        self._camera_info = self._publisher(CameraInfo, "depth_sr/camera_info")
        self._points = self._publisher(PointCloud2, "depth_sr/points")
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._timer = self.create_timer(1.0, self._on_timer)
        self._worker.start()
        self._follow_demand()

    # --- topics ---------------------------------------------------------------------------------

    def _publisher(self, kind: type, topic: str) -> Publisher:
        events = publisher_events(topic, lambda text: self._warn(f"qos {topic}", text), self._follow_demand)
        overrides = QoSOverridingOptions.with_default_policies()
        qos = copy.copy(OUTPUT_QOS)  # rclpy writes overrides into the profile it is given
        return self.create_publisher(kind, topic, qos, event_callbacks=events, qos_overriding_options=overrides)

    def _subscription(self, kind: type, topic: str, callback: Callable[[Any], None]) -> Subscription:
        events = subscription_events(topic, lambda text: self._warn(f"qos {topic}", text))
        overrides = QoSOverridingOptions.with_default_policies()
        return self.create_subscription(
            kind, topic, callback, copy.copy(INPUT_QOS), event_callbacks=events, qos_overriding_options=overrides
        )

    def _listened_to(self) -> bool:
        outputs = [self._image, self._camera_info]
        if self.settings.publish_points:
            outputs.append(self._points)
        return any(publisher.get_subscription_count() > 0 for publisher in outputs)

    def _follow_demand(self) -> None:
        """Subscribes to the camera while someone listens, and lets go of it after."""
        wanted = not self.settings.lazy or self.settings.build_only or self._listened_to()
        if wanted and not self._subscriptions_to_camera:
            self.health.listening()
            with self._wake:
                self._infos.clear()  # the camera may have another profile by now
            self._subscriptions_to_camera = [
                self._subscription(Image, "depth/image_raw", self._on_image),
                self._subscription(CameraInfo, "depth/camera_info", self._on_camera_info),
            ]
        elif not wanted and self._subscriptions_to_camera:
            for subscription in self._subscriptions_to_camera:
                self.destroy_subscription(subscription)
            self._subscriptions_to_camera.clear()

    def _on_image(self, image: Image) -> None:
        self.health.received()
        with self._wake:
            if self._slot is not None:
                self.health.count("dropped_busy")
            self._slot = Frame(image, time.monotonic())
            self._wake.notify()

    def _on_camera_info(self, info: CameraInfo) -> None:
        stamp = _stamp(info)
        with self._wake:
            newest = next(reversed(self._infos), stamp)
            if stamp < newest:
                # A bag that loops, or a clock that was set: what was kept is of another time.
                self._infos.clear()
                self._warn("time_jump", f"time went back from {newest[0]} s to {stamp[0]} s: buffers cleared")
            self._infos[stamp] = info
            while len(self._infos) > KEPT_INFOS:
                self._infos.popitem(last=False)

    def _tell_engine(self) -> None:
        """Brings what is known of the engine up to date, and logs what is new."""
        state, note, engine = self.upsampler.state, self.upsampler.note, self.upsampler.engine
        self.health.engine, self.health.device = engine, self.upsampler.device
        self.health.engine_state, self.health.engine_note = state, note
        told = f"{state} {note}" if state == BUILDING else f"{state} {engine}"
        if told == self._engine_told:
            return
        self._engine_told = told
        what = f"{self.settings.model} x{self.settings.scale}"
        if state == RUNNING:
            self.get_logger().info(f"{what} on {engine}")
        elif state == BUILDING:
            self.get_logger().info(f"{what}: engine is being built ({note}); meanwhile on: {engine}")

    def _on_timer(self) -> None:
        self._tell_engine()
        if self.settings.build_only and self.upsampler.state != BUILDING:
            built = self.upsampler.state == RUNNING
            text = f"ready: {self.upsampler.engine}" if built else f"no engine: {self.upsampler.note}"
            self.get_logger().info(f"build_only: {text}")
            raise SystemExit(0 if built else 1)
        # Matched events do the same at once, where the distribution has them.
        self._follow_demand()
        name = self.get_fully_qualified_name()
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(self.health.array(name, stamp, bool(self._subscriptions_to_camera)))

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self.settings = parameters.changed(self.settings, changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _warn(self, cause: str, text: str) -> None:
        """Logs a warning, the same cause at most once in a while."""
        now = time.monotonic()
        if now - self._warned.get(cause, -WARN_PERIOD) >= WARN_PERIOD:
            self._warned[cause] = now
            self.get_logger().warning(text)

    def _reject(self, error: messages.BadMessage) -> None:
        self.health.count(f"rejected_{error.cause}")
        self._warn(error.cause, f"{error} (left out; counted in /diagnostics)")

    # --- the worker -----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._slot is not None or self._stopping)
                if self._stopping or self._slot is None:
                    return
                frame, self._slot = self._slot, None
            try:
                self._process(frame)
            except messages.BadMessage as error:
                self._reject(error)
            except EngineNotReady:
                self.health.count("dropped_building")  # the log tells of the build
            except Exception as error:  # whatever an engine raises: the next frame gets its chance
                if self._stopping or not self.context.ok():
                    return
                self.health.failed(f"{type(error).__name__}: {error}")
                self._warn("engine_error", f"frame lost, {type(error).__name__}: {error}")

    def _process(self, frame: Frame) -> None:
        settings, image = self.settings, frame.image
        started = time.monotonic()
        depth = messages.decode_depth(image)
        encoding = image.encoding if settings.output_encoding == "passthrough" else settings.output_encoding
        other_unit = not math.isclose(settings.depth_unit, 1.0 / units.MM_PER_M)
        if depth.dtype == np.uint16 and (other_unit or messages.DEPTH_ENCODINGS[encoding] == np.float32):
            depth = units.to_metres(depth, settings.depth_unit)
        decoded = time.monotonic()
        self.upsampler.depth_range = settings.depth_range
        self.upsampler.fill_holes = holes.hole_size(settings.fill_holes)
        result = self.upsampler(depth)
        inferred = time.monotonic()

        if messages.DEPTH_ENCODINGS[encoding] == np.uint16 and result.dtype != np.uint16:
            result = units.to_millimetres(result)
        invalid = 1.0 - np.count_nonzero(result) / result.size
        info = self._info_for(image)
        cloud = None
        if info is not None and settings.publish_points and self._points.get_subscription_count() > 0:
            cloud = self._cloud(result, info)
        self._image.publish(messages.encode_depth(result, image.header, encoding))
        if info is not None:
            self._camera_info.publish(info)
        if cloud is not None:
            self._points.publish(cloud)
        finished = time.monotonic()
        times = FrameTimes(started - frame.arrived, decoded - started, inferred - decoded, finished - inferred)
        # Not through rclpy's Time: it takes no negative stamp, and cameras send what they like.
        stamp = image.header.stamp.sec + image.header.stamp.nanosec * 1e-9
        age = self.get_clock().now().nanoseconds * 1e-9 - stamp
        self.health.published(times, age, invalid)

    def _info_for(self, image: Image) -> CameraInfo | None:
        """The scaled camera_info of an image: of its stamp, else the newest; None where there is none."""
        with self._wake:
            info = self._infos.get(_stamp(image)) or next(reversed(self._infos.values()), None)
        if info is None:
            self.health.count("no_camera_info")
            self._warn("no_camera_info", "no camera_info yet: the image is published, camera_info and points are not")
            return None
        try:
            messages.check_camera_info(info, image.width, image.height)
        except messages.BadMessage as error:
            self._reject(error)
            return None
        return messages.scale_camera_info(info, self.settings.scale, image.header)

    def _cloud(self, result: np.ndarray, info: CameraInfo) -> PointCloud2 | None:
        if not messages.is_calibrated(info):
            self.health.count("not_calibrated")
            self._warn("not_calibrated", "camera_info has no focal length (K is zero): no points are published")
            return None
        if any(info.d):
            self._warn("distorted", "camera_info has distortion: points take the depth image for rectified")
        if self._points_buffer is None or self._points_buffer.shape[:2] != result.shape:
            self._points_buffer = np.empty((*result.shape, 3), np.float32)
        points = messages.to_intrinsics(info).back_project(units.to_metres(result), self._points_buffer)
        return messages.encode_points(points, info.header)

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Stops the worker and frees the engine; the node is of no use after that."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._worker.is_alive():
            self._worker.join(timeout=1.5)
        self.upsampler.close()
        self.destroy_node()


def _stamp(message: Image | CameraInfo) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


def main(args: list[str] | None = None) -> None:
    """The executable ``dsca_node``: runs until Ctrl-C or SIGTERM; exit status 1 if it cannot start."""
    run(DscaNode, "dsca_node", args)


if __name__ == "__main__":
    main()
