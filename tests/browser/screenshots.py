"""Take the screenshots of the dashboard for the documentation: `python -m tests.browser.screenshots`.

The program starts two workers and sends some minutes of traffic to them. It takes one picture in light
colours during normal operation, and one in dark colours after the external service has begun to fail. Run it
from the root of the checkout, on a machine with a sans-serif font.
"""

import math
import random
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.browser.browser import open_page, running_chromium
from tests.support.redis_server import RedisServer
from tests.support.server import Server

IMAGES = Path("docs/images")
SIZE = {"width": 1280, "height": 960}
WARM_UP_SECONDS = 15
SECONDS = 120
FAULTS = "/api/admin/external-service/faults"


class Traffic(threading.Thread):
    """Clients that post and read with a varying rate."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._is_over = threading.Event()

    def run(self) -> None:
        chance = random.Random(7)
        began = time.monotonic()
        with httpx.Client(base_url=self._url, timeout=20) as client:
            while not self._is_over.wait(chance.uniform(0.02, 0.12)):
                wave = 1 + math.sin((time.monotonic() - began) / 9)
                now = datetime.now(UTC).isoformat()
                value = round(38 + 9 * wave + chance.gauss(0, 3), 2)
                points = [{"timestamp": now, "value": value, "type": "cpu_usage"}]
                client.post("/api/metrics/batch", json=points * round(4 + 10 * wave))
                headers = {"Cache-Control": "no-cache"} if chance.random() < 0.12 else {}
                client.get("/api/metrics/summary?type=cpu_usage&period=hourly", headers=headers)

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def main() -> None:
    """Take the screenshots."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder, running_chromium() as browser:
        redis = RedisServer(Path(folder)).start()
        plenty = dict.fromkeys(("RATE_LIMIT_REQUESTS", "RATE_LIMIT_READ_REQUESTS"), "1000000")
        server = Server(redis.url, Path(folder), **plenty)
        try:
            _take(browser, server.url)
        finally:
            server.stop()
            redis.stop()


def _take(browser: Browser, url: str) -> None:
    httpx.Client(transport=httpx.HTTPTransport(retries=8)).get(f"{url}/health").raise_for_status()
    traffic = Traffic(url)
    traffic.start()
    try:
        pages = {scheme: _open_page(browser, url, scheme) for scheme in ("light", "dark")}
        pages["light"].get_by_role("button", name="Post sample points").click()
        pages["light"].wait_for_timeout(WARM_UP_SECONDS * 1000)
        for page in pages.values():
            page.reload()
            page.locator("#types button", has_text="memory_usage").click(timeout=60_000)
        pages["light"].wait_for_timeout(SECONDS * 1000)
        _save(pages["light"], "light")
        httpx.put(f"{url}{FAULTS}", json={"failure_rate": 1.0})
        expect(pages["dark"].locator("#message")).to_contain_text("Breaker open", timeout=60_000)
        pages["dark"].wait_for_timeout(12_000)
        _save(pages["dark"], "dark")
    finally:
        traffic.stop()


def _open_page(browser: Browser, url: str, scheme: str) -> Page:
    context = browser.new_context(viewport=SIZE, color_scheme=scheme)
    return open_page(context, url)


def _save(page: Page, scheme: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=IMAGES / f"dashboard-{scheme}.png")


if __name__ == "__main__":
    main()
