"""The replacement of uvicorn's server, and its signal handlers."""

import asyncio
import faulthandler
import signal

import pytest
import uvicorn
from uvicorn.lifespan.off import LifespanOff

from src.server.protocol import HttpConnection
from src.server.server import Server, install
from tests.unit.server.conftest import echo, options

HANDLED = {"SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK"}


@pytest.fixture(autouse=True)
def handlers():
    """Restore the signal handlers of the test process."""
    handled = {number: signal.getsignal(number) for number in signal.Signals if number.name in HANDLED}
    yield
    for number, handler in handled.items():
        signal.signal(number, handler)


@pytest.fixture
def server(clock):
    """Return a uvicorn server that is about to start, with our class."""

    def make(app=echo, **settings):
        config = uvicorn.Config(app, log_config=None, **settings)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        server.__class__ = Server
        server.prepare(options(), clock)
        return server

    return make


@pytest.fixture
def deadlines(monkeypatch):
    """Return the recorded deadlines: the seconds after which the process would end."""
    seconds = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda after, **_: seconds.append(after))
    return seconds


async def test_a_starting_uvicorn_server_becomes_our_server(monkeypatch):
    monkeypatch.setattr(uvicorn.Server, "startup", uvicorn.Server.startup)  # restores it
    became = []

    async def startup(self, sockets):
        became.append((self, sockets))

    monkeypatch.setattr(Server, "startup", startup)
    install(options())
    config = uvicorn.Config(echo, log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = LifespanOff(config)
    await server.startup(sockets=["a socket"])
    assert became == [(server, ["a socket"])]
    assert isinstance(server, Server)


@pytest.mark.parametrize("http", ["auto", "h11", "httptools"])
async def test_the_server_uses_our_protocol_and_no_proxy_headers(server, http):
    config = server(http=http, proxy_headers=True).config
    assert config.http_protocol_class is HttpConnection
    assert config.ws_protocol_class is None
    assert config.loaded_app is echo


async def test_an_application_without_a_lifespan_gets_none(server):
    assert isinstance(server(lifespan="off").lifespan, LifespanOff)


async def test_a_stop_has_a_deadline_and_a_second_ctrl_c_ends_at_once(server, deadlines):
    running = server()
    running.started = True
    running.handle_exit(signal.SIGINT, None)
    assert (running.should_exit, running.force_exit) == (True, False)
    assert deadlines == [options().longest_stop_seconds]
    running.handle_exit(signal.SIGINT, None)
    assert running.force_exit
    assert len(deadlines) == 1


async def test_the_application_cleans_up_before_a_stopped_start_ends(server, deadlines):
    left = []

    async def application(scope, receive, send):
        await receive()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            left.append("all")

    starting = server(application)
    starts = asyncio.create_task(starting.startup())
    await asyncio.sleep(0.01)
    starting.handle_exit(signal.SIGTERM, None)
    await starts
    assert left == ["all"]
    assert not starting.started
    assert deadlines == [5.0]


async def test_a_signal_while_the_application_was_imported_starts_nothing(server):
    starting = server()
    starting.should_exit = True
    await starting.startup()
    assert not starting.started


async def test_a_failed_start_raises_its_error(server):
    async def application(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(SystemExit) as ended:
        await server(application).startup()
    assert ended.value.code == 3
