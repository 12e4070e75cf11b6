"""ROS 1 connections as ROS 2 has them: types, quality of service, and bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag1,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from dsca_ros.replay.errors import ReplayError, one_line

#: Types with another name in ROS 2.
RENAMED = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
#: Static transforms are for who comes late, whether or not their publisher said so.
STATIC = "/tf_static"

_UNBOUNDED = QosTime(0, 0)


def qos(durability: QosDurability, depth: int) -> list[Qos]:
    """A reliable publisher's quality of service."""
    return [
        Qos(
            QosHistory.KEEP_LAST,
            depth,
            QosReliability.RELIABLE,
            durability,
            _UNBOUNDED,
            _UNBOUNDED,
            QosLiveliness.AUTOMATIC,
            _UNBOUNDED,
            False,
        )
    ]


def as_ros2(
    connection: Connection, index: int
) -> tuple[tuple[str, str, str, bool, str, str, list[Qos]], Callable[[bytes], bytes | memoryview]]:
    """A connection of a ROS 1 bag as a ROS 2 topic, and what converts its messages.

    Args:
        connection: of `rosbags`.
        index: of the topic, where its name is empty.

    Returns:
        Name, type, definition, whether that is IDL, hash, encoding and QoS; and bytes to CDR bytes.

    Raises:
        ReplayError: if the type's definition cannot be read.
    """
    assert isinstance(connection.ext, ConnectionExtRosbag1)
    msgtype = RENAMED.get(connection.msgtype, connection.msgtype)
    source = get_typestore(Stores.EMPTY)
    target = get_typestore(Stores.ROS2_JAZZY)
    try:
        source.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        if msgtype not in target.fielddefs:
            types = get_types_from_msg(source.generate_msgdef(connection.msgtype, ros_version=2)[0], msgtype)
            target.register({name: fields for name, fields in types.items() if name not in target.fielddefs})
        same = is_same_wireformat(source, target, connection.msgtype, msgtype)
        definition = target.generate_msgdef(msgtype, ros_version=2)[0]
        digest = target.hash_rihs01(msgtype)
    except (TypesysError, KeyError, ValueError, AssertionError, RecursionError) as error:
        what = f"type {connection.msgtype} of {connection.topic or index} has a definition that cannot be read"
        raise ReplayError(f"{what}: {one_line(error)}") from None
    latched = bool(connection.ext.latching) or connection.topic == STATIC
    profile = qos(QosDurability.TRANSIENT_LOCAL, 1) if latched else qos(QosDurability.VOLATILE, 10)
    topic = (connection.topic, msgtype, definition, False, digest, "cdr", profile)
    if same:
        return topic, partial(target.ros1_to_cdr, typename=msgtype)
    return topic, partial(
        migrate_bytes, source, target, connection.msgtype, msgtype, {}, src_is2=False, dst_is2=True
    )  # fmt: skip
