"""The meaning of each error of Redis, in one table.

Only this module reads the text of an error. Redis 6.2, Redis 7 and Valkey 9 format the errors of scripts
differently. None of them sends a code if an ACL rule or a renamed command stops a script.
"""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError


class Meaning(Enum):
    """The meaning of a failure for the callers."""

    UNAVAILABLE = auto()
    """No command can be executed at this address. All callers fail until a probe gets an answer."""

    WRONG_SERVER = auto()
    """The server answered, but does not serve the key or accept writes.

    Resolve the address and connect again.
    """

    REFUSED = auto()
    """The server refused the command because of its state or its rules. Other commands may succeed."""

    MISTAKE = auto()
    """The command is wrong, or a key holds a value of another type."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind of failure.

    Attributes:
        meaning: The meaning of the failure for the callers.
        code: The name of the failure. It is the code that Redis sends, if Redis sends one.
    """

    meaning: Meaning
    code: str


def failure_of(error: BaseException) -> Failure:
    """Return the kind of failure of `error`: a reply of Redis, or the exception that ended a round trip."""
    ends_connection = isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError))
    for cause in _causes(error):
        if (failure := _known_failure(cause)) is not None:
            return replace(failure, meaning=Meaning.UNAVAILABLE) if ends_connection else failure
    if isinstance(error, ResponseError):
        return Failure(Meaning.MISTAKE, "ERR")
    return Failure(Meaning.UNAVAILABLE, type(error).__name__)


def reply_error(text: str) -> RedisError:
    """Return the exception for an error reply. It is a `ConnectionError` if the connection cannot be used."""
    if text.startswith("NOSCRIPT"):
        return NoScriptError(text)
    failure = _failure_in(text)
    if failure is not None and failure.meaning is Meaning.UNAVAILABLE:
        return RedisConnectionError(text)
    return ResponseError(text)


def reason_of(error: BaseException) -> str:
    """Return the text of `error` for a log, without the arguments of the command, which may be a password."""
    return _ARGUMENTS.sub("", _text(error)) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and its causes. redis-py wraps the errors of the system and of Redis."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _known_failure(error: BaseException) -> Failure | None:
    if isinstance(error, ssl.SSLError):
        return _TLS
    if isinstance(error, socket.gaierror):
        return _DNS
    if isinstance(error, (TimeoutError, RedisTimeoutError)):
        return _TIMEOUT
    if isinstance(error, OSError):
        return _failure_by_number(error)
    return _failure_in(_text(error)) if isinstance(error, RedisError) else None


def _failure_by_number(error: OSError) -> Failure | None:
    """Return the failure for the error's number, or for the numbers in its text."""
    numbers = {error.errno} if error.errno else {int(number) for number in _NUMBERS.findall(str(error))}
    return next((failure for failure, known in _BY_NUMBER.items() if not numbers.isdisjoint(known)), None)


def _failure_in(text: str) -> Failure | None:
    unwrapped = _WRAPPING.sub("", text, count=1)
    return next((failure for failure, starts in _BY_START.items() if unwrapped.startswith(starts)), None)


def _text(error: BaseException) -> str:
    """Return the text of the reply. redis-py stores the code of some errors in a separate attribute."""
    code = getattr(error, "status_code", None)
    return f"{code} {error}" if code else str(error)


_WRAPPING = re.compile(
    r"^(?:ERR |-|EXECABORT Transaction discarded because of: "
    r"|Error running script \(call to \w+\): |@?user_script: ?[0-9]+: )+"
)
"""Matches the text that EXEC, Redis 6.2 or a Lua script puts before the error."""
_ARGUMENTS = re.compile(r",? with args beginning with.*", re.DOTALL)
_NUMBERS = re.compile(r"\[Errno (\d+)\]")


_TIMEOUT = Failure(Meaning.UNAVAILABLE, "TIMEOUT")
_DNS = Failure(Meaning.UNAVAILABLE, "DNS")
_TLS = Failure(Meaning.UNAVAILABLE, "TLS")
_CONNECTION_LOST = Failure(Meaning.UNAVAILABLE, "CONNECTION_LOST")

_BY_NUMBER: dict[Failure, set[int]] = {
    _TIMEOUT: {errno.ETIMEDOUT},
    _CONNECTION_LOST: {errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE},
    Failure(Meaning.UNAVAILABLE, "CONNECTION_REFUSED"): {errno.ECONNREFUSED},
    Failure(Meaning.UNAVAILABLE, "NO_SOCKET"): {errno.ENOENT},
    Failure(Meaning.UNAVAILABLE, "FORBIDDEN"): {errno.EACCES, errno.EPERM},
    Failure(Meaning.UNAVAILABLE, "TOO_MANY_OPEN_FILES"): {errno.EMFILE, errno.ENFILE},
    Failure(Meaning.UNAVAILABLE, "UNREACHABLE"): {errno.EHOSTUNREACH, errno.ENETUNREACH},
}
"""The error numbers of the system for each failure."""

_BY_START: dict[Failure, tuple[str, ...]] = {
    _CONNECTION_LOST: ("connection lost", "Connection closed by server"),
    Failure(Meaning.UNAVAILABLE, "NOT_REDIS"): ("Protocol error, got ",),
    Failure(Meaning.UNAVAILABLE, "NOAUTH"): ("NOAUTH ",),
    Failure(Meaning.UNAVAILABLE, "WRONGPASS"): ("WRONGPASS ", "invalid password"),
    Failure(Meaning.UNAVAILABLE, "NO_PASSWORD_SET"): (
        "AUTH <password> called without any password",
        "Client sent AUTH, but no password is set",
    ),
    Failure(Meaning.UNAVAILABLE, "PROTECTED_MODE"): ("DENIED ",),
    Failure(Meaning.UNAVAILABLE, "MAX_CLIENTS"): ("max number of clients reached",),
    Failure(Meaning.UNAVAILABLE, "LOADING"): ("LOADING ",),
    Failure(Meaning.UNAVAILABLE, "NO_SUCH_DATABASE"): (
        "DB index is out of range",
        "invalid DB index",
        "SELECT is not allowed in cluster mode",
    ),
    Failure(Meaning.WRONG_SERVER, "READONLY"): ("READONLY ",),
    Failure(Meaning.WRONG_SERVER, "MASTERDOWN"): ("MASTERDOWN ",),
    Failure(Meaning.WRONG_SERVER, "CLUSTERDOWN"): ("CLUSTERDOWN ",),
    Failure(Meaning.WRONG_SERVER, "MOVED"): ("MOVED ", "ASK "),
    Failure(Meaning.REFUSED, "CROSSSLOT"): (
        "CROSSSLOT ",
        *(
            f"{subject}ttempted to access {keys}"
            for subject in ("A", "Script a", "Lua script a")
            for keys in ("a non local key", "keys that do")
        ),
    ),
    Failure(Meaning.REFUSED, "TRYAGAIN"): ("TRYAGAIN ",),
    Failure(Meaning.REFUSED, "BUSY"): ("BUSY ",),
    Failure(Meaning.REFUSED, "MISCONF"): ("MISCONF ",),
    Failure(Meaning.REFUSED, "NOREPLICAS"): ("NOREPLICAS ",),
    Failure(Meaning.REFUSED, "OOM"): ("OOM ",),
    Failure(Meaning.REFUSED, "NOPERM"): (
        "NOPERM ",
        "The user executing the script can't ",
        "ACL failure in script: ",
    ),
    Failure(Meaning.REFUSED, "UNKNOWN_COMMAND"): (
        "unknown command",
        "Unknown command called from",
        "Unknown Redis command called from",
    ),
    Failure(Meaning.REFUSED, "EXECABORT"): ("EXECABORT ",),
}
"""The beginnings of the error texts for each failure, without the text that `_WRAPPING` matches."""
