"""`python -m src`: the API under uvicorn, with host, port and workers from the settings."""

import uvicorn

from src.config.settings import InvalidSettingsError, load_settings


def main() -> None:
    """Serve until told to stop."""
    try:
        settings = load_settings()
    except InvalidSettingsError as error:
        raise SystemExit(str(error)) from None
    uvicorn.run(
        "src.main:app",
        host=settings.app_host,
        port=settings.app_port,
        workers=settings.web_concurrency,
        log_config=None,  # src.telemetry.logs says how everything is logged
        access_log=False,  # and the service writes its own line for each request
        proxy_headers=False,  # TRUSTED_PROXIES decides, in src.api.middleware.client_address
        server_header=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
