"""The faults of the provider, which can be changed while the provider runs."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_LATENCY_MS = 60_000
MAX_PATTERN_LENGTH = 1000


class Faults(BaseModel):
    """The faults of the provider. By default there are none.

    Raises:
        ValidationError: A value is out of its range. The error is a `ValueError`, and names the field.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"failure_rate": 0.3, "latency_ms": 0, "status": 503, "pattern": None, "kind": "status"}
            ]
        },
    )

    failure_rate: float = Field(
        0.0, ge=0, le=1, allow_inf_nan=False, description="Share of calls that fail, 0 to 1."
    )
    latency_ms: int = Field(
        0, ge=0, le=MAX_LATENCY_MS, description="Delay of each call in milliseconds, also of calls that fail."
    )
    status: int = Field(503, ge=400, le=599, description="Status of a call that fails with kind `status`.")
    pattern: Annotated[
        Annotated[str, Field(pattern="^[SF]*$", max_length=MAX_PATTERN_LENGTH)] | None,
        AfterValidator(lambda pattern: pattern or None),
    ] = Field(
        None,
        description="Outcomes of successive calls, S (succeeds) or F (fails), repeated. A pattern replaces "
        "the rate. An empty string or null removes the pattern.",
    )
    kind: Literal["status", "hang", "cut"] = Field(
        "status",
        description="How a call fails. status: it is answered with `status`; hang: it is never answered; "
        "cut: the connection is closed in the middle of the body.",
    )


class FaultSchedule:
    """Decides for each call whether it fails.

    Args:
        faults: The faults at first.
        chance: Returns a random number from [0, 1). It is used if there is no pattern.
    """

    def __init__(self, faults: Faults, chance: Callable[[], float]) -> None:
        self.faults = faults
        self._chance = chance
        self._step = 0

    def change(self, changes: Faults) -> None:
        """Change the fields that are set in `changes`; the others stay. A pattern starts at its beginning."""
        self.faults = self.faults.model_copy(update=changes.model_dump(exclude_unset=True))
        if "pattern" in changes.model_fields_set:
            self._step = 0

    def next_call_fails(self) -> bool:
        """Return whether the call that has just arrived fails, and advance the pattern."""
        if pattern := self.faults.pattern:
            outcome = pattern[self._step % len(pattern)]
            self._step += 1
            return outcome == "F"
        return self._chance() < self.faults.failure_rate
