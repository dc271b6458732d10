"""The URL of a service that a command calls."""

import httpx


def check_base_url(text: str, example: str) -> None:
    """Check the base URL of a service.

    Args:
        text: The URL.
        example: An example of a valid URL.

    Raises:
        ValueError: The text is no http or https URL with a host; the message begins with `url`.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    has_port = url.port is None or 0 < url.port < 65536
    if url.scheme not in {"http", "https"} or not url.host or not has_port:
        raise ValueError(f"url must be like {example}, not {text!r}")
