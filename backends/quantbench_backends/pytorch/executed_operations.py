"""Operations: what PyTorch really executes in one inference, seen at its dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from quantbench.backend_api import DEQUANTIZE, MULTIPLY, OTHER, Artifact, Operation
from quantbench.spec import Arrays, Target
from quantbench_backends.pytorch import operator_roles, routes, session


def operations(artifact: Artifact, target: Target, inputs: Arrays) -> tuple[Operation, ...]:
    """See `PyTorchRuntime.operations`."""
    loaded = session.load(artifact, target, 1)
    loaded.bind(inputs)
    compiled = routes.of(artifact).compiled
    given = _inputs(artifact, loaded.arguments, hidden=compiled)
    if compiled:
        return (*given, *_compiled(artifact, target, loaded.arguments))
    loaded.run()  # TorchScript profiles its first call and specializes the second
    loaded.run()
    return (*given, *_recorded(loaded.call, loaded.arguments, artifact, target))


def _inputs(
    artifact: Artifact, arguments: Sequence[Tensor], *, hidden: bool
) -> tuple[Operation, ...]:
    """An entry for each input of the graph; compiled code hides its buffers."""
    return tuple(
        Operation(
            name=spec.name,
            kind="input",
            macs=0,
            dtype=dtype_name(argument.dtype),
            role="input",
            writes={} if hidden else {spec.name: argument.nbytes},
        )
        for spec, argument in zip(artifact.inputs, arguments, strict=True)
    )


def _recorded(
    call: Callable[..., Any], arguments: Sequence[Tensor], artifact: Artifact, target: Target
) -> tuple[Operation, ...]:
    # inference mode would show composite operators (linear, lstm) instead of what they consist of
    with torch.no_grad(), Recorder(artifact, target) as recorder:
        recorder.begin(arguments)
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
            with Recorder(artifact, target) as recorder:
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
    whole = _recorded(module, arguments, artifact, target)
    rest = sum(op.macs for op in whole) - sum(op.macs for op in called)
    generated = Operation(
        name="generated code",
        kind="inductor",
        macs=max(0, rest),
        dtype=artifact.details["precision"],
        engine="inductor",
    )
    return (*called, generated)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that reaches the dispatcher, from eager code and from TorchScript.

    Tensors are named by their storages, which views share; a storage that no operator has written,
    such as a weight's, has no name. Without `begin` (in compiled code, whose own buffers no
    dispatcher sees) nothing is named.
    """

    def __init__(self, artifact: Artifact, target: Target) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._device = target.device
        self._method = artifact.details["method"]
        self._inputs = [spec.name for spec in artifact.inputs]
        # of the tensor that lies there now: memory is used again
        self._names: dict[int, str] | None = None

    def begin(self, arguments: Sequence[Tensor]) -> None:
        """From now on note what is read and written, first of all the arguments."""
        self._names = {
            _storage(tensor): name for name, tensor in zip(self._inputs, arguments, strict=True)
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Execute ``func`` and note it."""
        output = func(*args, **(kwargs or {}))
        kind = func._schema.name
        macs, dtype = multiplications(func, args, kwargs or {}, output)
        read, made = _tensors([args, kwargs or {}]), _tensors(output)
        given = dtype_name(read[0].dtype) if read else ""
        out = dtype_name(made[0].dtype) if made else given
        dtype = dtype if macs else out
        role = MULTIPLY if macs else _idle(operator_roles.role(kind, given, out))
        scaled = role != OTHER or any(tensor.is_quantized for tensor in made)
        integers = given if role == DEQUANTIZE else dtype
        name = f"{len(self.operations)}:{kind}"
        reads, writes = self._buffers(name, read, made, func._schema.is_mutable)
        self.operations.append(
            Operation(
                name=name,
                kind=kind,
                macs=macs,
                dtype=dtype,
                engine=self._engine(kind),
                role=role,
                scales=operator_roles.scales(kind, integers, self._method) if scaled else "none",
                reads=reads,
                writes=writes,
            )
        )
        return output

    def _buffers(
        self, name: str, read: list[Tensor], made: list[Tensor], mutable: bool
    ) -> tuple[tuple[str, ...], dict[str, int]]:
        """Names of what was read, and bytes of what was written."""
        if self._names is None:
            return (), {}
        sources = [_storage(tensor) for tensor in read]
        reads = {self._names[place]: None for place in sources if place in self._names}
        writes: dict[str, int] = {}
        for tensor in made:
            place = _storage(tensor)
            if place not in sources:
                self._names[place] = f"{name}:{len(writes)}"
            elif not mutable or place not in self._names:
                continue  # a view, or a change of something that is no activation
            if size := sum(part.untyped_storage().nbytes() for part in _parts(tensor)):
                writes[self._names[place]] = size
        return tuple(reads), writes

    def _engine(self, kind: str) -> str:
        library, _, name = kind.partition("::")
        if library == "quantized" or kind in operator_roles.RECURRENT:
            return str(torch.backends.quantized.engine)
        if library in ("mkldnn", "onednn") or name.startswith("mkldnn"):
            return "onednn"
        return library if self._device == "cpu" else self._device


def dtype_name(dtype: torch.dtype) -> str:
    """NumPy's name; of a quantized dtype, that of its integers.

    >>> dtype_name(torch.quint8), dtype_name(torch.bfloat16)
    ('uint8', 'bfloat16')
    """
    name = str(dtype).removeprefix("torch.")
    return name[1:] if name.startswith("q") else name


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return _parts(tensor)[-1].untyped_storage().data_ptr()


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors in memory that a tensor is made of: itself, or places and values of a sparse one."""
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor,)


_ADDING = ("addmm", "baddbmm", "_sparse_addmm")
_MAYBE_SPARSE = ("mm", "addmm", "_sparse_addmm")
"""Products of which one matrix may be sparse; `torch.sparse.mm` reaches the dispatcher as the last."""


def _idle(role: str) -> str:
    """The role of an operator that multiplied nothing."""
    return OTHER if role == MULTIPLY else role


def multiplications(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any
) -> tuple[int, str]:
    """Multiply-accumulates of one operator call, and the dtype in which activations are multiplied."""
    kind = func._schema.name
    library, _, name = kind.partition("::")
    if kind in operator_roles.RECURRENT:
        return _steps(args[0]) * sum(map(_cell_weights, _objects(args))), "uint8"
    if library == "quantized":  # the kernels of engine x86 multiply unsigned activations
        return _quantized(name, args, output), "uint8"
    macs = _macs(func, args, kwargs, output)
    if not macs:
        return 0, ""
    # the first argument of addmm and its like is what is added
    return macs, dtype_name(args[1 if name in _ADDING else 0].dtype)


def _macs(func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> int:
    """Multiply-accumulates of one call of an operator without packed weights."""
    kind = func._schema.name
    name = operator_roles.plain(kind)
    if name == "mkldnn_rnn_layer":
        return _steps(args[0]) * int(args[1].numel() + args[2].numel())
    if kind == "mkldnn::_convolution_pointwise":
        return int(output.numel() * prod(args[1].shape[1:]))
    if kind in ("mkldnn::_linear_pointwise", "mkl::_mkl_linear"):
        return int(output.numel() * args[0].shape[-1])
    if kind in ("onednn::qconv_pointwise", "onednn::qconv2d_pointwise"):
        return int(output.numel() * prod(args[3].shape[1:]))
    if kind in ("onednn::qlinear_pointwise", "aten::_int_mm"):
        return int(output.numel() * args[0].shape[-1])
    if kind == "bitsandbytes::gemm_4bit":
        return int(output.numel() * args[2][-1])
    if name == "_weight_int4pack_mm_for_cpu":
        return int(output.numel() * args[0].shape[-1])
    if name == "_scaled_dot_product_flash_attention_for_cpu":
        query, key, value = (tuple(tensor.shape) for tensor in args[:3])
        flops = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
        return int(flops) // 2
    if name == "_transformer_encoder_layer_fwd":
        return _attention(args[0], (args[3], args[5], args[14], args[16]))
    if name == "_native_multi_head_attention":
        return _attention(args[0], (args[5], args[7]))
    if name in _MAYBE_SPARSE:
        factors = args[name in _ADDING :][:2]
        if sparse := [t for t in factors if t.layout is not torch.strided]:
            # a sparse matrix multiplies where it has a value, each with a row or column of the other
            width = output.shape[-1] if sparse[0] is factors[0] else output.shape[-2]
            return int(_parts(sparse[0])[-1].numel() * width)
    if func.overloadpacket in flop_registry:
        return int(flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)) // 2
    return 0


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
