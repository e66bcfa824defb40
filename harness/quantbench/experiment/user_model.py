"""User model: a user's model and data, described in an experiment file, as a Model and a Task."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from quantbench.backend_api import registry
from quantbench.errors import BadInput, did_you_mean
from quantbench.execution import made
from quantbench.spec import Array, Arrays, Model, TensorSpec, as_name
from quantbench.system import file_sha256, locator, source_digest

OUTPUTS = "outputs.json"
ZOOS = ("torchvision", "timm", "hf")


def readers() -> dict[str, str]:
    """What a model may be given as (``torch``, ``onnx``...): the module of a backend that reads it."""
    known = map(registry.backend, registry.names("backends"))
    return {kind: backend.own for backend in known for kind in backend.kinds}


def importable(folder: Path) -> None:
    """Let the experiment's own folder be imported from, here and in workers.

    It comes last: a folder of the user's that is called as one of our packages shadows nothing.
    """
    here = str(folder.resolve())
    if here not in sys.path:
        sys.path.append(here)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, paths), here])


def model(entry: Mapping[str, Any], task: str, folder: Path) -> Model:
    """The Model that an entry of an experiment file describes.

    Parameters
    ----------
    entry
        One of `readers`, and ``name weights input preprocess pretrained trust`` where they are given.
    task : str
        Name or locator of its task.
    folder : Path
        What relative paths are relative to.

    Raises
    ------
    BadInput
        If the model cannot be read, or does not run on the task's inputs.
    """
    known = readers()
    (kind,) = [k for k in known if k in entry]
    source: dict[str, Any] = {kind: entry[kind], "trust": bool(entry.get("trust"))}
    if kind != "torch":
        source[kind] = str(_existing(folder, entry[kind]))
        source["sha256"] = _digest(Path(source[kind]))
    elif _is_own(entry[kind]):
        source["code"] = source_digest(entry[kind])
    else:
        zoo, _, name = entry[kind].partition(":")
        if (here := folder / name).is_dir():  # of Hugging Face, as save_pretrained leaves it
            source[kind] = f"{zoo}:{here.resolve()}"
        source["pretrained"] = bool(entry.get("pretrained"))
    if kind == "pt2" and not source["trust"]:
        raise BadInput(
            f"{entry[kind]}: loading a .pt2 file runs what is pickled in it; say trust: true if you "
            "trust the file"
        )
    inputs, preprocess = _inputs(entry, task), entry.get("preprocess", "")
    last = tuple(spec.name for spec in inputs if spec.layout == "NHWC")
    if last and kind in ("torch", "pt2") and not preprocess:
        # torch's own layout; every form is fed from the model's
        inputs = tuple(_channels_first(spec) for spec in inputs)
        preprocess = locator(channels_first, " ".join(last))
    reader = known[kind]
    asked = json.dumps({**source, "inputs": [spec.to_json() for spec in inputs]}, sort_keys=True)
    outputs = json.loads(made(f"{reader}:outputs({asked})").read_text(encoding="utf-8"))
    return Model(
        name=entry.get("name") or _name(kind, entry[kind]),
        task=task,
        inputs=inputs,
        outputs=tuple(TensorSpec.from_json(spec) for spec in outputs),
        preprocess=preprocess,
        description=f"{kind}: {entry[kind]}",
        **_forms(kind, source, reader, entry.get("weights"), folder),
    )


def contents(model: Model) -> dict[str, str]:
    """Digests of what a user's model is made of: weights file, code and data.

    Locators name files; a run of the same experiment file is the same run only while they hold the
    same.
    """
    at = model.weights.removeprefix(f"{locator(file)}(")
    found = {"task": registry.task(model.task).version}
    if at != model.weights:
        found["weights"] = file_sha256(Path(at.removesuffix(")")))
    forms = {k: form for k, form in model.forms.items() if ":" in form and "(" not in form}
    return {**found, **{name: source_digest(form) for name, form in forms.items()}}


def _forms(
    kind: str, source: Mapping[str, Any], reader: str, weights: str | None, folder: Path
) -> dict[str, Any]:
    """Weights, state, forms and ready files of a kind of model."""
    given = json.dumps(source, sort_keys=True)
    at = locator(file, str(source[kind]))
    if kind == "tflite":
        return {"weights": at, "state": "", "ready": {"file": at}}
    if kind == "onnx":
        return {"weights": at, "state": "", "forms": {"onnx": source[kind]}, "ready": {"file": at}}
    if kind == "keras":
        if Path(source[kind]).is_dir():
            at = locator(made, locator(packed, str(source[kind])))
        return {"weights": at, "state": "", "forms": {"keras": f"{reader}:keras({given})"}}
    if kind == "pt2":
        return {
            "weights": locator(made, f"{reader}:program_weights({source[kind]})"),
            "state": locator(stored),
            "forms": {"torch": f"{reader}:exported({source[kind]})"},
        }
    form = source[kind] if _is_own(source[kind]) else f"{reader}:zoo({given})"
    if weights is None:
        return {
            "weights": locator(made, f"{reader}:write({given})"),
            "state": locator(stored),
            "forms": {"torch": form},
        }
    path = _existing(folder, weights)
    states = {
        ".safetensors": locator(stored),
        ".npz": locator(stored),
    }
    trusting = f"{reader}:{'trusted_state' if source['trust'] else 'state'}"
    return {
        "weights": locator(file, str(path)),
        "state": states.get(path.suffix, trusting),
        "forms": {"torch": form},
    }


def _is_own(torch: str) -> bool:
    return torch.partition(":")[0] not in ZOOS


def _name(kind: str, value: str) -> str:
    """A name that obeys the pattern of written ones, from the last part of what is named.

    >>> _name("torch", "hf:models/tiny"), _name("onnx", "my nets/float (2).onnx")
    ('tiny', 'float-2')
    """
    last = PurePath(value.rpartition(":")[2]).name if kind == "torch" else Path(value).stem
    return as_name(last, "model")


def _inputs(entry: Mapping[str, Any], task: str) -> tuple[TensorSpec, ...]:
    """As the entry declares them, else as the task has them."""
    known = registry.task(task).inputs
    given = entry.get("input")
    if given is None:
        return known
    if isinstance(given, list):
        if len(known) != 1:
            names = ", ".join(spec.name for spec in known)
            raise BadInput(
                f"'input' is one shape, the task has {names}; give a shape for each name"
            )
        given = {known[0].name: given}
    specs = []
    for name, shape in given.items():
        same = [spec for spec in known if spec.name == name]
        if not same:
            near = did_you_mean(name, (spec.name for spec in known))
            raise BadInput(f"the task has no input '{name}'.{near}")
        dims = (None, *shape[1:])
        if not entry.get("preprocess") and not _fits(dims, same[0].shape):
            want = [n if n is not None else "any" for n in same[0].shape]
            raise BadInput(f"input '{name}' is {shape}, but the task's data is {want}")
        layout = same[0].layout if len(dims) == len(same[0].shape) else ""
        dtype = "float32" if entry.get("preprocess") else same[0].dtype
        specs.append(TensorSpec(name, dims, dtype, layout))
    return tuple(specs)


def _channels_first(spec: TensorSpec) -> TensorSpec:
    if spec.layout != "NHWC":
        return spec
    n, h, w, c = spec.shape
    return TensorSpec(spec.name, (n, c, h, w), spec.dtype, "NCHW")


def _fits(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    return len(one) == len(other) and all(
        a == b or None in (a, b) for a, b in zip(one, other, strict=True)
    )


def _existing(folder: Path, value: str) -> Path:
    path = (folder / Path(value).expanduser()).resolve()
    if not path.exists():
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*")))
        raise BadInput(f"no file {path}.{near}")
    return path


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return json.dumps({p.relative_to(path).as_posix(): file_sha256(p) for p in files})


# --- what locators name -------------------------------------------------------------------------


def channels_first(names: str, inputs: Arrays) -> dict[str, Array]:
    """Images [n, h, w, c] of these inputs as [n, c, h, w]; the others as they are."""
    moved = names.split()
    return {
        name: np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if name in moved else array
        for name, array in inputs.items()
    }


def file(path: str) -> Path:
    """A file of the user's."""
    return Path(path)


def packed(path: str, folder: Path) -> Path:
    """The digests of a folder's files as one file, which stands for its weights."""
    target = folder / "digests.json"
    target.write_text(_digest(Path(path)), encoding="utf-8")
    return target


def stored(path: Path) -> dict[str, Array]:
    """Weights by name from a ``.safetensors`` or ``.npz`` file; neither holds code.

    Raises
    ------
    BadInput
        If it is not such a file.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        return {name: np.asarray(array) for name, array in load_file(path).items()}
    except Exception as error:  # of two libraries' readers
        raise BadInput(
            f"{path} cannot be read as weights: {' '.join(str(error).split())}"
        ) from error
