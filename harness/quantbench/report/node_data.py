"""Node data: the errors of activations as Model Explorer lays them over a file's graph."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from quantbench.report.drawing.style import SCALE
from quantbench.results import SensitivityRow

GRAPH = "main"


def node_data(rows: Sequence[SensitivityRow]) -> str:
    """SQNR in dB by output tensor of the quantized file, as JSON with colours from worse to better.

    Written to the format that Model Explorer documents for custom node data, ``graph -> results ->
    output tensor -> value``; it was not opened in the viewer here.
    Source: github.com/google-ai-edge/model-explorer/wiki, "Custom node data".
    """
    finite = [row for row in rows if math.isfinite(row.sqnr_db)]
    ends = ((0.0, SCALE[0]), (0.5, SCALE[len(SCALE) // 2]), (1.0, SCALE[-1]))
    graph = {
        "results": {row.change: {"value": round(row.sqnr_db, 2)} for row in finite},
        "gradient": [{"stop": stop, "bgColor": color} for stop, color in ends],
    }
    return json.dumps({GRAPH: graph}, indent=1) + "\n"
