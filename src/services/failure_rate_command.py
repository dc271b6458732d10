"""A command for a shell: it sets the simulated failure rate through the API on this machine."""

import os

import httpx
from dotenv import dotenv_values

_TIMEOUT_SECONDS = 5.0


def set_failure_rate(rate: float, api_url: str | None = None) -> float:
    """Set the simulated failure rate through the API on this machine, from a shell or a script.

    The function sends `ADMIN_API_KEY` if it is set. It reads that key and `APP_PORT` from the environment or
    `.env`, like the service.

    Args:
        rate: Share of calls that fail, 0 to 1.
        api_url: The URL of the API; by default loopback with `APP_PORT`.

    Returns:
        The new failure rate.

    Raises:
        RuntimeError: The API did not answer, or rejected the request.
    """
    settings = dotenv_values(".env", encoding="utf-8-sig") | {
        name: value for name, value in os.environ.items() if value
    }
    url = api_url or f"http://127.0.0.1:{settings.get('APP_PORT') or 8000}"
    key = settings.get("ADMIN_API_KEY")
    try:
        answer = httpx.put(
            f"{url}/api/admin/external-service/failure-rate",
            json={"failure_rate": rate},
            headers={"X-API-Key": key} if key else None,
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise RuntimeError(f"no API answers at {url}: {error}") from error
    if not answer.is_success:
        raise RuntimeError(f"the API at {url} rejected the request: {answer.status_code} {answer.text}")
    return float(answer.json()["failure_rate"])
