"""The chart of truth against milliseconds: what is in it."""

import math

import pytest

from dsca_ros.evaluation.bench_chart import chart_points, draw_chart, relative_errors


def row(name, method, error, kind="truth", scale=2):
    return {"set": name, "kind": kind, "method": method, "scale": scale,
            "mae_mm" if kind == "truth" else "surface_mae_mm": error}  # fmt: skip


SETS = [
    *(row("a", method, error) for method, error in (("bilinear", 4.0), ("dsca-nano", 2.0), ("bicubic", 5.0))),
    *(
        row("b", method, error, "recorded")
        for method, error in (("bilinear", 1.0), ("dsca-nano", 0.5), ("bicubic", 2.0))
    ),
    row("b", "dsca-nano", None, "recorded", scale=4),
    row("b", "bilinear", 1.0, "recorded", scale=4),
]


def measured(model, engine, ms, size="320x240"):
    return {"model": model, "scale": 2, "engine": engine, "precision": "fp32", "size": size, "ms": ms}


def test_errors_are_shares_of_bilinears_over_all_sets():
    found = relative_errors(SETS)
    assert found["dsca-nano", 2] == pytest.approx(0.5) and found["bilinear", 2] == 1.0
    assert found["bicubic", 2] == pytest.approx(math.sqrt(1.25 * 2.0))
    assert ("dsca-nano", 4) not in found  # no set gives a figure


def test_a_peer_stands_beside_the_models_with_its_own_error():
    figures = {"engines": [measured("dsca-nano", "openvino", 15.0), measured("peer", "openvino", 9.0)]}
    points = chart_points(figures, {"sets": [*SETS, row("a", "peer", 3.0)]}, "320x240")
    assert {p["method"]: p["error"] for p in points} == pytest.approx({"dsca-nano": 0.5, "peer": 0.75})


def test_a_method_stands_where_it_is_fastest_and_no_naive_one_does(tmp_path):
    slow, fast = measured("dsca-nano", "torch", 90.0), measured("dsca-nano", "openvino", 15.0)
    failed = {key: value for key, value in measured("dsca-nano", "tensorrt", 0.0).items() if key != "ms"}
    others = [measured("bicubic", "OpenCV", 0.1), measured("bicubic", "numpy", 9.0), measured("x", "numpy", 1.0)]
    elsewhere = measured("dsca-nano", "openvino", 1.0, "64x48")
    figures = {"machine": {"processor": "a chip"}, "engines": [slow, fast, failed, *others, elsewhere]}
    points = chart_points(figures, {"sets": SETS}, "320x240")
    assert {(p["method"], p["engine"], p["ms"]) for p in points} == {
        ("dsca-nano", "openvino", 15.0),
        ("bicubic", "numpy", 9.0),
    }
    draw_chart(figures, {"sets": SETS}, "320x240", tmp_path / "pictures" / "chart.png")
    assert (tmp_path / "pictures" / "chart.png").stat().st_size > 5000
