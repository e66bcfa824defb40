"""Tests of the backends."""

import pytest

# before anything imports it, so that its assertions are explained like those of test modules
pytest.register_assert_rewrite("tests.backends.conformance")
