"""Engines: what runs an exported graph on a machine. All of them give the same result."""

import os
import sys

# ONNX Runtime (1.29 and newer) and OpenVINO report to their makers, OpenVINO as soon as it is imported. A robot
# tells nobody anything: this comes before either. Whoever wants it sets ORT_DISABLE_TELEMETRY=0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
