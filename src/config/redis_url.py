"""Checks of the Redis URL. An unusable URL ends the start with a message of one line.

The messages never contain the URL, since it may contain a password.
"""

import os
import re
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

SCHEMES = ("redis://", "rediss://", "unix://", "embedded://")

MAX_DATABASE = 2**31 - 1
"""The highest number that Redis accepts as a database number."""

MAX_SOCKET_PATH_BYTES = 107
"""The longest path of a socket in Linux, without the final NUL (`sun_path` in unix(7))."""

_FORM = "must be redis://[user:password@]host[:port][/database], with %23 %2F %3A %3F %40 for # / : ? @"
_ANY_TEXT = re.compile(".+", re.DOTALL)
_OPTIONS = {"db": re.compile(r"[0-9]+"), "username": _ANY_TEXT, "password": _ANY_TEXT}
_TLS_OPTIONS = {
    "ssl_cert_reqs": re.compile("none|optional|required"),
    "ssl_check_hostname": re.compile("true|false", re.IGNORECASE),
    "ssl_ca_certs": _ANY_TEXT,
    "ssl_certfile": _ANY_TEXT,
    "ssl_keyfile": _ANY_TEXT,
    "ssl_password": _ANY_TEXT,
}


def check_redis_url(url: str) -> None:
    """Raise `ValueError` if `url` is unusable. The message is a continuation of the setting's name."""
    check_text(url)
    if not url.startswith(SCHEMES):
        raise ValueError(f"must start with one of {', '.join(SCHEMES)}")
    if "#" in url:
        raise ValueError(_FORM)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(_FORM) from None
    match parts.scheme:
        case "embedded":
            if url != "embedded://":
                raise ValueError("must be exactly embedded://")
        case "unix":
            _check_socket(parts)
            _check_options(parts, _OPTIONS)
        case scheme:
            if port == 0:
                raise ValueError("must have a port between 1 and 65535")
            if parts.netloc.rpartition("@")[2]:
                check_host(unquote(parts.hostname or ""))
            if not re.fullmatch(r"(/[0-9]*)?", parts.path):
                raise ValueError(_FORM)
            _check_options(parts, _OPTIONS | (_TLS_OPTIONS if scheme == "rediss" else {}))


def check_host(host: str) -> None:
    """Raise `ValueError` if `host` is neither a name nor an IP address."""
    check_text(host)
    try:
        ip_address(host)
    except ValueError:
        pass
    else:
        return
    if re.fullmatch(r"[^:]+:[0-9]+|\[.*\]:[0-9]+", host):
        raise ValueError("must be a host alone: the port is a separate setting")
    try:
        is_name = re.fullmatch(r"[\w.-]+", host) and len(host.encode("idna")) <= 253
    except UnicodeError:
        is_name = False
    if not is_name:
        raise ValueError("must be the name or the IP address of a host")


def check_text(text: str) -> None:
    """Raise `ValueError` if the variable that contains `text` is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None


def redis_url(host: str, port: int, database: int, password: str) -> str:
    """Return the URL of a Redis on `host`, a name or an IP address."""
    credentials = f":{quote(password, safe='')}@" if password else ""
    quoted_host = f"[{quote(host, safe=':')}]" if ":" in host else quote(host)
    return f"redis://{credentials}{quoted_host}:{port}/{database}"


def _check_socket(parts: SplitResult) -> None:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2] or path.endswith("/") or not path:
        raise ValueError("must be unix:// and the absolute path of a socket, as unix:///run/redis.sock")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"must name a socket whose path has at most {MAX_SOCKET_PATH_BYTES} bytes")


def _check_options(parts: SplitResult, known: Mapping[str, re.Pattern[str]]) -> None:
    values_by_name = parse_qs(parts.query, keep_blank_values=True)
    for name, values in values_by_name.items():
        if name in _TLS_OPTIONS and name not in known:
            raise ValueError(f"must be rediss:// to take the option {name}")
        if name not in known:
            raise ValueError(f"must have no other options than {', '.join(known)}")
        if len(values) > 1 or not known[name].fullmatch(values[0]):
            raise ValueError(f"must have one valid value for the option {name}")
    options = {name: values[0] for name, values in values_by_name.items()}
    _check_database(parts.path if parts.scheme != "unix" else "", options.get("db"))
    if parts.scheme == "rediss":
        _check_certificates(options)


def _check_database(path: str, option: str | None) -> None:
    numbers = {int(number) for number in (path.strip("/"), option) if number}
    if len(numbers) > 1:
        raise ValueError("must name one database, in its path or as the option db")
    if max(numbers, default=0) > MAX_DATABASE:
        raise ValueError(f"must name a database between 0 and {MAX_DATABASE}")


def _check_certificates(options: Mapping[str, str]) -> None:
    context = ssl.create_default_context()
    authorities, certificate = options.get("ssl_ca_certs"), options.get("ssl_certfile")
    if certificate is None and "ssl_keyfile" in options:
        raise ValueError("must have the option ssl_certfile to take ssl_keyfile")
    try:
        if authorities is not None:
            context.load_verify_locations(authorities)
    except OSError as error:
        raise ValueError(f"must name certificates in ssl_ca_certs: {error.strerror or error}") from None
    try:
        if certificate is not None:  # with password None, OpenSSL would prompt for a password on the terminal
            context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password", ""))
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"must name a certificate and its key in ssl_certfile, ssl_keyfile: {reason}"
        ) from None
