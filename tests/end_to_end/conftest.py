"""A checkout for the tests that run the scripts."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import Checkout


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    with tempfile.TemporaryDirectory(prefix="checkout-") as folder:
        checkout = Checkout(Path(folder)).installed()
        yield checkout
        checkout.stop()
