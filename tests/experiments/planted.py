"""The digits model with one layer that int8 destroys under one scale for all channels.

Channel 0 of a layer is scaled by a thousand and pushed below 0, so that the ReLU after it gives 0:
float loses one channel, one scale for the layer's weights loses all the others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quantbench.spec import Array
from quantbench_experiments.models import digits

LAYER, NORM = "blocks.2.conv1", "blocks.2.bn1"
MODEL = replace(digits.MODEL, name="planted", state="tests.experiments.planted:state")


def state(path: Path) -> dict[str, Array]:
    """The digits weights with the planted channel."""
    found = {name: array.copy() for name, array in digits.state(path).items()}
    found[f"{NORM}.weight"][0] *= 1000
    found[f"{NORM}.bias"][0] = -1e5
    return found
