"""A coroutine that starts before it is awaited. Python 3.12 has eager tasks, which do the same."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class EagerCoroutine(Generic[T]):
    """A coroutine that has run to its first wait, or to its end.

    The task that creates the instance must also await it, once.

    Args:
        coroutine: The coroutine to run.

    Attributes:
        is_done: Whether the coroutine has returned.

    Raises:
        BaseException: Any error that the coroutine raises before its first wait.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self.is_done = False
        self._step(coroutine.send, None)

    def __await__(self) -> Generator[Any, Any, T]:
        """Run the rest of the coroutine, and return its result."""
        while not self.is_done:
            try:
                sent = yield self._awaited
            except BaseException as error:  # noqa: BLE001 -- the coroutine handles it
                self._step(self._coroutine.throw, error)
            else:
                self._step(self._coroutine.send, sent)
        return self._result

    def _step(self, resume: Callable[[Any], Any], argument: object) -> None:
        try:
            self._awaited = resume(argument)
        except StopIteration as end:
            self.is_done = True
            self._result: T = end.value
