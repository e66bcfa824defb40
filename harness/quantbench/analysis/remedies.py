"""Remedy: another method that may do better where an artifact is slow; structured, so that it can be tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantbench.analysis.measured_causes import MeasuredCause
from quantbench.backend_api import is_integer


@dataclass(frozen=True, slots=True)
class Remedy:
    """Another method for the same model, backend and target, that may do better.

    Parameters
    ----------
    method : str
        Its preset.
    axes : mapping
        Axes beside those of the preset; where it is the trial's own, beside those of the trial.
    """

    method: str
    axes: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        changed = [
            f"{axis}={','.join(value) if isinstance(value, tuple) else value}"
            for axis, value in self.axes.items()
        ]
        return "+".join([self.method, *changed])


def remedies(
    cause: MeasuredCause, method: str, scales: str, routes: Sequence[str]
) -> tuple[Remedy, ...]:
    """What may help against a cause, most direct first; whether it can be built here is not known yet.

    Parameters
    ----------
    method, scales : str
        The trial's preset, and how it finds scales (`Method.scales`).
    routes : sequence of str
        Other ways of the trial's backend to the same preset.
    """
    found: list[Remedy] = []
    integer = any(is_integer(dtype) for dtype in cause.dtypes)
    if integer and cause.layers:
        kept = {"keep_float": cause.layers}
        found += [Remedy(method, kept), *(Remedy(method, {**kept, "route": r}) for r in routes)]
    if "int8" in cause.dtypes and scales == "static":
        found.append(Remedy(method, {"activations": "uint8"}))
    if cause.name in ("other-kernels", "slow-kernels", "cost-per-call", "conversions"):
        others = {"dynamic": "static-int8", "static": "dynamic-int8"}
        found += [Remedy(others.get(scales, "static-int8")), Remedy("fp32")]
        if scales == "none":
            found.append(Remedy("dynamic-int8"))
    found += [Remedy(method, {"route": route}) for route in routes]
    return tuple(found)
