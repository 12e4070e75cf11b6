"""The soak in its short form, and its table in the documents."""

from __future__ import annotations

import json
from pathlib import Path

from soak import Soak, soak_markdown

DOCS = Path(__file__).parents[2] / "docs"
#: All but those after which the node needs to warm up again; test_faults.py kills it.
FAULTS = (
    "engine hangs, is restarted",
    "hostile frames",
    "camera killed",
    "node stopped for 1 s",
    "engine fails",
    "nobody listens",
    "clock back",
    "lifecycle once around",
)


def test_the_node_is_after_each_fault_what_it_was_before(tmp_path: Path) -> None:
    soak = Soak(tmp_path, seed=1, log=print)
    try:
        for name in soak.random.sample(FAULTS, len(FAULTS)):
            soak.once(name)
        assert len(soak.report.faults) == len(FAULTS)
    finally:
        soak.close()


def test_the_table_of_the_soak_is_that_of_its_file() -> None:
    figures = json.loads((DOCS / "results" / "soak.json").read_text())
    text = (DOCS / "reliability.md").read_text()
    assert text.partition("<!-- soak -->\n")[2].partition("<!-- end soak -->")[0] == soak_markdown(figures)
