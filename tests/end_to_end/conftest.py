"""A checkout for the tests that run the scripts."""

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.checkout import Checkout


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    if find_spec("pip") is None:
        pytest.skip("there is no pip here, which start.sh needs")
    with tempfile.TemporaryDirectory(prefix="checkout-") as folder:
        checkout = Checkout(Path(folder)).installed()
        yield checkout
        checkout.stop()
