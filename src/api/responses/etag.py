"""Entity tags: the comparison of `If-None-Match` with the current tag (RFC 9110, section 13.1.2)."""


def is_not_modified(if_none_match: str | None, etag: str) -> bool:
    """Return whether the client already has the representation with `etag`, a strong tag with its quotes."""
    if if_none_match is None:
        return False
    candidates = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return etag in candidates or "*" in candidates
