"""Fidelity's tables."""

import io

from rich.console import Console

from dsca_ros.evaluation.fidelity_report import COLUMNS, TITLES, cells, fidelity_markdown, fidelity_tables


def row(kind: str, name: str, method: str, scale: int = 2, start: float | None = 1.23456) -> dict:
    """A row whose figures are start, start + 1, ...; with None it has none."""
    head = {"set": name, "kind": kind, "method": method, "scale": scale}
    return head | {key: None if start is None else start + k for k, (key, _, _) in enumerate(COLUMNS[kind])}


FIGURES = {
    "sets": [
        row("recorded", "zed", "bilinear", 4),
        row("recorded", "zed", "ours", 4, 21.0),
        row("truth", "rooms", "bilinear", 2, None),
        row("recorded", "d435", "ours", 2, 31.0),
        row("truth", "rooms", "ours", 2, 41.5),
    ]
}


def shown(figures: dict, width: int = 140, **settings: object) -> str:
    console = Console(width=width, file=io.StringIO(), **settings)
    console.print(fidelity_tables(figures, {"ours"}))
    return console.file.getvalue()


def test_the_columns_of_both_kinds():
    keys = {kind: [key for key, _, _ in columns] for kind, columns in COLUMNS.items()}
    assert keys == {
        "truth": ["rmse_mm", "mae_mm", "edge_mae_mm", "flying_pct", "hallucinated_pct", "lost_pct"],
        "recorded": [
            "surface_mae_mm", "edge_mae_mm", "flying_pct", "plane_rms_ratio", "steadiness_ratio", "consistency_mm",
        ],
    }  # fmt: skip


def test_cells_have_the_digits_of_their_column_and_a_dash_for_nothing():
    assert cells(row("truth", "a", "b")) == ["1.2", "2.23", "3.2", "4.23", "5.235", "6.235"]
    assert cells(row("recorded", "a", "b")) == ["1.23", "2.2", "3.23", "4.235", "5.235", "6.23"]
    partly = row("recorded", "a", "b") | {"steadiness_ratio": None, "flying_pct": 0.0}
    assert cells(partly) == ["1.23", "2.2", "0.00", "4.235", "–", "6.23"]


def test_the_terminal_shows_a_table_for_each_set_and_scale_exact_depth_first():
    text = shown(FIGURES)
    order = [TITLES["truth"], "rooms ×2", TITLES["recorded"], "d435 ×2", "zed ×4"]
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions) and "…" not in text
    assert all(text.count(part) == 1 for part in order)
    for part in ("41.5", "42.50", "46.500", "31.00", "21.00", "1.23", "–"):
        assert part in text
    for kind in COLUMNS:
        assert all(heading in text for _, heading, _ in COLUMNS[kind])


def test_networks_are_bold_and_the_usual_ways_are_not():
    lines = shown(FIGURES, force_terminal=True, color_system="standard").splitlines()
    bold = [line for line in lines if "\x1b[1m" in line and ("ours" in line or "bilinear" in line)]
    assert len(bold) == 3 and all("ours" in line for line in bold)


def test_one_kind_alone_has_no_title_of_the_other():
    figures = {"sets": FIGURES["sets"][:1]}
    assert TITLES["truth"] not in shown(figures) and TITLES["recorded"] in shown(figures)
    assert "gainst exact depth" not in fidelity_markdown(figures, set())
    assert fidelity_markdown({"sets": []}, set()) == ""


def test_brackets_in_a_folders_name_are_shown():
    assert "[red]room ×2" in shown({"sets": [row("truth", "[red]room", "ours")]})


def test_markdown_is_as_it_should_be_to_the_letter():
    headings = {kind: " | ".join(heading for _, heading, _ in columns) for kind, columns in COLUMNS.items()}
    assert fidelity_markdown(FIGURES, {"ours"}).splitlines() == [
        "### Against exact depth",
        "",
        f"| set | scale | method | {headings['truth']} |",
        "|---|---|---|---|---|---|---|---|---|",
        "| rooms | ×2 | bilinear | – | – | – | – | – | – |",
        "| rooms | ×2 | **ours** | 41.5 | 42.50 | 43.5 | 44.50 | 45.500 | 46.500 |",
        "",
        f"### O{TITLES['recorded'][1:]}",
        "",
        f"| set | scale | method | {headings['recorded']} |",
        "|---|---|---|---|---|---|---|---|---|",
        "| d435 | ×2 | **ours** | 31.00 | 32.0 | 33.00 | 34.000 | 35.000 | 36.00 |",
        "| zed | ×4 | bilinear | 1.23 | 2.2 | 3.23 | 4.235 | 5.235 | 6.23 |",
        "| zed | ×4 | **ours** | 21.00 | 22.0 | 23.00 | 24.000 | 25.000 | 26.00 |",
    ]


def test_which_models_had_the_decimated_frames_is_told():
    told = "Decimated frames were given to the twins: ours-decimated for ours."
    figures = FIGURES | {"twins": {"ours": "ours-decimated"}}
    assert told in shown(figures) and told in fidelity_markdown(figures, {"ours"})
    for without in (FIGURES, FIGURES | {"twins": {}}):
        assert "twins" not in shown(without) and "twins" not in fidelity_markdown(without, {"ours"})
