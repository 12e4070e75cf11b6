"""Quality of service of the node's topics, and what to tell when it does not match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

#: What cameras are subscribed with: takes reliable and best-effort publishers alike.
INPUT_QOS = qos_profile_sensor_data
#: What results are published with: RViz and rosbag2 ask for reliable by default.
OUTPUT_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)

_REMEDIES = {
    QoSPolicyKind.RELIABILITY: "make the subscriber best effort, or the publisher reliable",
    QoSPolicyKind.DURABILITY: "make the subscriber volatile",
}


def _text(topic: str, other: str, event: Any) -> str:
    kind = QoSPolicyKind(event.last_policy_kind)
    remedy = _REMEDIES.get(kind, "make both sides the same")
    return f"{topic}: no data flows to or from a {other} of other QoS ({kind.name.lower()}); remedy: {remedy}"


def subscription_events(topic: str, warn: Callable[[str], Any]) -> SubscriptionEventCallbacks:
    """Event callbacks that warn of publishers whose QoS does not match."""
    return SubscriptionEventCallbacks(incompatible_qos=lambda event: warn(_text(topic, "publisher", event)))


def publisher_events(topic: str, warn: Callable[[str], Any], matched: Callable[[], None]) -> PublisherEventCallbacks:
    """Event callbacks that warn of subscribers whose QoS does not match, and tell of ones that come and go.

    Distributions before Iron have no matched event; callers poll as well.
    """
    callbacks: dict[str, Any] = {"incompatible_qos": lambda event: warn(_text(topic, "subscriber", event))}
    try:
        return PublisherEventCallbacks(matched=lambda _: matched(), **callbacks)
    except TypeError:
        return PublisherEventCallbacks(**callbacks)
