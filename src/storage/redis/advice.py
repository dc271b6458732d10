"""Advice for operators: what to do about each failure of Redis, by its code."""

from src.resilience.redis.failures import Failure


def advice_on(failure: Failure) -> str:
    """Return the advice to an operator about `failure`."""
    return _ADVICE.get(failure.code, "Read the reason.")


_ADVICE = {
    "ERR": "Report a defect of this service, or remove the value that another program stored under the key.",
    "TIMEOUT": "Check whether Redis is busy or frozen. Check the network. If the address is rediss://, "
    "check that the server uses TLS.",
    "DNS": "Check the host in REDIS_URL or REDIS_HOST, and the name server.",
    "TLS": "Check the server's certificate and ssl_ca_certs. If the server does not use TLS, use redis://.",
    "CONNECTION_LOST": "Check whether Redis was stopped or restarted. If the server requires TLS, use rediss://.",
    "CONNECTION_REFUSED": "Start Redis at this address, or correct host and port.",
    "NO_SOCKET": "Start Redis, or correct the path of its unix socket.",
    "FORBIDDEN": "Allow this process to open the socket.",
    "TOO_MANY_OPEN_FILES": "Raise the limit of open files for this process (ulimit -n).",
    "UNREACHABLE": "Check the address, the network and the firewall.",
    "NOT_REDIS": "Correct the address: the server is not Redis. If the server requires TLS, use rediss://.",
    "NOAUTH": "Set REDIS_PASSWORD, or put user and password into REDIS_URL.",
    "WRONGPASS": "Correct user and password in REDIS_URL or REDIS_PASSWORD.",
    "NO_PASSWORD_SET": "Remove the password from the settings, or set one on the server (requirepass).",
    "PROTECTED_MODE": "Set a password on the server, or turn off its protected mode.",
    "MAX_CLIENTS": "Raise `maxclients` on the server, or run fewer workers.",
    "LOADING": "Wait until Redis has read its data.",
    "NO_SUCH_DATABASE": "Choose an existing database (the server's setting `databases`). A cluster has only "
    "database 0.",
    "READONLY": "Set the address to that of the primary: this server is a replica.",
    "MASTERDOWN": "Set the address to that of the primary, or reconnect the replica to the primary.",
    "CLUSTERDOWN": "Assign every slot of the cluster, and start its nodes.",
    "MOVED": "Use a Redis that is not a cluster: this node does not serve all keys.",
    "CROSSSLOT": "Use a Redis that is not a cluster: one script needs keys of several slots.",
    "TRYAGAIN": "Wait until the cluster has moved the slot.",
    "BUSY": "End the script or function that keeps Redis busy (SCRIPT KILL).",
    "MISCONF": "Check the server's log, and that Redis can write to its disk.",
    "NOREPLICAS": "Start replicas, or lower min-replicas-to-write.",
    "OOM": "Raise `maxmemory`, delete metrics, or set a retention (METRIC_RETENTION_SECONDS).",
    "NOPERM": "Grant the service's user the commands and keys that it uses (ACL SETUSER).",
    "UNKNOWN_COMMAND": "Remove the rename-command setting, and check that the server is Redis 6.2 or later.",
    "EXECABORT": "Read the refusals that were logged before this one.",
}
