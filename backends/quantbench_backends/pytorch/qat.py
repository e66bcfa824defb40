"""QAT: a model with fake quantization, made from a method, calibrated, trained, restored, converted."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.ao.nn.intrinsic.qat as fused
from safetensors.torch import load_file
from torch import nn

from quantbench.spec import Method, Model, Samples
from quantbench_backends.pytorch import eager, form, fx, observers, pt2e
from quantbench_backends.pytorch.refusals import route

METHOD, STATE = "method.json", "state.safetensors"
CALIBRATION_BATCH = 32


def prepared(model: Model, method: Method) -> nn.Module:
    """The model with fake quantization, not calibrated, in evaluation mode."""
    with deprecated_quantization():
        if route(method) == "pt2e":
            return pt2e.prepared(form.trained(model), model, method, fake=True)
        if route(method) == "eager":
            module = eager.prepared(form.trained(model, "torch-eager"), method, fake=True)
        else:
            examples = form.examples(model, 2, torch.float32)
            module = fx.prepared(form.trained(model), method, examples, fake=True)
        if method.learned_scales:
            observers.learn_scales(module)
    return module


def calibrate(module: nn.Module, model: Model, samples: Samples) -> None:
    """Give every range its first value: that of the float model's activations."""
    observers.observe(module)
    with torch.no_grad():
        for batch in samples.batches(CALIBRATION_BATCH):
            module(*form.tensors(model, batch))
    observers.imitate(module, adapt=False)


def to_training(module: nn.Module, method: Method, *, frozen: bool) -> None:
    """Training mode with adapting ranges; batch-norm statistics ``frozen`` or not."""
    if route(method) == "pt2e":
        pt2e.to_training(module, frozen=frozen)
    else:
        module.train()
        # both must follow every train()
        module.apply(fused.freeze_bn_stats if frozen else fused.update_bn_stats)
        for child in module.modules():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                child.train(not frozen)
    observers.imitate(module, adapt=True)


def to_evaluation(module: nn.Module, method: Method) -> None:
    """Evaluation mode, every range as it is."""
    if route(method) == "pt2e":
        pt2e.to_evaluation(module)
    else:
        module.eval()
    observers.imitate(module, adapt=False)


def restored(model: Model) -> nn.Module:
    """The trained model with fake quantization, from ``model.trained`` alone, to evaluate."""
    folder = Path(model.trained)
    method = Method.from_json(json.loads((folder / METHOD).read_text(encoding="utf-8")))
    module = prepared(model, method)
    module.load_state_dict(load_file(folder / STATE))
    to_evaluation(module, method)
    return module


@contextmanager
def deprecated_quantization() -> Iterator[None]:
    """Silence torch.ao's own deprecation: its successor, torchao, is a route beside it."""
    with warnings.catch_warnings():
        for message in (
            "torch.ao.quantization is deprecated",
            "Please use quant_min and quant_max to specify the range for observers",
            "torch.quantize_per_tensor, torch.quantize_per_channel and other quantized tensor",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
