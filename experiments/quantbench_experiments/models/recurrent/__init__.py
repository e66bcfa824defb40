"""Models lstm and gru: spoken digits from log-mel frames; their trained weights are part of the package."""

from __future__ import annotations

from pathlib import Path

from quantbench.spec import Model, TensorSpec
from quantbench_experiments.data import verified

WIDTH = 64
SHA256 = {
    "lstm": "cf70a4efe29f8bb707697539910aecb9d6a45c78163acd9ccd59136f06772972",
    "gru": "9fc3a6ff5e6f2b7e9933c8966cfe1cd878f048d89166f0b258243f0266b44a76",
}


def _described(kind: str, parameters: str) -> Model:
    return Model(
        name=kind,
        task="fsdd",
        inputs=(TensorSpec("frames", (None, 64, 40), "float32"),),
        outputs=(TensorSpec("logits", (None, 10), "float32"),),
        weights=f"{__name__}:weights({kind})",
        state="quantbench_experiments.models.stored:state",
        forms={
            "torch": f"{__name__}.torch_form:build({kind})",
            "keras": f"{__name__}.keras_form:build({kind})",
        },
        description=f"One {kind.upper()} layer of {WIDTH} units over 64 log-mel frames, the mean of its "
        f"outputs, one linear layer; {parameters} parameters",
    )


LSTM = _described("lstm", "27,786")
GRU = _described("gru", "21,002")


def weights(kind: str) -> Path:
    """The safetensors file of one kind beside this module, checksum verified; raises `DataMissing`."""
    path = Path(__file__).with_name(f"{kind}.safetensors")
    return verified(path, SHA256[kind], "reinstall quantbench to restore its weights")
