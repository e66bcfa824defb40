"""Parts: weights alone, or activations alone, rounded as quantization rounds them; all in float."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.ao.nn.quantized.modules.utils import WeightedQuantizedModule

from quantbench.errors import BadInput
from quantbench.spec import Method
from quantbench_backends.pytorch import eager, fx, observation_points
from quantbench_backends.pytorch.refusals import route


def alone(calibrated: nn.Module, method: Method) -> nn.Module:
    """The module with observers that have their ranges, of which one part is rounded.

    Raises
    ------
    BadInput
        If weights are no module's own, so that they cannot be told from the rest.
    """
    if method.parts == "activations":
        observation_points.simulate(calibrated)
        return calibrated
    twin = copy.deepcopy(calibrated)
    integers = eager.converted(twin) if route(method) == "eager" else fx.converted(twin, method)
    if any("_packed_weight" in name for name in dir(integers)):
        raise BadInput(
            "weights that functions take, not modules, cannot be rounded alone; use parts: both"
        )
    observation_points.silence(calibrated)
    for name, child in integers.named_modules():
        if isinstance(child, WeightedQuantizedModule):
            layer: Any = calibrated.get_submodule(name)
            # fused modules are sequences, the first of which has the weight
            own = layer[0] if isinstance(layer, nn.Sequential) else layer
            packed: Any = child
            own.weight.data = packed.weight().dequantize()
    return calibrated
