"""What is asked of a replay, and what is told of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dsca_ros.depth import units
from dsca_ros.upsampler import DEFAULT_MODEL, DEFAULT_RANGE, DEFAULT_SCALE

FORMATS = ("mcap", "sqlite3")
COMPRESSIONS = ("none", "zstd")


@dataclass(frozen=True)
class ReplaySettings:
    """What to do with a bag.

    Attributes:
        model: name of a model.
        scale: output size over input size.
        engine: what runs it; ``auto`` is the fastest.
        threads: of one inference on a CPU; 0 takes the number of cores.
        depth_range: nearest and farthest depth taken as valid, metres.
        depth_unit: metres a step of the camera's 16UC1; results are in millimetres.
        fill_holes: holes to fill, as `holes.hole_size` takes it.
        start: seconds of the bag left out at its beginning.
        duration: seconds taken from there; None takes all.
        every: of so many frames one is taken.
        topics: names of depth topics; none: those found.
        points: also write points.
        only_new: keep nothing of the bag but static transforms and latched topics.
        format: one of `FORMATS`.
        compress: one of `COMPRESSIONS`.
        preview: a video of input beside result; None for none.
    """

    model: str = DEFAULT_MODEL
    scale: int = DEFAULT_SCALE
    engine: str = "auto"
    threads: int = 0
    depth_range: tuple[float, float] = DEFAULT_RANGE
    depth_unit: float = units.MILLIMETRE
    fill_holes: str = "none"
    start: float = 0.0
    duration: float | None = None
    every: int = 1
    topics: tuple[str, ...] = ()
    points: bool = False
    only_new: bool = False
    format: str = "mcap"
    compress: str = "none"
    preview: Path | None = None

    def result_decided_by(self) -> dict[str, Any]:
        """The settings that a result depends on."""
        plain = asdict(self)
        for name in ("threads", "preview"):
            del plain[name]
        return plain


@dataclass
class Report:
    """What came of a bag.

    Attributes:
        frames_in: depth frames in the part of the bag that was asked for, those passed over by ``every`` too.
        frames_out: results in the output.
        taken_over: of these, results of a run before that was gone on with.
        skipped: frames without a result, by cause.
        incomplete: frames with a result, but without camera_info or points, by cause.
        lost_messages: that could not be read, as far as it can be told.
        busy: seconds that reading, engine and writing each worked.
    """

    input: str
    output: str
    frames_in: int = 0
    frames_out: int = 0
    taken_over: int = 0
    messages_out: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    incomplete: dict[str, int] = field(default_factory=dict)
    lost_messages: int = 0
    lost_bytes: int = 0
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    topics: dict[str, str] = field(default_factory=dict)
    engine: str = ""
    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "engine": 0.0, "write": 0.0})
    error: str = ""
    done_before: bool = False

    @property
    def failed(self) -> bool:
        """Whether something of the bag is missing."""
        return bool(self.error or self.problem or self.lost_messages)

    @property
    def rate(self) -> float:
        """Results a second of this run."""
        computed = self.frames_out - self.taken_over
        return computed / self.seconds if self.seconds > 0 else 0.0

    def figures(self) -> dict[str, Any]:
        """All of it, rounded, for JSON."""
        plain = asdict(self)
        plain["seconds"] = round(self.seconds, 3)
        plain["rate_hz"] = round(self.rate, 2)
        plain["busy"] = {name: round(seconds, 3) for name, seconds in self.busy.items()}
        whole = max(self.seconds, 1e-9)
        plain["share"] = {name: round(min(1.0, seconds / whole), 3) for name, seconds in self.busy.items()}
        return plain
