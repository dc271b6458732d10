"""A coroutine that is begun before it is awaited: Python 3.12 has it as the eager task."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class EagerCoroutine(Generic[T]):
    """What is left of a coroutine that was run at once, up to where it has to wait.

    To be awaited once, by the task that made it.

    Attributes:
        is_done: Whether it is through, without having had to wait.

    Raises:
        BaseException: Whatever it raised before it had to wait.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self.is_done = False
        self._step(coroutine.send, None)

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the result."""
        while not self.is_done:
            try:
                sent = yield self._awaited
            except BaseException as error:  # noqa: BLE001 -- the coroutine handles it
                self._step(self._coroutine.throw, error)
            else:
                self._step(self._coroutine.send, sent)
        return self._result

    def _step(self, step: Callable[[Any], Any], argument: object) -> None:
        try:
            self._awaited = step(argument)
        except StopIteration as end:
            self.is_done = True
            self._result: T = end.value
