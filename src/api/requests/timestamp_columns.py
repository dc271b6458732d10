"""Parse the timestamps of a batch as columns of digits.

The common forms of RFC 3339 are parsed with numpy. `parse_timestamp` parses a timestamp in any other form.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from src.analytics.points import parse_timestamp
from src.analytics.rollup import Integers

_LAYOUT: Final = b"dddd-dd-ddTdd:dd:dd"
_DIGITS: Final = np.array([index for index, kind in enumerate(_LAYOUT) if kind == ord("d")])
_SEPARATORS: Final = np.array([index for index, kind in enumerate(_LAYOUT) if kind != ord("d")])
_SEPARATOR_BYTES: Final = np.frombuffer(_LAYOUT, dtype=np.uint8)[_SEPARATORS]
_DOT, _COLON, _PLUS, _MINUS, _ZULU, _ZERO = map(ord, ".:+-Z0")
_OFFSET_LENGTH: Final = 6  # +hh:mm
_OFFSET_DIGITS: Final = np.array([1, 2, 4, 5])
_OFFSET_WEIGHTS: Final = np.array([[10.0, 0], [1, 0], [0, 10], [0, 1]])
_FIRST_SECOND: Final = -86_400 * 719_162
_LAST_SECOND: Final = 253_402_300_799

_FIELD_WEIGHTS: Final = np.zeros((14, 6))
"""The product with fourteen digits is year, month, day, hour, minute and second.

The weights are floats, because numpy multiplies matrices of floats faster than matrices of integers.
"""
for _digit, _field, _weight in (
    (0, 0, 1000), (1, 0, 100), (2, 0, 10), (3, 0, 1), (4, 1, 10), (5, 1, 1), (6, 2, 10), (7, 2, 1),
    (8, 3, 10), (9, 3, 1), (10, 4, 10), (11, 4, 1), (12, 5, 10), (13, 5, 1),
):  # fmt: skip
    _FIELD_WEIGHTS[_digit, _field] = _weight

_FRACTION_WEIGHTS: Final = 10.0 ** np.arange(5, -1, -1)

_DAYS_IN_MONTH: Final = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_DAYS_BEFORE_MONTH: Final = np.concatenate(([0], np.cumsum(_DAYS_IN_MONTH)[:-1]))
_EPOCH_DAY: Final = 719_162
"""Days from 0001-01-01 to 1970-01-01."""


def parse_timestamps(texts: Sequence[str]) -> Integers:
    """Return `texts` as int64 microseconds since 1970.

    Raises:
        ValueError: A text is not an RFC 3339 timestamp.
    """
    lengths = list(map(len, texts))
    if lengths.count(lengths[0]) == len(lengths):
        parsed = _parse_equal_lengths(texts, lengths[0])
        if parsed is not None:
            return parsed
    indexes_by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        indexes_by_length.setdefault(length, []).append(index)
    timestamps = np.empty(len(texts), dtype=np.int64)
    for length, indexes in indexes_by_length.items():
        group = [texts[index] for index in indexes]
        parsed = _parse_equal_lengths(group, length)
        timestamps[indexes] = [parse_timestamp(text) for text in group] if parsed is None else parsed
    return timestamps


def _parse_equal_lengths(texts: Sequence[str], length: int) -> Integers | None:
    """Return `texts` as microseconds since 1970; None if a text is invalid or has an uncommon form."""
    try:
        characters = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8).reshape(-1, length)
    except UnicodeEncodeError:
        return None
    if length < len(_LAYOUT) or (characters[:, _SEPARATORS] != _SEPARATOR_BYTES).any():
        return None
    seconds = _seconds(characters[:, _DIGITS] - _ZERO)
    end, offset_seconds = _offset(characters)
    microseconds = _fraction(characters[:, len(_LAYOUT) : end])
    if seconds is None or offset_seconds is None or microseconds is None:
        return None
    seconds = seconds - offset_seconds
    if seconds.min() < _FIRST_SECOND or seconds.max() > _LAST_SECOND:
        return None
    return seconds * 1_000_000 + microseconds


def _seconds(digits: npt.NDArray[np.uint8]) -> Integers | None:
    """Return the seconds since 1970 of rows of fourteen digits; None if a row is not a date and a time."""
    if digits.max() > 9:  # a character below "0" wraps around to a large number
        return None
    dates, times = digits[:, :8], digits[:, 8:]
    if (dates == dates[0]).all():  # most batches are of one day, which is then calculated once
        dates = dates[:1]
    year, month, day = (dates @ _FIELD_WEIGHTS[:8, :3]).T.astype(np.int64)
    hour, minute, second = (times @ _FIELD_WEIGHTS[8:, 3:]).T.astype(np.int64)
    if not (
        year.min() > 0 and month.min() > 0 and month.max() < 13 and day.min() > 0
        and hour.max() < 24 and minute.max() < 60 and second.max() < 60
    ):  # fmt: skip
        return None
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    if (day > _DAYS_IN_MONTH[month] + (is_leap & (month == 2))).any():
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - _EPOCH_DAY
    days += _DAYS_BEFORE_MONTH[month] + (is_leap & (month > 2)) + day - 1
    seconds: Integers = days * 86_400 + hour * 3600 + minute * 60 + second
    return seconds


def _fraction(characters: npt.NDArray[np.uint8]) -> Integers | int | None:
    """Return the microseconds of rows such as `.25`; 0 if the rows are empty, None if a row is invalid."""
    if not characters.shape[1]:
        return 0
    digits = characters[:, 1:] - _ZERO
    if not digits.size or (characters[:, 0] != _DOT).any() or digits.max() > 9:
        return None
    microseconds: Integers = (digits[:, :6] @ _FRACTION_WEIGHTS[: digits.shape[1]]).astype(np.int64)
    return microseconds


def _offset(characters: npt.NDArray[np.uint8]) -> tuple[int, Integers | int | None]:
    """Return the column of the UTC offset, and the offsets in seconds; None if an offset is invalid."""
    length = characters.shape[1]
    if length == len(_LAYOUT):
        return length, 0
    if (characters[:, -1] == _ZULU).all():
        return length - 1, 0
    begin = length - _OFFSET_LENGTH
    if begin < len(_LAYOUT) or (characters[:, -3] != _COLON).any():
        return length, 0  # there is no offset: the fraction extends to the end
    signs, digits = characters[:, begin], characters[:, begin + _OFFSET_DIGITS] - _ZERO
    hours, minutes = (digits @ _OFFSET_WEIGHTS).T.astype(np.int64)
    is_sign = (signs == _PLUS) | (signs == _MINUS)
    if not is_sign.all() or digits.max() > 9 or hours.max() > 23 or minutes.max() > 59:
        return begin, None
    seconds: Integers = (hours * 3600 + minutes * 60) * np.where(signs == _PLUS, 1, -1)
    return begin, seconds
