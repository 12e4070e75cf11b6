"""The node's parameters: one table declares, checks and documents them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from dsca_ros.depth.holes import hole_size
from dsca_ros.engine.factory import ENGINE_NAMES, PRECISION_NAMES
from dsca_ros.upsampler import DEFAULT_MODEL, DEFAULT_RANGE, DEFAULT_SCALE

ENCODINGS = ("passthrough", "16UC1", "32FC1")
TRANSPORTS = ("raw", "compressedDepth")
COMPRESSED_FORMATS = ("png", "rvl")
CHOICES: dict[str, tuple[str, ...]] = {
    "engine": ENGINE_NAMES,
    "precision": PRECISION_NAMES,
    "output_encoding": ENCODINGS,
    "depth_transport": TRANSPORTS,
    "compressed_format": COMPRESSED_FORMATS,
}
#: Nothing that a depth camera measures is farther, metres; also what 16UC1 can hold.
FARTHEST = 65.0
#: A few bytes of compressed depth announce any size, and the network takes some 700 bytes of memory a pixel: 1080p.
MAX_PIXELS = 1 << 21


def _text(description: str, read_only: bool = False, choices: tuple[str, ...] = ()) -> ParameterDescriptor:
    constraint = f"one of: {', '.join(choices)}" if choices else ""
    return ParameterDescriptor(description=description, additional_constraints=constraint, read_only=read_only)


def _flag(description: str) -> ParameterDescriptor:
    return ParameterDescriptor(description=description, read_only=True)


def _text_or_number(description: str) -> ParameterDescriptor:
    return ParameterDescriptor(description=description, dynamic_typing=True)


def _number(description: str, low: float, high: float) -> ParameterDescriptor:
    limits = FloatingPointRange(from_value=low, to_value=high)
    return ParameterDescriptor(description=description, floating_point_range=[limits])


def _integer(description: str, low: int, high: int) -> ParameterDescriptor:
    limits = IntegerRange(from_value=low, to_value=high, step=1)
    return ParameterDescriptor(description=description, integer_range=[limits])


#: name: (default, descriptor). Read-only ones decide what is loaded at start.
PARAMETERS: dict[str, tuple[Any, ParameterDescriptor]] = {
    "model": (DEFAULT_MODEL, _text("Name of the model, see `dsca info`")),
    "scale": (DEFAULT_SCALE, _integer("Output size over input size per axis: 2, 4 or 8", 2, 8)),
    "engine": ("auto", _text("What runs the model; auto takes the fastest here", choices=ENGINE_NAMES)),
    "precision": ("auto", _text("Arithmetic of the network; auto: fp16 on a GPU", choices=PRECISION_NAMES)),
    "warm_start": (True, _flag("Run on the CPU until a GPU engine is built")),
    "build_only": (False, _flag("Build the engine for the camera's first image, and end")),
    "threads": (0, _integer("Threads of one inference on a CPU; 0 takes the number of cores", 0, 64)),
    "min_depth": (DEFAULT_RANGE[0], _number("Nearest depth taken as valid, metres", 0.01, FARTHEST)),
    "max_depth": (DEFAULT_RANGE[1], _number("Farthest depth taken as valid, metres", 0.01, FARTHEST)),
    "max_pixels": (MAX_PIXELS, _integer("Pixels of the largest image taken; more is rejected", 1, 1 << 25)),
    "depth_unit": (0.001, _number("Metres a step of the camera's 16UC1; results are in mm", 1e-6, 1.0)),
    "fill_holes": ("none", _text_or_number("Holes to fill: none, all, or those of up to so many pixels across")),
    "output_encoding": ("passthrough", _text("Encoding of the result, or passthrough", choices=ENCODINGS)),
    "depth_transport": ("raw", _text("Transport of the camera's image", choices=TRANSPORTS)),
    "compressed_format": ("png", _text("Coding of depth_sr/image_raw/compressedDepth", choices=COMPRESSED_FORMATS)),
    "publish_points": (True, _text("Publish a point cloud while someone listens to it")),
    "points_stride": (1, _integer("Of the points, every so many per axis are published", 1, 16)),
    "points_organized": (True, _text("Publish points as an image, invalid ones NaN; else valid ones alone")),
    "engine_timeout": (
        5.0,
        _number("Seconds a frame may take in the engine before that is an error; 0: any", 0.0, 3600.0),
    ),
    "lazy": (True, _text("Subscribe to the camera and compute only while someone listens")),
    "autostart": (True, _flag("Configure and activate at once, without a lifecycle manager")),
}


@dataclass(frozen=True)
class Settings:
    """The values of `PARAMETERS`, checked."""

    model: str
    scale: int
    engine: str
    precision: str
    warm_start: bool
    build_only: bool
    threads: int
    min_depth: float
    max_depth: float
    max_pixels: int
    depth_unit: float
    fill_holes: str | int | float
    output_encoding: str
    depth_transport: str
    compressed_format: str
    publish_points: bool
    points_stride: int
    points_organized: bool
    engine_timeout: float
    lazy: bool
    autostart: bool

    def __post_init__(self) -> None:
        if self.scale not in (2, 4, 8):
            raise ValueError(f"scale is {self.scale}; it must be 2, 4 or 8")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of: {', '.join(choices)}")
        hole_size(self.fill_holes)
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth ({self.min_depth}) must be less than max_depth ({self.max_depth})")

    @property
    def network(self) -> tuple[str, int, str, str, int]:
        """What decides which network is loaded, and how it runs."""
        return self.model, self.scale, self.engine, self.precision, self.threads

    @property
    def depth_range(self) -> tuple[float, float]:
        """Nearest and farthest valid depth, metres."""
        return self.min_depth, self.max_depth


def declare(node: Node) -> Settings:
    """Declares every parameter on the node and gives their values.

    Raises:
        ValueError: if an override is of the wrong type, out of range or contradicts another.
    """
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

    try:
        values = {
            name: node.declare_parameter(name, default, descriptor).value
            for name, (default, descriptor) in PARAMETERS.items()
        }
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        raise ValueError(str(error)) from None
    return Settings(**values)


def changed(settings: Settings, parameters: list[Parameter]) -> Settings:
    """The settings after a request to set parameters, all of them or none.

    Raises:
        ValueError: saying which value is refused and why.
    """
    values = {p.name: p.value for p in parameters if p.name in PARAMETERS}
    return Settings(**{**settings.__dict__, **values})
