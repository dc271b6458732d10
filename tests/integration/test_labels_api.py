"""Labels over HTTP: in, and out again by filter and by group."""

import pytest

from tests.support.api import CALM, PLENTY, running_api

SETTINGS = PLENTY | CALM | {"max_series_per_type": 3}


@pytest.fixture
async def api(redis_server):
    async with running_api(redis_server.url, **SETTINGS) as client:
        yield client


def point(value, labels=None, second=0, metric="cpu"):
    body = {"timestamp": f"2026-01-31T12:00:{second:02}Z", "value": value, "type": metric}
    return body | ({"labels": labels} if labels is not None else {})


async def post(api, *points):
    answer = await api.post("/api/metrics/batch", json=list(points))
    assert answer.status_code == 201, answer.text


async def summary(api, query=""):
    answer = await api.get(f"/api/metrics/summary?type=cpu{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_summaries_filter_and_group(api):
    await post(
        api, point(1, {"host": "a", "disk": "x"}), point(3, {"host": "a"}), point(5, {"host": "b"}), point(7)
    )
    assert (await summary(api))["count"] == 4
    assert (await summary(api, "&label=host:a"))["sum"] == 4
    assert (await summary(api, "&label=host:a&label=host:b"))["sum"] == 9
    assert (await summary(api, "&label=host:a&label=disk:x"))["sum"] == 1
    assert (await summary(api, "&label=host:c"))["count"] == 0
    grouped = await summary(api, "&group_by=host")
    assert (grouped["type"], grouped["period"], grouped["group_by"]) == ("cpu", "all", ["host"])
    assert [(each["labels"], each["count"], each["average_value"]) for each in grouped["groups"]] == [
        ({}, 1, 7), ({"host": "a"}, 2, 2), ({"host": "b"}, 1, 5),
    ]  # fmt: skip
    assert "truncated" not in grouped


async def test_a_list_has_labels_and_filters_by_them(api):
    await post(api, *(point(n, {"host": "ab"[n % 2]}, second=n) for n in range(10)), point(99, second=20))
    listed = (await api.get("/api/metrics/list?type=cpu&limit=2")).json()
    assert [(each["value"], each.get("labels")) for each in listed] == [(99, None), (9, {"host": "b"})]
    seen, address = [], "/api/metrics/list?type=cpu&limit=2&label=host:a"
    while address:
        answer = await api.get(address)
        seen += [each["value"] for each in answer.json()]
        address = answer.links.get("next", {}).get("url")
    assert seen == [8, 6, 4, 2, 0]


async def test_types_count_series_and_labels_count_measurements(api):
    await post(api, point(1, {"host": "a"}), point(2, {"host": "a"}), point(3, {"host": "b"}), point(4))
    (cpu,) = (await api.get("/api/metrics/types")).json()
    assert (cpu["count"], cpu["series"]) == (4, 2)
    assert (await api.get("/api/metrics/labels?type=cpu")).json() == [
        {"name": "host", "values": [{"value": "a", "count": 2}, {"value": "b", "count": 1}]}
    ]


async def test_a_series_over_time_filters_and_groups(api):
    await post(api, point(1, {"host": "a"}), point(5, {"host": "b"}), point(7, {"host": "b"}, second=59))
    query = "type=cpu&from=2026-01-31T12:00:00Z&to=2026-01-31T12:01:00Z&step=30"
    steps = (await api.get(f"/api/metrics/series?{query}&label=host:b")).json()
    assert [(each["count"], each["average"], each["p50"]) for each in steps] == [(1, 5, 5), (1, 7, 7)]
    grouped = (await api.get(f"/api/metrics/series?{query}&group_by=host")).json()
    assert [
        (each["labels"], [(step["time"], step["count"]) for step in each["steps"]])
        for each in grouped["groups"]
    ] == [
        ({"host": "a"}, [("2026-01-31T12:00:00Z", 1)]),
        ({"host": "b"}, [("2026-01-31T12:00:00Z", 1), ("2026-01-31T12:00:30Z", 1)]),
    ]


@pytest.mark.parametrize("read", ["summary?", "series?from=2026-01-31T12:00:00Z&to=2026-01-31T12:01:00Z&"])
async def test_groups_are_ordered_by_label_values_in_the_order_of_the_names(api, read):
    """Those of `series` were ordered by their JSON: `{}` came last, and `a!` before `a`."""
    some = [{"host": "a!"}, {"host": "a", "disk": "y"}, {"host": "a", "disk": "x"}]
    await post(api, *(point(n, labels) for n, labels in enumerate(some)), point(3))
    for names, expected in (
        ("host,disk", [None, *some[::-1]]),
        ("disk,host", [None, some[0], some[2], some[1]]),
    ):
        answer = await api.get(f"/api/metrics/{read}type=cpu&group_by={names}")
        assert [group["labels"] or None for group in answer.json()["groups"]] == expected


async def test_a_series_over_the_cap_is_an_error_of_its_point(api):
    labelled = [point(n, {"host": str(n)}) for n in range(5)]
    answer = await api.post("/api/metrics/batch", json=labelled)
    assert (answer.status_code, answer.json()["accepted"]) == (207, 3)
    assert [(each["index"], each["field"]) for each in answer.json()["errors"]] == [
        (3, "labels"),
        (4, "labels"),
    ]
    answer = await api.post("/api/metrics", json=labelled[4])
    assert (answer.status_code, answer.json()["code"]) == (422, "CARDINALITY_LIMIT")
    assert (await api.post("/api/metrics", json=labelled[0])).status_code == 201


async def test_the_first_errors_of_a_batch_are_those_of_its_first_points(api):
    """Errors of caps came after all other errors, and type by type."""
    wrong = {"timestamp": 1}
    batch = [point(n, {"host": str(n)}) if n % 2 else wrong for n in range(300)]
    batch[0], batch[4] = point(0), point(4) | {"type": "mem"}
    errors = (await api.post("/api/metrics/batch", json=batch)).json()["errors"]
    assert len(errors) == 100
    assert [each["index"] for each in errors] == sorted(each["index"] for each in errors)
    assert {each["index"] for each in errors if each["field"] == "labels"} > {7, 9, 11}


@pytest.mark.parametrize(
    "labels",
    [
        {"1host": "a"}, {"host": ""}, {"host": "a" * 129}, {"host": "a\n"}, {"host": 1}, {"host": None}, [],
        "a", {f"n{n}": "v" for n in range(17)}, {"": "a"}, {"h" * 65: "a"},
    ],
)  # fmt: skip
async def test_wrong_labels_are_rejected_alike_alone_and_in_a_batch(api, labels):
    alone = await api.post("/api/metrics", json=point(1, labels))
    assert (alone.status_code, alone.json()["code"]) == (422, "VALIDATION_ERROR")
    assert alone.json()["errors"][0]["field"].startswith("labels")
    together = await api.post("/api/metrics/batch", json=[point(1), point(1, labels)])
    assert (together.status_code, together.json()["accepted"]) == (207, 1)
    assert together.json()["errors"][0]["message"] == alone.json()["errors"][0]["message"]


async def test_a_timestamp_too_far_ahead_is_rejected(api):
    ahead = point(1) | {"timestamp": "2199-01-01T00:00:00Z"}
    answer = await api.post("/api/metrics", json=ahead)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "timestamp")
    answer = await api.post("/api/metrics/batch", json=[ahead, point(1)])
    assert (answer.status_code, answer.json()["errors"][0]["index"]) == (207, 0)


@pytest.mark.parametrize("query", ["label=host", "label=:a", "group_by=1", "group_by=a,b,c,d", "group_by="])
async def test_a_wrong_query_by_labels_is_a_422(api, query):
    answer = await api.get(f"/api/metrics/summary?type=cpu&{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
