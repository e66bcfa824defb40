"""As is: files that are run as they are, method ``as-is``; the route names one of a model's."""

from __future__ import annotations

from pathlib import Path

from quantbench.backend_api.axis_rules import word
from quantbench.errors import BadInput, did_you_mean
from quantbench.spec import AS_IS, AXES, Method, Model, preset
from quantbench.system import locate

PRESET = AS_IS


def refusal(model: Model, method: Method, suffix: str) -> str | None:
    """Why the model has no ready file of this kind on the method's route, or None.

    Parameters
    ----------
    suffix : str
        Of the backend's files: ``.tflite``, ``.onnx``.
    """
    plain = preset(PRESET, {})
    for axis in AXES:
        value, usual = getattr(method, axis), getattr(plain, axis)
        if axis not in ("route", "seed") and value != usual:
            return (
                f"{axis} is {word(value)}, but {PRESET} runs a file as it is; "
                f"use {axis}: {word(usual)}"
            )
    known = _known(model, suffix)
    if not known:
        return f"the model has no ready {suffix} file; use fp32"
    if method.route and method.route not in known:
        return (
            f"the model has no ready {suffix} file '{method.route}'."
            f"{did_you_mean(method.route, known)}"
        )
    return None


def file(model: Model, method: Method, suffix: str) -> Path:
    """The ready file of the method's route; the first where it names none.

    Raises
    ------
    BadInput
        If there is none (`refusal`).
    DataMissing
        If it is absent.
    """
    if reason := refusal(model, method, suffix):
        raise BadInput(reason)
    found: Path = locate(_known(model, suffix)[method.route or next(iter(_known(model, suffix)))])()
    return found


def _known(model: Model, suffix: str) -> dict[str, str]:
    """Route -> locator; the locator's argument is the file's name."""
    return {r: loc for r, loc in model.ready.items() if loc.removesuffix(")").endswith(suffix)}
