"""`dsca bench`: what is measured, and how it is told."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
from rich.console import Console

from dsca_ros.engine.base import EngineError
from dsca_ros.evaluation import bench
from dsca_ros.evaluation.bench import BenchRequest, Ratio, Spread, compared, machine, measure, timed
from dsca_ros.evaluation.bench_report import bench_markdown, bench_tables

ROW = {
    "model": "m",
    "scale": 2,
    "precision": "fp32",
    "engine": "onnxruntime",
    "size": "64x48",
    "runs_on": "ONNX Runtime (CPU)",
    "ms": 4.0,
    "ms_p10": 3.0,
    "ms_p90": 6.0,
    "runs": 10,
    "gflop": 0.2,
    "memory_mb": 12.0,
}
POINTS = {
    **{"size": "64x48", "coding": "float32", "holes_pct": 5.0, "hole_side_px": 1, "runs": 3},
    **{way: {"ms": 1.0, "ms_p10": 0.9, "ms_p90": 1.2} for way in ("organised", "valid_alone")},
}
MACHINE = {"processor": "a chip", "cores": 2, "gflop_per_s": 100.0, "gb_per_s": 20.0, "gpu": None}


def request(**changes):
    fields = {"models": ["tiny"], "scales": [], "precisions": ["fp32"], "engines": ["onnxruntime"], "sizes": [(64, 48)]}
    return BenchRequest(**(fields | {"runs": 3} | changes))


def test_every_model_engine_and_size_is_a_row(use_tiny_models):
    rows = request(scales=[2, 4], sizes=[(64, 48), (80, 60)]).rows()
    found = {(engine, file.model, file.scale, file.precision, size) for engine, file, size in rows}
    assert found == set(itertools.product(["onnxruntime"], ["tiny"], [2, 4], ["fp32"], [(64, 48), (80, 60)]))


def test_engines_that_cannot_run_here_are_left_out(use_tiny_models):
    engines = {engine for engine, _, _ in request(engines=[]).rows()}
    assert "onnxruntime" in engines
    for kind in bench.ENGINES:
        assert (kind.name in engines) == (kind.missing() is None)


def test_nothing_to_measure_is_an_error(use_tiny_models):
    with pytest.raises(EngineError, match="nothing to measure"):
        request(models=["huge"]).rows()


def test_a_row_has_its_figures(use_tiny_models):
    told = []
    (row,) = measure(request(scales=[2]), told.append)
    assert set(row) == set(ROW)
    assert 0 < row["ms_p10"] <= row["ms"] <= row["ms_p90"] and row["runs"] == 3
    assert told == ["tiny x2 (fp32) 64x48 on onnxruntime"]


def test_what_cannot_run_is_a_row_with_the_reason(use_tiny_models, monkeypatch):
    def refuse(*_args, **_options):
        raise EngineError("no such luck")

    monkeypatch.setattr(bench, "create_engine", refuse)
    (row,) = measure(request(scales=[2]), lambda _: None)
    assert row["error"] == "no such luck" and "ms" not in row


def test_slow_work_is_measured_three_times_at_least(monkeypatch):
    clock = itertools.count(0.0, 100.0)
    monkeypatch.setattr(bench.time, "monotonic", lambda: next(clock))
    assert len(timed(lambda: None, 50)) == 3
    monkeypatch.undo()
    assert len(timed(lambda: None, 7)) == 7


def test_spread_is_the_median_between_percentiles():
    assert Spread.of([i / 1000 for i in range(1, 12)]) == Spread(6.0, 2.0, 10.0)


def test_the_machines_peaks_are_positive():
    found = machine()
    assert found["gflop_per_s"] > 0 and found["gb_per_s"] > 0 and found["processor"]


def test_ratios_are_of_rows_that_both_runs_have():
    slower, other, failed = ROW | {"ms": 6.0}, ROW | {"size": "80x60"}, ROW | {"scale": 4, "error": "no"}
    failed.pop("ms")
    new, old = [slower, other, failed], [ROW, ROW | {"scale": 4}]
    (ratio,) = compared({"engines": new}, {"engines": old})
    assert (ratio.part, ratio.figure, ratio.ratio) == ("engines", "ms", 1.5)
    assert ratio.row == {name: slower[name] for name in ("model", "scale", "precision", "engine", "size")}
    assert compared({"engines": new}, {}) == []


def test_every_part_is_compared_and_what_is_none_is_told():
    figures = json.loads((Path(__file__).parents[2] / "docs" / "results" / "bench.json").read_text())
    figures["points"] = [POINTS]
    found = compared(figures, figures)
    assert {(ratio.part, ratio.figure) for ratio in found} == {
        (part, figure) for part, (_, of) in bench.COMPARED.items() for figure in of
    }
    assert {ratio.ratio for ratio in found} == {1.0}
    console = Console(width=200, file=io.StringIO())
    console.print(bench_tables(figures, found))
    text = console.file.getvalue().partition("over those of before")[2]
    for words in ("float32, holes: 5 %, single pixels", "4 cameras", "dsca-nano ×2, fp32, openvino", "peak_hz"):
        assert words in text
    for broken in ({"engines": 5}, {"engines": [{}]}, {"engines": [5]}, {"growth": []}, {"growth": [1]}, {"node": "x"}):
        try:
            assert compared(broken, broken) == []
        except (AttributeError, LookupError, TypeError):
            continue


def test_the_table_tells_share_of_peak_and_errors():
    figures = {"machine": MACHINE, "engines": [ROW, {k: ROW[k] for k in list(ROW)[:5]} | {"error": "no driver"}]}
    text = bench_markdown(figures)
    # 0.2 GFLOP in 4 ms are 50 of 100 GFLOP/s.
    assert "| m ×2 | 64x48 | fp32 | onnxruntime | 4.0 (3.0 – 6.0) | 0.20 | 50 % | 12 |" in text
    assert "no driver" in text
    on_gpu = ROW | {"runs_on": "TensorRT (GPU)", "up_ms": 0.1, "engine_ms": 3.0, "down_ms": 0.2}
    assert "up 0.10, engine 3.00, down 0.20 | 0.20 | – |" in bench_markdown({"machine": MACHINE, "engines": [on_gpu]})
    assert bench_tables(figures, [Ratio("engines", ROW, "ms", 1.5)])


def test_peers_are_measured_at_every_scale_and_size(use_tiny_models):
    rows = list(bench.measure_peers(request(scales=[2, 4], sizes=[(32, 24)]), lambda _: None))
    found = {(row["model"], row["engine"], row["scale"]) for row in rows}
    ways = [("nearest", "numpy"), ("bilinear", "numpy"), ("bicubic", "numpy"), ("bicubic", "OpenCV")]
    assert found == {(*way, scale) for way in ways for scale in (2, 4)}
    assert all(set(row) == set(ROW) and row["ms"] > 0 for row in rows)


def test_points_are_measured_at_the_enlarged_size_with_and_without_holes(use_tiny_models):
    rows = list(bench.measure_points(request(sizes=[(32, 24)]), 2, lambda _: None))
    found = {(row["size"], row["coding"], row["holes_pct"], row["hole_side_px"]) for row in rows}
    holes = ((0.0, 12), (5.0, 12), (30.0, 12), (5.0, 1))
    assert found == {("64x48", coding, *hole) for coding in ("uint16", "float32") for hole in holes}
    assert all(row[way]["ms_p10"] <= row[way]["ms"] for row in rows for way in ("organised", "valid_alone"))
    text = bench_markdown({"machine": MACHINE, "points": rows})
    assert all(f"| 64x48 | uint16 | {hole} | " in text for hole in ("none", "30 %, of 12 px", "5 %, single pixels"))
