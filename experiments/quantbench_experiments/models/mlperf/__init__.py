"""Models mlperf-*: the reference models of MLPerf Tiny, with their published files as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quantbench.errors import BadInput
from quantbench.execution import made
from quantbench.spec import Array, Arrays, Model, TensorSpec
from quantbench.system import locator
from quantbench_experiments.data import data_folder, verified

SOURCE = "https://github.com/mlcommons/tiny"
EPSILON = 1e-3
"""Of Keras' batch norm."""
FOLDERS = {
    "ic": "image_classification", "kws": "keyword_spotting", "vww": "visual_wake_words",
}  # fmt: skip
SHA256 = {
    "ic/pretrainedResnet.h5": "5f938a8eea605438cc7360aa13c987bc6d7bd0c8d931b2917361ae7ae4eeda2f",
    "ic/pretrainedResnet.tflite": "b5c0046d6e0328b4956afd6baa29555a29b1f1c65bdd45aaed75b7cd484d9f79",
    "ic/pretrainedResnet_quant.tflite": "3c002613d1b2475eb51dd78dfb85a546c8ae658dee71cf6ade43b022fe205415",
    "kws/kws_ref_model.tflite": "aeea436800704fce17b17292e4412630ad856e9d777c044c64ef748a880bd0ae",
    "kws/kws_ref_model/saved_model.pb": "80665dd19eeb03d1152fdc098b5635261731b23478d09f6ff2166da799f98138",
    "kws/kws_ref_model/variables/variables.data-00000-of-00001": "5ebfddd34e85a2d35e87e27a8a803353534019bb460907b16db5fa72d757e8c5",
    "kws/kws_ref_model/variables/variables.index": "3f21dd9ea6736e20e70c5ed2f40ed9d8a7d12b98316ac0e4ab8f4eb7e303d738",
    "vww/vww_96.h5": "af9111d50e6e85b2f2123345e0316ef1c384865ebf6b06340ddac7e66017450f",
    "vww/vww_96_float.tflite": "115bbc094d2119561320a21f01b6500a18bea8cc8589282ab007097bec8af38c",
    "vww/vww_96_int8.tflite": "597a384c8c2c8a1276f04702f25013b7838f2f814f1ca7c174d295b73e3d6b7b",
}
"""Of every file that is read."""


def file(name: str) -> Path:
    """A published file in the data folder, such as ``ic/pretrainedResnet.h5``, checksum verified.

    Raises
    ------
    DataMissing
        If it is absent or not the right one; says what to download and where to put it.
    """
    path = data_folder() / "mlperf_tiny" / name
    group, _, plain = name.partition("/")
    remedy = (
        f"download benchmark/training/{FOLDERS[group]}/trained_models/{plain} from {SOURCE} and "
        f"put it into {path.parent} ($QUANTBENCH_DATA/mlperf_tiny/{group})"
    )
    return verified(path, SHA256[name], remedy)


def _described(
    name: str, task: str, inputs: TensorSpec, classes: int, weights: str, published: float | None,
    ready: dict[str, str], description: str,
) -> Model:  # fmt: skip
    group = name.rpartition("-")[2]
    return Model(
        name=name,
        task=task,
        inputs=(inputs,),
        outputs=(TensorSpec("scores", (None, classes), "float32"),),
        weights=weights,
        state=f"{__name__}:state",
        forms={
            "torch": f"{__name__}.torch_form:{group}",
            "keras": f"{__name__}.keras_form:{group}",
        },
        ready={route: f"{__name__}:file({path})" for route, path in ready.items()},
        preprocess=f"{__name__}:channels_first" if group == "kws" else "",
        published=published,
        source=SOURCE,
        description=description,
    )


IC = _described(
    "mlperf-ic", "cifar10", TensorSpec("image", (None, 3, 32, 32), "float32", "NCHW"), 10,
    f"{__name__}:file(ic/pretrainedResnet.h5)", 0.8719,
    {"published-int8": "ic/pretrainedResnet_quant.tflite", "published-fp32": "ic/pretrainedResnet.tflite"},
    "MLPerf Tiny image classification, ResNet-8 on raw pixels, 78,666 parameters",
)  # fmt: skip
KWS = _described(
    "mlperf-kws", "kws01", TensorSpec("features", (None, 1, 49, 10), "float32", "NCHW"), 12,
    locator(made, f"{__name__}.saved_model:kws"), 0.913,
    {"published-int8": "kws/kws_ref_model.tflite"},
    "MLPerf Tiny keyword spotting, DS-CNN on MFCC features; the published int8 file is of another "
    "training than the float SavedModel",
)  # fmt: skip
VWW = _described(
    "mlperf-vww", "vww-noise", TensorSpec("image", (None, 3, 96, 96), "float32", "NCHW"), 2,
    f"{__name__}:file(vww/vww_96.h5)", None,
    {"published-int8": "vww/vww_96_int8.tflite", "published-fp32": "vww/vww_96_float.tflite"},
    "MLPerf Tiny visual wake words, MobileNet 0.25 on 96x96 images, 221,794 parameters; no images here",
)  # fmt: skip


def channels_first(inputs: Arrays) -> dict[str, Array]:
    """Features [n, 49, 10, 1] as [n, 1, 49, 10]."""
    return {"features": inputs["features"].transpose(0, 3, 1, 2)}


def state(path: Path) -> dict[str, Array]:
    """Weights as torch has them, by the layers' Keras names, from a Keras or a safetensors file.

    Raises
    ------
    BadInput
        If h5py, which reads Keras' files, is not installed.
    """
    if path.suffix == ".safetensors":
        from quantbench_experiments.models.stored import state as stored

        return stored(path)
    try:
        import h5py
    except ImportError as error:
        raise BadInput(f"reading {path.name} needs h5py; pip install h5py") from error
    found: dict[str, Array] = {}
    with h5py.File(path) as content:
        for layer, group in content["model_weights"].items():
            for name in group.attrs["weight_names"]:
                part = name.decode().rpartition("/")[2].partition(":")[0]
                found |= as_torch(layer, part, np.asarray(group[name]))
    return found


_PARTS = {
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
    "moving_variance": "running_var", "bias": "bias",
}  # fmt: skip


def as_torch(layer: str, part: str, array: Array) -> Arrays:
    """One Keras variable under its torch name, its axes in torch's order."""
    if part == "depthwise_kernel":
        return {f"{layer}.weight": array.transpose(2, 3, 0, 1)}
    if part == "kernel":
        moved = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        return {f"{layer}.weight": np.ascontiguousarray(moved)}
    return {f"{layer}.{_PARTS[part]}": array}
