"""The cursor of a list: a position in an opaque encoding, so that clients do not construct cursors."""

import base64
import binascii
import re

from src.services.metrics.ingest import Position

_FORM = re.compile(r"(-?\d{1,18}) (\d{1,16}) (?:g(\d{0,16}) )?([A-Za-z0-9][A-Za-z0-9_.:/-]{0,127})")

_INVALID = "is not a cursor from a Link header of this service"


def encode_cursor(position: Position) -> str:
    """Return `position` as a URL-safe string."""
    text = f"{position.timestamp_us} {position.arrival} g{position.generation} {position.type}"
    return base64.urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Return the position that `cursor` encodes.

    Raises:
        ValueError: This service did not create the cursor.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise ValueError(_INVALID) from None
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(_INVALID)
    return Position(int(match[1]), match[4], int(match[2]), match[3] or "")
