"""Which calls fail, and how: the settings anyone may change while the provider runs."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_LATENCY_MS = 60_000
MAX_PATTERN_LENGTH = 1000


class Faults(BaseModel):
    """How the provider misbehaves. What is not given is left at "not at all".

    Raises:
        ValidationError: A value is out of its range. It is a `ValueError` and names the field.
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
        0.0, ge=0, le=1, allow_inf_nan=False, description="Share of the calls that fail, 0 to 1."
    )
    latency_ms: int = Field(
        0, ge=0, le=MAX_LATENCY_MS, description="Milliseconds each call waits first, whether it fails or not."
    )
    status: int = Field(503, ge=400, le=599, description="What a call that fails with `status` is answered.")
    pattern: Annotated[
        Annotated[str, Field(pattern="^[SF]*$", max_length=MAX_PATTERN_LENGTH)] | None,
        AfterValidator(lambda pattern: pattern or None),
    ] = Field(
        None,
        description="Outcome of call after call, S (succeeds) or F (fails), played in a loop in place of "
        "the rate. An empty string or null clears it.",
    )
    kind: Literal["status", "hang", "cut"] = Field(
        "status",
        description="How a call fails: answered with `status`, never answered, or cut off mid-body.",
    )


class FaultSchedule:
    """Decides call by call.

    Args:
        faults: What to begin with.
        chance: Draws a number evenly from [0, 1) for every call that no pattern decides.
    """

    def __init__(self, faults: Faults, chance: Callable[[], float]) -> None:
        self.faults = faults
        self._chance = chance
        self._step = 0

    def change(self, changes: Faults) -> None:
        """Adopt the fields that `changes` was given; the others stay. A pattern starts from its beginning."""
        self.faults = self.faults.model_copy(update=changes.model_dump(exclude_unset=True))
        if "pattern" in changes.model_fields_set:
            self._step = 0

    def next_call_fails(self) -> bool:
        """Return whether the call that has just arrived is to fail."""
        if pattern := self.faults.pattern:
            outcome = pattern[self._step % len(pattern)]
            self._step += 1
            return outcome == "F"
        return self._chance() < self.faults.failure_rate
