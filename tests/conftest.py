"""Shared by all tests: the strictest flags of array-api-strict, and settings that do not leak."""

from __future__ import annotations

import array_api_strict
import pytest

from xpconv import settings


@pytest.fixture(autouse=True, scope="session")
def _strictest_flags():
    array_api_strict.set_array_api_strict_flags(
        boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )


@pytest.fixture(autouse=True)
def _settings_do_not_leak():
    with settings.applied(settings.current()):
        yield
