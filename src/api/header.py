"""One header of a request.

Starlette's `Headers` object is built for each request. Hot routes look five headers up that hardly any
request has, so they search the list instead.
"""

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header's value; None where there is none.

    Args:
        scope: The scope of the request.
        name: The name of the header, in small letters. The values of several lines are joined by commas,
            which means the same (RFC 9110, section 5.3).
    """
    for key, _ in scope["headers"]:
        if key == name:
            break
    else:
        return None
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1")
