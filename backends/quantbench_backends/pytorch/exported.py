"""Exported: programs of torch.export as reproducible .pt2 files, without code and without pickles."""

from __future__ import annotations

import importlib
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantbench.errors import BadArtifact, BadInput
from quantbench.spec import Model
from quantbench_backends.pytorch import form

LARGEST_BATCH = 4096
LONGEST = 4096
_EXPRESSION = re.compile(
    r"(?:[-+*/() ,'=\d]|\b(?:s\d+|u\d+|Symbol|positive|integer|True|Integer|Add|Mul|Pow|Max|Min|Mod"
    r"|FloorDiv|CeilDiv)\b)*"
)
"""What a size may be made of: sympy reads it by evaluating it."""
DTYPES = {  # torch._export.serde.schema.ScalarType
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 12: "bool", 13: "bfloat16",
}  # fmt: skip


def export(module: nn.Module, model: Model) -> torch.export.ExportedProgram:
    """The module as a graph of operators, for every batch size and every free length.

    Raises
    ------
    BadInput
        If the module cannot be exported so.
    """
    examples = form.examples(model, 2, torch.float32)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    shapes = tuple(
        {axis: batch if axis == 0 else torch.export.Dim(f"{spec.name}_{axis}", min=1, max=LONGEST)
         for axis, length in enumerate(form.stored(spec).shape) if length is None}
        for spec in model.inputs
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            # checks of a batch that may have any size
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
            # a recurrent layer keeps its weights in a list besides
            warnings.filterwarnings(
                "ignore", "The tensor attributes .* were assigned during export"
            )
            return torch.export.export(module, examples, dynamic_shapes=shapes)
    except (RuntimeError, ValueError, torch._dynamo.exc.UserError) as error:
        problem = " ".join(str(error).split())[:300]
        raise BadInput(
            f"model '{model.name}' cannot be exported for every batch size ({problem}); "
            "write it with tensor operations, or take another route"
        ) from error


def without_unused(module: nn.Module) -> nn.Module:
    """The graph module without parameters and buffers that its graph does not read.

    Quantization leaves the float weights beside the integers that replaced them.
    """
    assert isinstance(module, torch.fx.GraphModule)  # noqa: S101 - for the type checker
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [*dict(module.named_parameters()), *dict(module.named_buffers())]:
        if name not in used:
            owner, _, attribute = name.rpartition(".")
            delattr(module.get_submodule(owner), attribute)
    return module


def write(program: torch.export.ExportedProgram, path: Path) -> None:
    """Save so that the same program always gives the same bytes.

    Example inputs, call stacks (with the paths of the machine) and an identifier, which serve
    debugging alone, are left out.
    """
    for graph in program.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
            for key in (
                "stack_trace",
                "nn_module_stack",
                "source_fn_stack",
                "torch_fn",
                "from_node",
            ):
                node.meta.pop(key, None)
    program._example_inputs = None
    program._guards_code = []
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            record = entry.filename.partition("/")[2]
            if record.startswith(".data/serialization_id"):
                continue
            # the graph is text, many times the size of what it says
            kind = zipfile.ZIP_DEFLATED if record.endswith(".json") else zipfile.ZIP_STORED
            target.writestr(zipfile.ZipInfo(f"model/{record}"), source.read(entry), kind)


def read(path: Path, imports: str) -> nn.Module:
    """The program as a module.

    Parameters
    ----------
    imports : str
        Modules, between spaces, that define the operators beyond PyTorch's own.

    Raises
    ------
    BadArtifact
        If the file holds anything but tensors and a graph.
    """
    check(path)
    for name in imports.split():
        quietly(partial(importlib.import_module, name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the graph's own deprecated attributes
        module: Any = torch.export.load(path).module(check_guards=False)
    # arguments and results one by one, as the graph has them: nothing is checked or packed in a call
    module._forward_pre_hooks.clear()
    module.graph.set_codegen(torch.fx.graph.CodeGen())
    module.recompile()
    plain: nn.Module = module
    return plain


def quietly(call: Callable[[], Any]) -> Any:
    """What ``call`` returns, without torchao's warnings about its GPU libraries and itself."""
    import logging

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    finally:
        logging.disable(disabled)


def payloads(file: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    """What the archive says of each of its weights and constants, by name."""
    configs = [
        n for n in file.namelist() if n.endswith(("_weights_config.json", "_constants_config.json"))
    ]
    return {
        key: entry for n in configs for key, entry in json.loads(file.read(n))["config"].items()
    }


def check(path: Path) -> None:
    """Raise `BadArtifact` for what ``torch.export.load`` would unpickle or evaluate."""
    with zipfile.ZipFile(path) as file:
        stored = payloads(file).values()
        legacy = any(
            name.endswith((".pt", ".py")) and "sample_inputs" not in name
            for name in file.namelist()
        )
        models = [json.loads(file.read(n)) for n in file.namelist() if "/models/" in n]
    pickled = any(
        p["use_pickle"] or not p["path_name"].startswith(("weight_", "tensor_")) for p in stored
    )
    strange = [e for m in models for e in _expressions(m) if not _EXPRESSION.fullmatch(e)]
    code = any(m["guards_code"] for m in models)
    if legacy or pickled or strange or code:
        raise BadArtifact(
            f"artifact {path} holds pickled objects or code, which is never loaded; "
            "delete its folder and run again to rebuild it"
        )


def _expressions(value: Any) -> list[str]:
    """Every symbolic expression in a serialized graph."""
    if isinstance(value, dict):
        own = [value["expr_str"]] if isinstance(value.get("expr_str"), str) else []
        return own + [e for item in value.values() for e in _expressions(item)]
    return [e for item in value for e in _expressions(item)] if isinstance(value, list) else []
