"""A depth camera for machines without one: publishes a synthetic room as a driver would."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from dsca_ros.depth import units
from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.sensors import SENSORS
from dsca_ros.depth.synthetic import DEFAULT_FOV, DEFAULT_FRAMES, DEFAULT_SEED, SyntheticStream
from dsca_ros.ros import messages
from dsca_ros.ros.run import ClosableNode, run

#: Frames are rendered ahead up to this many; a longer lap is cut to it.
MAX_FRAMES = 600
#: Images larger than this a side are a slip of the finger.
MAX_SIDE = 4096


class SyntheticCamera(ClosableNode):
    """Renders a lap of its path ahead and loops it, so that publishing costs next to nothing.

    Raises:
        ValueError: if a parameter is refused.
    """

    def __init__(self) -> None:
        super().__init__("synthetic_camera")

        def parameter(name: str, default: Any, description: str) -> Any:
            descriptor = ParameterDescriptor(description=description, read_only=True)
            try:
                return self.declare_parameter(name, default, descriptor).value
            except ParameterException as error:
                raise ValueError(str(error)) from None

        width = parameter("width", 320, "Image width, pixels")
        height = parameter("height", 240, "Image height, pixels")
        fov = parameter("horizontal_fov", DEFAULT_FOV, "Horizontal field of view, degrees")
        rate = parameter("rate", 30.0, "Frames per second")
        sensor = parameter("sensor", "stereo", f"Sensor model: {', '.join(SENSORS)}")
        encoding = parameter("encoding", "16UC1", "16UC1 (millimetres) or 32FC1 (metres)")
        seed = parameter("seed", DEFAULT_SEED, "Seed of the room and of the noise")
        frames = parameter("frames", DEFAULT_FRAMES, "Frames of one lap of the camera's path")
        self.frame_id = parameter("frame_id", "synthetic_camera_depth_optical_frame", "Frame of the messages")
        if not (min(width, height) >= 8 and max(width, height) <= MAX_SIDE and 0 < rate <= 1000):
            raise ValueError(
                f"cannot publish {width}x{height} at {rate} Hz; 8x8 to {MAX_SIDE}x{MAX_SIDE}, up to 1000 Hz"
            )
        if not 1 <= frames <= MAX_FRAMES:
            raise ValueError(f"frames is {frames}; it must be 1 to {MAX_FRAMES}")
        if not 0 < fov < 180:
            raise ValueError(f"horizontal_fov is {fov}; it must be between 0 and 180 degrees")
        if encoding not in ("16UC1", "32FC1"):
            raise ValueError(f"encoding is {encoding!r}; it must be 16UC1 or 32FC1")
        self.encoding = encoding
        stream = SyntheticStream(Intrinsics.from_fov(width, height, fov), sensor, frames, seed)
        self.camera = stream.camera
        self.get_logger().info(f"rendering {frames} frames of {width}x{height}")
        self.lap = [self._pixels(stream, index) for index in range(frames)]
        self.published = 0

        # Camera drivers offer reliable, so that every kind of subscriber can match.
        qos = QoSProfile(depth=5)
        self._image = self.create_publisher(Image, "depth/image_raw", qos)
        self._camera_info = self.create_publisher(CameraInfo, "depth/camera_info", qos)
        self._timer = self.create_timer(1.0 / rate, self._publish)
        self.get_logger().info(f"publishing at {rate:g} Hz")

    def _pixels(self, stream: SyntheticStream, index: int) -> Image:
        """Frame ``index`` as a message without a stamp."""
        if not self.context.ok():  # SIGTERM only shuts ROS down
            raise ExternalShutdownException
        depth = units.like(stream.measured(index), messages.DEPTH_ENCODINGS[self.encoding])
        message = Image()
        message.header.frame_id = self.frame_id
        return messages.encode_depth(depth, message.header, self.encoding)

    def _publish(self) -> None:
        image = self.lap[self.published % len(self.lap)]
        self.published += 1
        image.header.stamp = self.get_clock().now().to_msg()
        self._image.publish(image)
        self._camera_info.publish(messages.to_camera_info(self.camera, image.header))


def main(args: list[str] | None = None) -> None:
    """The executable ``synthetic_camera``: runs until Ctrl-C or SIGTERM."""
    run(SyntheticCamera, "synthetic_camera", args)


if __name__ == "__main__":
    main()
