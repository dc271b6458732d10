"""The number of connections that fit into the process' limit of open files."""

import logging
import sys
from contextlib import suppress

RESERVED = 100
"""File descriptors for Redis, outgoing calls, files and the event loop."""

_log = logging.getLogger(__name__)

if sys.platform == "win32":

    def limit_connections(max_connections: int) -> int:
        """Return `max_connections`: Windows has no such limit."""
        return max_connections

else:
    import resource

    def limit_connections(max_connections: int) -> int:
        """Return `max_connections`, or less if the limit of open files requires it.

        The process first raises its own limit of open files, if it may.
        """
        limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = max_connections + RESERVED
        if limit == resource.RLIM_INFINITY or limit >= needed:
            return max_connections
        raised = needed if hard_limit == resource.RLIM_INFINITY else min(needed, hard_limit)
        with suppress(OSError, ValueError):  # macOS has another limit below the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard_limit))
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit >= needed:
            return max_connections
        fitting = max(limit - RESERVED, limit // 2)
        _log.warning("open_files_limited", extra={"open_files": limit, "max_connections": fitting})
        return fitting
