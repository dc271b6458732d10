"""`python -m src`: the API under uvicorn, with host, port and workers from the settings."""

import os
from tempfile import TemporaryDirectory

import uvicorn

from src.config.settings import InvalidSettingsError, Settings, load_settings
from src.telemetry.logs import configure_logging
from src.telemetry.prometheus import MULTIPROC_DIR


def main() -> None:
    """Serve until told to stop."""
    try:
        settings = load_settings()
    except InvalidSettingsError as error:
        raise SystemExit(str(error)) from None
    configure_logging(settings.log_level, settings.log_format)
    if settings.web_concurrency == 1 or MULTIPROC_DIR in os.environ:
        _serve(settings)
        return
    with TemporaryDirectory(prefix="resilient-analytics-") as folder:
        os.environ[MULTIPROC_DIR] = folder  # where the workers share their metrics
        _serve(settings)


def _serve(settings: Settings) -> None:
    uvicorn.run(
        "src.main:app",
        host=settings.app_host,
        port=settings.app_port,
        workers=settings.web_concurrency,
        log_config=None,  # src.telemetry.logs says how everything is logged
        access_log=False,  # and the service writes its own line for each request
        proxy_headers=False,  # TRUSTED_PROXIES decides, in src.api.client_address
        server_header=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
