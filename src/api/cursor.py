"""The list's cursor: a position, encoded, since clients must not build one."""

import base64
import binascii
import re

from src.services.metrics.ingest import Position

_FORM = re.compile(r"(-?\d{1,18}) (\d{1,16}) (?:g(\d{0,16}) )?([A-Za-z0-9][A-Za-z0-9_.:/-]{0,127})")


def encode_cursor(position: Position) -> str:
    """Return `position` as a URL-safe string."""
    text = f"{position.timestamp_us} {position.arrival} g{position.generation} {position.type}"
    return base64.urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Return the position behind `cursor`.

    Raises:
        ValueError: This service did not give the cursor out.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise ValueError("is not a cursor that this service gave out") from None
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("is not a cursor that this service gave out")
    return Position(int(match[1]), match[4], int(match[2]), match[3] or "")
