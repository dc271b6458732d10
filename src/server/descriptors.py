"""How many connections the process can hold beside what else it opens."""

import logging
import sys
from contextlib import suppress

RESERVED = 100
"""For Redis, the calls to others, files and the event loop."""

_log = logging.getLogger(__name__)

if sys.platform == "win32":

    def connections_that_fit(wanted: int) -> int:
        """Return `wanted`: Windows has no such limit."""
        return wanted

else:
    import resource

    def connections_that_fit(wanted: int) -> int:
        """Return how many connections the limit of open files leaves room for, but no more than `wanted`.

        The process raises its own limit where it may.
        """
        limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = wanted + RESERVED
        if limit == resource.RLIM_INFINITY or limit >= needed:
            return wanted
        raised = needed if most == resource.RLIM_INFINITY else min(needed, most)
        with suppress(OSError, ValueError):  # macOS has a further limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit >= needed:
            return wanted
        fitting = max(limit - RESERVED, limit // 2)
        _log.warning("open_files_limited", extra={"open_files": limit, "max_connections": fitting})
        return fitting
