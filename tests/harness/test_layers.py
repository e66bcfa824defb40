"""Layers that the names and patterns of an axis mean."""

from __future__ import annotations

import pytest

from quantbench.errors import BadInput
from quantbench.spec import computed, matching

KNOWN = ("places", "block.first", "block.second", "head")


def test_names_and_patterns_name_each_layer_once_in_their_order():
    assert matching("only", ["head", "block.*", "block.first"], KNOWN) == (
        "head",
        "block.first",
        "block.second",
    )


def test_a_name_of_no_layer_says_which_is_nearest():
    with pytest.raises(BadInput, match=r"keep_float: no layer 'haed'\. Did you mean 'head'"):
        matching("keep_float", ["haed"], KNOWN)


def test_a_pattern_means_the_layers_that_a_file_computes_on_their_own():
    # a converter folded 'places' into the addition behind it
    assert computed("only", ["*"], KNOWN, {"block.first", "head"}) == ("block.first", "head")


@pytest.mark.parametrize("pattern", ["places", "pla*"])
def test_what_means_no_layer_of_the_file_is_refused(pattern):
    with pytest.raises(BadInput, match="no operator of its own for layer 'places'"):
        computed("only", ["head", pattern], KNOWN, {"head"})
