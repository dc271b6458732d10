"""The dictionary of a type: the number of each series, in the state that a worker has last read."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

VERSION_FIELD = b"#"
"""The field with the version of the dictionary. It is no text of labels."""

UNLABELLED = 0
"""The number of the series without labels. This series is not in the stored dictionary."""


def retired_field(number: int) -> str:
    """Return the field of a retired number. The value of the field is the labels of the number."""
    return f"-{number}"


@dataclass(slots=True)
class SeriesDictionary:
    """The series of one type.

    Attributes:
        version: The version, which changes with each change of the dictionary.
        numbers: The numbers by labels, in the form of `labels_text`.
        retired: The labels of retired numbers, which no new point gets. A deletion retires a number without
            points, and frees the number later if it still has no points.
    """

    version: str = "0"
    numbers: dict[str, int] = field(default_factory=lambda: {"": UNLABELLED})
    retired: dict[int, str] = field(default_factory=dict)

    @classmethod
    def decode(cls, reply: Sequence[bytes]) -> "SeriesDictionary":
        """Return the dictionary in a reply to HGETALL."""
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

        The same labels may have a retired number and a second number.
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
        """Return free numbers for the `labels` without a number, in order of their first occurrence."""
        new = [text for text in dict.fromkeys(labels) if text not in self.numbers]
        if not new:
            return {}
        used = {*self.numbers.values(), *self.retired}
        free = (number for number in count(UNLABELLED + 1) if number not in used)
        return dict(zip(new, free, strict=False))
