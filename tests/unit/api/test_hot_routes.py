"""The table of hot routes."""

from starlette.responses import Response

from src.api.hot_routes import HotRoute, hot_route_table


async def answer(_request) -> Response:
    return Response()


def test_a_route_is_found_by_method_and_path_and_a_get_answers_head():
    read, write = HotRoute("GET", "/points", answer), HotRoute("POST", "/points", answer)
    table = hot_route_table([read, write])
    assert table == {("GET", "/points"): read, ("HEAD", "/points"): read, ("POST", "/points"): write}
