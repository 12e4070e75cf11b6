"""Which topics of a bag are depth, what their results are called, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dsca_ros.depth.image_layout import DEPTH_ENCODINGS, BadMessage
from dsca_ros.replay import wire
from dsca_ros.replay.bags import Bag, Topic
from dsca_ros.replay.errors import ReplayError

TRANSFORMS = ("/tf", "/tf_static")
COMPRESSED_SUFFIX = "/compressedDepth"
#: Last part of the name of every result.
RESULT = "image_raw"


@dataclass(frozen=True)
class Camera:
    """A depth topic, its camera_info, and where its results go.

    Attributes:
        image: the depth topic.
        info: the camera_info beside it; None where there is none.
        output: namespace of the results.
    """

    image: Topic
    info: Topic | None
    output: str

    @property
    def image_out(self) -> str:
        """Topic of the results."""
        return f"{self.output}/{RESULT}"

    @property
    def info_out(self) -> str:
        """Topic of their camera_info."""
        return f"{self.output}/camera_info"

    @property
    def points_out(self) -> str:
        """Topic of their points."""
        return f"{self.output}/points"


@dataclass(frozen=True)
class Plan:
    """What is done with a bag.

    Attributes:
        cameras: depth topics and their results.
        kept: topics that pass through untouched.
        notes: what a user should know, one line each.
    """

    cameras: list[Camera]
    kept: list[Topic]
    notes: list[str] = field(default_factory=list)


def make_plan(bag: Bag, named: Sequence[str] = (), only_new: bool = False) -> Plan:
    """Finds a bag's depth topics.

    Args:
        bag: a bag that is open.
        named: names of the depth topics; by default those that look like depth.
        only_new: keep transforms and latched topics alone.

    Raises:
        ReplayError: if a named topic is no depth, or there is none at all.
    """
    images = [_named(bag, name) for name in dict.fromkeys(named)] if named else _found(bag)
    if not images:
        there = ", ".join(f"{topic.name} ({topic.msgtype})" for topic in bag.topics) or "no topic at all"
        raise ReplayError(f"{bag.path} has no depth topic; there is: {there}; --topic names one")
    names = {topic.name for topic in images}
    for name in names & {name + COMPRESSED_SUFFIX for name in names}:
        raise ReplayError(f"{name} is the image of {name.removesuffix(COMPRESSED_SUFFIX)} once more; name one of them")
    outputs = _outputs([topic.name for topic in images])
    cameras = [Camera(topic, _info_beside(bag, topic.name), outputs[topic.name]) for topic in images]
    new = {name for camera in cameras for name in (camera.image_out, camera.info_out, camera.points_out)}
    kept = [topic for topic in bag.topics if topic.name not in new and (not only_new or _frames(topic))]
    notes = [f"{camera.image.name} has no camera_info beside it: images only" for camera in cameras if not camera.info]
    notes += [f"{topic.name} of the bag is replaced" for topic in bag.topics if topic.name in new]
    untold = sorted({topic.msgtype for topic in kept if not topic.definition and topic.msgtype not in known_types()})
    notes += [f"{name} has no definition in the bag: kept as bytes, which only those who know it can read"
              for name in untold]  # fmt: skip
    return Plan(cameras, kept, notes)


def _frames(topic: Topic) -> bool:
    """Whether results cannot be looked at without it: transforms, and what was published once for all."""
    return topic.latched or topic.name in TRANSFORMS


def known_types() -> set[str]:
    """Types that need no definition in a bag."""
    return set(wire.store().fielddefs)


def _namespace(name: str) -> str:
    return name.removesuffix(COMPRESSED_SUFFIX).rpartition("/")[0]


def _last(name: str) -> str:
    return name.removesuffix(COMPRESSED_SUFFIX).rpartition("/")[2]


def _info_beside(bag: Bag, name: str) -> Topic | None:
    wanted = f"{_namespace(name)}/camera_info"
    return next((t for t in bag.topics if t.name == wanted and t.msgtype == wire.CAMERA_INFO and t.total), None)


def _outputs(names: Sequence[str]) -> dict[str, str]:
    """Each depth topic's namespace for results: beside its own, as the launch files have it."""
    shared = [_namespace(name) for name in names]
    outputs = {}
    for name in names:
        space = _namespace(name)
        output = f"{space}_sr" if space else "/depth_sr"
        if shared.count(space) > 1:
            output += "_" + _last(name)
        outputs[name] = output
    return outputs


def _found(bag: Bag) -> list[Topic]:
    """Topics that hold depth; of two transports of the same image the raw one."""
    found = []
    for topic in bag.topics:
        if topic.msgtype not in (wire.IMAGE, wire.COMPRESSED) or _namespace(topic.name).endswith("_sr"):
            continue
        compressed = topic.msgtype == wire.COMPRESSED
        if compressed and not topic.name.endswith(COMPRESSED_SUFFIX):
            continue
        message = bag.first(topic.number)
        if message is None:
            continue
        encoding = wire.encoding_of(message.data, topic.msgtype)
        is_depth = compressed or encoding in DEPTH_ENCODINGS
        says_so = "depth" in topic.name.lower()
        # mono16 is infrared as often as depth.
        sure = says_so if encoding == "mono16" else says_so or _info_beside(bag, topic.name) is not None
        if is_depth and sure:
            found.append(topic)
    names = {topic.name for topic in found}
    twice = {name + COMPRESSED_SUFFIX for name in names}
    # Where two share a namespace; those of one alone were passed over above.
    results = {f"{_namespace(name)}_sr_{_last(name)}/{RESULT}" for name in names}
    return [topic for topic in found if topic.name not in twice | results]


def _named(bag: Bag, name: str) -> Topic:
    topic = next((topic for topic in bag.topics if topic.name == name), None)
    if topic is None:
        there = ", ".join(t.name for t in bag.topics)
        raise ReplayError(f"{bag.path} has no topic {name}; there is: {there}")
    if topic.msgtype not in (wire.IMAGE, wire.COMPRESSED):
        raise ReplayError(f"{name} is {topic.msgtype}, not depth; a depth topic is {wire.IMAGE} or {wire.COMPRESSED}")
    message = bag.first(topic.number)
    if message is None:
        raise ReplayError(f"{name} has no message in {bag.path}")
    try:
        wire.read_depth(message.data, topic.msgtype)
    except BadMessage as error:
        if error.cause in ("unknown_encoding", "bad_compressed"):
            raise ReplayError(f"{name} is not depth: {error}") from None
    return topic
