"""Parse the timestamps of a batch as columns of digits.

The common forms of RFC 3339 are parsed with numpy. `parse_timestamp` parses a timestamp in any other form.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from src.analytics.points import parse_timestamp
from src.analytics.rollup import Integers

_LOWEST: Final = np.frombuffer(b"0000-00-00T00:00:00", dtype=np.uint8)
"""The lowest character of each column. A separator is the only character of its column."""
_SPANS: Final = np.frombuffer(b"9999-99-99T99:59:59", dtype=np.uint8) - _LOWEST
_DOT, _COLON, _PLUS, _MINUS, _ZULU, _ZERO = map(ord, ".:+-Z0")
_OFFSET_LENGTH: Final = 6  # +hh:mm
_OFFSET_DIGITS: Final = np.array([1, 2, 4, 5])
_OFFSET_WEIGHTS: Final = np.array([[10.0, 0], [1, 0], [0, 10], [0, 1]])
_FIRST_SECOND: Final = -86_400 * 719_162
_LAST_SECOND: Final = 253_402_300_799

_DATE_WEIGHTS: Final = np.zeros((10, 3))
"""The product with the columns of a date is year, month and day. Separators count as 0.

The weights are floats, because numpy multiplies matrices of floats faster than matrices of integers.
"""
_DATE_WEIGHTS[:4, 0] = 1000, 100, 10, 1
_DATE_WEIGHTS[5:7, 1] = _DATE_WEIGHTS[8:, 2] = 10, 1
_TIME_WEIGHTS: Final = np.array([36_000.0, 3600, 0, 600, 60, 0, 10, 1])
"""The product with the columns of a time is the second of the day."""
_DAY_SECONDS: Final = 86_400

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
    if length < len(_LOWEST):
        return None
    seconds = _seconds(characters[:, : len(_LOWEST)] - _LOWEST)
    end, offset_seconds = _offset(characters)
    microseconds = _fraction(characters[:, len(_LOWEST) : end])
    if seconds is None or offset_seconds is None or microseconds is None:
        return None
    seconds = seconds - offset_seconds
    if seconds.min() < _FIRST_SECOND or seconds.max() > _LAST_SECOND:
        return None
    return seconds * 1_000_000 + microseconds


def _seconds(digits: npt.NDArray[np.uint8]) -> Integers | None:
    """Return the seconds since 1970 of rows of dates and times; None if a row is not a date and a time.

    Args:
        digits: The distance of each character from `_LOWEST`.
    """
    if (digits > _SPANS).any():  # the distance of a character below the lowest wraps around to a large number
        return None
    times = (digits[:, 11:] @ _TIME_WEIGHTS).astype(np.int64)
    dates = digits[:, :10]
    is_one_day = bool((dates == dates[0]).all())  # as in most batches
    days = _day(dates[0].tobytes()) if is_one_day else _days(dates)
    if days is None or times.max() >= _DAY_SECONDS:
        return None
    seconds: Integers = days * _DAY_SECONDS + times
    return seconds


@lru_cache
def _day(digits: bytes) -> Integers | None:
    """Return the result of `_days` for one row."""
    return _days(np.frombuffer(digits, dtype=np.uint8).reshape(1, -1))


def _days(digits: npt.NDArray[np.uint8]) -> Integers | None:
    """Return the days since 1970 of rows of dates; None if a row is not a date."""
    year, month, day = (digits @ _DATE_WEIGHTS).T.astype(np.int64)
    if year.min() < 1 or month.min() < 1 or month.max() > 12 or day.min() < 1:
        return None
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    if (day > _DAYS_IN_MONTH[month] + (is_leap & (month == 2))).any():
        return None
    before = year - 1
    days: Integers = before * 365 + before // 4 - before // 100 + before // 400 - _EPOCH_DAY
    days += _DAYS_BEFORE_MONTH[month] + (is_leap & (month > 2)) + day - 1
    return days


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
    if length == len(_LOWEST):
        return length, 0
    if (characters[:, -1] == _ZULU).all():
        return length - 1, 0
    begin = length - _OFFSET_LENGTH
    if begin < len(_LOWEST) or (characters[:, -3] != _COLON).any():
        return length, 0  # there is no offset: the fraction extends to the end
    offsets = characters[:, begin:]
    if (offsets == offsets[0]).all():  # as in most batches
        return begin, _one_offset(offsets[0].tobytes())
    return begin, _offset_seconds(offsets)


@lru_cache
def _one_offset(characters: bytes) -> Integers | None:
    """Return the result of `_offset_seconds` for one row."""
    return _offset_seconds(np.frombuffer(characters, dtype=np.uint8).reshape(1, -1))


def _offset_seconds(characters: npt.NDArray[np.uint8]) -> Integers | None:
    """Return the seconds of rows such as `+02:00`; None if a row is invalid. The colon was checked before."""
    signs, digits = characters[:, 0], characters[:, _OFFSET_DIGITS] - _ZERO
    hours, minutes = (digits @ _OFFSET_WEIGHTS).T.astype(np.int64)
    is_sign = (signs == _PLUS) | (signs == _MINUS)
    if not is_sign.all() or digits.max() > 9 or hours.max() > 23 or minutes.max() > 59:
        return None
    seconds: Integers = (hours * 3600 + minutes * 60) * np.where(signs == _PLUS, 1, -1)
    return seconds
