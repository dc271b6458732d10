"""The numbers by which the series of a type are stored, as a worker last read them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

VERSION_FIELD = b"#"
"""The field of the dictionary that holds its version. No labels have that text."""

UNLABELLED = 0
"""The number of the series without labels, which is in no dictionary."""


def retired_field(number: int) -> str:
    """Return the field of a retired number. Its value is the labels that the number stands for."""
    return f"-{number}"


@dataclass(slots=True)
class SeriesDictionary:
    """The series of one type.

    Attributes:
        version: Changes whenever the dictionary does.
        numbers: Number by labels, as `labels_text` writes them.
        retired: Labels by number, of numbers that no new point gets. A deletion retires a number that has no
            points, and frees it once it is certain that none has come meanwhile.
    """

    version: str = "0"
    numbers: dict[str, int] = field(default_factory=lambda: {"": UNLABELLED})
    retired: dict[int, str] = field(default_factory=dict)

    @classmethod
    def decode(cls, reply: Sequence[bytes]) -> "SeriesDictionary":
        """Return the dictionary of an HGETALL reply."""
        found = cls()
        for text, number in zip(reply[::2], reply[1::2], strict=True):
            if text == VERSION_FIELD:
                found.version = number.decode()
            elif text.startswith(b"-"):
                found.retired[-int(text)] = number.decode()
            else:
                found.numbers[text.decode()] = int(number)
        return found

    def series(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the labels of each series.

        The same labels may have a retired number and another one.
        """
        for text, number in self.numbers.items():
            yield number, text
        yield from self.retired.items()

    def extends(self, earlier: "SeriesDictionary") -> bool:
        """Return whether all numbers of an `earlier` dictionary stand for the same labels here."""
        if self.version == earlier.version:
            return True
        return dict(earlier.series()).items() <= dict(self.series()).items()

    def numbers_for_new(self, labels: Iterable[str]) -> dict[str, int]:
        """Return free numbers for those of `labels` that have none, in order of their first occurrence."""
        new = [text for text in dict.fromkeys(labels) if text not in self.numbers]
        if not new:
            return {}
        used = {*self.numbers.values(), *self.retired}
        free = (number for number in count(UNLABELLED + 1) if number not in used)
        return dict(zip(new, free, strict=False))
