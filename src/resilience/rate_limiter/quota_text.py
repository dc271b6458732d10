"""Quotas as text: `10/minute`, `5 per 10 seconds`, `10/minute; 1000/day`.

The notation is that of the Python package limits (https://limits.readthedocs.io/en/stable/quickstart.html).
"""

import re

from .options import Quota

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_SECONDS = {form: seconds for unit, seconds in _UNITS.items() for form in (unit, f"{unit}s", unit[0])}
_QUOTA = re.compile(r"\s*(\d{1,15})\s*(?:/|per\s)\s*(?:(\d{1,9})\s*)?([a-z]+)\s*", re.ASCII | re.IGNORECASE)


def parse_quotas(text: str) -> tuple[Quota, ...]:
    """Return the quotas that `text` lists, in its order.

    Args:
        text: Quotas separated by `;` or `,`. A quota is a limit, `/` or `per`, an optional number of units,
            and a unit: second, minute, hour or day, in the singular or the plural, or its first letter.

    Raises:
        ValueError: A part is no quota, or a quota is out of the range of `Quota`; the message names the part.
    """
    return tuple(_parse(part) for part in re.split("[;,]", text))


def _parse(part: str) -> Quota:
    match = _QUOTA.fullmatch(part)
    if match is not None:
        limit, units, unit = match.groups()
        seconds = _SECONDS.get(unit.lower())
        if seconds is not None:
            try:
                return Quota(int(limit), int(units or 1) * seconds)
            except ValueError as error:
                raise ValueError(f"{part.strip()!r}: {error}") from None
    raise ValueError(f"{part.strip()!r} is no quota; write, for example, '10/minute' or '5 per 10 seconds'")
