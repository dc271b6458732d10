"""HEAD requests to FastAPI's routes and to other applications."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, StreamingResponse

from src.web.head import HeadMiddleware


@pytest.fixture
def stopped():
    return asyncio.Event()


async def get(request: Request):
    return PlainTextResponse(request.method, headers={"X-Answer": "yes"})


async def post():
    return None


async def broken():
    raise KeyError("secret")


@pytest.fixture
async def client(stopped):
    async def stream(chunks: int):
        async def send_chunks():
            try:
                if chunks < 0:
                    raise KeyError("secret")
                for _ in range(chunks):
                    yield b"chunk"
                    await asyncio.sleep(0)
                await asyncio.Future()
            finally:
                stopped.set()

        return StreamingResponse(send_chunks())

    app = FastAPI()
    app.add_api_route("/get", get, methods=["GET"])
    app.add_api_route("/post", post, methods=["POST"])
    app.add_api_route("/both", get, methods=["GET", "HEAD"])
    app.add_api_route("/stream/{chunks}", stream, methods=["GET"])
    app.add_api_route("/broken", broken, methods=["GET"])
    app.add_middleware(HeadMiddleware, router=app.router)
    routes = []

    async def remembering(scope, receive, send):
        await app(scope, receive, send)
        routes.append(getattr(scope.get("route"), "path", None))

    transport = httpx.ASGITransport(remembering, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        client.routes = routes
        yield client


async def test_a_head_request_has_the_headers_of_a_get_and_no_body(client):
    got, head = await client.get("/get"), await client.head("/get")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == got.headers
    assert client.routes == ["/get", "/get"]


async def test_a_route_can_handle_head_itself(client):
    head = await client.head("/both")
    assert (head.headers["content-length"], head.content) == (str(len("HEAD")), b"")
    assert (await client.get("/both")).text == "GET"


@pytest.mark.parametrize("chunks", [0, 1000])
async def test_a_stream_ends_with_its_head(client, stopped, chunks):
    async with asyncio.timeout(5):
        head = await client.head(f"/stream/{chunks}")
    assert (head.status_code, head.content) == (200, b"")
    assert stopped.is_set()


async def test_a_path_without_get_rejects_head(client):
    assert (await client.head("/nothing")).status_code == 404
    assert (await client.head("/post")).status_code == 405


async def test_an_error_before_the_head_is_raised(client):
    assert (await client.head("/broken")).status_code == 500


async def test_an_error_after_the_head_is_ignored(client):
    assert (await client.head("/stream/-1")).status_code == 200


async def test_other_methods_are_not_affected(client):
    assert (await client.post("/post")).text == "null"
