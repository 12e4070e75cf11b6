"""One bag through the network: a thread reads, this one runs the engine, a third writes.

The order of what is written is the order of what is read, and what follows from a message depends on the messages
before it alone, so the same bag gives the same messages, whatever runs beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Connection, QosDurability

from dsca_ros.depth.holes import hole_size
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.zoo import find_model
from dsca_ros.replay import wire
from dsca_ros.replay.bags import Bag, Message, Topic
from dsca_ros.replay.cameras import CameraState, Work
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.output import DONE, Output, look_at, write_error
from dsca_ros.replay.preview import Preview
from dsca_ros.replay.ros1 import qos
from dsca_ros.replay.settings import ReplaySettings, Report
from dsca_ros.replay.stages import Belt, Line, Stopped
from dsca_ros.replay.topics import Plan, make_plan
from dsca_ros.upsampler import Upsampler

#: Told of progress: share of the bag, results so far, results a second.
Progress = Callable[[float, int, float], None]

_S = 1_000_000_000


class Replay:
    """A bag's way from input to output.

    Args:
        bag: the input.
        settings: what to do.
        report: filled in.
    """

    def __init__(self, bag: Bag, settings: ReplaySettings, report: Report) -> None:
        self.bag, self.settings, self.report = bag, settings, report
        self.plan: Plan = make_plan(bag, settings.topics, settings.only_new)
        report.notes = self.plan.notes
        report.topics = {camera.image.name: camera.image_out for camera in self.plan.cameras}
        self.cameras = [CameraState(camera, bag, settings, report) for camera in self.plan.cameras]
        self._from = bag.start + round(settings.start * _S)
        if settings.start and self._from >= bag.end:
            length = (bag.end - bag.start) / _S
            raise ReplayError(f"{bag.path} is {length:.1f} s long; --start {settings.start:g} leaves nothing of it")
        self._to = None if settings.duration is None else self._from + round(settings.duration * _S)
        self._skip = 0
        self._now = self._from

    # --- reading --------------------------------------------------------------------------------

    def _messages(self) -> Iterator[tuple[Message, bool]]:
        """Messages of the part asked for, and whether they came before it and hold for it."""
        if self.settings.start:
            # What was published once, before: whoever listens from here on needs it.
            latched = [topic.number for topic in self.plan.kept if topic.latched]
            for message in self.bag.messages(latched, None, self._from) if latched else ():
                yield message._replace(time=self._from), True
        wanted = {topic.number for topic in self.plan.kept}
        for camera in self.plan.cameras:
            wanted.update(topic.number for topic in (camera.image, camera.info) if topic is not None)
        # None where that is all: the index of a damaged bag may not tell of everything.
        start = self._from if self.settings.start else None
        topics = None if len(wanted) == len(self.bag.topics) else sorted(wanted)
        for message in self.bag.messages(topics, start, self._to):
            yield message, False

    def works(self) -> Iterator[Work]:
        """What is to be done, in order; a number of outputs that are there already is passed over."""
        kept = {topic.number for topic in self.plan.kept}
        for message, before in self._messages():
            work = Work(message.time)
            if message.topic in kept:
                work.plain.append((message.topic, message.data))
            for camera in () if before else self.cameras:
                camera.take(message, work)
            work = self._pass_over(work)
            self._now = message.time
            if work.plain or work.frame is not None:
                yield work

    def _pass_over(self, work: Work) -> Work:
        """Takes out what an interrupted run before has written."""
        there = min(self._skip, len(work.plain))
        self._skip -= there
        work.plain = work.plain[there:]
        if work.frame is None:
            return work
        image, points = work.wanted
        if image and self._skip:
            self._skip -= 1
            image = False
            self.report.taken_over += 1
            self.report.frames_out += 1
        if points and self._skip:
            self._skip -= 1
            points = False
        work.wanted = image, points
        if not (image or points):
            work.frame = None
        return work

    def count_frames(self) -> list[int]:
        """Depth frames of each camera in the part asked for: of all by the index, of less by reading it."""
        images = [camera.image for camera in self.plan.cameras]
        if not self.settings.start and self._to is None:
            return [topic.total for topic in images]
        counts = {topic.number: 0 for topic in images}
        for message in self.bag.messages(list(counts), self._from, self._to):
            counts[message.topic] += 1
        return list(counts.values())

    # --- all of it ------------------------------------------------------------------------------

    def add_topics(self, output: Output) -> dict[int | str, Connection]:
        """Adds every topic of the output; the bag's by number, since two types may share a name, new ones by name."""
        connections: dict[int | str, Connection] = {t.number: output.add_topic(t) for t in self.plan.kept}
        reliable = qos(QosDurability.VOLATILE, 5)
        for camera in self.plan.cameras:
            new = [(camera.image_out, wire.IMAGE)]
            if camera.info is not None:
                new.append((camera.info_out, wire.CAMERA_INFO))
                if self.settings.points:
                    new.append((camera.points_out, wire.POINTS))
            for name, msgtype in new:
                topic = Topic(-1, name, msgtype, "", False, "", "cdr", reliable, 0)
                connections[name] = output.add_topic(topic)
        return connections

    def run(self, upsampler: Upsampler, output: Output, progress: Progress) -> None:
        """Reads, computes and writes all of it."""
        connections = self.add_topics(output)
        self._skip = output.go_on()
        report = self.report
        report.messages_out = self._skip
        line = Line()
        read: Belt[Work] = Belt(line)
        computed: Belt[Work] = Belt(line)
        preview = Preview(self.settings.preview, report.input) if self.settings.preview else None

        def reading() -> None:
            began, waited = time.monotonic(), 0.0
            for work in self.works():
                asked = time.monotonic()
                read.put(work, work.size)
                waited += time.monotonic() - asked
                report.busy["read"] = time.monotonic() - began - waited
            read.end()

        def writing() -> None:
            for work in computed:
                began = time.monotonic()
                for name, data in self._outputs(work, preview):
                    output.writer.write(connections[name], work.time, data)
                    report.messages_out += 1
                report.busy["write"] += time.monotonic() - began

        whole = False
        began = told = time.monotonic()
        try:
            line.start("read", reading)
            line.start("write", writing)
            for work in read:
                if work.frame is not None:
                    asked = time.monotonic()
                    work.result = work.frame.coded(upsampler(work.frame.depth))
                    report.busy["engine"] += time.monotonic() - asked
                    report.frames_out += work.wanted[0]
                computed.put(work, work.size)
                now = time.monotonic()
                report.seconds = now - began
                if now - told > 0.2:
                    told = now
                    length = max(1, min(self._to or self.bag.end, self.bag.end) - self._from)
                    progress(min(1.0, max(0.0, (self._now - self._from) / length)), report.frames_out, report.rate)
            computed.end()
            line.join()
            whole = True
        except Stopped:
            line.join()
        except BaseException:
            line.stop()
            line.join()
            raise
        finally:
            report.seconds = time.monotonic() - began
            if preview is not None:
                preview.close(whole)
        loss = self.bag.loss
        report.lost_messages, report.lost_bytes, report.problem = loss.messages, loss.bytes, loss.problem

    def _outputs(self, work: Work, preview: Preview | None) -> Iterator[tuple[int | str, bytes | memoryview]]:
        yield from work.plain
        if work.frame is None or work.result is None or work.camera is None:
            return
        topics = work.camera
        if preview is not None:
            preview.add(topics.image.name, work.frame.depth, work.result, work.time - self.bag.start)
        if work.result.dtype == np.float32 and not np.isfinite(work.result).all():
            raise EngineError("the engine's result is not finite")
        # Before the image, whose invalid pixels become NaN in place.
        points = None
        if work.wanted[1] and work.numbers is not None:
            points = wire.write_points(work.result, work.numbers, work.frame.header)
        if work.wanted[0]:
            yield topics.image_out, wire.write_depth(work.result, work.frame)
        if points is not None:
            yield topics.points_out, points


def identity(path: Path, settings: ReplaySettings) -> dict[str, Any]:
    """What a result depends on: the bag's files, the model's, and the settings."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = {str(p.relative_to(path.parent)): [p.stat().st_size, p.stat().st_mtime_ns] for p in files}
    model = find_model(settings.model, settings.scale)
    return {"input": stats, "model_sha256": model.sha256, **settings.result_decided_by()}


def check_apart(source: Path, final: Path) -> None:
    """Holds an output to lie apart from its input, which is never written to.

    Raises:
        ReplayError: if one lies in the other.
    """
    there, out = source.resolve(), final.resolve()
    if there == out or there in out.parents or out in there.parents:
        raise ReplayError(f"{final} and the bag {source} lie in one another; choose another output")


def replay_bag(
    source: Path,
    final: Path,
    settings: ReplaySettings,
    force: bool = False,
    resume: bool = False,
    progress: Progress = lambda share, frames, rate: None,
) -> Report:
    """Super-resolves the depth of a bag.

    Args:
        source: a ROS 2 bag's folder or file, or a ROS 1 bag.
        final: the new bag's folder, or a file ending in ``.mcap``.
        settings: what to do.
        force: replace an output that is there.
        resume: go on with a replay that was interrupted; an output that is there is taken for done.
        progress: called a few times a second.

    Raises:
        ReplayError: if it cannot be done.
        EngineError: if the network cannot start, or fails.
    """
    if resume and settings.preview:
        raise ReplayError("--preview shows a whole run and cannot be gone on with; give it without --resume")
    report = Report(str(source), str(final))
    report.done_before = check_output(source, final, settings, force, resume) == DONE
    if report.done_before:
        return report
    with Bag(source) as bag:
        replay = Replay(bag, settings, report)
        try:
            wanted = identity(source, settings)
        except OSError as error:
            raise ReplayError(f"{source} cannot be read: {error.strerror}") from None
        upsampler = Upsampler(
            settings.model,
            settings.scale,
            settings.engine,
            threads=settings.threads,
            depth_range=settings.depth_range,
            fill_holes=hole_size(settings.fill_holes),
        )
        with upsampler:
            report.engine = upsampler.engine
            output = Output(final, wanted, settings.format, settings.compress, force, resume)
            try:
                replay.run(upsampler, output, progress)
            except OSError as error:
                output.leave()
                raise write_error(output.folder, error) from None
            except BaseException:
                output.leave()
                raise
            output.finish()
    return report


def check_output(source: Path, final: Path, settings: ReplaySettings, force: bool, resume: bool) -> str:
    """Holds outputs to be where they may be written; returns what becomes of what is there, as `look_at`.

    Raises:
        ReplayError: if they may not.
    """
    check_apart(source, final)
    if settings.preview is not None:
        check_apart(source, settings.preview)
        if settings.preview.exists() and not force:
            raise ReplayError(f"{settings.preview} exists; --force replaces it")
    return look_at(final, settings.format, force, resume)


def plan_bag(source: Path, final: Path, settings: ReplaySettings) -> tuple[Report, int]:
    """What `replay_bag` would do, and how many depth frames it would compute, as far as the bag's index tells."""
    report = Report(str(source), str(final))
    with Bag(source) as bag:
        replay = Replay(bag, settings, report)
        frames = sum(-(-frames // settings.every) for frames in replay.count_frames())
        loss = bag.loss
        report.lost_messages, report.lost_bytes, report.problem = loss.messages, loss.bytes, loss.problem
        return report, frames
