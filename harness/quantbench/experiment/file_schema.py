"""File schema: an experiment file as Pydantic sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from quantbench.spec import NAME, Limits

_Names = list[str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TargetEntry(_Strict):
    """One of ``targets`` that the file declares itself."""

    name: str = Field(min_length=1)
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, ge=1)
    affinity: list[int] = []
    isa: Literal["native", "avx2"] = "native"
    kernels: Literal["default", "reference"] = "default"
    optimize: bool = True
    environment: dict[str, str] = {}


class PrecisionEntry(_Strict):
    """A ``precision`` of the file's own."""

    name: str = "custom"
    generations: int = Field(default=5, ge=1)
    max_generations: int = Field(default=20, ge=1)
    rounds: int = Field(default=7, ge=1)
    width: float = Field(default=0.02, gt=0)
    time_limit_s: float = Field(default=30.0, gt=0)
    warmup_s: float = Field(default=0.5, ge=0)
    burst_ms: float = Field(default=50.0, gt=0)
    memory_processes: int = Field(default=3, ge=1)
    energy_window_s: float = Field(default=0.0, ge=0)
    energy_windows: int = Field(default=5, ge=1)


_LIMITS = Limits()


class TaskEntry(_Strict):
    """A user's data."""

    name: str = Field(default="data", pattern=NAME)
    arrays: str | None = None
    parquet: str | dict[str, str] | None = None
    imagefolder: str | None = None
    python: str | None = None
    noise: list[int] | None = None
    metric: str | None = None
    image: str | None = None
    label: str | None = None
    resize: list[int] | None = Field(default=None, min_length=2, max_length=2)
    normalize: dict[Literal["mean", "std"], list[float]] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None


class ModelEntry(_Strict):
    """A user's model."""

    name: str | None = Field(default=None, pattern=NAME)
    torch: str | None = None
    pt2: str | None = None
    onnx: str | None = None
    keras: str | None = None
    tflite: str | None = None
    weights: str | None = None
    input: list[int] | dict[str, list[int]] | None = None
    preprocess: str | None = None
    pretrained: bool | None = None
    trust: bool | None = None
    task: str | TaskEntry | None = None


class PublishedEntry(_Strict):
    """A row of figures that others have published."""

    what: str = Field(min_length=1)
    beside: dict[str, str] = Field(min_length=1)
    quality: float | None = None
    size_bytes: float | None = Field(default=None, gt=0)
    speedup: float | None = Field(default=None, gt=0)
    source: str = ""


class LimitsEntry(_Strict):
    """What a trial may use."""

    train_s: float = Field(default=_LIMITS.train_s, gt=0)
    build_s: float = Field(default=_LIMITS.build_s, gt=0)
    score_s: float = Field(default=_LIMITS.score_s, gt=0)
    start_s: float = Field(default=_LIMITS.start_s, gt=0)
    memory_mb: float = Field(default=_LIMITS.memory_mb, gt=0)


class ExperimentFile(_Strict):
    """The whole file."""

    name: str | None = Field(default=None, pattern=NAME)
    description: str = ""
    model: str | ModelEntry | None = None
    models: list[str | ModelEntry] = []
    task: str | TaskEntry | None = None
    backends: _Names = Field(min_length=1)
    methods: list[str | dict[str, Any]] = Field(min_length=1)
    targets: list[str | TargetEntry] = Field(default=["cpu-1"], min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    batch_sizes: list[int] = Field(default=[1], min_length=1)
    offline: bool = False
    sessions: int = Field(default=1, ge=1, le=20)
    precision: str | PrecisionEntry = "standard"
    recipe: dict[str, Any] = {}
    reference: dict[str, str] = {}
    limits: LimitsEntry = LimitsEntry()
    twins: bool = True
    confirm: bool = True
    quality_margin: float = Field(default=0.01, gt=0, lt=1)
    valid_sqnr_db: float = 3.0
    published: list[PublishedEntry] = []


FIELDS: Mapping[str, tuple[str, ...]] = {
    "": tuple(ExperimentFile.model_fields),
    "targets": tuple(TargetEntry.model_fields),
    "precision": tuple(PrecisionEntry.model_fields),
    "limits": tuple(LimitsEntry.model_fields),
    "published": tuple(PublishedEntry.model_fields),
    "model": tuple(ModelEntry.model_fields),
    "models": tuple(ModelEntry.model_fields),
    "task": tuple(TaskEntry.model_fields),
}


BRANCHES = ("str", "dict[str,any]", "TargetEntry", "PrecisionEntry", "ModelEntry", "TaskEntry")
