"""Operations: what PyTorch really executes in one inference, seen at its dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from backends.pytorch import session
from backends.pytorch.runtime import COMPILED
from harness.protocol import Artifact, Operation
from harness.target import Target
from harness.tensors import Arrays

_RECURRENT = ("aten::quantized_lstm", "aten::quantized_gru")


def operations(artifact: Artifact, target: Target, inputs: Arrays) -> tuple[Operation, ...]:
    """See `PyTorchRuntime.operations`."""
    loaded = session.load(artifact, target, 1)
    loaded.bind(inputs)
    if artifact.details["route"] in COMPILED:
        return _compiled(artifact, target, loaded.arguments)
    loaded.run()  # TorchScript profiles its first call and specializes the second
    loaded.run()
    return _recorded(loaded.call, loaded.arguments, target)


def _recorded(
    call: Callable[..., Any], arguments: Sequence[Tensor], target: Target
) -> tuple[Operation, ...]:
    # inference mode would show composite operators (linear, lstm) instead of what they consist of
    with torch.no_grad(), Recorder(target) as recorder:
        call(*arguments)
    return tuple(recorder.operations)


def _compiled(
    artifact: Artifact, target: Target, arguments: Sequence[Tensor]
) -> tuple[Operation, ...]:
    from torch._inductor.compile_fx import compile_fx

    calls: list[tuple[Operation, ...]] = []

    def recording(graph: Any, examples: Any) -> Callable[..., Any]:
        run: Any = compile_fx(graph, examples)

        # a mode around the whole call would make torch skip the compiled code
        def recorded(*inputs: Tensor) -> Any:
            with Recorder(target) as recorder:
                outputs = run(*inputs)
            calls.append(tuple(recorder.operations))
            return outputs

        return recorded

    module = session.read_module(artifact, target)
    call = session.compiled(module, arguments, target, backend=recording)
    calls.clear()
    with torch.inference_mode():
        call(*arguments)
    called = tuple(operation for operations in calls for operation in operations)
    whole = _recorded(module, arguments, target)
    rest = sum(op.macs for op in whole) - sum(op.macs for op in called)
    generated = Operation("generated code", "inductor", max(0, rest), False, "inductor")
    return (*called, generated)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that reaches the dispatcher, from eager code and from TorchScript."""

    def __init__(self, target: Target) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._device = target.device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Execute ``func`` and note it."""
        output = func(*args, **(kwargs or {}))
        kind = func._schema.name
        macs, integer = multiplications(func, args, kwargs or {}, output)
        self.operations.append(
            Operation(
                name=f"{len(self.operations)}:{kind}",
                kind=kind,
                macs=macs,
                integer=integer,
                engine=self._engine(kind),
            )
        )
        return output

    def _engine(self, kind: str) -> str:
        library, _, name = kind.partition("::")
        if library == "quantized" or kind in _RECURRENT:
            return str(torch.backends.quantized.engine)
        if library in ("mkldnn", "onednn") or name.startswith("mkldnn"):
            return "onednn"
        return library if self._device == "cpu" else self._device


def multiplications(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any
) -> tuple[int, bool]:
    """Multiply-accumulates of one operator call, and whether they are done on integers."""
    kind = func._schema.name
    library, _, name = kind.partition("::")
    if kind in _RECURRENT:
        return _steps(args[0]) * sum(map(_cell_weights, _objects(args))), True
    if library == "quantized":
        return _quantized(name, args, output), _quantized(name, args, output) > 0
    if name == "mkldnn_rnn_layer":
        return _steps(args[0]) * (args[1].numel() + args[2].numel()), False
    if kind == "mkldnn::_convolution_pointwise":
        return output.numel() * prod(args[1].shape[1:]), False
    if kind in ("mkldnn::_linear_pointwise", "mkl::_mkl_linear"):
        return output.numel() * args[0].shape[-1], False
    if kind in ("onednn::qconv_pointwise", "onednn::qconv2d_pointwise"):
        return output.numel() * prod(args[3].shape[1:]), True
    if kind in ("onednn::qlinear_pointwise", "aten::_int_mm"):
        return output.numel() * args[0].shape[-1], True
    if kind == "bitsandbytes::gemm_4bit":
        return output.numel() * args[2][-1], False
    if name == "_weight_int4pack_mm_for_cpu":
        return output.numel() * args[0].shape[-1], False
    if name == "_scaled_dot_product_flash_attention_for_cpu":
        query, key, value = (tuple(tensor.shape) for tensor in args[:3])
        flops = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
        return int(flops) // 2, False
    if name == "_transformer_encoder_layer_fwd":
        return _attention(args[0], (args[3], args[5], args[14], args[16])), False
    if name == "_native_multi_head_attention":
        return _attention(args[0], (args[5], args[7])), False
    if func.overloadpacket in flop_registry:
        flops = flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
        return int(flops) // 2, not output.is_floating_point()
    return 0, False


def _quantized(name: str, args: Sequence[Any], output: Any) -> int:
    """Multiply-accumulates of an operator of the ``quantized`` library."""
    if name.startswith("matmul"):
        return int(output.numel() * args[0].shape[-1])
    packed = _objects(args)
    if not packed or not name.startswith(("conv", "linear")):
        return 0
    weight = packed[0].unpack()[0]
    per_element = prod(weight.shape[1:])  # of the output; of the input where transposed
    elements = args[0] if name.startswith("conv_transpose") else output
    return int(elements.numel() * per_element)


def _steps(sequence: Tensor) -> int:
    """Time steps of all samples together; the features are the last axis."""
    return sequence.numel() // sequence.shape[-1]


def _attention(tokens: Tensor, weights: Sequence[Tensor]) -> int:
    """Projections by ``weights``, then queries x keys and attention x values."""
    batch, length, width = tokens.shape
    return batch * length * (sum(w.numel() for w in weights) + 2 * length * width)


def _objects(value: Any) -> list[Any]:
    """The TorchScript objects (packed weights) in nested sequences."""
    if isinstance(value, torch.ScriptObject):
        return [value]
    if isinstance(value, tuple | list):
        return [found for item in value for found in _objects(item)]
    return []


def _cell_weights(cell: Any) -> int:
    """Elements of both weight matrices in one direction of one recurrent layer."""
    return sum(packed.unpack()[0].numel() for packed in _objects(cell.__getstate__()))
