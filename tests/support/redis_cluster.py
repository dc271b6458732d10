"""A Redis Cluster of three nodes on loopback, and a client's raw commands."""

import socket
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import redis.asyncio
from redis.client import NEVER_DECODE
from redis.crc import key_slot

from tests.support.redis_server import RedisServer

SLOTS = 16384
NODES = 3
_FIRST_SLOTS = [SLOTS * node // NODES for node in range(NODES + 1)]

TIME_KEYS = [
    next(key for number in range(1000) if low <= key_slot((key := f"test:now_us:{number}").encode()) < high)
    for low, high in pairwise(_FIRST_SLOTS)
]
"""A key on each node: a script cannot read a key of another node."""

CLUSTER_TIME = f"""
local function now_us()
  for _, key in ipairs({{{", ".join(map(repr, TIME_KEYS))}}}) do
    local reply = redis.pcall('GET', key)
    if type(reply) == 'string' then
      return tonumber(reply)
    end
  end
end
"""
"""The time source of scripts under test on a cluster."""


class RedisCluster:
    """A context manager that runs three servers, which share the slots."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._servers: list[RedisServer] = []
        self.ports = free_ports(NODES)

    def __enter__(self) -> "RedisCluster":
        """Raises OSError if the server of this machine cannot be a node of a cluster."""
        with self._stack:
            for port, bus in zip(self.ports, free_ports(NODES), strict=True):
                folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-")))
                options = ("--bind", "127.0.0.1", "--port", f"{port}", "--cluster-port", f"{bus}")
                server = RedisServer(folder, *options, "--cluster-enabled", "yes")
                self._servers.append(server)
                self._stack.callback(server.stop)
                server.start()
                first = len(self._servers) - 1
                with server.connect() as client:
                    slots = (_FIRST_SLOTS[first], _FIRST_SLOTS[first + 1] - 1)
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
                    client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", first + 1)
                    if first:
                        client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.ports[0], self._meet_bus)
                    else:
                        self._meet_bus = bus
            self._until_all_agree()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def client(self, **options: object) -> "redis.asyncio.RedisCluster":
        return redis.asyncio.RedisCluster(host="127.0.0.1", port=self.ports[0], **options)

    def flush(self) -> None:
        for server in self._servers:
            with server.connect() as client:
                client.flushall()

    def _until_all_agree(self) -> None:
        deadline = time.monotonic() + 20
        for server in self._servers:
            with server.connect() as client:
                while True:
                    info = client.execute_command("CLUSTER", "INFO")
                    if "cluster_state:ok" in info and f"cluster_known_nodes:{NODES}" in info:
                        break
                    assert time.monotonic() < deadline, info
                    time.sleep(0.02)


class ClientAccess:
    """Raw commands through a client of redis-py, as `RedisLink.send` sends them.

    Attributes:
        client: The client, whose commands are counted in `round_trips`.
    """

    def __init__(self, client: "redis.asyncio.Redis | redis.asyncio.RedisCluster") -> None:
        self.client = client
        self.round_trips = 0
        self._execute = client.execute_command
        client.execute_command = self._counted

    @property
    def is_cluster(self) -> bool:
        return isinstance(self.client, redis.asyncio.RedisCluster)

    async def send(self, *command: object) -> object:
        options = {NEVER_DECODE: True}
        if self.is_cluster and command[0] in {"KEYS", "FLUSHALL"}:
            nodes = self.client.get_primaries()
            found = [await node.execute_command(*command, **options) for node in nodes]
            keys = [key for keys in found for key in keys] if command[0] == "KEYS" else []
            return [key for key in keys if key.decode() not in TIME_KEYS]
        return await self._counted(*command, **options)

    async def _counted(self, *command: object, **options: object) -> object:
        self.round_trips += 1
        return await self._execute(*command, **options)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
