"""The form of an answer that the client prefers (RFC 9110, section 12.5), and whether the client has it."""

import re

_WEIGHT = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Return whether to compress an answer by gzip.

    Args:
        accept_encoding: The value of the `Accept-Encoding` header; None if there is none.
    """
    weights = _weights(accept_encoding)
    gzip = max(weights.get("gzip", -1.0), weights.get("x-gzip", -1.0))  # two names of one coding
    if gzip < 0:
        gzip = weights.get("*", 0.0)
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def prefers_html(accept: str | None, alternative: str = "application/json") -> bool:
    """Return whether the client prefers HTML to the alternative, as browsers do.

    Args:
        accept: The value of the `Accept` header; None if there is none.
        alternative: The other media type that the route offers.
    """
    weights = _weights(accept)
    return _media_weight(weights, "text/html") > _media_weight(weights, alternative)


def is_not_modified(if_none_match: str | None, etag: str) -> bool:
    """Compare `If-None-Match` with the tag of the current representation (RFC 9110, section 13.1.2).

    Args:
        if_none_match: The value of the header; None if there is none.
        etag: A strong tag with its quotes.
    """
    if if_none_match is None:
        return False
    candidates = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return etag in candidates or "*" in candidates


def _media_weight(weights: dict[str, float], media_type: str) -> float:
    """Return the weight of the most specific range that contains a media type."""
    group = media_type.partition("/")[0]
    return weights.get(media_type, weights.get(f"{group}/*", weights.get("*/*", 0.0)))


def _weights(field: str | None) -> dict[str, float]:
    """Return the weight of each element of an `Accept…` header, without elements of invalid weight."""
    weights: dict[str, float] = {}
    for element in (field or "").split(","):
        name, *parameters = element.split(";")
        weight: float | None = 1.0
        for parameter in parameters:
            if parameter.partition("=")[0].strip().lower() == "q":
                match = _WEIGHT.fullmatch(parameter)
                weight = float(match[1]) if match else None
        if name.strip() and weight is not None:
            weights[name.strip().lower()] = weight
    return weights
