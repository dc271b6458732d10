"""Find variables that look like settings but are not, for example misspelled settings.

In `.env`, every unknown name is reported, except names that Docker Compose, OpenTelemetry, Python or the
start script use. The environment also has the variables of other programs, so a name there is reported only
if it has a prefix of this service's settings. The prefixes `APP_`, `LOG_`, `REDIS_` and `WEB_` are not used,
because other programs use them too (`APP_ENV`, `LOG_DIR`, `REDIS_SERVICE_HOST`).

    python -m src.config.unknown_settings <.env     prints the unknown names, one per line

The start scripts also run this command in the container, which has no `.env`. Compose passes no unknown name.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import IO, NamedTuple

from dotenv import dotenv_values

from src.config.settings import ENV_FILE, ENV_FILE_ENCODING, Settings

SETTING_PREFIXES = (
    "ADMIN_API_", "BATCH_MAX_", "CACHE_INVALIDATE_", "CACHE_STALE_", "CACHE_TTL_", "CIRCUIT_BREAKER_",
    "EXTERNAL_API_", "EXTERNAL_SERVICE_", "HEAD_TIMEOUT_", "KEEP_ALIVE_", "MAX_BODY_", "MAX_CONNECTIONS",
    "MAX_HEAD_", "MAX_SERIES_", "MAX_TYPES", "METRIC_", "PROXY_CACHE_", "PROXY_CIRCUIT_BREAKER_",
    "PROXY_MAX_", "PROXY_RATE_LIMIT_", "PROXY_REQUEST_", "PROXY_UPSTREAM_", "QUEUE_MAX_", "RATE_LIMIT_",
    "REQUEST_TIMEOUT_", "SHUTDOWN_", "TRUSTED_PROXIES",
)  # fmt: skip
"""The prefixes of environment variables for this service."""

OTHER_PROGRAMS_PREFIXES = ("COMPOSE_", "DOCKER_", "OTEL_", "PIP_", "PROVIDER_PORT", "PYTHON", "VENV")
"""The prefixes of names in `.env` that other programs read."""

_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_|$)")
"""The part that Kubernetes and Docker add to the name of another service, such as `external-service`."""

_LEAST_SIMILARITY = 0.7


class UnknownSetting(NamedTuple):
    """A name that is not a setting.

    Attributes:
        name: The name.
        source: The source of the name: "environment" or ".env".
        nearest: The most similar setting; None if no setting is similar.
    """

    name: str
    source: str
    nearest: str | None


def unknown_settings(environment: Mapping[str, str], env_file: IO[str] | None = None) -> list[UnknownSetting]:
    """Return the unknown names in `.env` and in `environment`, in that order.

    Args:
        environment: The variables of the process.
        env_file: The text of `.env`; None for the file in the working directory, if there is one.
    """
    known = [name.upper() for name in Settings.model_fields]
    return [
        UnknownSetting(name, source, _nearest(name.upper(), known))
        for name, source in (*_env_file_names(env_file), *_environment_names(environment))
        if name.upper() not in known
    ]


def _nearest(name: str, known: Sequence[str]) -> str | None:
    matches = get_close_matches(name, known, 1, _LEAST_SIMILARITY)
    return matches[0] if matches else None


def _env_file_names(text: IO[str] | None) -> Iterator[tuple[str, str]]:
    if text is None:
        if not Path(ENV_FILE).is_file():
            return
        names = dotenv_values(ENV_FILE, encoding=ENV_FILE_ENCODING, interpolate=False)
    else:
        names = dotenv_values(stream=text, interpolate=False)
    for name in names:
        if not name.upper().startswith(OTHER_PROGRAMS_PREFIXES):
            yield name, ENV_FILE


def _environment_names(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(environment):
        if name.upper().startswith(SETTING_PREFIXES) and not _SERVICE_LINK.search(name.upper()):
            yield name, "environment"


def main() -> None:
    """Print the unknown names in the environment and in the text of `.env` on standard input."""
    with TextIOWrapper(sys.stdin.buffer, ENV_FILE_ENCODING) as env_file:
        for name, source, nearest in unknown_settings(os.environ, env_file):
            place = f"{name} in {source}" if source == ENV_FILE else name
            advice = f" Nearest: {nearest}." if nearest else ""
            sys.stdout.write(f"{place} is not a setting and has no effect.{advice}\n")


if __name__ == "__main__":
    main()
