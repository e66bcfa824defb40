"""The user's own torch models: classes, published zoos, exported programs, and files of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from quantbench.errors import BadInput
from quantbench.experiment import OUTPUTS
from quantbench.spec import Array, Model, TensorSpec
from quantbench.system import locate, write_json
from quantbench_backends.pytorch.form import examples

EXAMPLES = 2


def zoo(source: str) -> nn.Module:
    """A module of a published collection, in evaluation mode.

    Parameters
    ----------
    source : str
        JSON: ``torch`` is ``torchvision:NAME``, ``timm:NAME`` or ``hf:NAME``, or a locator of
        ``() -> torch.nn.Module``; ``pretrained`` asks for the published weights.

    Raises
    ------
    BadInput
        If the package is not installed, or knows no such model.
    """
    asked = json.loads(source)
    collection, _, name = asked["torch"].partition(":")
    pretrained = bool(asked.get("pretrained"))
    torch.manual_seed(0)  # where there are no published weights
    try:
        if collection == "torchvision":
            import torchvision

            chosen = "DEFAULT" if pretrained else None
            return _evaluated(torchvision.models.get_model(name, weights=chosen))
        if collection == "timm":
            import timm

            return _evaluated(timm.create_model(name, pretrained=pretrained))
        if collection == "hf":
            return _evaluated(Answers(_transformer(name, pretrained)))
    except ImportError as error:
        raise BadInput(f"{asked['torch']} needs {error.name}; pip install {error.name}") from error
    except (ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"{asked['torch']} cannot be had: {reason}") from error
    module = locate(asked["torch"])()
    if not isinstance(module, nn.Module):
        raise BadInput(f"{asked['torch']} returns no torch.nn.Module")
    return module.eval()


def _evaluated(module: Any) -> nn.Module:
    found: nn.Module = module.eval()
    return found


def _transformer(name: str, pretrained: bool) -> nn.Module:
    """The architecture that a configuration names, with its head; without one the bare encoder."""
    import transformers

    auto: Any = transformers.AutoModel
    config = transformers.AutoConfig.from_pretrained(name)
    named = [getattr(transformers, str(one), None) for one in config.architectures or ()]
    for known in named:
        # a configuration is data: only a model of the package's own may be made from its words
        if isinstance(known, type) and issubclass(known, transformers.PreTrainedModel):
            build: Any = known
            made = build.from_pretrained(name) if pretrained else build._from_config(config)
            break
    else:
        made = auto.from_pretrained(name) if pretrained else auto.from_config(config)
    found: nn.Module = made
    return found


class Answers(nn.Module):
    """A Hugging Face model that returns plain tensors: its logits, else its last hidden state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        """The first tensor of what the model returns."""
        found = self.model(*inputs, return_dict=False)
        first: Tensor = found[0] if isinstance(found, tuple) else found
        return first


def exported(path: str) -> nn.Module:
    """The module of a ``.pt2`` program; loading one runs what is pickled in it."""
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch raises what its readers raise
        raise BadInput(
            f"{path} is no exported program ({' '.join(str(error).split())[:200]})"
        ) from error
    module = program.module()
    # an exported program knows no training mode
    module.eval = lambda: module  # type: ignore[method-assign]
    return module


def state(path: Path) -> dict[str, Array]:
    """Weights by name from a file that `torch.save` wrote, without running code from it.

    Raises
    ------
    BadInput
        If the file holds more than tensors.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the unpickler: what it meets
        raise BadInput(
            f"{path} cannot be read as plain weights ({' '.join(str(error).split())[:160]}); save its "
            "state_dict as safetensors, or say trust: true if you trust the file"
        ) from error
    return _named(stored, path)


def trusted_state(path: Path) -> dict[str, Array]:
    """As `state`, also of files that run code when they are read."""
    return _named(torch.load(path, map_location="cpu", weights_only=False), path)


def _named(stored: Any, path: Path) -> dict[str, Array]:
    if isinstance(stored, nn.Module):
        stored = stored.state_dict()
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise BadInput(f"{path} holds no state_dict; save model.state_dict()")
    plain = {name: tensor.numpy() for name, tensor in stored.items()}
    if all(name.startswith("module.") for name in plain):  # of DataParallel
        plain = {name.removeprefix("module."): array for name, array in plain.items()}
    return plain


def write(source: str, folder: Path) -> Path:
    """Write the weights that a module is built with."""
    return _weights(zoo(source), folder)


def program_weights(path: str, folder: Path) -> Path:
    """Write the weights of a ``.pt2`` program."""
    return _weights(exported(path), folder)


def _weights(module: nn.Module, folder: Path) -> Path:
    kept = {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}
    path = folder / "weights.safetensors"
    save_file(kept, path)
    return path


def outputs(source: str, folder: Path) -> Path:
    """Run the module on zeros, and write what its outputs look like.

    Raises
    ------
    BadInput
        If it does not run on such inputs; says which.
    """
    asked = json.loads(source)
    specs = tuple(TensorSpec.from_json(spec) for spec in asked["inputs"])
    module = exported(asked["pt2"]) if "pt2" in asked else zoo(source)
    probe = Model("own", "", specs, (), "", "")
    try:
        with torch.inference_mode():
            found = module(*examples(probe, EXAMPLES, torch.float32))
    except Exception as error:  # of the user's code: anything
        shapes = ", ".join(f"{s.name} {list(s.shape)} {s.dtype}" for s in specs)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise BadInput(f"the model does not run on {shapes} ({reason})") from error
    tensors = (found,) if isinstance(found, Tensor) else tuple(found)
    names = ["output"] if len(tensors) == 1 else [f"output{i}" for i in range(len(tensors))]
    told = [
        TensorSpec(name, (None, *tensor.shape[1:]), "float32").to_json()
        for name, tensor in zip(names, tensors, strict=True)
    ]
    write_json(folder / OUTPUTS, told)
    return folder / OUTPUTS
