"""What comes out of a bag: results, camera_info, points, and everything else untouched."""

from __future__ import annotations

from dataclasses import replace

import bag_files as bags
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from dsca_ros.depth.compressed import decode_compressed_depth, encode_compressed_depth
from dsca_ros.depth.units import like, to_metres, to_millimetres
from dsca_ros.replay.bags import Bag
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.run import plan_bag, replay_bag
from dsca_ros.upsampler import Upsampler


def expected(settings, depths) -> list[np.ndarray]:
    with Upsampler(settings.model, settings.scale, threads=1) as upsampler:
        return [upsampler(depth) for depth in depths]


def results(path) -> list[np.ndarray]:
    messages = bags.decoded(path, bags.RESULT_TOPIC, bags.IMAGE)
    return [np.nan_to_num(bags.pixels_of(message)) for message in messages]


KINDS = {
    "mcap": {},
    "sqlite3": {"storage": StoragePlugin.SQLITE3},
    "mcap, zstd chunks": {"compression": CompressionMode.STORAGE},
    "mcap, zstd messages": {"compression": CompressionMode.MESSAGE},
    "sqlite3, zstd file": {"storage": StoragePlugin.SQLITE3, "compression": CompressionMode.FILE},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_ros2_bag_gives_what_the_network_gives(tmp_path, settings, kind):
    source = bags.make_bag(tmp_path / "in", **KINDS[kind])
    report = replay_bag(source, tmp_path / "out", settings)
    depths = [like(bags.depth(i), np.uint16) for i in range(bags.FRAMES)]
    for result, wanted in zip(results(tmp_path / "out"), expected(settings, depths), strict=True):
        np.testing.assert_array_equal(result, wanted)
        assert wanted.any()
    assert (report.frames_in, report.frames_out, report.failed) == (bags.FRAMES, bags.FRAMES, False)
    assert not list(tmp_path.glob("*.partial"))


def test_a_single_file_in_and_out(tmp_path, settings):
    folder = bags.make_bag(tmp_path / "in")
    replay_bag(folder / "in.mcap", tmp_path / "out.mcap", settings)
    assert (tmp_path / "out.mcap").is_file()
    assert len(results(tmp_path / "out.mcap")) == bags.FRAMES


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("compressed", [False, True])
def test_encodings_and_transports(tmp_path, settings, dtype, compressed):
    source = bags.make_bag(tmp_path / "in", dtype=dtype, compressed=compressed, frames=2)
    replay_bag(source, tmp_path / "out", settings)
    depths = [like(bags.depth(i), dtype) for i in range(2)]
    if compressed:
        sent = bags.decoded(source, bags.IMAGE_TOPIC + "/compressedDepth", bags.COMPRESSED)
        depths = [decode_compressed_depth(m.data, m.format)[0] for m in sent]
    messages = bags.decoded(tmp_path / "out", bags.RESULT_TOPIC, bags.IMAGE)
    assert {m.encoding for m in messages} == {"16UC1" if dtype is np.uint16 else "32FC1"}
    for message, result, wanted in zip(messages, results(tmp_path / "out"), expected(settings, depths), strict=True):
        np.testing.assert_array_equal(result, wanted)
        assert (wanted > 0).mean() > 0.5
        if dtype is np.float32:
            assert np.isnan(bags.pixels_of(message)).any()  # holes, as REP 118 has them


def test_of_a_camera_of_another_unit_millimetres_come_out(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in", frames=2)
    replay_bag(source, tmp_path / "out", replace(settings, depth_unit=0.0005, points=True))
    metres = [to_metres(like(bags.depth(i), np.uint16), 0.0005) for i in range(2)]
    messages = bags.decoded(tmp_path / "out", bags.RESULT_TOPIC, bags.IMAGE)
    assert {m.encoding for m in messages} == {"16UC1"}
    for result, wanted in zip(results(tmp_path / "out"), expected(settings, metres), strict=True):
        np.testing.assert_array_equal(result, to_millimetres(wanted))
    cloud = bags.decoded(tmp_path / "out", bags.RESULT_POINTS, "sensor_msgs/msg/PointCloud2")[-1]
    z = cloud.data.view("<f4").reshape(cloud.height, cloud.width, 3)[..., 2]
    np.testing.assert_allclose(z[result > 0], result[result > 0] / 1000.0, rtol=1e-6)


def test_holes_are_filled_where_that_is_asked_for(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in", frames=2)
    assert all((bags.depth(i) == 0).any() for i in range(2))
    replay_bag(source, tmp_path / "out", replace(settings, fill_holes="all"))
    assert all(result.all() for result in results(tmp_path / "out"))


def test_untouched_topics_stay_bit_for_bit_with_their_types_and_qos(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "out", settings)
    new = {bags.RESULT_TOPIC, bags.RESULT_INFO}
    kept = [message for message in bags.read(tmp_path / "out") if message[0] not in new]
    assert kept == list(bags.read(source))
    before, after = bags.connections(source), bags.connections(tmp_path / "out")
    assert set(after) == set(before) | new
    for name, connection in before.items():
        assert after[name].msgdef == connection.msgdef
        assert after[name].ext.offered_qos_profiles == connection.ext.offered_qos_profiles
    assert after["/tf_static"].ext.offered_qos_profiles == bags.LATCHED


def test_stamps_log_times_and_frames_are_the_cameras(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "out", settings)
    for old, new, kind in (
        (bags.IMAGE_TOPIC, bags.RESULT_TOPIC, bags.IMAGE),
        (bags.INFO_TOPIC, bags.RESULT_INFO, bags.INFO),
    ):
        times = [time for time, _ in bags.of_topic(source, old)]
        assert [time for time, _ in bags.of_topic(tmp_path / "out", new)] == times
        headers = [m.header for m in bags.decoded(source, old, kind)]
        assert [m.header for m in bags.decoded(tmp_path / "out", new, kind)] == headers


def test_camera_info_is_scaled_by_the_half_pixel_rule(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in", frames=1)
    replay_bag(source, tmp_path / "out", replace(settings, scale=4))
    (before,) = bags.decoded(source, bags.INFO_TOPIC, bags.INFO)
    (after,) = bags.decoded(tmp_path / "out", bags.RESULT_INFO, bags.INFO)
    assert (after.width, after.height) == (4 * bags.WIDTH, 4 * bags.HEIGHT)
    assert after.k[0] == pytest.approx(4 * before.k[0])
    assert after.k[2] == pytest.approx(4 * (before.k[2] + 0.5) - 0.5)
    assert after.p[6] == pytest.approx(4 * (before.p[6] + 0.5) - 0.5)


def test_points_lie_where_the_image_and_the_info_say(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in", frames=2)
    replay_bag(source, tmp_path / "out", replace(settings, points=True))
    infos = bags.decoded(tmp_path / "out", bags.RESULT_INFO, bags.INFO)
    clouds = bags.decoded(tmp_path / "out", bags.RESULT_POINTS, "sensor_msgs/msg/PointCloud2")
    for cloud, image, info in zip(clouds, results(tmp_path / "out"), infos, strict=True):
        points = cloud.data.view("<f4").reshape(cloud.height, cloud.width, 3)
        row, column = np.argwhere(image > 0)[100]
        depth = image[row, column] / 1000.0
        assert points[row, column, 2] == pytest.approx(depth)
        assert points[row, column, 0] == pytest.approx((column - info.p[2]) / info.p[0] * depth, rel=1e-4)
        assert np.isnan(points[image == 0]).all()


def test_only_new_keeps_transforms_and_latched_topics(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "out", replace(settings, only_new=True))
    assert {name for name, _, _ in bags.read(tmp_path / "out")} == {"/tf_static", bags.RESULT_TOPIC, bags.RESULT_INFO}


def test_a_part_of_the_bag_keeps_what_was_latched_before(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "out", replace(settings, start=0.2, duration=0.2))
    begin = bags.START + 2 * bags.PERIOD
    times = [time for time, _ in bags.of_topic(tmp_path / "out", bags.RESULT_TOPIC)]
    assert times == [begin, begin + bags.PERIOD]
    assert [time for time, _ in bags.of_topic(tmp_path / "out", "/tf_static")] == [begin]
    assert min(time for _, time, _ in bags.read(tmp_path / "out")) == begin


def test_one_of_so_many_frames(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in", frames=7)
    report = replay_bag(source, tmp_path / "out", replace(settings, every=3))
    times = [time for time, _ in bags.of_topic(tmp_path / "out", bags.RESULT_TOPIC)]
    assert times == [bags.START + i * bags.PERIOD for i in (0, 3, 6)]
    assert (report.frames_in, report.frames_out, report.skipped) == (7, 3, {"every": 4})


def test_a_frame_of_another_size_in_the_middle(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in", resized_from=3)
    report = replay_bag(source, tmp_path / "out", replace(settings, points=True))
    small, large = (bags.HEIGHT, bags.WIDTH), (2 * bags.HEIGHT, 2 * bags.WIDTH)
    assert [r.shape for r in results(tmp_path / "out")] == [large] * 3 + [small] * 3
    # Its camera_info comes after it: that one frame goes without points.
    assert report.incomplete == {"camera_info_size": 1}
    assert len(bags.of_topic(tmp_path / "out", bags.RESULT_POINTS)) == bags.FRAMES - 1


def test_no_camera_info_gives_images_alone(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in", with_info=False)
    report = replay_bag(source, tmp_path / "out", settings)
    assert len(results(tmp_path / "out")) == bags.FRAMES
    assert report.incomplete == {"no_camera_info": bags.FRAMES}
    assert bags.RESULT_INFO not in bags.connections(tmp_path / "out")


def test_a_ros1_bag_becomes_a_ros2_bag(tmp_path, settings):
    replay_bag(bags.make_ros1_bag(tmp_path / "in.bag"), tmp_path / "out", settings)
    replay_bag(bags.make_bag(tmp_path / "same"), tmp_path / "wanted", settings)
    for topic in (bags.RESULT_TOPIC, bags.RESULT_INFO, bags.IMAGE_TOPIC, "/battery", "/tf_static"):
        assert bags.of_topic(tmp_path / "out", topic) == bags.of_topic(tmp_path / "wanted", topic), topic
    (qos,) = bags.connections(tmp_path / "out")["/tf_static"].ext.offered_qos_profiles
    assert qos.durability.name == "TRANSIENT_LOCAL"


@pytest.mark.parametrize("compress", ["none", "zstd"])
@pytest.mark.parametrize("format", ["mcap", "sqlite3"])
def test_formats_and_compression_hold_the_same_messages(tmp_path, settings, format, compress):
    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "plain", settings)
    replay_bag(source, tmp_path / "out", replace(settings, format=format, compress=compress))
    assert list(bags.read(tmp_path / "out")) == list(bags.read(tmp_path / "plain"))
    kinds = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert kinds == {".yaml", ".mcap" if format == "mcap" else ".db3"}
    size = {name: sum(p.stat().st_size for p in (tmp_path / name).iterdir()) for name in ("plain", "out")}
    if format == "mcap":
        assert (size["out"] < 0.7 * size["plain"]) == (compress == "zstd")


def test_the_preview_is_a_video_of_both(tmp_path, settings):
    import cv2

    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "out", replace(settings, preview=tmp_path / "preview.mp4"))
    video = cv2.VideoCapture(str(tmp_path / "preview.mp4"))
    pictures = []
    while (got := video.read())[0]:
        pictures.append(got[1])
    assert len(pictures) == bags.FRAMES
    assert pictures[0].shape == (2 * bags.HEIGHT, 4 * bags.WIDTH, 3)
    left, right = pictures[0][24:, : 2 * bags.WIDTH], pictures[0][24:, 2 * bags.WIDTH :]
    assert np.abs(left.astype(float) - right).mean() < 60 < left.std() + 60  # the same scene, and not black


def test_a_preview_is_replaced_on_demand_and_none_of_a_half_is_left(tmp_path, settings, monkeypatch):
    source, video = bags.make_bag(tmp_path / "in"), tmp_path / "videos" / "preview.mp4"
    settings = replace(settings, preview=video)
    replay_bag(source, tmp_path / "out", settings)
    before = video.read_bytes()
    for preview, text in ((video, "preview.mp4 exists; --force"), (source / "preview.mp4", "lie in one another")):
        with pytest.raises(ReplayError, match=text):
            replay_bag(source, tmp_path / "second", replace(settings, preview=preview))
    infer, seen = Upsampler.__call__, []

    def fail(self, depth):
        seen.append(depth)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return infer(self, depth)

    monkeypatch.setattr(Upsampler, "__call__", fail)
    with pytest.raises(KeyboardInterrupt):
        replay_bag(source, tmp_path / "second", settings, force=True)
    assert video.read_bytes() == before
    assert [p.name for p in video.parent.iterdir()] == ["preview.mp4"]
    assert {p.name for p in source.iterdir()} == {"in.mcap", "metadata.yaml"}


def test_results_recorded_before_are_replaced(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "once", settings)
    report = replay_bag(tmp_path / "once", tmp_path / "twice", settings)
    assert list(bags.read(tmp_path / "twice")) == list(bags.read(tmp_path / "once"))
    assert any("is replaced" in note for note in report.notes)


def test_the_plan_tells_and_writes_nothing(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    report, frames = plan_bag(source, tmp_path / "out", settings)
    assert (report.topics, frames) == ({bags.IMAGE_TOPIC: bags.RESULT_TOPIC}, bags.FRAMES)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


@pytest.mark.parametrize("part", [{"every": 4}, {"start": 0.15}, {"start": 0.1, "duration": 0.3, "every": 2}])
def test_the_plan_tells_of_the_frames_that_are_done(tmp_path, settings, part):
    settings = replace(settings, **part)
    source = bags.make_bag(tmp_path / "in")
    _, frames = plan_bag(source, tmp_path / "out", settings)
    assert frames == replay_bag(source, tmp_path / "out", settings).frames_out < bags.FRAMES


def test_the_input_is_only_read(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in source.iterdir()}
    replay_bag(source, tmp_path / "out", settings)
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in source.iterdir()} == before


def test_a_bag_without_definitions_is_read_and_written(tmp_path, settings):
    """As Humble's SQLite bags are."""
    import sqlite3

    source = bags.make_bag(tmp_path / "in", storage=StoragePlugin.SQLITE3)
    with sqlite3.connect(source / "in.db3") as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("UPDATE schema SET schema_version = 3")
    database.close()
    report = replay_bag(source, tmp_path / "out", settings)
    assert len(results(tmp_path / "out")) == bags.FRAMES
    assert any(bags.CUSTOM in note for note in report.notes)
    with Bag(tmp_path / "out") as bag:
        numbers = {topic.name: topic.number for topic in bag.topics}
        batteries = [bytes(m.data) for m in bag.messages([numbers["/battery"]])]
    assert batteries == [data for _, data in bags.of_topic(source, "/battery")]


def test_every_camera_of_a_bag_is_done_beside_its_own_info(tmp_path, settings):
    """Two cameras, one of which has two depth topics in a namespace; and an infrared image, which is no depth."""
    types = bags.store()
    names = ["/left/depth/image_raw", "/right/depth/near", "/right/depth/far", "/right/infra/image_raw"]
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        images = [writer.add_connection(name, bags.IMAGE, typestore=types) for name in names]
        infos = [
            writer.add_connection(f"/{side}/depth/camera_info", bags.INFO, typestore=types)
            for side in ("left", "right")
        ]
        for size, info in zip((32, 40), infos):
            writer.write(info, bags.START, types.serialize_cdr(bags.info(size, 24, bags.START), bags.INFO))
        for number, topic in enumerate(images):
            size = 40 if number else 32
            message = bags.image(like(bags.depth(number, size, 24), np.uint16), bags.START)
            message.encoding = "mono16" if "infra" in topic.topic else message.encoding
            writer.write(topic, bags.START + 1 + number, types.serialize_cdr(message, bags.IMAGE))
    report = replay_bag(tmp_path / "in", tmp_path / "out", replace(settings, points=True))
    assert report.topics == {
        "/left/depth/image_raw": "/left/depth_sr/image_raw",
        "/right/depth/near": "/right/depth_sr_near/image_raw",
        "/right/depth/far": "/right/depth_sr_far/image_raw",
    }
    for number, result in enumerate(report.topics.values()):
        (image,) = bags.decoded(tmp_path / "out", result, bags.IMAGE)
        (info,) = bags.decoded(tmp_path / "out", result.replace("image_raw", "camera_info"), bags.INFO)
        (points,) = bags.decoded(tmp_path / "out", result.replace("image_raw", "points"), "sensor_msgs/msg/PointCloud2")
        size = (48, 80 if number else 64)
        assert (image.height, image.width) == (info.height, info.width) == (points.height, points.width) == size
        depth = like(bags.depth(number, size[1] // 2, 24), np.uint16)
        np.testing.assert_array_equal(bags.pixels_of(image), expected(settings, [depth])[0])


def write_bag(path, topics) -> None:
    """A bag of one message a topic, each given as name, type and message."""
    types = bags.store()
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for number, (name, msgtype, message) in enumerate(topics):
            connection = writer.add_connection(name, msgtype, typestore=types)
            writer.write(connection, bags.START + number, types.serialize_cdr(message, msgtype))


def depth_topic(name: str) -> tuple:
    return name, bags.IMAGE, bags.image(like(bags.depth(0), np.uint16), bags.START)


def test_two_types_under_one_name_stay_apart(tmp_path, settings):
    battery = bags.store().types[bags.CUSTOM](1.0, "main")
    info = bags.info(4, 3, bags.START)
    write_bag(tmp_path / "in", [depth_topic("/depth/image"), ("/x", bags.CUSTOM, battery), ("/x", bags.INFO, info)])
    for format in ("mcap", "sqlite3"):
        replay_bag(tmp_path / "in", tmp_path / format, replace(settings, format=format))
        assert of_name(tmp_path / format, "/x") == of_name(tmp_path / "in", "/x")
    assert len(of_name(tmp_path / "in", "/x")) == 2


def of_name(path, name: str) -> list[tuple[str, bytes]]:
    """Type and bytes of every message on a topic."""
    with Bag(path) as bag:
        return [(t.msgtype, bytes(m.data)) for t in bag.topics if t.name == name for m in bag.messages([t.number])]


def test_results_beside_each_other_are_replaced_too(tmp_path, settings):
    """Those of two depth topics in one namespace."""
    info = bags.info(bags.WIDTH, bags.HEIGHT, bags.START)
    topics = [depth_topic("/depth/near"), depth_topic("/depth/far"), ("/depth/camera_info", bags.INFO, info)]
    write_bag(tmp_path / "in", topics)
    replay_bag(tmp_path / "in", tmp_path / "once", settings)
    replay_bag(tmp_path / "once", tmp_path / "twice", settings)
    assert list(bags.read(tmp_path / "twice")) == list(bags.read(tmp_path / "once"))


def test_a_topic_that_is_named_twice_is_done_once(tmp_path, settings):
    source, compressed = bags.make_bag(tmp_path / "in"), bags.IMAGE_TOPIC + "/compressedDepth"
    report, _ = plan_bag(source, tmp_path / "out", replace(settings, topics=(bags.IMAGE_TOPIC,) * 2))
    assert report.topics == {bags.IMAGE_TOPIC: bags.RESULT_TOPIC}
    data, coding = encode_compressed_depth(like(bags.depth(0), np.uint16), "16UC1")
    message = bags.store().types[bags.COMPRESSED](bags.header(bags.START), coding, np.frombuffer(data, np.uint8))
    write_bag(tmp_path / "both", [depth_topic(bags.IMAGE_TOPIC), (compressed, bags.COMPRESSED, message)])
    with pytest.raises(ReplayError, match="once more; name one of them"):
        plan_bag(tmp_path / "both", tmp_path / "out", replace(settings, topics=(bags.IMAGE_TOPIC, compressed)))


def test_static_transforms_without_a_qos_come_along_and_are_latched(tmp_path, settings):
    """Else nobody would get them when the bag is played: who wants them asks for transient local."""
    transform = ("/tf_static", "tf2_msgs/msg/TFMessage", bags.transform())
    write_bag(tmp_path / "in", [transform, depth_topic("/depth/a"), depth_topic("/other_depth/a")])
    replay_bag(tmp_path / "in", tmp_path / "out", replace(settings, start=2e-9))
    assert [time for time, _ in bags.of_topic(tmp_path / "out", "/tf_static")] == [bags.START + 2]
    (qos,) = bags.connections(tmp_path / "out")["/tf_static"].ext.offered_qos_profiles
    assert qos.durability.name == "TRANSIENT_LOCAL"
