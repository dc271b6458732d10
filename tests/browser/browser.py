"""A real browser, and a record of its requests and errors."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

HTTP_ERROR = "Failed to load resource: the server responded with a status of"
"""What a browser writes to its console whenever an answer is a 4xx or a 5xx, however well it was expected."""


@contextmanager
def running_chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@dataclass
class PageRecord:
    """The requests, errors and warnings of a page."""

    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    http_errors: list[str] = field(default_factory=list)

    def follow(self, context: BrowserContext) -> None:
        context.on("request", self._note)
        context.on("console", self._add_console_message)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def forget(self) -> None:
        """Forget the expected errors."""
        self.requests.clear()
        self.complaints.clear()

    def _note(self, request: Request) -> None:
        self.requests.append(request)

    def _add_console_message(self, message: ConsoleMessage) -> None:
        if message.text.startswith(HTTP_ERROR):
            self.http_errors.append(message.text)
        elif message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def sent(self, path: str) -> list[Request]:
        return [request for request in self.requests if path in request.url]


def open_page(context: BrowserContext, url: str) -> Page:
    """Open the dashboard, and wait until it shows data of the service."""
    page = context.new_page()
    page.goto(f"{url}/dashboard")
    page.locator("#freshness[data-state=live]").wait_for()
    return page
