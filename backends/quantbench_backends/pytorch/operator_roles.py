"""Operator roles: what PyTorch's operators do, by their names in graphs and at the dispatcher."""

from __future__ import annotations

import re

from quantbench.backend_api import CAST, DEQUANTIZE, MULTIPLY, OTHER, QUANTIZE, is_integer

RECURRENT = ("aten::quantized_lstm", "aten::quantized_gru")
_MULTIPLY = re.compile(
    r"(_|mkldnn_)?convolution(_pointwise\w*)?|convolution_overrideable|(thnn_|_slow_|slow_)?conv\w*"
    r"|(mkldnn_|_mkl_)?linear\w*|_linear_pointwise\w*|qconv\w*|qlinear\w*"
    r"|mm|_sparse_mm|bmm|addmm|addmv|mv|baddbmm|matmul\w*|einsum|_int_mm|_weight_int\dpack_mm\w*|gemm_4bit"
    r"|(quantized_)?(lstm|gru)|rnn_(tanh|relu)|mkldnn_rnn_layer"
    r"|_?scaled_dot_product_\w*attention\w*|_native_multi_head_attention"
    r"|_transformer_encoder_layer_fwd"
)
# scales found at run time are half of a dynamic quantization
_QUANTIZE = re.compile(r"quantize_(per_(tensor|channel)\w*|affine)|choose_qparams\w*")
_DEQUANTIZE = re.compile(r"dequantize\w*")
_CAST = ("to", "_to_copy")
_NARROW = ("int8", "uint8")


def plain(kind: str) -> str:
    """The operator's name alone.

    >>> plain("aten::conv2d"), plain("torch.ops.aten.conv2d.default")
    ('conv2d', 'conv2d')
    """
    if kind.startswith("torch.ops."):
        return kind.split(".")[3]
    return kind.rpartition("::")[2]


def role(kind: str, given: str, made: str) -> str:
    """The role of an operator that reads dtype ``given`` and writes dtype ``made``; see `NodeRecord`.

    Fake quantization rounds floats and leaves floats, so that it converts nothing.

    >>> role("aten::to", "int8", "float32"), role("aten::to", "float32", "float16")
    ('dequantize', 'cast')
    """
    name = plain(kind)
    if _MULTIPLY.fullmatch(name):
        return MULTIPLY
    if _QUANTIZE.fullmatch(name):
        return QUANTIZE
    if _DEQUANTIZE.fullmatch(name):
        return DEQUANTIZE
    if name in _CAST and given != made:
        return _conversion(given, made)
    return OTHER


def _conversion(given: str, made: str) -> str:
    """Torchao dequantizes weights by a change of dtype alone; int64 is no quantized dtype."""
    if given in _NARROW and not is_integer(made):
        return DEQUANTIZE
    if made in _NARROW and not is_integer(given):
        return QUANTIZE
    return CAST if "float" in given and "float" in made else OTHER


def scales(kind: str, dtype: str, method: str) -> str:
    """How scales of activations in ``dtype`` are found, in an artifact of preset ``method``.

    >>> scales("quantized::linear_dynamic", "uint8", "dynamic-int8")
    'dynamic'
    """
    if "choose_qparams" in kind:
        return "dynamic"
    if dtype not in _NARROW or method.startswith("weight-only"):
        return "none"
    found = method.startswith("dynamic") or "dynamic" in kind or kind in RECURRENT
    return "dynamic" if found else "static"


def fused(kind: str) -> tuple[str, ...]:
    """What the operator does besides, by its name.

    >>> fused("quantized::conv2d_relu")
    ('Relu',)
    """
    return ("Relu",) if plain(kind).endswith("_relu") and kind.startswith("quantized") else ()


def no_kernel(kind: str, method: str) -> str:
    """Why a multiplication of an artifact is in float, where PyTorch has no integer kernel for it."""
    name = plain(kind)
    if method.startswith("weight-only"):
        return "the weights alone are quantized"
    if method == "dynamic-int8" and "conv" in name:
        return "PyTorch has no dynamic int8 convolution"
    if method in ("static-int8", "qat-int8", "dynamic-int8"):
        if "sparse" in name:
            return "PyTorch has no integer product with a sparse matrix"
        if "attention" in name or name in ("bmm", "baddbmm", "einsum"):
            return "PyTorch quantizes no product of two activations in attention"
        if name in ("lstm", "gru") and method != "dynamic-int8":
            return "torch.ao's static quantization leaves recurrent layers as they are"
    return ""


def layer_of(path: str, layers: tuple[str, ...]) -> str:
    """The longest of ``layers`` that a tensor's or module's path begins with.

    >>> layer_of("block.conv.weight", ("block", "block.conv"))
    'block.conv'
    """
    owners = [name for name in layers if path == name or path.startswith(f"{name}.")]
    return max(owners, key=len, default="")
