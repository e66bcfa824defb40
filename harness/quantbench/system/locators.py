"""Locators: objects named by text, ``package.module:attribute``, imported when they are asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from functools import partial
from typing import Any


def locate(locator: str) -> Any:
    """The object that ``package.module:attribute`` names.

    ``package.module:function(argument)`` is the function with that text as its first argument.

    >>> locate("math:sqrt")(9.0), locate("builtins:int(12)")()
    (3.0, 12)
    """
    module, _, attribute = locator.partition(":")
    name, given, argument = attribute.partition("(")
    found = getattr(importlib.import_module(module), name)
    return partial(found, argument.removesuffix(")")) if given else found


def locator(function: Callable[..., Any], argument: str = "") -> str:
    """The text by which `locate` finds a function, with its first argument where one is given.

    >>> import math
    >>> locator(math.sqrt), locator(locate, "builtins:int")
    ('math:sqrt', 'quantbench.system.locators:locate(builtins:int)')

    Raises
    ------
    ValueError
        If the function has no name of its own in a module: another process could not find it.
    """
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or not name.isidentifier():
        raise ValueError(f"{module}:{name} cannot be found from another process")
    return f"{module}:{name}({argument})" if argument else f"{module}:{name}"
