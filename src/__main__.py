"""`python -m src`: the API under uvicorn, with host, port and workers from the settings.

The exit code is 0 after a signal to stop, 1 for an invalid setting, which one line names, or for a stop that
took too long, and 3 if the API could not start.
"""

import signal
import sys
from typing import Any

import uvicorn

from src.config.settings import load_settings_or_exit
from src.server.options import longest_stop_seconds
from src.server.supervisor import supervise
from src.telemetry.logs import configure_logging


def main() -> None:
    """Serve until a signal stops the process.

    Raises:
        SystemExit: Always, with the exit code.
    """
    settings = load_settings_or_exit()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises the signal again once it has stopped
    configure_logging(settings.log_level, settings.log_format)
    options: dict[str, Any] = {
        "host": settings.app_host,
        "port": settings.app_port,
        "workers": settings.web_concurrency,
        "log_config": None,  # src.telemetry.logs configures all loggers
        "access_log": False,  # the service writes its own line for each request
        "proxy_headers": False,  # src.api.client_address reads them, according to TRUSTED_PROXIES
        "server_header": False,
    }
    if settings.web_concurrency == 1:
        uvicorn.run("src.main:app", **options)
    else:
        delay, timeout = settings.shutdown_delay_seconds, settings.shutdown_timeout_seconds
        config = uvicorn.Config("src.main:app", **options)
        sys.exit(supervise(config, longest_stop_seconds(delay, timeout)))


if __name__ == "__main__":
    main()
