"""Look up one header of a request.

Starlette creates a `Headers` object for each request. A hot route looks up five headers that most requests
do not have, so a search of the list is faster.
"""

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header; None if the request does not have the header.

    If the header occurs several times, its values are joined by commas (RFC 9110, section 5.3).

    Args:
        scope: The scope of the request.
        name: The name of the header, in lower case.
    """
    for key, _ in scope["headers"]:
        if key == name:
            break
    else:
        return None
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1")
