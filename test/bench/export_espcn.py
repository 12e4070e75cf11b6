"""Exports the trained peer as models are exported: weights, ONNX graphs, and a manifest for ``--peers``.

Example: python test/bench/export_espcn.py runs/espcn-x2/checkpoint.pt
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import yaml
from espcn import SCALE, Espcn, EspcnGraph
from safetensors.torch import load_file, save_file

from dsca_ros.engine.cost import graph_cost
from dsca_ros.engine.export import export_graph
from dsca_ros.engine.zoo import DEPTH, MANIFEST, PRECISIONS
from dsca_ros.training.train import load_checkpoint

FOLDER = Path(__file__).parent
#: The weights lie apart: torch, which would take them for this package's, is no engine for the graphs.
WEIGHTS = FOLDER / f"espcn-x{SCALE}.safetensors"
MODELS = FOLDER / "models"


def load_espcn() -> Espcn:
    """The peer with the weights that were trained, float32."""
    network = Espcn()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return network.eval()


def flop_per_pixel() -> float:
    """What the graph costs for every pixel of its input: convolutions cost the same at each."""
    height, width = 240, 320
    return 1e9 * graph_cost(EspcnGraph(Espcn()), DEPTH, (height, width)) / (height * width)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of train_espcn.py")
    best = load_checkpoint(parser.parse_args().checkpoint)["best"]
    weights = {name: tensor.half().contiguous() for name, tensor in best["weights"].items()}
    save_file(weights, WEIGHTS, {"step": str(best["step"])})
    WEIGHTS.chmod(0o644)
    MODELS.mkdir(exist_ok=True)
    entries = {}
    for precision in PRECISIONS:
        path = MODELS / f"espcn-x{SCALE}-{precision}.onnx"
        export_graph(EspcnGraph(load_espcn(), half=precision == "fp16"), path)
        entries[precision] = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    about = {"domain": DEPTH, "flop_per_pixel": flop_per_pixel(), "scales": {SCALE: entries}}
    text = "# The benchmark's peer; written by export_espcn.py.\n" + yaml.safe_dump({"models": {"espcn": about}})
    (MODELS / MANIFEST).write_text(text)


if __name__ == "__main__":
    main()
