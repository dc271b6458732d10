"""The progress of the imports of a file, for each service, in `FILE.import.json` in the same folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from src.cli.transfer.service_client import TransferError


@dataclass(frozen=True, slots=True)
class ImportState:
    """The progress of the import of a file into one service.

    Attributes:
        batch_points: The number of points in a batch. It does not change while the answer to a batch may have
            been lost. 0: the next import may choose it.
        lines: The number of lines that have been sent.
        digest: SHA-256 of these lines.
        accepted: The number of stored points.
        rejected: The number of rejected points.
    """

    batch_points: int
    lines: int = 0
    digest: str = ""
    accepted: int = 0
    rejected: int = 0


class ImportStateFile:
    """The states of one file.

    Args:
        path: The file that is imported.
        url: Base URL of the service.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path = path.parent / f"{path.name}.import.json"
        self._url = url

    def load(self) -> ImportState | None:
        """Return the state; None if nothing has been imported into the service.

        Raises:
            TransferError: There is something else in the place of the states.
        """
        state = self._load_all().get(self._url)
        try:
            return None if state is None else ImportState(**state)
        except TypeError:
            raise self._unreadable() from None

    def save(self, state: ImportState) -> None:
        """Replace the state in the file, in one step.

        Raises:
            TransferError: The file can't be written.
        """
        states = {**self._load_all(), self._url: asdict(state)}
        new = self.path.with_name(f"{self.path.name}.new")
        try:
            new.write_bytes(orjson.dumps(states, option=orjson.OPT_INDENT_2))
            new.replace(self.path)
        except OSError as error:
            raise TransferError(f"{self.path} can't be written: {error.strerror}") from None

    def _load_all(self) -> Mapping[str, Any]:
        try:
            states = orjson.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            raise self._unreadable() from None
        if not isinstance(states, dict):
            raise self._unreadable()
        return states

    def _unreadable(self) -> TransferError:
        return TransferError(f"{self.path} has something else than the state of an import: remove it")
