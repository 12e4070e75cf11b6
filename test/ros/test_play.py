"""`dsca play`: bytes, pace and quality of service of a recording, and the node under it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rosbags")

import bag_files as bags
import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from ros_graph import OUTPUTS, TIMEOUT, Graph
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, Image
from typer.testing import CliRunner

from dsca_ros.cli import app
from dsca_ros.replay.bags import Bag
from dsca_ros.replay.ros1 import qos
from dsca_ros.replay.run import replay_bag
from dsca_ros.replay.settings import ReplaySettings
from dsca_ros.ros import play as playing
from dsca_ros.ros.play import Player, PlayError, PlayReport, PlaySettings

POINTS = "sensor_msgs/msg/PointCloud2"


def player(graph: Graph, bag: Path, *arguments: str):
    return graph.run(["-m", "dsca_ros.cli", "play", str(bag), *arguments])


def cdr(message: object, kind: str) -> bytes:
    """A message's bytes as a bag has them: what DDS leaves in between fields is no part of it."""
    types = bags.store()
    return bytes(types.serialize_cdr(types.deserialize_cdr(serialize_message(message), kind), kind))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_node_under_play_gives_what_offline_replay_gives_bit_for_bit(graph, tmp_path, use_tiny_models, dtype):
    source = bags.make_bag(tmp_path / "in", dtype=dtype)
    replay_bag(source, tmp_path / "out", ReplaySettings(model="tiny", threads=1, points=True))
    listener = graph.listener
    listener.subscribe(*OUTPUTS)
    remap = [f"depth/image_raw:={bags.IMAGE_TOPIC}", f"depth/camera_info:={bags.INFO_TOPIC}"]
    ros = ["-p", "model:=tiny", "-p", "threads:=1", "-r", remap[0], "-r", remap[1]]
    node = graph.run(["-m", "dsca_ros.ros.node", "--ros-args", *ros])
    # In a loop: a busy machine may drop a frame, and gets it again.
    play = player(graph, source, "--loop", "--wait", bags.IMAGE_TOPIC, "--wait", bags.INFO_TOPIC)

    wanted = {
        (bags.RESULT_TOPIC, bags.IMAGE): listener.images,
        (bags.RESULT_INFO, bags.INFO): listener.infos,
        (bags.RESULT_POINTS, POINTS): listener.clouds,
    }

    def complete() -> bool:
        assert node.popen.poll() is None and play.popen.poll() is None, node.output() + play.output()
        return all(len(seen) >= bags.FRAMES for seen in wanted.values())

    graph.spin_until(complete, "every result", 2 * TIMEOUT)
    for (topic, kind), seen in wanted.items():
        offline = [data for _, data in bags.of_topic(tmp_path / "out", topic)]
        assert [cdr(message, kind) for _, message in sorted(seen.items())] == offline
    assert play.end(signal.SIGTERM) == 0
    assert "messages of 2 topics" in play.output()


def test_bytes_and_qos_are_those_of_the_recording_and_latched_messages_wait_for_who_comes_late(graph, tmp_path):
    """Two latched messages, and an image a minute after the first that nobody waits for."""
    types = bags.store()
    best_effort = [qos(QosDurability.VOLATILE, 7)[0]._replace(reliability=QosReliability.BEST_EFFORT)]
    infos = [types.serialize_cdr(bags.info(8 + i, 8, bags.START), bags.INFO) for i in range(2)]
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        latched = writer.add_connection("/info", bags.INFO, typestore=types, offered_qos_profiles=bags.LATCHED)
        images = writer.add_connection("/image", bags.IMAGE, typestore=types, offered_qos_profiles=best_effort)
        for info in infos:
            writer.write(latched, bags.START, info)
        sent = [types.serialize_cdr(bags.image(bags.depth(i), bags.START), bags.IMAGE) for i in range(2)]
        for i in range(2):
            writer.write(images, bags.START + i * 60 * 10**9, sent[i])
    seen: dict[str, list[bytes]] = {"/image": [], "/info": []}
    tester = graph.tester
    tester.create_subscription(Image, "/image", seen["/image"].append, qos_profile_sensor_data, raw=True)
    play = player(graph, tmp_path / "in", "--wait", "/image")
    graph.spin_until(lambda: seen["/image"], "the first image")
    late = QoSProfile(depth=9, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    tester.create_subscription(CameraInfo, "/info", seen["/info"].append, late, raw=True)
    graph.spin_until(lambda: len(seen["/info"]) == 2, "what was latched")
    # DDS fills the last four bytes up.
    for message, recorded in zip([*seen["/info"], *seen["/image"]], [*infos, sent[0]], strict=True):
        assert message[: len(recorded)] == bytes(recorded) and len(message) - len(recorded) < 4
    (image,) = tester.get_publishers_info_by_topic("/image")
    (info,) = tester.get_publishers_info_by_topic("/info")
    assert image.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert (info.qos_profile.reliability, info.qos_profile.durability) == (
        ReliabilityPolicy.RELIABLE,
        DurabilityPolicy.TRANSIENT_LOCAL,
    )
    assert play.end(signal.SIGINT) == 0


# --- pace, on a clock that goes as the test says ------------------------------------------------


class Stage:
    """A node whose publishers note when, on a clock that only sleeping moves, they published what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int = 10**9) -> None:
        self.now, self.sent, self._stop_after = 100.0, [], stop_after
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep)
        monkeypatch.setattr(playing, "time", clock)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def create_publisher(self, kind: type, topic: str, qos: object) -> SimpleNamespace:
        def publish(message: object) -> None:
            self.sent.append((topic, round(self.now - 100.0, 6), message))
            if sum(name == topic for name, _, _ in self.sent) > self._stop_after:
                raise KeyboardInterrupt

        return SimpleNamespace(
            publish=publish, topic_name=topic, get_subscription_count=lambda: 0, wait_for_all_acked=lambda t: True
        )

    def of(self, topic: str) -> list[tuple[float, object]]:
        return [(when, message) for name, when, message in self.sent if name == topic]


def run(stage: Stage, bag: Path, **settings: object) -> PlayReport:
    report = PlayReport()
    with Bag(bag) as recording:
        Player(stage, recording, PlaySettings(**settings), report, lambda share, messages: None).run()
    return report


@pytest.mark.parametrize("rate", [0.5, 1.0, 4.0])
def test_messages_go_out_at_their_time(tmp_path, monkeypatch, rate):
    source, stage = bags.make_bag(tmp_path / "in"), Stage(monkeypatch)
    report = run(stage, source, rate=rate)
    for topic in (bags.IMAGE_TOPIC, bags.INFO_TOPIC):
        recorded = bags.of_topic(source, topic)
        assert [m for _, m in stage.of(topic)] == [data for _, data in recorded]
        due = [(time - bags.START) / 1e9 / rate for time, _ in recorded]
        assert [when for when, _ in stage.of(topic)] == pytest.approx(due, abs=1e-5)
    assert (report.messages, report.laps) == (2 * bags.FRAMES, 1)
    # Types of nobody here, and of another package than the wheels': left out, and it is told.
    assert report.left_out["/battery"] == f"{bags.CUSTOM} is not installed here"


def test_a_loop_starts_over_where_the_recording_ends(tmp_path, monkeypatch):
    source, stage = bags.make_bag(tmp_path / "in", frames=2), Stage(monkeypatch, stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        run(stage, source, loop=True, topics=(bags.IMAGE_TOPIC,))
    times = [when for when, _ in stage.of(bags.IMAGE_TOPIC)]
    lap = 0.1 + 2e-6
    assert times == pytest.approx([0, 0.1, lap, lap + 0.1, 2 * lap, 2 * lap + 0.1], abs=2e-6)
    assert {name for name, _, _ in stage.sent} == {bags.IMAGE_TOPIC}


def test_the_clock_is_the_recordings(tmp_path, monkeypatch):
    source, stage = bags.make_bag(tmp_path / "in"), Stage(monkeypatch)
    run(stage, source, rate=0.5, clock=True)
    told = [(when, m.clock.sec * 10**9 + m.clock.nanosec) for when, m in stage.of("/clock")]
    assert told[0] == (0.0, bags.START)
    assert stage.sent[0][0] == "/clock"  # before the first message
    for when, time in told:
        assert (time - bags.START) / 1e9 == pytest.approx(0.5 * when, abs=1e-6)
    gaps = np.diff([when for when, _ in told])
    assert len(told) > 35 and (gaps > 0).all() and gaps.max() < 0.026


# --- what cannot be played ----------------------------------------------------------------------


def test_what_cannot_be_played_is_told(tmp_path, monkeypatch):
    source, stage = bags.make_bag(tmp_path / "in"), Stage(monkeypatch)
    with pytest.raises(PlayError, match=r"no topic /none; there is: /battery"):
        run(stage, source, topics=("/none",))
    with pytest.raises(PlayError, match=r"nothing can be published .*Battery is not installed here"):
        run(stage, source, topics=("/battery",))
    with pytest.raises(PlayError, match="is waited for, but not played"):
        run(stage, source, topics=(bags.IMAGE_TOPIC,), wait_for=(bags.INFO_TOPIC,))


@pytest.fixture
def dsca(graph, monkeypatch):
    """`dsca play` in this process, in the graph's domain."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(graph.domain))
    return lambda *arguments: CliRunner().invoke(app, ["play", *map(str, arguments)])


def test_the_command_reports_what_it_played(tmp_path, dsca):
    source = bags.make_bag(tmp_path / "in")
    done = dsca(source, "--rate", "100", "--json", "-")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["messages"], report["laps"]) == (2 * bags.FRAMES, 1)
    assert "/battery was not published" in done.stderr


def test_a_damaged_bag_is_played_as_far_as_it_goes_and_exits_with_1(tmp_path, dsca):
    source = bags.make_bag(tmp_path / "in", frames=30, width=320, height=240) / "in.mcap"
    os.truncate(source, source.stat().st_size // 2)
    done = dsca(source, "--rate", "100", "--json", tmp_path / "report.json")
    assert done.exit_code == 1 and "could not be read whole" in done.stderr
    assert 5 <= json.loads((tmp_path / "report.json").read_text())["messages"] < 60


def of_images(path: Path, *topics: tuple[str, str]) -> Path:
    """A bag with a message on each topic, given as name and type."""
    types = bags.store()
    messages = {bags.IMAGE: bags.image(np.ones((4, 6), np.uint16), bags.START), bags.INFO: bags.info(6, 4, bags.START)}
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for name, kind in topics:
            connection = writer.add_connection(name, kind, typestore=types)
            writer.write(connection, bags.START, types.serialize_cdr(messages[kind], kind))
    return path


@pytest.mark.parametrize(
    "name, kind, why",
    [("/camera/1/depth", bags.IMAGE, "must not start with a number"), ("/cam-1/depth", bags.IMAGE, "characters other"),
     ("/depth", bags.INFO, "incompatible type")],
)  # fmt: skip
def test_a_topic_that_ros_2_cannot_have_is_left_out_and_told(tmp_path, dsca, name, kind, why):
    """As ROS 1 and other recorders may name them."""
    source = of_images(tmp_path / "in", ("/depth", bags.IMAGE), (name, kind))
    done = dsca(source)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("1 messages of 1 topics")
    assert f"{name} was not published: " in done.stdout and why in done.stdout


def test_a_topic_whose_name_has_no_slash_is_waited_for(tmp_path, monkeypatch):
    source, stage = of_images(tmp_path / "in", ("depth", bags.IMAGE)), Stage(monkeypatch)
    create = stage.create_publisher

    def publisher(kind, topic, qos):
        made = create(kind, topic, qos)
        made.topic_name = f"/{topic}"
        made.get_subscription_count = lambda: int(stage.now > 103.0)
        return made

    monkeypatch.setattr(stage, "create_publisher", publisher)
    run(stage, source, wait_for=("depth",))
    ((when, _),) = stage.of("depth")
    assert when >= 3.0


def test_no_bag_and_no_topic_are_one_line(tmp_path, dsca):
    for arguments, text in (([tmp_path / "none"], "does not exist"),
                            ([bags.make_bag(tmp_path / "in"), "--topic", "/none"], "no topic /none")):  # fmt: skip
        done = dsca(*arguments)
        *before, line = done.stderr.splitlines()
        assert done.exit_code == 1 and line.startswith("dsca: ") and text in line
        assert not any(before)
