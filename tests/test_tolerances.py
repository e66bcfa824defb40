"""Tolerances: floats that two frameworks, kernels or batch sizes computed are near, never equal.

A comparison at a default tolerance holds on the machine where it was written, and fails on the next:
1.09e-7 was found where NumPy's default allows 1e-7. So each says how near, and beside it why.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NEAR = frozenset({"assert_allclose", "allclose", "assert_close", "isclose"})
NEVER = frozenset({"assert_array_almost_equal", "assert_almost_equal", "assert_approx_equal"})
STATED = frozenset({"rtol", "atol", "rel_tol", "abs_tol"})


def unstated(source: str) -> Iterator[str]:
    """The comparisons of floats in source code that give no tolerance, or no reason for it."""
    lines = source.splitlines()
    tree = ast.parse(source)
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.stmt) or hasattr(statement, "body"):
            continue
        for node in ast.walk(statement):
            called = getattr(node, "func", None)
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in NEVER:
                yield f"line {node.lineno}: {name} counts digits; use assert_allclose"
            elif name in NEAR:
                if not {keyword.arg for keyword in node.keywords} & STATED:
                    yield f"line {node.lineno}: {name} without rtol or atol"
                place = statement.lineno - 2
                if place < 0 or not re.match(r"\s*# \w", lines[place]):
                    yield f"line {node.lineno}: no comment above says why {name} is as near as that"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("# why\nnp.testing.assert_allclose(a, b)", "without rtol"),
        ("x = 1\nassert np.allclose(a, b, atol=1e-5)", "no comment"),
        ("np.testing.assert_allclose(a, b, atol=1e-5)", "no comment"),
        ("def f():\n    # why\n    return math.isclose(a, b)", "without rtol"),
        ("# why\nnp.testing.assert_almost_equal(a, b)", "counts digits"),
    ],
)
def test_the_reader_sees_what_is_not_stated(source, says):
    (complaint,) = unstated(source)

    assert says in complaint


def test_the_reader_takes_what_is_stated():
    assert not list(unstated("def f():\n    # why\n    assert np.allclose(a, b, atol=1e-5)"))


def test_every_comparison_of_floats_states_how_near_and_why():
    complaints = {
        f"{path.relative_to(TESTS)}, {text}"
        for path in TESTS.rglob("*.py")
        for text in unstated(path.read_text(encoding="utf-8"))
    }

    assert not complaints
