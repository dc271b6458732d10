"""A fixture with a checkout for the tests that run the scripts."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.support.checkout import Checkout, installed_checkout


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    if find_spec("pip") is None:
        pytest.skip("there is no pip here, which start.sh needs")
    with installed_checkout() as checkout:
        yield checkout
