"""Time-series databases as peers: InfluxDB 1.6 and VictoriaMetrics, as Debian packages them.

`apt-get` downloads a package, and its program is unpacked into the cache folder of the benchmark. Nothing is
installed on the machine, and no service is started. The data of a database is in its working folder, which is
temporary.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from bench.load import Request, send
from bench.processes import CACHE, free_port

WRITE_PATH = "/write?db=bench&precision=u"
"""The path at which both databases accept line protocol with timestamps in microseconds."""
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Database(ABC):
    """A database as a contestant.

    Attributes:
        name: The name in the tables.
        package: The Debian package.
        program: The path of the server in the package.
    """

    name: str
    package: str
    program: str

    @property
    def _folder(self) -> Path:
        return CACHE / self.package

    @property
    def _version_file(self) -> Path:
        return self._folder / "version"

    def find(self) -> Path | None:
        """Return the server's path, downloaded on first use; None, with a line on stderr, if that fails."""
        path = self._folder / self.program
        if self._version_file.exists():
            return path
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            print(f"{self.name} is left out: this machine has no apt-get", file=sys.stderr)
            return None
        print(f"Downloading {self.package} into {self._folder}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-") as download:
            subprocess.run(["apt-get", "download", "--quiet=2", self.package], cwd=download, check=False)
            archive = next(Path(download).glob("*.deb"), None)
            if archive is None:
                print(f"{self.name} is left out: apt-get cannot download {self.package}", file=sys.stderr)
                return None
            subprocess.run(["dpkg-deb", "--extract", str(archive), str(self._folder)], check=True)
            field = ["dpkg-deb", "--field", str(archive), "Version"]
            completed = subprocess.run(field, capture_output=True, check=True)
            self._version_file.write_bytes(completed.stdout)
        return path

    def version(self) -> str:
        """Return the version of the package that `find` has found."""
        return self._version_file.read_text(encoding="ascii").strip()

    @abstractmethod
    def command(self, program: Path, port: int) -> list[str]:
        """Return the command that serves on `port` of the loopback address."""

    def environment(self, port: int) -> dict[str, str]:  # noqa: ARG002 -- for the database that reads it
        """Return the settings with which the database serves on `port`."""
        return {}

    def prepare(self, port: int) -> None:  # noqa: B027 -- a database may need nothing
        """Create the database for the points, once the server listens."""

    @abstractmethod
    def summary(self, metric: str) -> Request:
        """Return the request for the summary of the last hour, with the figures of this API, uncached."""

    @abstractmethod
    def count_in(self, summary: bytes) -> int:
        """Return the number of points that an answered `summary` covers."""


class InfluxDb(Database):
    """InfluxDB 1.6 with its defaults, except that its own monitoring is off."""

    __slots__ = ()

    def command(self, program: Path, port: int) -> list[str]:  # noqa: ARG002 -- the port is in the environment
        """Return the command that serves."""
        return [str(program), "run"]

    def environment(self, port: int) -> dict[str, str]:
        """Return the settings with which the database serves on `port`."""
        return {
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{free_port()}",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
            "INFLUXDB_META_DIR": "meta",
            "INFLUXDB_DATA_DIR": "data",
            "INFLUXDB_DATA_WAL_DIR": "wal",
        }

    def prepare(self, port: int) -> None:
        """Create the database."""
        send(Request("POST", "/query?" + urlencode({"q": "CREATE DATABASE bench"})), port)

    def summary(self, metric: str) -> Request:
        """Return the request for the summary of the last hour."""
        figures = ["count(value)", "mean(value)", "min(value)", "max(value)", "last(value)", "sum(value)"]
        figures += [f"percentile(value, {percent})" for percent in PERCENTILES]
        query = f'SELECT {", ".join(figures)} FROM "{metric}" WHERE time > now() - 1h'
        return Request("GET", "/query?" + urlencode({"db": "bench", "q": query}))

    def count_in(self, summary: bytes) -> int:
        """Return the number of points that an answered `summary` covers."""
        series = json.loads(summary)["results"][0].get("series")
        return int(series[0]["values"][0][1]) if series else 0


class VictoriaMetrics(Database):
    """VictoriaMetrics, single node, with its defaults."""

    __slots__ = ()

    def command(self, program: Path, port: int) -> list[str]:
        """Return the command that serves."""
        return [str(program), f"-httpListenAddr=127.0.0.1:{port}", "-storageDataPath=data"]

    def summary(self, metric: str) -> Request:
        """Return the request for the summary of the last hour."""
        points = f'{{__name__="{metric}_value"}}[1h]'
        figures = ["count", "avg", "min", "max", "last", "sum"]
        rollups = ", ".join(f'"{figure}_over_time"' for figure in figures)
        quantiles = ", ".join(str(percent / 100) for percent in PERCENTILES)
        query = (
            f'union(aggr_over_time(({rollups}), {points}), quantiles_over_time("q", {quantiles}, {points}))'
        )
        return Request("GET", "/api/v1/query?" + urlencode({"nocache": 1, "query": query}))

    def count_in(self, summary: bytes) -> int:
        """Return the number of points that an answered `summary` covers."""
        rows = json.loads(summary)["data"]["result"]
        counts = [row["value"][1] for row in rows if row["metric"].get("rollup") == "count_over_time"]
        return int(counts[0]) if counts else 0


INFLUXDB = InfluxDb("InfluxDB", "influxdb", "usr/bin/influxd")
VICTORIA_METRICS = VictoriaMetrics("VictoriaMetrics", "victoria-metrics", "usr/bin/victoria-metrics")
DATABASES: tuple[Database, ...] = (INFLUXDB, VICTORIA_METRICS)
