"""All settings, from the environment or `.env`, with their names, defaults, ranges and meanings.

Only `main`, `__main__` and `wiring` read the settings, and build the options of other modules from them. A
test compares `.env.example` with this class.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from src.config.redis_url import MAX_DATABASE, check_host, check_redis_url, check_text, redis_url

IPNetwork = IPv4Network | IPv6Network
Seconds = Annotated[float, Field(ge=0.01, le=3600, allow_inf_nan=False)]

ENV_FILE = ".env"
ENV_FILE_ENCODING = "utf-8-sig"
"""UTF-8, with or without the byte order mark that some editors write."""

_YEAR = 365 * 24 * 3600
_MILLION = 1_000_000


class Settings(BaseSettings):
    """The service's settings. A field's name in upper case is its environment variable."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding=ENV_FILE_ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    # The server
    app_host: str = Field(
        "0.0.0.0",  # noqa: S104 -- a container must listen on all addresses
        description="Address the API listens on",
    )
    app_port: int = Field(8000, ge=1, le=65535, description="Port the API listens on")
    web_concurrency: int = Field(1, ge=1, le=64, description="Number of worker processes")
    max_connections: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Largest number of connections of a worker; beyond it, the longest idle one is closed",
    )
    max_head_bytes: int = Field(
        64 * 1024,
        ge=1024,
        le=1024**2,
        description="Largest size of a request line and its headers together, in bytes",
    )
    head_timeout_seconds: Seconds = Field(
        10.0, description="Longest time in seconds in which the request line and headers must arrive"
    )
    keep_alive_seconds: Seconds = Field(
        5.0, description="Longest time in seconds that a connection may be idle between two requests"
    )
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = Field(
        0.0,
        description="Seconds after SIGTERM in which /health/ready is 503 and connections are still accepted",
    )
    shutdown_timeout_seconds: Seconds = Field(
        10.0, description="Seconds after SHUTDOWN_DELAY_SECONDS in which running requests may end"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Least severe level that is logged"
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="json: one object per line; console: text for people"
    )
    admin_api_key: SecretStr | None = Field(
        None, description="Key for the admin endpoints (X-API-Key); empty: only direct loopback clients"
    )
    trusted_proxies: Annotated[tuple[IPNetwork, ...], NoDecode] = Field(
        (ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="Networks of proxies whose X-Forwarded-For is trusted, comma-separated; none: no proxy",
    )

    # Redis
    redis_url: SecretStr | None = Field(
        None,
        description="redis://, rediss://, unix://, or embedded:// (private server); overrides REDIS_*",
    )
    redis_host: str = Field("localhost", description="Redis host: a name or an IP address")
    redis_port: int = Field(6379, ge=1, le=65535, description="Redis port")
    redis_db: int = Field(0, ge=0, le=MAX_DATABASE, description="Redis database number")
    redis_password: SecretStr | None = Field(None, description="Redis password")
    redis_appendfsync: Literal["always", "everysec"] = Field(
        "always",
        description="When a Redis of this project syncs to disk; with everysec a crash can lose a 201",
    )

    # Metrics
    batch_max_points: int = Field(
        10_000, ge=1, le=_MILLION, description="Largest number of points in one batch"
    )
    max_body_bytes: int = Field(
        5 * 1024 * 1024, ge=1024, le=1024**3, description="Largest body in bytes, after inflation"
    )
    metric_retention_seconds: int = Field(
        0, ge=0, le=100 * _YEAR, description="Seconds for which points are kept; 0: without limit"
    )
    max_types: int = Field(10_000, ge=1, le=_MILLION, description="Largest number of metric types")
    max_series_per_type: int = Field(
        1_000, ge=1, le=65_000, description="Largest number of sets of labels of one type"
    )
    metric_max_future_seconds: int = Field(
        86_400,
        ge=0,
        le=366 * 86_400,
        description="Seconds by which a timestamp may be ahead of the server's clock",
    )

    # The summary cache
    cache_ttl_seconds: int = Field(
        300, ge=1, le=_YEAR, description="Seconds for which a summary is served from the cache"
    )
    cache_stale_seconds: int = Field(
        3600,
        ge=0,
        le=_YEAR,
        description="Largest age in seconds of a summary that is served while the external service fails",
    )
    cache_invalidate_on_write: bool = Field(
        default=False, description="Whether a new point drops its type's cached summaries"
    )

    # Rate limits
    rate_limit_requests: int = Field(
        10, ge=1, le=_MILLION, description="Ingest requests of a client per window"
    )
    rate_limit_read_requests: int = Field(
        120, ge=1, le=_MILLION, description="Read requests of a client per window"
    )
    rate_limit_window_seconds: int = Field(60, ge=1, le=_YEAR, description="Length of the window in seconds")
    rate_limit_algorithm: Literal[
        "sliding_window_log", "sliding_window_counter", "fixed_window", "token_bucket", "leaky_bucket"
    ] = Field("sliding_window_log", description="Algorithm of the rate limiter")
    rate_limit_without_redis: Literal["open", "local", "closed"] = Field(
        "open",
        description="Without Redis: open: no limits; local: each worker applies its share; closed: 503",
    )

    # The external service and the policies around its calls
    external_service_url: HttpUrl | None = Field(
        None, description="URL of the external service; empty: the simulated service in this process"
    )
    external_service_failure_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Initial share of calls for which the simulated external service fails",
    )
    external_service_timeout: Seconds = Field(5.0, description="Longest time in seconds of each attempt")
    external_service_attempts: int = Field(
        3, ge=1, le=20, description="Largest number of attempts for each call"
    )
    external_service_rate_per_second: int = Field(
        50, ge=1, le=_MILLION, description="Calls per second of each worker; further calls wait"
    )
    external_service_max_concurrency: int = Field(
        20, ge=1, le=10_000, description="Concurrent calls of each worker; further calls wait"
    )
    circuit_breaker_failure_threshold: int = Field(
        5, ge=1, le=_MILLION, description="Consecutive failures that open the circuit breaker"
    )
    circuit_breaker_reset_timeout: Seconds = Field(
        30.0, description="Seconds the circuit breaker stays open before a probe"
    )

    # The internal proxy
    proxy_upstream_url: HttpUrl | None = Field(
        None, description="URL of the upstream of /proxy/, with its base path; empty: the external service"
    )
    proxy_rate_limit_seconds: Seconds = Field(
        1.0, description="Least time in seconds between two calls of the upstream, over all workers"
    )
    queue_max_size: int = Field(
        100, ge=1, le=100_000, description="Largest number of calls in the proxy's queue, over all workers"
    )
    proxy_request_timeout_seconds: Seconds = Field(
        60.0, description="Longest time in seconds until the answer to a request to the proxy begins"
    )
    proxy_upstream_timeout: Seconds = Field(
        10.0, description="Longest time in seconds of a call of the upstream, to the end of its answer"
    )
    proxy_max_body_bytes: int = Field(
        10 * 1024 * 1024, ge=1024, le=1024**3, description="Longest answer in bytes that the proxy passes on"
    )
    proxy_cache_ttl_seconds: int = Field(
        60, ge=1, le=_YEAR, description="Longest time in seconds that a copy of an upstream's answer is fresh"
    )
    proxy_circuit_breaker_fail_max: int = Field(
        3, ge=1, le=_MILLION, description="Consecutive failures that open the proxy's circuit breaker"
    )
    proxy_circuit_breaker_reset_timeout: Seconds = Field(
        30.0, description="Seconds the proxy's circuit breaker stays open before a probe"
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.strip().lower() == "none":
            return ()
        return tuple(ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip())

    @field_validator("redis_url", mode="before")
    @classmethod
    def _check_redis_url(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        check_redis_url(url := value.strip())
        return url

    @field_validator("redis_host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        host = re.sub(r"^\[(.*)\]$", r"\1", value.strip())
        check_host(host)
        return host

    @field_validator("redis_password")
    @classmethod
    def _check_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_text(value.get_secret_value())
        return value

    @field_validator("admin_api_key")
    @classmethod
    def _check_admin_key(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value() if value else ""
        if value is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
            raise ValueError("must be printable ASCII without blanks around it")
        return value

    @property
    def redis_address(self) -> str:
        """The URL of Redis, or `embedded://`. It contains the password, so it must not be logged."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        password = self.redis_password.get_secret_value() if self.redis_password else ""
        return redis_url(self.redis_host, self.redis_port, self.redis_db, password)


class InvalidSettingsError(Exception):
    """A setting has an invalid value. The message is one line that names the variable."""


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        InvalidSettingsError: A variable has an invalid value.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()]
        raise InvalidSettingsError("Invalid setting " + "; ".join(faults)) from None
    except UnicodeDecodeError:
        raise InvalidSettingsError("Invalid settings: .env is not UTF-8") from None


def load_settings_or_exit() -> Settings:
    """Read the settings.

    Raises:
        SystemExit: A variable has an invalid value. The message is one line that names the variable.
    """
    try:
        return load_settings()
    except InvalidSettingsError as error:
        raise SystemExit(str(error)) from None
