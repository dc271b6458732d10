"""The API: `uvicorn src.main:app`."""

import gc

from src.config.settings import load_settings_or_exit
from src.server.options import ServerOptions
from src.server.server import install
from src.wiring import create_app

settings = load_settings_or_exit()
install(
    ServerOptions(
        max_connections=settings.max_connections,
        max_head_bytes=settings.max_head_bytes,
        head_timeout_seconds=settings.head_timeout_seconds,
        keep_alive_seconds=settings.keep_alive_seconds,
        shutdown_delay_seconds=settings.shutdown_delay_seconds,
        shutdown_timeout_seconds=settings.shutdown_timeout_seconds,
    )
)
app = create_app()

gc.collect()
gc.freeze()  # these objects are permanent, and each full collection would examine all of them again
