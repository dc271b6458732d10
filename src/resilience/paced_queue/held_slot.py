"""A slot of a paced queue that a caller holds."""

from collections.abc import Callable
from typing import Self

from ..errors import RejectedError


class HeldSlot:
    """The right to start one call now, as a context manager around the call.

    If the body does not start a call, it gives the slot back. A body that ends with a `RejectedError` has not
    started its call, because an inner policy rejected it.

    Args:
        pass_on: Called when the slot is given back.
    """

    def __init__(self, pass_on: Callable[[], None]) -> None:
        self._pass_on = pass_on
        self._is_held = True

    def give_back(self) -> None:
        """Pass the slot to the next caller. Only the first call has an effect."""
        if self._is_held:
            self._is_held = False
            self._pass_on()

    def __enter__(self) -> Self:
        """Return the slot."""
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Give the slot back after a `RejectedError`."""
        if isinstance(error, RejectedError):
            self.give_back()
