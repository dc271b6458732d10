"""The list's cursor."""

import base64

import pytest

from src.api.requests.cursor import decode_cursor, encode_cursor
from src.services.metrics.ingest import Position


@pytest.mark.parametrize(
    "position",
    [Position(0, "a", 1), Position(-62135596800000000, "A:b/c.d_e-f", 2**48), Position(1, "x" * 128, 9)],
)
def test_a_cursor_is_decoded_to_its_position(position):
    assert decode_cursor(encode_cursor(position)) == position


@pytest.mark.parametrize(
    "made_up",
    ["", "x", "%%%", "é", base64.urlsafe_b64encode(b"1 2").decode(), base64.b64encode(b"a b c").decode()],
)
def test_an_invalid_cursor_is_rejected(made_up):
    with pytest.raises(ValueError, match="not a cursor"):
        decode_cursor(made_up)
