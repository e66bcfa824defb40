"""Doctor: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from quantbench.backend_api import registry
from quantbench.errors import QuantbenchError
from quantbench.execution import unmade
from quantbench.spec import preset, presets, target_warnings
from quantbench.system import cache_folder, locate, machine


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis; ``status`` is ``ok``, ``missing`` or ``note``."""

    status: str
    subject: str
    text: str


def diagnose() -> Iterator[Finding]:
    """Machine, backends, targets and data, one finding each."""
    described = machine.describe()
    yield Finding(
        "ok",
        "machine",
        f"{described['cpu']}, {described['cores']} cores, "
        f"{described['memory_bytes'] / 1e9:.0f} GB, {', '.join(described['isa'])}",
    )
    vnni = {"avx512_vnni", "avx_vnni", "asimddp", "amx_int8"} & set(described["isa"])
    if not vnni:
        yield Finding("note", "int8", "no VNNI or dot-product instructions: int8 may not be faster")
    for warning in described["warnings"]:
        yield Finding("note", "machine", warning)
    for target in presets().values():
        for warning in target_warnings(target):
            yield Finding("note", f"target {target.name}", warning)
    yield from _backends()
    yield from _models()
    yield _browser()
    yield Finding("ok", "cache", str(cache_folder()))


def _backends() -> Iterator[Finding]:
    for name in registry.names("backends"):
        backend = registry.backend(name)
        missing = registry.missing_packages(backend.packages)
        if missing:
            yield Finding("missing", name, f"{', '.join(missing)} not installed; {backend.install}")
            continue
        versions = machine.installed_packages()
        text = ", ".join(f"{p} {versions.get(p, '?')}" for p in backend.packages)
        yield Finding("ok", name, text)
        runtime = locate(backend.runtime)()
        for target in presets().values():
            refusal = runtime.refuse(target, preset("fp32", backend.axes("fp32")))
            if refusal:
                yield Finding("note", f"{name} on {target.name}", refusal)
            else:
                yield Finding("ok", f"{name} on {target.name}", "works")


def _models() -> Iterator[Finding]:
    for name in registry.names("models"):
        weights = registry.model(name).weights
        if unmade(weights):  # no check trains a network
            yield Finding("note", f"model {name}", "its weights are made when they are first used")
            continue
        try:
            path = locate(weights)()
        except QuantbenchError as error:
            yield Finding("missing", f"model {name}", str(error))
        else:
            yield Finding("ok", f"model {name}", f"weights {path.name}")


def _browser() -> Finding:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path:
        return Finding("ok", "chromium", "found; the report's browser tests run")
    return Finding(
        "note", "chromium", "not found; only the tests need it: apt-get install chromium"
    )
