"""Many bags: found, done side by side with the same bytes, and one that fails keeps none of the others from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bag_files as bags
import pytest
from typer.testing import CliRunner

from dsca_ros.cli import app
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.many import find_jobs, run_jobs


def quiet(number, share, frames, rate):
    pass


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def dsca():
    def run(*arguments: object):
        return CliRunner().invoke(app, ["replay", *map(str, arguments), "--model", "tiny"])

    return run


def test_results_are_the_same_bytes_whatever_the_number_of_jobs(tmp_path, settings):
    for name in ("a", "b", "c"):
        bags.make_bag(tmp_path / "in" / name, frames=4 + len(name))
    told = []
    for at_once in (1, 2):
        jobs = find_jobs([str(tmp_path / "in")], tmp_path / f"out{at_once}")
        reports = run_jobs(jobs, settings, at_once, False, False, lambda *said: told.append(said))
        assert [report.frames_out for report in reports] == [5, 5, 5]
        assert [Path(report.input).name for report in reports] == ["a", "b", "c"]
    assert bytes_of(tmp_path / "out1") == bytes_of(tmp_path / "out2")
    assert len(bytes_of(tmp_path / "out1")) == 6


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--depth-unit", 0, "--depth-unit must be positive"),
        ("--fill-holes", "some", "fill_holes is 'some'; it must be"),
    ],
)
def test_an_option_that_makes_no_sense_is_told_before_anything_is_done(tmp_path, dsca, option, value, told):
    bags.make_bag(tmp_path / "in")
    done = dsca(tmp_path / "in", tmp_path / "out", option, value)
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at_once", [1, 2])
def test_one_that_fails_is_named_and_the_rest_is_done(tmp_path, dsca, at_once):
    bags.make_bag(tmp_path / "in" / "a")
    (tmp_path / "in" / "b.mcap").write_text("no bag")
    bags.make_ros1_bag(tmp_path / "in" / "c.bag")
    done = dsca(tmp_path / "in", tmp_path / "out", "--jobs", at_once, "--json", tmp_path / "report.json")
    assert done.exit_code == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("dsca:")]
    assert "b.mcap is not a bag" in line
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "c"]
    assert "2 of 3 bags done" in done.stdout
    reports = json.loads((tmp_path / "report.json").read_text())["bags"]
    assert [bool(report["error"]) for report in reports] == [False, True, False]
    assert reports[0]["frames_out"] == bags.FRAMES


def test_bags_are_found_in_folders_and_by_patterns(tmp_path):
    one = bags.make_bag(tmp_path / "in" / "one", frames=1)
    two = bags.make_bag(tmp_path / "in" / "deep" / "two", frames=1)
    out = tmp_path / "out"
    assert find_jobs([str(one)], out) == [(one, out)]
    assert find_jobs([str(tmp_path / "in")], out) == [(two, out / "two"), (one, out / "one")]
    assert find_jobs([str(tmp_path / "in" / "o*")], out) == [(one, out / "one")]
    assert find_jobs([str(one), str(two)], out) == [(one, out / "one"), (two, out / "two")]
    with pytest.raises(ReplayError, match="would both be"):
        find_jobs([str(one), str(one / "one.mcap")], out)
    with pytest.raises(ReplayError, match="no bag is named like"):
        find_jobs([str(tmp_path / "*.bag")], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReplayError, match="there is none in it"):
        find_jobs([str(tmp_path / "empty")], out)


def test_results_in_the_folder_of_the_bags_are_no_bags_to_be_done(tmp_path):
    """Else the second run, which goes on, would take the results of the first."""
    recordings = tmp_path / "in"
    one, out = bags.make_bag(recordings / "one", frames=1), recordings / "larger"
    bags.make_bag(out / "one", frames=1)
    bags.make_bag(recordings / "two.partial", frames=1)
    assert find_jobs([str(recordings)], out) == [(one, out / "one")]
    for pattern in ("*", "**", "**/*"):
        assert find_jobs([str(recordings / pattern)], out) == [(one, out / "one")], pattern


def test_a_bag_that_is_named_twice_is_done_once(tmp_path, monkeypatch):
    one, out = bags.make_bag(tmp_path / "in" / "one", frames=1), tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "again").symlink_to("one")
    assert find_jobs(["in/one", str(one)], out) == [(Path("in/one"), out / "one")]
    (tmp_path / "in" / "round").symlink_to(".")
    assert len(find_jobs(["in"], out)) == 1


def test_the_command_reports_what_it_did(tmp_path, dsca):
    source = bags.make_bag(tmp_path / "in")
    done = dsca(source, tmp_path / "out", "--every", 2, "--json", "-")
    assert done.exit_code == 0, done.stderr
    (report,) = json.loads(done.stdout)["bags"]
    assert (report["frames_in"], report["frames_out"], report["skipped"]) == (6, 3, {"every": 3})
    assert report["rate_hz"] > 0 and set(report["share"]) == {"read", "engine", "write"}
    assert "6 frames in, 3 out" in done.stderr
    again = dsca(source, tmp_path / "out")
    assert again.exit_code == 1 and again.stderr.strip().endswith("exists; --force replaces it")


def test_a_dry_run_tells_and_writes_nothing(tmp_path, dsca):
    source = bags.make_bag(tmp_path / "in")
    done = dsca(source, tmp_path / "out", "--dry-run")
    assert done.exit_code == 0
    assert f"{bags.IMAGE_TOPIC} -> {bags.RESULT_TOPIC}" in done.stdout
    assert "6 depth frames" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_dry_run_tells_what_becomes_of_what_is_there(tmp_path, dsca):
    source, out = bags.make_bag(tmp_path / "in"), bags.make_bag(tmp_path / "out", frames=1)
    before = bytes_of(out)
    refused = dsca(source, out, "--dry-run")
    assert refused.exit_code == 1 and "out exists; --force" in refused.stderr
    assert "what is there is replaced" in dsca(source, out, "--dry-run", "--force").stdout
    done = dsca(source, out, "--dry-run", "--resume")
    assert done.exit_code == 0 and done.stdout.strip().endswith("out: done before")
    (tmp_path / "new.partial").mkdir()
    assert "what is there is gone on with" in dsca(source, tmp_path / "new", "--dry-run", "--resume").stdout
    assert "--resume goes on" in dsca(source, tmp_path / "new", "--dry-run").stderr
    assert bytes_of(out) == before


def test_a_damaged_bag_is_done_and_exits_with_1(tmp_path, dsca):
    source = bags.make_bag(tmp_path / "in", frames=30, width=320, height=240) / "in.mcap"
    os.truncate(source, source.stat().st_size // 2)
    plan = dsca(source, tmp_path / "out", "--dry-run")
    assert plan.exit_code == 1 and "lost" in plan.stdout
    done = dsca(source, tmp_path / "out")
    assert done.exit_code == 1
    assert "could not be read whole" in done.stderr and "lost" in done.stderr
    assert len(bags.of_topic(tmp_path / "out", bags.RESULT_TOPIC)) >= 5


@pytest.mark.parametrize(
    "option, text",
    [(("--format", "avi"), "--format"), (("--compress", "gzip"), "--compress"), (("--preview", "x.avi"), "--preview"),
     (("--every", "0"), "--every"), (("--start", "inf"), "--start"), (("--duration", "inf"), "--duration"),
     (("--min-depth", "20"), "--min-depth")],
)  # fmt: skip
def test_a_wrong_option_exits_with_2(tmp_path, dsca, option, text):
    source = bags.make_bag(tmp_path / "in", frames=1)
    done = dsca(source, tmp_path / "out", *option)
    assert done.exit_code == 2 and text in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--json", "no_folder/r.json"), ("--preview", "no_folder/p.mp4")])
def test_what_cannot_be_written_is_told_before_the_first_frame(tmp_path, dsca, option):
    source = bags.make_bag(tmp_path / "in", frames=1)
    (tmp_path / "no_folder").touch()
    done = dsca(source, tmp_path / "out", option[0], tmp_path / option[1])
    assert done.exit_code == 1 and f"cannot write {tmp_path / option[1]}" in done.stderr.replace("\n", "")
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_bag(tmp_path):
    """The result is some 15 times what may wait in memory, and the whole more than what is allowed to come on top."""
    source = bags.make_bag(tmp_path / "in", frames=700, width=320, height=240)
    script = """
import json, sys
from pathlib import Path
from dsca_ros.replay.run import replay_bag
from dsca_ros.replay.settings import ReplaySettings
from dsca_ros.upsampler import Upsampler
import numpy as np
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
seen = []
def infer(self, depth):
    seen.append(resident())
    return np.repeat(np.repeat(depth, 2, 0), 2, 1)
Upsampler.__call__ = infer
replay_bag(Path(sys.argv[1]), Path(sys.argv[2]), ReplaySettings(model="tiny", threads=1))
seen.append(resident())
print(json.dumps(seen))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    assert len(seen) == 701
    written = sum(p.stat().st_size for p in (tmp_path / "out").iterdir())
    assert written > 450e6
    assert max(seen[70:]) - seen[70] < 50e6
    assert max(seen) < 1e9
