"""Model: one trained float network, its forms in several frameworks, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantbench.spec.tensor import TensorSpec


@dataclass(frozen=True, slots=True)
class Model:
    """A float network that several frameworks can build from the same weights.

    Forms are named by locators (``package.module:attribute``), so that describing a model imports
    no framework; an ``onnx`` or ``tflite`` form may also be the path of a file.

    Parameters
    ----------
    name, task : str
        Registered names; of a task that is not registered, its locator.
    inputs, outputs : tuple of TensorSpec
        Shapes with ``None`` for the batch, in the task's layout. Outputs are logits.
    weights : str
        Locator of ``() -> Path``: the one weights file, checksum verified.
        Raises `DataMissing` with what to download and where to put it.
    state : str
        Locator of ``(path: Path) -> dict[str, ndarray]``: weights by canonical (torch) name; empty
        where only files hold them.
    forms : mapping
        ``torch``: locator of ``() -> torch.nn.Module`` (architecture only, takes `state`);
        ``torch-eager``: the same with quantization stubs and a ``fuse_model(is_qat: bool)`` method,
        as torchvision's quantizable models have them;
        ``keras``: locator of ``(state) -> tf_keras.Model``; ``onnx``, ``tflite``: a file path.
    preprocess : str
        Locator of ``(inputs: dict[str, ndarray]) -> dict[str, ndarray]``: the task's arrays as
        this model expects them, applied once for all frameworks; empty for none.
    published : float or None
        The published float quality, in the task's metric (0..1), and ``source`` its origin.
    shift : str
        How its test inputs are shifted (`quantbench.spec.shift`); empty for not at all.
    ready : mapping
        Files that are run as they are: route of method ``as-is`` -> locator of ``() -> Path`` whose
        argument is the file's name.
    trained : str
        A folder that a `Trainer` has filled from these weights; empty for the weights themselves.
    """

    name: str
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: str
    state: str
    forms: Mapping[str, str] = field(default_factory=dict)
    preprocess: str = ""
    published: float | None = None
    source: str = ""
    description: str = ""
    shift: str = ""
    ready: Mapping[str, str] = field(default_factory=dict)
    trained: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it back."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "forms": dict(self.forms),
            "ready": dict(self.ready),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Model:
        """The inverse of `to_json`."""
        return cls(
            **{
                **data,
                "inputs": tuple(TensorSpec.from_json(s) for s in data["inputs"]),
                "outputs": tuple(TensorSpec.from_json(s) for s in data["outputs"]),
            }
        )
