"""Fixtures of the tests that train."""

from collections.abc import Iterator

import pytest

from tests.tiny_models import damped_adam


@pytest.fixture
def damped() -> Iterator[None]:
    """See `damped_adam`."""
    with damped_adam():
        yield
