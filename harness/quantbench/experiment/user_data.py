"""Dataset: the user's own data, described in an experiment file, as a Task."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.errors import BadInput, DataMissing, did_you_mean
from quantbench.spec import CONFIRMATION, SPLITS, Array, Samples, Task, TensorSpec
from quantbench.stats import FIDELITY, METRICS
from quantbench.system import locate, locator

KINDS = ("arrays", "parquet", "imagefolder", "python", "noise")
"""What data may be given as."""
CALIBRATION = 1024
"""Training samples that calibrate where no others are given; the rest trains."""
CHANNELS = (1, 3, 4)
KNOWN_SPLITS = (*SPLITS, CONFIRMATION)


def task_locator(entry: Mapping[str, Any], folder: Path) -> str:
    """The locator of the Task that an entry of an experiment file describes.

    Parameters
    ----------
    entry
        One of `KINDS`, and ``metric name image label resize normalize layout`` where given.
    folder : Path
        What relative paths are relative to.

    Raises
    ------
    BadInput
        If the data cannot be read or do not hold together.
    """
    known = dict(entry)
    (kind,) = [k for k in KINDS if k in known]
    if kind in ("arrays", "parquet", "imagefolder"):
        known[kind] = _absolute(known[kind], folder)
    metric = known.get("metric")
    if metric is not None and ":" not in metric and metric not in (*METRICS, FIDELITY):
        raise BadInput(f"unknown metric '{metric}'.{did_you_mean(metric, (*METRICS, FIDELITY))}")
    found = locator(task, json.dumps(known, sort_keys=True))
    task(found.partition("(")[2].removesuffix(")"))  # says what is wrong now, not in a worker
    return found


@cache
def task(entry: str) -> Task:
    """The Task of a JSON entry; reads names, shapes and types, not the samples themselves."""
    given = json.loads(entry)
    if "python" in given:
        own = locate(given["python"])
        if isinstance(own, Task):
            return own
    name = given.get("name", "data")
    source = _source(given)
    inputs, labelled, splits = source.look()
    metric = given.get("metric") or ("top1" if labelled else FIDELITY)
    if not labelled and metric != FIDELITY:
        raise BadInput(f"metric {metric} needs labels, and the test split has none")
    return Task(
        name=name, inputs=inputs, metric=metric, load=locator(load, entry),
        version=source.version(), description=f"your own data: {_told(given)}", splits=splits,
    )  # fmt: skip


def load(entry: str, split: str) -> Samples:
    """One split; where calibration samples are not given, the first of the training split.

    Raises
    ------
    BadInput
        If the split is not there, or its arrays do not fit each other.
    """
    return _source(json.loads(entry)).load(split)


def _told(given: Mapping[str, Any]) -> str:
    (kind,) = [k for k in KINDS if k in given]
    return f"{kind} {given[kind]}"


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _absolute(one, folder) for key, one in value.items()}
    path = (folder / Path(str(value)).expanduser()).resolve()
    if not path.exists():
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*")))
        raise DataMissing(f"no file or folder {path}.{near}")
    return str(path)


def _source(given: Mapping[str, Any]) -> _Source:
    reader: Callable[[Mapping[str, Any]], _Splits] = {
        "arrays": _arrays, "parquet": _parquet, "imagefolder": _imagefolder, "python": _python,
        "noise": _noise,
    }[next(k for k in KINDS if k in given)]  # fmt: skip
    return _Source(given, reader(given))


# --- splits of any source ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Splits:
    """What a kind of source must tell: its splits, their arrays, and what changes with them."""

    splits: tuple[str, ...]
    read: Callable[[str], tuple[dict[str, Array], Array | None]]
    version: str


class _Source:
    """A source with the rule for calibration samples."""

    def __init__(self, given: Mapping[str, Any], splits: _Splits) -> None:
        self.given = given
        self.known = splits
        if "test" not in splits.splits:
            raise BadInput(
                f"the data have no test split, only {', '.join(splits.splits) or 'none'}"
            )

    def version(self) -> str:
        """Changes with the data."""
        return self.known.version

    def look(self) -> tuple[tuple[TensorSpec, ...], bool, tuple[str, ...]]:
        """Specs of the inputs, whether there are labels, and the splits there are."""
        inputs, labels = self.known.read("test")
        specs = []
        for name, array in inputs.items():
            shape = (None, *array.shape[1:])
            specs.append(TensorSpec(name, shape, str(array.dtype), self._layout(shape)))
        splits = [s for s in SPLITS if s in self.known.splits or s == "calibration"]
        again = [CONFIRMATION] if CONFIRMATION in self.known.splits else []
        return tuple(specs), labels is not None, (*splits, *again)

    def _layout(self, shape: tuple[int | None, ...]) -> str:
        if "layout" in self.given:
            return str(self.given["layout"])
        if len(shape) != 4:
            return ""
        if shape[1] in CHANNELS:
            return "NCHW"
        return "NHWC" if shape[3] in CHANNELS else ""

    def load(self, split: str) -> Samples:
        """One of `KNOWN_SPLITS`."""
        given = self.known.splits
        shared = split in ("train", "calibration") and "calibration" not in given
        if split in given and not shared:
            return self._samples(split)
        if "train" in given:
            whole = self._samples("train")
            count = min(CALIBRATION, max(1, len(whole) // 4))
            chosen = slice(0, count) if split == "calibration" else slice(count, None)
            return whole.take(np.arange(len(whole))[chosen])
        return self._samples("test").take(np.arange(0))

    def _samples(self, split: str) -> Samples:
        inputs, labels = self.known.read(split)
        counts = {name: len(array) for name, array in inputs.items()}
        if labels is None:
            labels = np.zeros(next(iter(counts.values())), np.int64)
        counts["labels"] = len(labels)
        if len(set(counts.values())) != 1:
            raise BadInput(f"the {split} split has arrays of different lengths: {counts}")
        return Samples(inputs, labels)


def _stamp(*paths: Path) -> str:
    """Changes with a file: its size and when it was written."""
    return json.dumps([[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths])


# --- kinds of sources ----------------------------------------------------------------------------


def _arrays(given: Mapping[str, Any]) -> _Splits:
    """A ``.npz`` file, or a folder of ``.npy`` files: ``NAME_SPLIT``, labels ``y_SPLIT``."""
    path = Path(given["arrays"])
    if path.is_dir():
        files = {file.stem: file for file in sorted(path.glob("*.npy"))}
        names, version = list(files), _stamp(*files.values())
    else:
        version = _stamp(path)
        with _opened(path) as content:
            names = list(content.files)
    splits = tuple(s for s in KNOWN_SPLITS if any(n.endswith(f"_{s}") for n in names))
    if not splits:
        raise BadInput(
            f"{path} holds {', '.join(names) or 'nothing'}; call the arrays x_test, y_test, "
            "x_calibration, x_train, y_train (one x_... for each input)"
        )

    def read(split: str) -> tuple[dict[str, Array], Array | None]:
        own = [n for n in names if n.endswith(f"_{split}")]
        if path.is_dir():
            arrays = {n: np.load(files[n], mmap_mode="r", allow_pickle=False) for n in own}
        else:
            with _opened(path) as content:
                arrays = {n: content[n] for n in own}
        plain = {n.removesuffix(f"_{split}"): array for n, array in arrays.items()}
        labels = plain.pop("y", None)
        if not plain:
            raise BadInput(f"{path} has labels y_{split}, but no x_{split}")
        return plain, labels

    return _Splits(splits, read, version)


def _opened(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no .npz file of plain arrays ({error})") from error


def _parquet(given: Mapping[str, Any]) -> _Splits:
    """Tables by split, or one for the test: images as bytes, or columns of numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = given["parquet"]
    tables = tables if isinstance(tables, dict) else {"test": tables}
    column, label = given.get("image", "image"), given.get("label", "label")

    def read(split: str) -> tuple[dict[str, Array], Array | None]:
        table = pq.read_table(tables[split])
        if column not in table.column_names:
            near = did_you_mean(column, table.column_names)
            raise BadInput(f"{tables[split]} has no column '{column}'.{near} Say image: COLUMN")
        labels = np.asarray(table[label]) if label in table.column_names else None
        values = table[column]
        if pa.types.is_struct(values.type):  # Hugging Face's images
            values = pa.chunked_array([chunk.field("bytes") for chunk in values.chunks])
        if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            return {"x": _images(given, (io.BytesIO(v.as_py()) for v in values))}, labels
        return {"x": np.stack([np.asarray(v, np.float32) for v in values.to_pylist()])}, labels

    splits = tuple(split for split in KNOWN_SPLITS if split in tables)
    return _Splits(splits, read, _stamp(*(Path(p) for p in tables.values())))


def _imagefolder(given: Mapping[str, Any]) -> _Splits:
    """``SPLIT/CLASS/*.png`` (or .jpg...); the classes are numbered in the order of their names."""
    root = Path(given["imagefolder"])
    splits = tuple(split for split in KNOWN_SPLITS if (root / split).is_dir())
    if not splits:
        raise BadInput(f"{root} has no folder test; expected {root}/test/CLASS/IMAGE.png")
    classes = sorted(p.name for p in (root / "test").iterdir() if p.is_dir())

    def files(split: str) -> Iterator[tuple[Path, int]]:
        for path in sorted((root / split).rglob("*")):
            if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp"):
                yield path, classes.index(path.parent.name) if path.parent.name in classes else -1

    def read(split: str) -> tuple[dict[str, Array], Array | None]:
        known = list(files(split))
        if not known:
            raise BadInput(f"{root / split} holds no images")
        labels = np.array([label for _, label in known], np.int64)
        images = _images(given, (path for path, _ in known))
        return {"x": images}, labels if classes else None

    stamps = [path for split in splits for path, _ in files(split)]
    return _Splits(splits, read, _stamp(*stamps))


def _images(given: Mapping[str, Any], sources: Any) -> Array:
    """Images float32 [n, 3, h, w], 0..255, or as ``resize`` and ``normalize`` say."""
    from PIL import Image, UnidentifiedImageError

    size = given.get("resize")
    found = []
    for source in sources:
        try:
            image = Image.open(source).convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise BadInput(f"{source} is no image that can be read ({error})") from error
        if size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        found.append(np.asarray(image))
    shapes = {image.shape for image in found}
    if len(shapes) != 1:
        raise BadInput("the images have different sizes; say resize: [HEIGHT, WIDTH]")
    pixels = np.stack(found).transpose(0, 3, 1, 2).astype(np.float32)
    if normalize := given.get("normalize"):
        mean, std = (
            np.array(normalize[k], np.float32).reshape(1, -1, 1, 1) for k in ("mean", "std")
        )
        pixels = (pixels / np.float32(255) - mean) / std
    return np.ascontiguousarray(pixels)


def _python(given: Mapping[str, Any]) -> _Splits:
    """A function of the user's: split -> ``(inputs, labels)``, or None where there is none."""
    function = locate(given["python"])
    if not callable(function):
        raise BadInput(f"{given['python']} is neither a Task nor a function of a split")

    def read(split: str) -> tuple[dict[str, Array], Array | None]:
        inputs, labels = function(split)
        arrays = inputs if isinstance(inputs, dict) else {"x": np.asarray(inputs)}
        return arrays, None if labels is None else np.asarray(labels)

    splits = tuple(split for split in SPLITS if function(split) is not None)
    from quantbench.system import source_digest

    return _Splits(splits, read, source_digest(given["python"]))


def _noise(given: Mapping[str, Any]) -> _Splits:
    """Seeded normal numbers of a shape, for size and latency alone."""
    shape = tuple(given["noise"])[1:]

    def read(split: str) -> tuple[dict[str, Array], Array | None]:
        rng = np.random.default_rng(SPLITS.index(split))
        return {"x": rng.standard_normal((64, *shape)).astype(np.float32)}, None

    return _Splits(("calibration", "test"), read, json.dumps(given["noise"]))
