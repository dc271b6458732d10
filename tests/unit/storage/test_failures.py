"""The table of failures, with the error texts of Redis 6.2.14, Redis 7.0.15 and Valkey 9.1.2."""

import socket
import ssl

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from src.resilience.redis import failures
from src.resilience.redis.failures import Meaning, failure_of, reason_of, reply_error
from src.storage.redis import advice
from src.storage.redis.advice import advice_on

IN_A_SCRIPT = (
    "{}",
    "ERR Error running script (call to f_756928dd1246249109cfe8475bfa267e967ea948): @user_script:1: {}",
    "@user_script: 1: {}",
    "ERR Error running script (call to f_7569): @user_script:1: @user_script: 1: {}",
    "ERR Error running script (call to f_7569): @user_script:1: user_script:258: @user_script: 258: {}",
    "ERR user_script:258: {}",
    "ERR user_script:258: ERR {}",
)
"""What stands before an error that a script met, or raised again."""

REPLIES = {
    ("MISTAKE", "ERR"): [
        "WRONGTYPE Operation against a key holding the wrong kind of value script: on @user_script:1.",
        "ERR user_script:1: attempt to perform arithmetic on a nil value script: on @user_script:1.",
        "ERR user_script:1: WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR user_script:70: a foreign value stands in place of a record",
        "ERR wrong number of arguments for 'get' command",
        "ERR value is not an integer or out of range",
        "BUSYKEY Target key name already exists.",
        "ERR syntax error near 'READONLY '",
    ],
    ("UNAVAILABLE", "NOAUTH"): ["NOAUTH Authentication required."],
    ("UNAVAILABLE", "WRONGPASS"): [
        "WRONGPASS invalid username-password pair or user is disabled.",
        "ERR invalid password",
    ],
    ("UNAVAILABLE", "NO_PASSWORD_SET"): [
        "ERR AUTH <password> called without any password configured for the default user. Are you sure …"
    ],
    ("UNAVAILABLE", "PROTECTED_MODE"): ["DENIED Redis is running in protected mode because …"],
    ("UNAVAILABLE", "MAX_CLIENTS"): ["ERR max number of clients reached"],
    ("UNAVAILABLE", "LOADING"): ["LOADING Redis is loading the dataset in memory"],
    ("UNAVAILABLE", "NO_SUCH_DATABASE"): [
        "ERR DB index is out of range",
        "ERR invalid DB index",
        "ERR SELECT is not allowed in cluster mode",
    ],
    ("WRONG_SERVER", "READONLY"): [
        *(text.format("-READONLY You can't write against a read only replica.") for text in IN_A_SCRIPT),
        "READONLY You can't write against a read only replica. script: on @user_script:1.",
    ],
    ("WRONG_SERVER", "MASTERDOWN"): ["MASTERDOWN Link with MASTER is down and replica-serve-stale-data is …"],
    ("WRONG_SERVER", "CLUSTERDOWN"): ["CLUSTERDOWN Hash slot not served", "CLUSTERDOWN The cluster is down"],
    ("WRONG_SERVER", "MOVED"): ["MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381"],
    ("REFUSED", "CROSSSLOT"): [
        "CROSSSLOT Keys in request don't hash to the same slot",
        "ERR Attempted to access a non local key in a cluster node script: on @user_script:1.",
        "ERR Script attempted to access a non local key in a cluster node script: b0, on @user_script:1.",
        *(text.format("Lua script attempted to access a non local key in a …") for text in IN_A_SCRIPT),
    ],
    ("REFUSED", "TRYAGAIN"): ["TRYAGAIN Multiple keys request during rehashing of slot"],
    ("REFUSED", "BUSY"): ["BUSY Valkey is busy running a script. You can only call SCRIPT KILL or …"],
    ("REFUSED", "MISCONF"): [
        "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to …",
        *(text.format("-MISCONF Errors writing to the AOF file: No space left") for text in IN_A_SCRIPT),
    ],
    ("REFUSED", "NOREPLICAS"): ["NOREPLICAS Not enough good replicas to write."],
    ("REFUSED", "OOM"): [
        "OOM command not allowed when used memory > 'maxmemory'. script: on @user_script:1.",
        *(text.format("-OOM command not allowed when used memory > 'maxmemory'.") for text in IN_A_SCRIPT),
    ],
    ("REFUSED", "NOPERM"): [
        "NOPERM User t has no permissions to run the 'set' command",
        "NOPERM No permissions to access a key",
        "ERR ACL failure in script: User t has no permissions to run the 'set' command script: on @u…",
        "ERR The user executing the script can't run this command or subcommand script: 7569, on @u…",
        *(
            text.format("The user executing the script can't access at least one of the keys mentioned in …")
            for text in IN_A_SCRIPT
        ),
        "EXECABORT Transaction discarded because of: NOPERM User t has no permissions to run …",
    ],
    ("REFUSED", "UNKNOWN_COMMAND"): [
        "ERR unknown command 'EVALSHA', with args beginning with: '00' '0' ",
        "ERR unknown command `EVALSHA`, with args beginning with: `00`, `0`, ",
        *(text.format("Unknown command called from script script: on @user_…") for text in IN_A_SCRIPT),
        *(text.format("Unknown Redis command called from script script: 1, …") for text in IN_A_SCRIPT),
        *(text.format("Unknown Redis command called from Lua script") for text in IN_A_SCRIPT),
    ],
    ("REFUSED", "EXECABORT"): ["EXECABORT Transaction discarded because of previous errors."],
}  # fmt: skip


@pytest.mark.parametrize(
    ("meaning", "code", "text"),
    [(*expected, text.lstrip("-")) for expected, texts in REPLIES.items() for text in texts],
)
def test_error_replies_of_all_servers_are_classified_the_same(meaning, code, text):
    failure = failure_of(reply_error(text))
    assert (failure.meaning.name, failure.code) == (meaning, code)
    assert advice_on(failure).endswith(".")


@pytest.mark.parametrize("meaning", Meaning)
def test_only_an_error_of_the_whole_server_ends_the_connection(meaning):
    for (name, _), texts in REPLIES.items():
        if name == meaning.name:
            ended = {isinstance(reply_error(text.lstrip("-")), RedisConnectionError) for text in texts}
            assert ended == {meaning is Meaning.UNAVAILABLE}


def test_an_unknown_script_must_be_sent_with_its_text():
    assert isinstance(reply_error("NOSCRIPT No matching script."), NoScriptError)


def redis_py_connection_error(cause):
    """Return a connection error of redis-py with `error` as its cause."""
    try:
        raise cause
    except type(cause):
        error = RedisConnectionError("Error connecting to redis:6379.")
        try:
            raise error
        except RedisConnectionError:
            return error


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "DNS"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "CONNECTION_REFUSED"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), [Errno 111] …"),
            "CONNECTION_REFUSED",
        ),
        (FileNotFoundError(2, "No such file or directory"), "NO_SOCKET"),
        (PermissionError(13, "Permission denied"), "FORBIDDEN"),
        (OSError(24, "Too many open files"), "TOO_MANY_OPEN_FILES"),
        (OSError(101, "Network is unreachable"), "UNREACHABLE"),
        (ConnectionResetError(104, "Connection reset by peer"), "CONNECTION_LOST"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "TLS"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "TLS"),
        (TimeoutError(), "TIMEOUT"),
        (RedisTimeoutError("Timeout connecting to server"), "TIMEOUT"),
        (ResponseError("ERR DB index is out of range"), "NO_SUCH_DATABASE"),
        (ResponseError("NOPERM User t has no permissions to run the 'select' command"), "NOPERM"),
        (RedisConnectionError('Protocol error, got "H" as reply type byte'), "NOT_REDIS"),
    ],
)
def test_the_cause_of_a_connection_error_of_redis_py_is_found(cause, code):
    failure = failure_of(redis_py_connection_error(cause))
    assert (failure.meaning, failure.code) == (Meaning.UNAVAILABLE, code)


def test_an_unknown_error_ends_the_connection_and_is_reported():
    error = RedisConnectionError("boom")
    error.__cause__ = MemoryError()
    failure = failure_of(error)
    assert (failure.meaning, failure.code) == (Meaning.UNAVAILABLE, "ConnectionError")


def test_every_failure_of_the_table_has_advice():
    known = {*failures._BY_START, *failures._BY_NUMBER, failures._DNS, failures._TLS}
    assert {failure.code for failure in known} | {"ERR"} == advice._ADVICE.keys()


def test_the_arguments_of_an_unknown_command_are_not_logged():
    message = "ERR unknown command `AUTH`, with args beginning with: `default`, `hunter2`, "
    assert reason_of(reply_error(message)) == "ERR unknown command `AUTH`"
