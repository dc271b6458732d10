"""`GET /`: the dashboard for browsers, an index for programs."""

import pytest

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_a_browser_is_redirected_to_the_dashboard_below_any_path(api):
    """In the past the answer was a 404."""
    answer = await api.get("/", headers=BROWSER | {"Host": "elsewhere.example"})
    assert (answer.status_code, answer.headers["location"]) == (307, "dashboard")
    assert answer.headers["vary"] == "Accept"
    assert (await api.get("/dashboard", headers=BROWSER)).status_code == 200


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
async def test_a_program_gets_an_index_with_working_links(api, accept):
    answer = await api.get("/", headers={} if accept is None else {"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    index = answer.json()
    assert index["name"] == "Resilient Analytics API"
    links = index.keys() - {"name", "version"}
    assert links == {"dashboard", "docs", "redoc", "openapi", "health", "metrics"}
    for link in links:
        assert (await api.get(index[link])).status_code == 200, link
