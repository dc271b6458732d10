"""What an operator can do about a failure of Redis: a sentence for each code of the table of failures."""

from src.resilience.redis.failures import Failure


def advice_on(failure: Failure) -> str:
    """Return what an operator can do about `failure`, for the log."""
    return _ADVICE.get(failure.code, "See the reason.")


_ADVICE = {
    "ERR": "Look for a defect of this service, or a value of another program.",
    "TIMEOUT": "Check whether Redis is busy or frozen, takes TLS if the address is rediss://, and "
    "the network.",
    "DNS": "Check the host in REDIS_URL or REDIS_HOST, and the name server.",
    "TLS": "Check that the server takes TLS (else use redis://), its certificate and ssl_ca_certs.",
    "CONNECTION_LOST": "Check whether Redis was stopped or restarted, or takes only TLS (rediss://).",
    "CONNECTION_REFUSED": "Start Redis at this address, or correct host and port.",
    "NO_SOCKET": "Start Redis, or correct the path of its unix socket.",
    "FORBIDDEN": "Give this process the right to open the socket.",
    "TOO_MANY_OPEN_FILES": "Raise this process' limit of open files (ulimit -n).",
    "UNREACHABLE": "Check the address, the network and the firewall.",
    "NOT_REDIS": "Correct the address: no Redis answers there, or one that takes only TLS (rediss://).",
    "NOAUTH": "Set REDIS_PASSWORD, or put user and password into REDIS_URL.",
    "WRONGPASS": "Correct user and password in REDIS_URL or REDIS_PASSWORD.",
    "NO_PASSWORD_SET": "Leave out the password, or set one on the server (requirepass).",
    "PROTECTED_MODE": "Set a password on the server, or turn its protected mode off.",
    "MAX_CLIENTS": "Raise `maxclients` on the server, or run fewer workers.",
    "LOADING": "Wait until Redis has read its data.",
    "NO_SUCH_DATABASE": "Choose a database that the server has (its setting `databases`); "
    "a cluster has only 0.",
    "READONLY": "Point the address to the primary: a replica answers there.",
    "MASTERDOWN": "Point the address to the primary, or connect the replica to it.",
    "CLUSTERDOWN": "Assign every slot of the cluster, and start its nodes.",
    "MOVED": "Use a Redis that is no cluster: this address is a node that does not serve every key.",
    "CROSSSLOT": "Use a Redis that is no cluster: one script needs keys of several slots.",
    "TRYAGAIN": "Wait until the slot has been moved.",
    "BUSY": "End the script or function that keeps Redis busy (SCRIPT KILL).",
    "MISCONF": "Give Redis a disk that it can save to, and look into its log.",
    "NOREPLICAS": "Start replicas, or lower min-replicas-to-write.",
    "OOM": "Raise `maxmemory`, delete metrics, or set a retention (METRIC_RETENTION_SECONDS).",
    "NOPERM": "Grant the service's user the commands and keys it uses (ACL SETUSER).",
    "UNKNOWN_COMMAND": "Give the command its name back (rename-command), and check that "
    "this is Redis 6.2 or later.",
    "EXECABORT": "See the refusals that were logged before.",
}
