"""The operator's page in a real browser with a real API: its display, its controls and its cost."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest

pytest.importorskip("playwright", reason="there is no playwright here")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.browser import open_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

expect.set_options(timeout=20_000)

OPEN = "/api/admin/circuit-breaker/open"
CLOSE = "/api/admin/circuit-breaker/close"
NOTHING = "\N{EN DASH}"


@pytest.fixture(scope="module")
def formats(browser, server):
    """Return the functions of the page's module `format.js`."""
    with browser.new_context() as context:
        page = open_page(context, server.url)
        yield page.evaluate_handle(f"import('{server.url}/dashboard/format.js')")


def number_in(page: Page, place: str) -> float:
    return float(re.sub(r"[^\d.]", "", page.locator(place).inner_text()) or 0)


def points(count: int, kind: str = "cpu_usage") -> list[dict[str, object]]:
    now = datetime.now(UTC)
    return [
        {"timestamp": (now - timedelta(seconds=place)).isoformat(), "value": place % 7 + 1, "type": kind}
        for place in range(count)
    ]


class TestDisplay:
    def test_the_page_opens_with_a_healthy_status_and_a_strict_policy(self, page, record):
        expect(page.locator("#message")).to_have_text("All well")
        expect(page).to_have_title("All well | Resilient Analytics")
        expect(page.locator("#redis-chip")).to_have_text("connected")
        expect(page.locator("#events-chip")).to_have_text("live")
        policy = record.sent("/dashboard")[0].response().header_value("content-security-policy")
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert record.http_errors == []

    def test_the_policy_is_enforced(self, page, record):
        with page.expect_console_message():
            blocked = page.evaluate(
                """() => new Promise((resolve) => {
                    addEventListener("securitypolicyviolation", (event) => resolve(event.violatedDirective));
                    document.createElement("img").src = "https://elsewhere.example/pixel.png";
                })"""
            )
        assert blocked == "img-src"
        record.forget()

    def test_stored_points_change_the_numbers(self, page, api):
        assert api.post("/api/metrics/batch", json=points(400)).status_code == 201
        expect(page.locator("#points")).not_to_have_text(re.compile(f"^(0|{NOTHING})$"))
        first = page.locator("#types li").first
        expect(first.locator(".name")).to_contain_text("cpu_usage")
        expect(first.locator(".count")).to_have_text("400 points")
        expect(first.locator(".spark .stroke")).not_to_have_count(0)
        expect(page.locator("#series-caption")).to_contain_text("400 points, average 4, from 1 to 7")

    def test_a_type_and_a_range_can_be_chosen(self, page, api):
        api.post("/api/metrics/batch", json=points(5, "alpha") + points(9, "beta"))
        page.reload()
        page.locator("#types button", has_text="beta").click()
        expect(page.locator("#series-caption")).to_contain_text("beta, last hour: 9 points")
        page.locator("#range label", has_text="15 min").click()
        expect(page.locator("#series-caption")).to_contain_text("beta, last 15 minutes: 9 points")

    def test_many_types_can_be_searched(self, page, api):
        for place in range(0, 12, 4):
            api.post("/api/metrics/batch", json=[points(1, f"sensor/{place + n}")[0] for n in range(4)])
        page.reload()
        expect(page.locator("#types-more")).to_have_text("and 4 more types")
        page.locator("#find-type").fill("SENSOR/11")
        expect(page.locator("#types li")).to_have_count(1)
        expect(page.locator("#types .name")).to_contain_text("sensor/11")

    def test_an_open_breaker_is_shown_at_the_top_and_in_the_events(self, page, api):
        api.post(OPEN)
        expect(page.locator("#truth")).to_have_attribute("data-level", "critical")
        expect(page.locator("#message")).to_contain_text("Breaker forced open")
        expect(page.locator("#announcement")).to_contain_text("Breaker forced open")
        expect(page.locator("#breaker-state")).to_have_text("Open")
        expect(page.locator("#transitions li").first).to_contain_text("closed → open")
        expect(page.locator("#events li").first).to_contain_text("CLOSED → OPEN")
        api.post(CLOSE)
        expect(page.locator("#message")).to_have_text("All well")
        expect(page.locator("#breaker-state")).to_have_text("Closed")

    def test_an_open_breaker_shows_the_time_until_its_probe(self, page, api):
        api.put("/api/admin/external-service/failure-rate", json={"failure_rate": 1})
        api.get("/invoke_error?count=5")
        words = page.locator("#breaker-words")
        expect(words).to_have_text(re.compile(r"Lets one call through in \d+ s"))
        before = number_in(page, "#breaker-words")
        expect(words).not_to_have_text(words.inner_text())
        assert number_in(page, "#breaker-words") < before

    def test_a_paused_queue_is_shown_as_paused(self, page):
        def hold(route):
            answer = route.fetch()
            overview = answer.json()
            overview["proxy"] |= {"queue_size": 3, "next_turn_seconds": 42.0}
            route.fulfill(response=answer, json=overview)

        page.route("**/api/overview", hold)
        expect(page.locator("#proxy-chip")).to_have_text("held for 42 s")
        page.unroute("**/api/overview")
        expect(page.locator("#proxy-chip")).to_have_text("empty")

    def test_the_events_can_be_paused(self, page, api):
        page.get_by_role("button", name="Pause").click()
        api.post(OPEN)
        expect(page.locator("#breaker-state")).to_have_text("Open")
        expect(page.locator("#events li")).to_have_count(0)
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#events li")).not_to_have_count(0)

    @pytest.mark.parametrize(
        ("written", "shown"),
        [
            ("number(null)", NOTHING), ("number(0)", "0"), ("number(0.1234)", "0.12"), ("number(9.96)", "10"),
            ("number(123.6)", "124"), ("number(9999)", "9,999"), ("number(56123)", "56.1 k"),
            ("number(-2500000)", "-2.5 M"), ("percent(0.934)", "93 %"), ("percent(0.0042)", "0.4 %"),
            ("percent(null)", NOTHING), ("milliseconds(0.4)", "0.4 ms"), ("milliseconds(5002)", "5 s"),
            ("duration(59.6)", "1 min 00 s"),
            ("duration(185)", "3 min 05 s"), ("duration(7800)", "2 h 10 min"), ("bytes(1023)", "1,023 B"),
            ("bytes(1834567)", "1.7 MiB"), ("counted(1, 'point')", "1 point"),
            ("counted(1200, 'point')", "1,200 points"),
        ],
    )  # fmt: skip
    def test_numbers_are_formatted_for_readers(self, written, shown, formats):
        assert formats.evaluate(f"(formats) => formats.{written}") == shown


class TestControls:
    def test_sample_points_are_stored(self, page):
        page.get_by_role("button", name="Post sample points").click()
        expect(page.locator("#sample-result")).to_have_text("✓ 360 points stored")
        expect(page.locator("#types li")).to_have_count(3)

    def test_the_failure_rate_and_latency_of_the_provider_can_be_set(self, page, api):
        page.locator("#failure-rate").focus()
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        expect(page.locator("#failure-rate-shown")).to_have_text("6 %")
        page.locator("#latency").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(page.locator("#faults-result")).to_have_text("✓ Fails 6 % of calls, delays each by 50 ms")
        assert api.get("/api/admin/external-service/faults").json() == {
            "failure_rate": 0.06,
            "latency_ms": 50,
        }
        expect(page.locator("#provider-failure-rate")).to_have_text("6 %")
        api.put("/api/admin/external-service/failure-rate", json={"failure_rate": 0.5})
        expect(page.locator("#failure-rate-shown")).to_have_text("50 %")

    def test_the_breaker_is_opened_and_closed(self, page):
        page.get_by_role("button", name="Force open").click()
        expect(page.locator("#message")).to_contain_text("Breaker forced open")
        page.get_by_role("button", name="Close and reset").click()
        expect(page.locator("#message")).to_have_text("All well")

    def test_the_proxy_changes_its_policy(self, page, api):
        page.locator("#policy label", has_text="Priority").click()
        expect(page.locator("#policy-result")).to_contain_text("✓")
        expect(page.locator("#proxy-policy-now")).to_have_text("Priority")
        page.locator("#policy label", has_text="First in, first out").click()
        expect(page.locator("#proxy-policy-now")).to_have_text("First in, first out")

    def test_a_load_test_counts_every_request_including_rejected_ones(self, context, start_server, record):
        page = open_page(context, start_server().url)
        page.locator("#load-target").select_option(label="Ingest, from this browser")
        page.locator("#load-amount").fill("25")
        page.get_by_role("button", name="Run", exact=True).click()
        tally = page.locator("#load-tally")
        expect(tally).to_contain_text("p95")
        rows = dict(row.split("\t") for row in tally.locator("tr").all_inner_texts())
        assert rows["201 Created"] == "10"
        assert rows["429 Too Many Requests"] == "15"
        assert len(record.sent("/api/metrics")) >= 25

    def test_a_stress_test_shows_its_progress_and_result(self, page):
        page.locator("#load-amount").fill("2")
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.locator("#load-bar")).not_to_have_js_property("value", 0)
        expect(page.get_by_role("button", name="Run", exact=True)).to_be_disabled()
        expect(page.locator("#load-tally")).to_contain_text("Succeeded")
        expect(page.locator("#load-progress")).to_be_hidden()
        expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()

    def test_a_load_test_shows_that_an_open_breaker_answers_at_once_and_counts_its_calls(self, page, api):
        api.post(OPEN)
        page.locator("#load-amount").fill("2")
        page.locator("#load-concurrency").fill("50")
        page.get_by_role("button", name="Run", exact=True).click()
        tally = page.locator("#load-tally")
        expect(tally).to_contain_text("Rejected after the limiter: p50")
        rows = dict(row.split("\t") for row in tally.locator("tr").all_inner_texts())
        assert rows["Rejected after the limiter: p50"].endswith(" ms")
        expect(page.locator("#lab-calls")).not_to_have_text(re.compile(f"^(0|{NOTHING})$"))
        api.post(CLOSE)

    def test_a_load_test_can_be_stopped(self, page):
        page.locator("#load-amount").fill("60")
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(page.locator("#load-result")).to_have_text("✕ Stopped, so there is no result")
        expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


class TestAdminKey:
    KEY = "open sesame"

    def test_the_key_is_requested_once_and_kept_for_the_tab(self, context, start_server, record):
        server = start_server(ADMIN_API_KEY=self.KEY)
        page = open_page(context, server.url)
        dialog = page.locator("#key-dialog")
        assert not dialog.is_visible()  # reading needs no key

        page.get_by_role("button", name="Force open").click()
        expect(page.locator("#key-reason")).to_have_text("This needs the service's admin key.")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.locator("#breaker-result")).to_have_text("✕ Nothing was changed: there is no admin key")

        page.get_by_role("button", name="Force open").click()
        page.locator("#key-input").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-reason")).to_have_text("The service rejected that key.")
        page.locator("#key-input").fill("schlüssel")
        page.get_by_role("button", name="Use key").click()
        expect(dialog).to_be_visible()  # a header cannot contain that
        page.locator("#key-input").fill(self.KEY)
        page.get_by_role("button", name="Use key").click()
        expect(page.locator("#breaker-state")).to_have_text("Open")
        assert page.evaluate("document.activeElement.id") == "breaker-open"

        page.reload()
        page.get_by_role("button", name="Close and reset").click()
        expect(page.locator("#breaker-state")).to_have_text("Closed")
        assert not dialog.is_visible()
        assert page.evaluate("localStorage.length") == 0
        assert not [request for request in record.requests if "sesame" in request.url]
        assert all(
            urlsplit(request.url).path.startswith("/api/admin")
            for request in record.requests
            if "x-api-key" in request.headers
        )

        page.get_by_role("button", name="Admin key").click()
        page.get_by_role("button", name="Forget the key").click()
        page.get_by_role("button", name="Force open").click()
        expect(dialog).to_be_visible()

    def test_without_a_key_set_a_remote_client_gets_instructions(self, page, api):
        page.route("**/api/admin/**", lambda route: route.continue_(headers={"X-Forwarded-For": "192.0.2.1"}))
        for name in ("Force open", "Close and reset"):
            page.get_by_role("button", name=name).click()
            expect(page.get_by_role("dialog", name="Admin key")).to_be_visible()
            expect(page.locator("#key-reason")).to_contain_text("Set ADMIN_API_KEY, restart the service")
            page.keyboard.press("Escape")
            expect(page.locator("#breaker-result")).to_have_text(
                "✕ Nothing was changed: there is no admin key"
            )


class TestFollowedLog:
    def test_the_log_scrolls_to_its_end_and_loads_from_no_other_host(self, context, server, api, record):
        page = context.new_page()
        page.goto(f"{server.url}/logs?follow=true", wait_until="commit")
        for _ in range(40):
            api.post(OPEN)
            api.post(CLOSE)
        expect(page.locator("pre")).to_contain_text("forced", timeout=20_000)
        page.wait_for_function(
            """() => {
                const main = document.querySelector("main");
                return main.scrollHeight > main.clientHeight + 100 && Math.abs(main.scrollTop) < 2;
            }"""
        )
        page.set_viewport_size({"width": 800, "height": 300})
        last = page.evaluate("document.querySelector('pre').getBoundingClientRect().bottom")
        assert abs(last - 300) < 2  # the newest line is visible
        assert {urlsplit(request.url).path for request in record.requests} == {
            "/logs", "/dashboard/logs.css",
        }  # fmt: skip


class TestFailures:
    def test_a_service_that_does_not_respond_is_not_shown_as_healthy(self, page):
        expect(page.locator("#message")).to_have_text("All well")
        page.route("**/api/overview", lambda route: None)  # this server never answers
        expect(page.locator("#freshness-words")).to_have_text(re.compile(r"data is \d+ s old"))
        expect(page.locator("#truth")).to_have_attribute("data-level", "unknown")
        expect(page.locator("#message")).to_contain_text("Last status: All well")
        page.unroute("**/api/overview")
        expect(page.locator("#freshness-words")).to_have_text("live")
        expect(page.locator("#message")).to_have_text("All well")

    def test_a_spent_read_quota_is_shown_and_the_page_waits(self, context, start_server, record):
        server = start_server(RATE_LIMIT_READ_REQUESTS="1")
        page = open_page(context, server.url)
        while httpx.get(f"{server.url}/api/dashboard/types").status_code == 200:
            pass
        page.locator("#range label", has_text="6 h").click()
        expect(page.locator("#metrics-note")).to_contain_text("quota for pages of this address is used up")
        asked = len(record.sent("/api/dashboard/types"))
        page.locator("#range label", has_text="1 h").click()
        page.wait_for_timeout(500)
        assert len(record.sent("/api/dashboard/types")) == asked
        expect(page.locator("#freshness-words")).to_have_text("live")  # the overview is not limited

    def test_every_part_shows_an_outage_of_redis_and_its_end(self, context, own_redis, start_server):
        page = open_page(context, start_server(own_redis).url)
        expect(page.locator("#events-chip")).to_have_text("live")
        own_redis.freeze()
        expect(page.locator("#message")).to_contain_text("Redis unavailable")
        expect(page.locator("#redis-chip")).to_have_text("unavailable")
        expect(page.locator("#limiter-chip")).to_have_text("lets all through")
        expect(page.locator("#events-chip")).to_have_text("none without Redis")
        expect(page.locator("#events-empty")).to_contain_text("events are neither stored nor shown")
        for part in ("breaker", "limiter", "cache", "proxy", "redis"):
            expect(page.locator(f"#{part}-note")).to_contain_text(
                re.compile("until Redis|when Redis|keeps trying")
            )
        expect(page).to_have_title(re.compile(r"● Redis unavailable for [3-9] s \|"))  # it counts
        expect(page.locator("#metrics-note")).to_contain_text(
            re.compile(r"the next update is at \d\d:\d\d:\d\d")
        )
        own_redis.thaw()
        expect(page.locator("#limiter-note")).to_be_hidden()
        expect(page.locator("#message")).to_have_text("All well")
        expect(page.locator("#events-chip")).to_have_text("live")
        expect(page.locator("#metrics-note")).to_be_hidden()

    def test_a_page_opened_while_redis_is_unavailable_shows_this_and_fills_once_redis_answers(
        self, context, own_redis, start_server
    ):
        server = start_server(own_redis)
        httpx.post(f"{server.url}/api/metrics/batch", json=points(9)).raise_for_status()
        own_redis.freeze()
        page = open_page(context, server.url)
        expect(page.locator("#message")).to_contain_text("Redis unavailable")
        expect(page.locator("#redis-chip")).to_have_text("unavailable")
        expect(page.locator("#events-chip")).to_have_text("none without Redis")
        expect(page.locator("#events-empty")).to_contain_text("events are neither stored nor shown")
        expect(page.locator("#metrics-note")).to_contain_text("The metrics below are not current")
        expect(page.locator("#types-more")).to_be_empty()  # it is unknown whether there are points
        own_redis.thaw()
        expect(page.locator("#message")).to_have_text("All well")
        expect(page.locator("#events-chip")).to_have_text("live")
        expect(page.locator("#types li .count")).to_have_text("9 points")
        expect(page.locator("#metrics-note")).to_be_hidden()

    def test_an_interrupted_event_stream_continues_at_its_position(self, page, record):
        page.get_by_role("button", name="Force open").click()
        expect(page.locator("#events li")).to_have_count(1)
        _hide(page, hidden=True)
        _hide(page, hidden=False)
        expect(page.locator("#events-chip")).to_have_text("live")
        page.get_by_role("button", name="Close and reset").click()
        expect(page.locator("#events li")).to_have_count(2)
        assert re.fullmatch(r"\d+-\d+", record.sent("/api/events")[-1].headers["last-event-id"])


class TestAccessibility:
    """The page with assistive technology, keyboards, small screens and different settings."""

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_no_serious_violation_in_any_state(self, page, api, scheme):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        api.post("/api/metrics/batch", json=points(50))
        page.reload()
        expect(page.locator("#types li")).to_have_count(1)
        assert _violations(page) == []
        page.get_by_role("button", name="Force open").click()
        page.locator("#load-target").select_option(label="Ingest, from this browser")
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.locator("#load-tally")).to_contain_text("p95")
        expect(page.locator("#events li")).not_to_have_count(0)
        assert _violations(page) == []
        page.get_by_role("button", name="Admin key").click()
        assert _violations(page) == []

    @pytest.mark.parametrize("width", [320, 360, 768, 1280, 1920])
    def test_no_content_needs_horizontal_scrolling(self, page, api, width):
        api.post("/api/metrics/batch", json=points(3, "a-very-long-type/" + "x" * 100))
        page.set_viewport_size({"width": width, "height": 740})
        page.reload()
        api.post(OPEN)
        expect(page.locator("#message")).to_contain_text("Breaker forced open")
        expect(page.locator("#types li")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_the_tab_key_reaches_every_control_in_visual_order(self, page, api):
        api.post("/api/metrics/batch", json=points(3))
        page.reload()
        expect(page.locator("#types li")).to_have_count(1)
        wanted = page.evaluate(
            """() => [...document.querySelectorAll("a[href], button, input, select, [tabindex='0']")]
                .filter((place) => place.checkVisibility() && !place.matches(":disabled"))
                .filter((place) => place.type !== "radio" || place.checked)
                .map((place) => place.id || place.textContent || place.value)"""
        )
        assert len(wanted) >= 15
        reached = []
        for _ in wanted:
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    """() => { const place = document.activeElement;
                    const ring = place.type === "radio" ? place.nextElementSibling : place;
                    if (getComputedStyle(ring).outlineStyle === "none") return "no ring on " + place.id;
                    return place.id || place.textContent || place.value; }"""
                )
            )
        assert reached == wanted

    def test_arrow_keys_change_a_radio_button(self, page):
        page.locator("#range input:checked").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#range input:checked").get_attribute("value") == "6h"


class TestCost:
    def test_a_hidden_page_sends_no_requests(self, page, record):
        _hide(page, hidden=True)
        page.wait_for_timeout(200)
        asked = len(record.requests)
        page.wait_for_timeout(5000)
        assert len(record.requests) == asked
        _hide(page, hidden=False)
        page.wait_for_timeout(1000)
        assert {urlsplit(request.url).path for request in record.requests[asked:]} >= {
            "/api/overview", "/api/events", "/api/dashboard/types",
        }  # fmt: skip

    def test_a_page_stays_far_below_the_read_quota(self, page, api, record):
        for place in range(3):
            api.post("/api/metrics/batch", json=[points(1, f"t{place}{n}")[0] for n in range(4)])
        page.reload()
        expect(page.locator("#types li")).to_have_count(8)
        asked = len(record.requests)
        page.wait_for_timeout(12_000)
        reads = [request for request in record.requests[asked:] if "/api/dashboard" in request.url]
        assert len(reads) <= 12  # the eight lines for the first time, the types once, the series twice

    def test_unchanged_files_are_revalidated_and_not_sent_again(self, page, record):
        before = len(record.requests)
        page.reload()
        page.locator("#freshness[data-state=live]").wait_for()
        asked = record.requests[before:]
        files = [request for request in asked if urlsplit(request.url).path.startswith("/dashboard/")]
        assert len(files) >= 15
        assert {request.response().status for request in files} <= {200, 304}
        assert sum(request.sizes()["responseBodySize"] for request in files) == 0


def test_the_page_works_below_any_path(context: BrowserContext, server, api, record):
    """The proxy of this test serves the API below /tools/analytics, and removes this prefix."""
    context.route(
        "**/tools/analytics/**",
        lambda route: route.continue_(url=route.request.url.replace("/tools/analytics", "", 1)),
    )
    page = open_page(context, f"{server.url}/tools/analytics")
    page.get_by_role("button", name="Post sample points").click()
    expect(page.locator("#types li")).to_have_count(3)
    asked = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(asked) > 15
    assert [url for url in asked if "/tools/analytics/" not in url] == []
    assert record.http_errors == []


def _violations(page: Page) -> list[str]:
    """Return the violations of WCAG that axe-core rates as serious or critical."""
    return [
        f"{fault['id']}: {node['html'][:120]}"
        for fault in Axe().run(page).response["violations"]
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"]
    ]


def _hide(page: Page, *, hidden: bool) -> None:
    """Simulate that the page is hidden or visible, since a headless browser cannot switch tabs."""
    page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )
