"""How fast recordings go through: a bag of a synthetic camera, made and replayed for `dsca bench`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.synthetic import DEFAULT_FOV, SyntheticStream
from dsca_ros.depth.units import to_millimetres
from dsca_ros.replay.run import replay_bag
from dsca_ros.replay.settings import ReplaySettings
from dsca_ros.replay.wire import store

IMAGE = "sensor_msgs/msg/Image"
#: Frames that are rendered, and recorded in turn.
LAP = 8
#: Of a common camera, ns.
PERIOD = 33_333_333


def make_bag(path: Path, size: tuple[int, int], frames: int) -> None:
    """Writes a bag of depth images, ``size`` wide and high, as MCAP."""
    width, height = size
    stream = SyntheticStream(Intrinsics.from_fov(width, height, DEFAULT_FOV), "stereo", LAP)
    lap = [to_millimetres(stream.measured(index)) for index in range(min(LAP, frames))]
    types = store().types
    image, header, time = (types[name] for name in (IMAGE, "std_msgs/msg/Header", "builtin_interfaces/msg/Time"))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/camera/depth/image_raw", IMAGE, typestore=store())
        for index in range(frames):
            stamp = (index + 1) * PERIOD
            pixels = np.ascontiguousarray(lap[index % len(lap)]).view(np.uint8).reshape(-1)
            head = header(time(stamp // 10**9, stamp % 10**9), "camera")
            message = image(head, height, width, "16UC1", 0, 2 * width, pixels)
            writer.write(topic, stamp, store().serialize_cdr(message, IMAGE))


def measure_replay(settings: ReplaySettings, size: tuple[int, int], seconds: float) -> dict[str, Any]:
    """Replays a bag that takes about so many seconds.

    Returns:
        ``model, scale, engine, runs_on, size, frames, hz, in_mb_per_s, out_mb_per_s``, and the ``share`` of the time
        that reading, engine and writing each were busy.
    """
    with tempfile.TemporaryDirectory() as folder:
        short, whole = Path(folder) / "short", Path(folder) / "whole"
        make_bag(short, size, LAP)
        rate = replay_bag(short, Path(folder) / "first", settings).rate
        make_bag(whole, size, max(LAP, round(rate * seconds)))
        report = replay_bag(whole, Path(folder) / "second", settings)
        read, written = (_megabytes(Path(folder) / name) for name in ("whole", "second"))
    figures = report.figures()
    return {
        **{"model": settings.model, "scale": settings.scale, "engine": settings.engine, "size": f"{size[0]}x{size[1]}"},
        **{"runs_on": report.engine, "frames": report.frames_out, "hz": round(report.rate, 1)},
        **{"in_mb_per_s": round(read / report.seconds, 1), "out_mb_per_s": round(written / report.seconds, 1)},
        "share": figures["share"],
    }


def _megabytes(bag: Path) -> float:
    return sum(file.stat().st_size for file in bag.iterdir()) / 1e6
