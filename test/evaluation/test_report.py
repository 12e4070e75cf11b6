import io

from rich.console import Console

from dsca_ros.evaluation.report import demo_table, info_table, installation, markdown_table

ERROR = {"bilinear": {"rmse_mm": 40.0, "mae_mm": 12.345, "flying_pct": 6.5, "valid_pct": 93.9}}
ERROR["dsca"] = {"rmse_mm": 30.0, "mae_mm": 8.5, "flying_pct": 2.25, "valid_pct": 93.8}


def shown(table) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_installation_says_what_is_here(use_tiny_models):
    found = installation()
    usable = [e["engine"] for e in found["engines"] if e["usable"]]
    assert found["auto"] == usable[0] and "onnxruntime" in usable
    assert found["packages"]["numpy"] and found["packages"]["dsca_ros"]
    assert found["models_folder"] == str(use_tiny_models)
    assert {(m["model"], m["scale"], m["precision"]) for m in found["models"]} == {
        ("tiny", s, p) for s in (2, 4) for p in ("fp32", "fp16")
    }
    text = shown(info_table(found))
    for part in ("auto takes this", "tiny", "×4", "fp16", found["packages"]["numpy"]):
        assert part in text


def test_the_demos_table_has_every_figure():
    figures = {
        "model": "m", "scale": 2, "engine": "E 1", "input_hz": 30.04, "output_hz": 29.5,
        "dropped_pct": 1.2, "latency_ms": {"p50": 21.1, "p95": 33.3, "p99": 44.4},
        "engine_ms": 15.6, "node_overhead_ms": 1.7, "samples": 9, "error": ERROR,
    }  # fmt: skip
    text = shown(demo_table(figures))
    for part in ("30.0 Hz", "29.5 Hz", "1.2 %", "21.1", "33.3", "44.4", "15.6", "1.7", "9 frames"):
        assert part in text
    for part in ("E 1", "12.3", "2.25 %", "93.80 %", "dsca"):
        assert part in text


def test_markdown_names_the_network():
    text = markdown_table([{"sensor": "tof", "model": "dsca-x", "scale": 4, "error": ERROR}])
    lines = text.splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert lines[3] == "| tof | ×4 | **dsca-x** | 30.0 | 8.50 | 2.25 % | 93.80 % |"
