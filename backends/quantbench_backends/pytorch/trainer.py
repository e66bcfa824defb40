"""Trainer: PyTorch's gradient steps, in float or with fake quantization."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantbench.backend_api import FINETUNED, MOMENTUM, Course, Step, check_finite
from quantbench.spec import Array, Arrays, Data, Method, Model, TensorSpec, encode
from quantbench_backends.pytorch import form, qat
from quantbench_backends.pytorch.determinism import deterministic


class PyTorchTrainer:
    """See `quantbench.backend_api.protocol.Trainer`; leaves a finetune's weights, or the state of a QAT."""

    def __init__(self) -> None:
        self._known = ""
        self._module: Any = None

    def train(self, model: Model, method: Method, data: Data, course: Course) -> None:
        """Train and save in ``course.folder``; raises `BadInput` where data are not finite."""
        with deterministic(method.seed):
            self._train(model, method, data, course)
        course.finish()

    def _train(self, model: Model, method: Method, data: Data, course: Course) -> None:
        known = course.restore()
        fake = method.training == "qat"
        module = qat.prepared(model, method) if fake else form.trained(model)
        if fake and known is None:
            check_finite("calibration samples", data.calibration.inputs)
            qat.calibrate(module, model, data.calibration)
        optimizer = _optimizer(module, method)
        if known is not None:
            _load(module, optimizer, known)
        for epoch in course.epochs():
            frozen = epoch >= method.freeze_batchnorm
            if fake:
                qat.to_training(module, method, frozen=frozen)
            else:
                _to_training(module, frozen=frozen)
            for step in course.steps(epoch):
                course.record(step, _descend(module, optimizer, model, step, course.loss))
            course.save(epoch, _state(module, optimizer))
        name = FINETUNED
        if fake:
            name = qat.STATE
            (course.folder / qat.METHOD).write_text(json.dumps(method.to_json()), encoding="utf-8")
        safetensors.numpy.save_file(_arrays(module.state_dict()), course.folder / name)

    def outputs(self, model: Model, method: Method, inputs: Arrays) -> Arrays:
        """What the fake-quantized model gives for a batch."""
        if self._known != model.trained:
            self._module, self._known = qat.restored(model), model.trained
        with torch.no_grad():
            return form.arrays(model, self._module(*form.tensors(model, inputs)))


def _to_training(module: nn.Module, *, frozen: bool) -> None:
    module.train()
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.train(not frozen)


def _optimizer(module: nn.Module, method: Method) -> torch.optim.Optimizer:
    trainable = [p for p in module.parameters() if p.requires_grad]
    if method.optimizer == "adam":
        return torch.optim.Adam(trainable, method.learning_rate)
    return torch.optim.SGD(trainable, method.learning_rate, MOMENTUM)


def _descend(
    module: nn.Module, optimizer: torch.optim.Optimizer, model: Model, step: Step, loss: str
) -> float:
    """One step; returns the batch's mean loss."""
    for group in optimizer.param_groups:
        group["lr"] = step.learning_rate
    optimizer.zero_grad()
    outputs = module(*form.tensors(model, step.inputs))
    output = outputs if isinstance(outputs, Tensor) else outputs[0]
    value = _LOSSES[loss](output, step.labels, model.outputs[0])
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(value.detach())


def _cross_entropy(output: Tensor, labels: Array, spec: TensorSpec) -> Tensor:
    return functional.cross_entropy(output, torch.from_numpy(labels.astype(np.int64)))


def _squared_error(output: Tensor, labels: Array, spec: TensorSpec) -> Tensor:
    wanted = encode(labels.astype(spec.dtype), spec, form.stored(spec))
    return functional.mse_loss(output, torch.from_numpy(np.array(wanted)))


_LOSSES = {"cross-entropy": _cross_entropy, "mean-squared-error": _squared_error}


def _arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    # copies: several names may share one tensor
    return {name: np.array(tensor.detach().numpy()) for name, tensor in tensors.items()}


def _state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Everything that another process needs to go on."""
    moments = {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }
    parts = {"module": module.state_dict(), "optimizer": moments}
    return {
        f"{part}.{name}": array
        for part, tensors in parts.items()
        for name, array in _arrays(tensors).items()
    }


def _load(module: nn.Module, optimizer: torch.optim.Optimizer, arrays: Arrays) -> None:
    """The inverse of `_state`."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    state: dict[int, dict[str, Tensor]] = {}
    weights = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "module":
            weights[rest] = tensor
        else:
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    module.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
