"""The compaction of sketches in the background."""

import asyncio

from src.storage.metrics.compaction import SKETCHES_AT_ONCE, SketchCompactor


class EmptyLink:
    """Has no sketch at any key, and notes the tick of the event loop in which each key is read."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.reads_by_round_trip: list[int] = []
        self._is_same_tick = False

    async def send(self, command: str, key: bytes) -> None:
        assert command == "GET"
        if not self._is_same_tick:
            self.reads_by_round_trip.append(0)
            self._is_same_tick = True
            asyncio.get_running_loop().call_soon(self._end_tick)
        self.reads_by_round_trip[-1] += 1
        self.keys.append(key)
        await asyncio.sleep(0)

    def _end_tick(self) -> None:
        self._is_same_tick = False


async def test_sketches_that_grow_long_together_share_round_trips():
    keys = [f"sketch-{number}".encode() for number in range(2 * SKETCHES_AT_ONCE + 1)]
    link = EmptyLink()
    compactor = SketchCompactor(link)

    compactor.add(keys)
    while len(link.keys) < len(keys):
        await asyncio.sleep(0)
    await compactor.aclose()

    assert link.reads_by_round_trip == [SKETCHES_AT_ONCE, SKETCHES_AT_ONCE, 1]
    assert link.keys == keys
