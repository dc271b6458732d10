"""The points of a service that has no export, read from its list, which is newest first.

The pages are written into a temporary file, and read back from the last page to the first.
"""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from urllib.parse import urlencode

import httpx
import orjson

from src.analytics.points import parse_timestamp

PAGE_POINTS = 1_000
"""The largest number of points in a list."""


async def walk_list(
    get: Callable[[str], Awaitable[httpx.Response]], query: Sequence[tuple[str, str]]
) -> AsyncIterator[bytes]:
    """Yield what an export with `query` yields, page by page.

    Args:
        get: Returns the answer to a GET of a path.
        query: Names and values of the parameters of the export.

    Raises:
        KeyError, TypeError, ValueError: An answer is not a list of points.
    """
    bounds = {name: parse_timestamp(text) for name, text in query if name in {"from", "to"}}
    kept = [(name, text) for name, text in query if name not in bounds]
    path: str | None = f"/api/metrics/list?{urlencode([*kept, ('limit', PAGE_POINTS)])}"
    sizes: list[int] = []
    with tempfile.TemporaryFile() as pages:
        while path is not None:
            response = await get(path)
            page = response.json()
            if not isinstance(page, list):
                raise TypeError("not a list")
            points = [point for point in reversed(page) if _is_between(point["timestamp"], bounds)]
            lines = [orjson.dumps(point) + b"\n" for point in points]
            sizes.append(pages.write(b"".join(lines)))
            path = response.links.get("next", {}).get("url")
        end = pages.tell()
        for size in reversed(sizes):
            end -= size
            pages.seek(end)
            if size:
                yield pages.read(size)


def _is_between(timestamp: str, bounds: dict[str, int]) -> bool:
    instant = parse_timestamp(timestamp)
    return bounds.get("from", instant) <= instant < bounds.get("to", instant + 1)
