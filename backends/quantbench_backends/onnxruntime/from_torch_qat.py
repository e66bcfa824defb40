"""The converter from a QAT of PyTorch to an ONNX file with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import fx, nn
from torch.ao.nn.quantized.reference.modules.utils import ReferenceQuantizedModule
from torch.ao.quantization import FakeQuantizeBase
from torch.ao.quantization.quantize_fx import convert_to_reference_fx

from quantbench.spec import Model
from quantbench.system import locate
from quantbench_backends.onnxruntime import qdq_constants
from quantbench_backends.onnxruntime.from_torch import FILE, export

RESTORED = "quantbench_backends.pytorch.qat:restored"  # by name: backends do not import each other
SEVEN_BITS = 127


def convert(model: Model, folder: Path) -> Path:
    """Export the QAT in ``model.trained`` to ``folder/model.onnx``.

    Batch norm, scales and integers are those that PyTorch itself converts to. As there, activations
    that were trained with 7 bits have 8: values beyond their range are not clipped to it. Those
    with fewer bits are, so that they remain what was trained.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.ao.quantization is deprecated")
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor, torch.quantize_per")
        prepared = locate(RESTORED)(model)
        limits = dict(narrow(prepared))
        module = convert_to_reference_fx(prepared)
        with_fake_quantization(module, limits)
        weights = dict(taken(module))
        # unfolded, so that every weight keeps its name
        path = export(module, model, folder / FILE, do_constant_folding=False)
    exported = onnx.load(path)
    qdq_constants.store(exported.graph, weights)
    onnx.save(exported, path)
    return path


def narrow(prepared: nn.Module) -> Iterator[tuple[tuple[float, int], tuple[int, int]]]:
    """The least and largest integer of activations with fewer than 7 bits, by scale and zero point."""
    for child in prepared.modules():
        own: Any = child
        if isinstance(child, FakeQuantizeBase) and own.quant_max - own.quant_min < SEVEN_BITS:
            scale, zero_point = own.calculate_qparams()
            if scale.numel() == 1:
                yield (float(scale), int(zero_point)), (own.quant_min, own.quant_max)


def with_fake_quantization(
    module: fx.GraphModule, narrow: Mapping[tuple[float, int], tuple[int, int]]
) -> None:
    """Write each pair of quantize and dequantize as the one function that exports without casts."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is not torch.quantize_per_tensor:
            continue
        tensor, scale_name, zero_point_name, dtype = node.args
        scale = float(getattr(module, scale_name.target))
        zero_point = int(getattr(module, zero_point_name.target))
        whole = torch.iinfo(dtype)
        least, most = narrow.get((scale, zero_point), (whole.min, whole.max))
        with graph.inserting_before(node):
            if (scale, zero_point) in narrow:
                ends = (scale * (least - zero_point), scale * (most - zero_point))
                tensor = graph.call_function(torch.clamp, (tensor, *ends))
            options = (scale, zero_point, whole.min, whole.max)
            fake = graph.call_function(torch.fake_quantize_per_tensor_affine, (tensor, *options))
        for user in list(node.users):
            user.replace_all_uses_with(fake)
            graph.erase_node(user)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()


def taken(module: fx.GraphModule) -> Iterator[tuple[str, qdq_constants.Weight]]:
    """The integers of every reference module by parameter name; the modules become float ones."""
    for name, child in module.named_modules():
        if isinstance(child, ReferenceQuantizedModule):
            own: Any = child
            quantized = own.get_quantized_weight()
            yield f"{name}.weight", weight(quantized)
            own.weight.data = quantized.dequantize()
            # a reference module is a float module that quantizes its weights at every call
            own.__class__ = next(
                k for k in type(own).__mro__ if k.__module__.startswith("torch.nn.")
            )


def weight(quantized: torch.Tensor) -> qdq_constants.Weight:
    """A quantized tensor of PyTorch as arrays."""
    parts: Mapping[str, Any]
    if quantized.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        parts = {
            "scale": torch.tensor(quantized.q_scale()),
            "zero_point": torch.tensor(quantized.q_zero_point()),
            "axis": 0,
        }
    else:
        parts = {
            "scale": quantized.q_per_channel_scales(),
            "zero_point": quantized.q_per_channel_zero_points(),
            "axis": quantized.q_per_channel_axis(),
        }
    values = quantized.int_repr().numpy()
    return qdq_constants.Weight(
        values=values,
        scale=parts["scale"].numpy().astype("float32"),
        zero_point=parts["zero_point"].numpy().astype(values.dtype),
        axis=parts["axis"],
    )
