"""Eager mode: torch.ao's quantization of modules that mark themselves where integers begin and end.

The form ``torch-eager`` has a ``QuantStub`` and a ``DeQuantStub``, ``FloatFunctional`` where it adds
or concatenates, and ``fuse_model(is_qat)``, as torchvision's quantizable models have.
"""

from __future__ import annotations

from typing import Any

import torch.ao.quantization as ao
from torch import nn

from quantbench.spec import Method
from quantbench_backends.pytorch import observers


def prepared(module: nn.Module, method: Method, *, fake: bool) -> nn.Module:
    """The module with observers, or with fake quantization, in evaluation mode."""
    own: Any = module.train(fake)
    own.qconfig = observers.qconfig(method, method.weights, method.activations, fake=fake)
    for name, qconfig in observers.by_layer(module, method, fake=fake).items():
        own.get_submodule(name).qconfig = qconfig
    if method.fusion:
        own.fuse_model(is_qat=fake)
    prepare: Any = ao.prepare_qat if fake else ao.prepare
    done: nn.Module = prepare(own, inplace=True)
    return done.eval()


def converted(prepared: nn.Module) -> nn.Module:
    """The integer model."""
    done: nn.Module = ao.convert(prepared)  # type: ignore[no-untyped-call]
    return done
