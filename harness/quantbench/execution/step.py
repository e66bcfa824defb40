"""Step: one piece of a run's work: what it needs, what it does, and the key that its result is kept by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantbench.execution.job import Ending
from quantbench.system import content_key, locator, package_versions, source_digest


@dataclass(frozen=True, slots=True)
class Resources:
    """What a step's worker may use, and what is set before it starts."""

    time_limit_s: float = 600.0
    memory_mb: float = 8000.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """A function call whose result is a folder of the cache.

    Parameters
    ----------
    name : str
        Unique within a run.
    kind : str
        Of the result: a folder of the cache (``artifacts``, ``scores``...).
    function : callable or None
        The worker function; it gets ``arguments``, the folders of ``inputs`` and ``beside`` by their
        names, and ``folder``, which it fills. None: a decision, made by ``settle`` in this process.
    arguments : mapping
        JSON.
    identity : mapping
        What of the arguments decides the result, as JSON without places; the arguments themselves
        where it is not given.
    inputs, beside : mapping
        Argument's name -> name of the step whose folder it is. The result depends on ``inputs``;
        what lies ``beside`` is passed and changes nothing.
    after : tuple of str
        Further steps that must have ended well before.
    source : tuple of str
        Locators of what is called by name; the function's own source is always part of the key.
    packages : tuple of str
        Distributions whose versions are part of the key.
    settle : callable
        Is told the ending, in this process, and returns the one that those after it see.
    complete : callable
        Whether a folder that is there is whole.
    content : callable
        What the keys of later steps hold of the result, given its folder; its key by default.
    whatever : bool
        Goes on whatever the steps before it ended with.
    """

    name: str
    kind: str = ""
    function: Callable[..., Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    settle: Callable[[Ending], Ending] = lambda ending: ending
    complete: Callable[[Path], bool] = Path.exists
    content: Callable[[Path], Any] = lambda folder: folder.name
    whatever: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of all steps that come before, each once."""
        return tuple(dict.fromkeys((*self.after, *self.inputs.values(), *self.beside.values())))

    def key(self, contents: Mapping[str, Any]) -> str:
        """The content key of the result: the one place where keys of steps are computed.

        Parameters
        ----------
        contents : mapping
            Of each of ``inputs``, what it holds (`content`).

        Raises
        ------
        BadInput
            If source that is named does not exist.
        """
        assert self.function is not None  # noqa: S101 - a decision has no result
        return content_key(
            kind=self.kind,
            arguments=dict(self.arguments if self.identity is None else self.identity),
            inputs=dict(contents),
            source=self.code(),
            packages=package_versions(*self.packages),
        )

    def code(self) -> str:
        """Hash of all source that the result depends on."""
        assert self.function is not None  # noqa: S101 - a decision has no result
        return source_digest(locator(self.function), *sorted({*self.source} - {""}))
