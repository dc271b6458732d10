"""Entity tags: what stands in `If-None-Match`, held against what is there (RFC 9110, section 13.1.2)."""


def client_has(if_none_match: str | None, etag: str) -> bool:
    """Return whether a client has what `etag` (with its quotes, not weak) stands for."""
    if if_none_match is None:
        return False
    candidates = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return etag in candidates or "*" in candidates
