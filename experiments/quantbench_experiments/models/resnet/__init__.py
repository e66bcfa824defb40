"""Models resnet: CIFAR-10 residual networks with the weights that Yerlan Idelbayev published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quantbench.errors import BadInput
from quantbench.spec import Array, Arrays, Model, TensorSpec
from quantbench_experiments.data import data_folder, verified

SOURCE = "https://github.com/akamaster/pytorch_resnet_cifar10"
WEIGHTS = {
    20: (
        "resnet20-12fca82f.th",
        "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    ),
    32: (
        "resnet32-d509ac18.th",
        "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
    ),
    56: (
        "resnet56-4bfd9763.th",
        "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
    ),
}
"""File and SHA-256 by depth."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def _described(depth: int, published: float, parameters: str) -> Model:
    return Model(
        name=f"resnet{depth}",
        task="cifar10",
        inputs=(TensorSpec("image", (None, 3, 32, 32), "float32", "NCHW"),),
        outputs=(TensorSpec("logits", (None, 10), "float32"),),
        weights=f"{__name__}:weights({depth})",
        state=f"{__name__}:state",
        forms={
            "torch": f"{__name__}.torch_form:resnet({depth})",
            "torch-eager": f"{__name__}.torch_eager_form:resnet({depth})",
            "keras": f"{__name__}.keras_form:build",
        },
        preprocess=f"{__name__}:preprocess",
        published=published,
        source=SOURCE,
        description=f"ResNet-{depth} for CIFAR-10 (He et al. 2015), option-A shortcuts, "
        f"{parameters} parameters",
    )


RESNET20 = _described(20, 0.9173, "269,722")
RESNET32 = _described(32, 0.9263, "464,154")
RESNET56 = _described(56, 0.9339, "853,018")


def weights(depth: str) -> Path:
    """The published file of one depth in the data folder, checksum verified.

    Raises
    ------
    DataMissing
        If it is absent or not the right one; says what to download and where to put it.
    """
    name, sha256 = WEIGHTS[int(depth)]
    path = data_folder() / "weights" / name
    remedy = f"download pretrained_models/{name} from {SOURCE} and put it into {path.parent}"
    return verified(path, sha256, f"{remedy} ($QUANTBENCH_DATA/weights)")


def state(path: Path) -> dict[str, Array]:
    """Weights by torch name, float32.

    Raises
    ------
    BadInput
        If PyTorch, which alone reads this format, is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise BadInput(
            f"reading {path.name} needs PyTorch; pip install 'quantbench[pytorch]'"
        ) from error
    stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    # trained under DataParallel, which put "module." before each name
    return {name.removeprefix("module."): tensor.numpy() for name, tensor in stored.items()}


def preprocess(inputs: Arrays) -> dict[str, Array]:
    """Pixels float32 0..255 [n, 3, 32, 32] scaled to 0..1 and normalized by channel."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    image = inputs["image"] / np.float32(255)
    # in place: the whole test set at once is 123 MB
    image -= mean
    image /= std
    return {"image": image}
