"""Layers: those of a model that the names and patterns of an axis mean."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Sequence

from quantbench.errors import BadInput, did_you_mean


def matching(axis: str, patterns: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """The known layers that any name or ``*`` pattern of ``axis`` names, each once, in that order.

    Raises
    ------
    BadInput
        If one names no layer; says which is nearest.

    >>> matching("keep_float", ["head", "blocks.*"], ["blocks.0", "blocks.1", "head"])
    ('head', 'blocks.0', 'blocks.1')
    """
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = fnmatch.filter(known, pattern)
        if not found:
            raise BadInput(f"{axis}: no layer '{pattern}'.{did_you_mean(pattern, known)}")
        chosen.update(dict.fromkeys(found))
    return tuple(chosen)


def computed(
    axis: str, patterns: Iterable[str], known: Sequence[str], found: Collection[str | None]
) -> tuple[str, ...]:
    """The layers that ``axis`` names and a file computes on their own (``found``).

    A converter may fold a layer away or into another. A pattern means those that are left; a name
    means that layer.

    Raises
    ------
    BadInput
        If one names no layer, or a file computes none of those it names.

    >>> computed("only", ["*"], ["places", "linear"], {"linear"})
    ('linear',)
    """
    chosen: dict[str, None] = {}
    for pattern in patterns:
        named = matching(axis, [pattern], known)
        left = [layer for layer in named if layer in found]
        if not left:
            raise BadInput(
                f"{axis}: the file has no operator of its own for layer '{named[0]}'; "
                f"leave it out of {axis}, or name the layer around it"
            )
        chosen.update(dict.fromkeys(left))
    return tuple(chosen)
