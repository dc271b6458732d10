"""The behaviour of circuit breakers of other projects and of this library, in the same situations.

Each vector names its source: a test suite or a page. If this library differs, the vector has the behaviour of
this library, and `differs` has the other behaviour with the reason for the difference.

A vector's steps are words:

========== =========================================================
`S`        a call that succeeds; `S/5` takes 5 seconds
`F`        a call that fails; `F/5` takes 5 seconds
`X`        a call whose error counts neither as success nor failure
`R`        a call that the breaker rejects
`begin`    a call that is admitted and goes on
`end`      the oldest call that goes on succeeds; `fail`: it fails
`+30`      30 seconds go by
`OPEN`     the state now, or `CLOSED`, or `HALF_OPEN`
`8*F`      a step, 8 times
`hold`     the breaker is held open by hand; `open/7`: opened for 7 seconds
`allow`    it is held closed by hand
`close`    it is closed by hand
========== =========================================================
"""

import asyncio
from dataclasses import dataclass, field

import pytest

from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.redis import RedisBreakerStore
from src.resilience.errors import CircuitOpenError
from tests.contract.conftest import TEST_TIME, StoreTime


@dataclass(frozen=True)
class Vector:
    """The steps of a vector, with a breaker of `options`.

    Attributes:
        source: The project and the test or page.
        differs: The behaviour of the source and the reason for the difference; None if both agree.
    """

    source: str
    steps: str
    options: dict[str, float]
    differs: str | None = None


GOBREAKER_DEFAULT = {"failure_threshold": 6, "open_seconds": 60.0}
GOBREAKER_CUSTOM = {
    "failure_rate_threshold": 0.6,
    "minimum_calls": 3,
    "window_seconds": 30.0,
    "open_seconds": 90.0,
    "half_open_permits": 3,
}
RESILIENCE4J = {
    "failure_rate_threshold": 0.5,
    "slow_call_rate_threshold": 0.5,
    "slow_call_seconds": 4.0,
    "window_seconds": 20.0,
    "minimum_calls": 5,
    "half_open_permits": 4,
    "half_open_success_rate": 0.75,
    "open_seconds": 5.0,
}
POLLY_EXAMPLE = {
    "failure_rate_threshold": 0.5,
    "minimum_calls": 8,
    "window_seconds": 10.0,
    "open_seconds": 30.0,
}
TEN_PERCENT_OF_TEN = {"failure_rate_threshold": 0.1, "minimum_calls": 10, "window_seconds": 30.0}
TWO_OF_THREE_FAIL = {"failure_rate_threshold": 2 / 3, "window_calls": 3, "minimum_calls": 3}
TWO_OF_THREE_SUCCEED = {"failure_threshold": 1, "half_open_permits": 3, "half_open_successes": 2}
THREE_OF_FOUR_SUCCEED = {"failure_threshold": 1, "half_open_permits": 4, "half_open_success_rate": 0.75}
THREE_SUCCEED = {"failure_threshold": 1, "half_open_permits": 3}
HALF_OPEN = "F +30 HALF_OPEN"
"""Brings a breaker that opens at one failure to the state in which failsafe-go's tests begin."""

VECTORS = {
    # ------------------------------------------------------------ sony/gobreaker
    "gobreaker: five failures, a success and one failure leave it closed": Vector(
        "gobreaker, TestDefaultCircuitBreaker", "5*F CLOSED S CLOSED F CLOSED", GOBREAKER_DEFAULT
    ),
    "gobreaker: more than five failures in a row open it": Vector(
        "gobreaker, TestDefaultCircuitBreaker", "S 6*F OPEN R R", GOBREAKER_DEFAULT
    ),
    "gobreaker: it is open until its timeout, and a failed probe opens it again": Vector(
        "gobreaker, TestDefaultCircuitBreaker",
        "6*F +59.999 OPEN +1 HALF_OPEN F OPEN +60 HALF_OPEN S CLOSED",
        GOBREAKER_DEFAULT,
    ),
    "gobreaker: alternating calls have a failure rate of a half": Vector(
        "gobreaker, TestCustomCircuitBreaker",
        "S F X S F X S F X S F X S F X CLOSED", GOBREAKER_CUSTOM,
    ),
    "gobreaker: two of three calls fail, which is 60 % or more": Vector(
        "gobreaker, TestCustomCircuitBreaker", "F S F OPEN", GOBREAKER_CUSTOM
    ),
    "gobreaker: calls that are not counted do not move a half-open breaker": Vector(
        "gobreaker, TestCustomCircuitBreaker", "3*F +90 HALF_OPEN 4*X HALF_OPEN F OPEN", GOBREAKER_CUSTOM
    ),
    "gobreaker: three probes close it, and no fourth call is let in with them": Vector(
        "gobreaker, TestCustomCircuitBreaker", "3*F +90 S S HALF_OPEN begin R end CLOSED", GOBREAKER_CUSTOM
    ),
    "gobreaker: counts of a fixed interval are dropped together": Vector(
        "gobreaker, TestCustomCircuitBreaker",
        "5*S 5*F +29 S CLOSED +2 F F OPEN",
        GOBREAKER_CUSTOM,
        differs="gobreaker's interval is fixed: at its end all counts are 0 and the breaker stays closed at "
        "1 of 1. Ours is a rolling window: the failures of the last 30 s still count.",
    ),
    "gobreaker: a rolling window drops its oldest calls": Vector(
        "gobreaker, TestRollingWindowCircuitBreaker", "S F S F S F +31 F F CLOSED F OPEN", GOBREAKER_CUSTOM
    ),
    "gobreaker: a call that began before a change of the state does not count": Vector(
        "gobreaker, TestGeneration", "begin 6*F OPEN +60 S CLOSED fail 5*F CLOSED F OPEN", GOBREAKER_DEFAULT
    ),
    # ------------------------------------------------------------ resilience4j
    "resilience4j: three of five failures in a window of time open it": Vector(
        "resilience4j, shouldOpenAfterFailureRateThresholdExceeded", "F F F S CLOSED S OPEN R", RESILIENCE4J
    ),
    "resilience4j: the rate counts once there are enough calls": Vector(
        "resilience4j, shouldOpenAfterFailureRateThresholdExceeded2",
        "S +1 S +1 S +1 F +1 F CLOSED +1 F OPEN", RESILIENCE4J,
    ),
    "resilience4j: three slow calls of five open it": Vector(
        "resilience4j, shouldOpenAfterSlowCallRateThresholdExceededUsingMockClock",
        "S/5 S/5 S/1 S/1 CLOSED S/5 OPEN", RESILIENCE4J,
    ),
    "resilience4j: half-open, one failure of four leaves the rate below the threshold": Vector(
        "resilience4j, shouldTransitionBackToClosedStateWhenFailureIsBelowThreshold",
        "5*F +5 F S S HALF_OPEN S CLOSED", RESILIENCE4J,
    ),
    "resilience4j: half-open, errors that are not counted free their permits": Vector(
        "resilience4j, shouldIgnoreExceptionsAndThenTransitionToClosed",
        "5*F +5 4*X HALF_OPEN 3*S HALF_OPEN S CLOSED",
        RESILIENCE4J | {"half_open_success_rate": 1.0},
    ),
    "resilience4j: half-open, enough probes have succeeded": Vector(
        "resilience4j, shouldReleasePermissionWhenExceptionIgnored",
        "5*F +5 S S HALF_OPEN S CLOSED", RESILIENCE4J,
        differs="resilience4j waits for the fourth probe. Ours closes when no outcome of the others can "
        "change it.",
    ),
    "resilience4j: half-open, too many probes have failed": Vector(
        "resilience4j, shouldTransitionBackToOpenStateWhenFailureRateIsAboveThreshold",
        "5*F +5 F HALF_OPEN F OPEN", RESILIENCE4J,
        differs="resilience4j waits for all four probes. Ours opens when the others can no longer close it.",
    ),
    "resilience4j: half-open, slow probes open it": Vector(
        "resilience4j, shouldTransitionBackToOpenStateWhenSlowCallRateIsAboveThreshold",
        "5*F +5 S/5 HALF_OPEN S/5 OPEN", RESILIENCE4J,
        differs="resilience4j waits for all four probes; the outcome is the same.",
    ),
    "resilience4j: a permit that is given back goes to the next call": Vector(
        "resilience4j, shouldIncreaseCounterOnReleasePermission", "5*F +5 X 4*begin R", RESILIENCE4J
    ),
    "resilience4j: it is open for the wait duration": Vector(
        "resilience4j, shouldTransitionToHalfOpenAfterWaitDuration", "5*F OPEN R +3 OPEN R +3 S HALF_OPEN",
        RESILIENCE4J,
    ),
    "resilience4j: half-open it admits four calls": Vector(
        "resilience4j, shouldOnlyPermitFourCallsInHalfOpenState", "5*F +5 4*begin R R", RESILIENCE4J
    ),
    "resilience4j: nine failures of ten calls needed do not open it, the tenth does": Vector(
        "resilience4j, documentation of minimumNumberOfCalls", "9*F CLOSED F OPEN",
        {"failure_rate_threshold": 0.5, "window_calls": 10, "minimum_calls": 10},
    ),
    "resilience4j: the newest outcome takes the place of the oldest": Vector(
        "resilience4j, documentation of the count-based window", "F S S S F CLOSED F OPEN",
        {"failure_rate_threshold": 0.5, "window_calls": 4, "minimum_calls": 4},
    ),
    "resilience4j: a success that fills the window opens it": Vector(
        "resilience4j, onSuccess of the closed state", "F S F S F S F CLOSED S OPEN",
        {"failure_rate_threshold": 0.5, "window_calls": 8, "minimum_calls": 8},
    ),
    # ------------------------------------------------------------ Polly
    "Polly: half of eight calls within ten seconds break it": Vector(
        "Polly, documentation of the circuit breaker, example", "S F S F S F S CLOSED F OPEN", POLLY_EXAMPLE
    ),
    "Polly: the rate is evaluated only after a failure": Vector(
        "Polly, AdvancedCircuitBehavior", "F S F S F S F CLOSED S OPEN", POLLY_EXAMPLE,
        differs="In Polly the eighth call, a success, leaves it closed. Ours looks at the rate after "
        "each call, "
        "as resilience4j does.",
    ),
    "Polly: failures of more than ten seconds ago do not count": Vector(
        "Polly, RollingHealthMetrics", "7*F +11 7*S F CLOSED", POLLY_EXAMPLE
    ),
    "Polly: it stays broken for thirty seconds": Vector(
        "Polly, documentation of BreakDuration", "8*F +29.9 OPEN +0.1 HALF_OPEN", POLLY_EXAMPLE
    ),
    "Polly: no failure in ten calls, threshold 10 %": Vector(
        "Polly, AdvancedCircuitBehaviorTests", "10*S CLOSED", TEN_PERCENT_OF_TEN
    ),
    "Polly: one failure in ten calls, threshold 10 %": Vector(
        "Polly, AdvancedCircuitBehaviorTests", "9*S F OPEN", TEN_PERCENT_OF_TEN
    ),
    "Polly: two failures in ten calls, threshold 10 %": Vector(
        "Polly, AdvancedCircuitBehaviorTests", "F 8*S CLOSED F OPEN", TEN_PERCENT_OF_TEN
    ),
    "Polly: nine calls are below a minimum of ten": Vector(
        "Polly, AdvancedCircuitBehaviorTests", "8*S F CLOSED", TEN_PERCENT_OF_TEN
    ),
    "Polly: one call probes, and the others are rejected": Vector(
        "Polly, CircuitStateController", "8*F +30 begin R R end CLOSED S", POLLY_EXAMPLE
    ),
    # ------------------------------------------------------------ failsafe-go
    "failsafe-go: three failures in a row": Vector(
        "failsafe-go, TestClosedStateFailureWithFailureThreshold", "F S F F CLOSED F OPEN",
        {"failure_threshold": 3},
    ),
    "failsafe-go: two of the last three calls fail": Vector(
        "failsafe-go, TestClosedStateFailureWithFailureRatio", "F S CLOSED F OPEN", TWO_OF_THREE_FAIL
    ),
    "failsafe-go: half of the calls fail, three of four are too many": Vector(
        "failsafe-go, TestClosedStateSuccessWithFailureRatio",
        "S F S F S F S F S F S F S F S F CLOSED",
        {"failure_rate_threshold": 0.75, "window_calls": 4, "minimum_calls": 4},
    ),
    "failsafe-go: every other call fails, two in a row are too many": Vector(
        "failsafe-go, TestClosedStateSuccessWithFailureThreshold", "S F S F S F S F S F S F S F CLOSED",
        {"failure_threshold": 2},
    ),
    "failsafe-go: half-open, one failure opens it": Vector(
        "failsafe-go, TestHalfOpenStateFailureWithDefaultConfig", f"{HALF_OPEN} F OPEN",
        {"failure_threshold": 1}
    ),
    "failsafe-go: half-open, one success closes it": Vector(
        "failsafe-go, TestHalfOpenSuccessWithDefaultConfig", f"{HALF_OPEN} S CLOSED", {"failure_threshold": 1}
    ),
    "failsafe-go: half-open, three of three successes close it": Vector(
        "failsafe-go, TestHalfOpenSuccessWithSuccessThreshold",
        f"{HALF_OPEN} S HALF_OPEN S HALF_OPEN S CLOSED", THREE_SUCCEED,
    ),
    "failsafe-go: half-open, a failure after two of three successes opens it": Vector(
        "failsafe-go, TestHalfOpenFailureWithSuccessAndFailureThresholds", f"{HALF_OPEN} S S HALF_OPEN F "
        "OPEN",
        THREE_SUCCEED,
    ),
    "failsafe-go: half-open, a failure after one of three successes opens it": Vector(
        "failsafe-go, TestHalfOpenFailureWithSuccessThreshold", f"{HALF_OPEN} S F OPEN", THREE_SUCCEED
    ),
    "failsafe-go: half-open, two of three fail": Vector(
        "failsafe-go, TestHalfOpenFailureWithSuccessRatio", f"{HALF_OPEN} F S HALF_OPEN F OPEN",
        TWO_OF_THREE_SUCCEED,
    ),
    "failsafe-go: half-open, two of three succeed": Vector(
        "failsafe-go, TestHalfOpenSuccessWithSuccessRatio", f"{HALF_OPEN} F S HALF_OPEN S CLOSED",
        TWO_OF_THREE_SUCCEED,
    ),
    "failsafe-go: half-open, two of four fail, three must succeed": Vector(
        "failsafe-go, TestHalfOpenFailureWithSuccessAndFailureRatios", f"{HALF_OPEN} S F S HALF_OPEN F OPEN",
        THREE_OF_FOUR_SUCCEED,
    ),
    "failsafe-go: half-open, three of four succeed": Vector(
        "failsafe-go, TestHalfOpenSuccessWithSuccessAndFailureRatios",
        f"{HALF_OPEN} S F S HALF_OPEN S CLOSED", THREE_OF_FOUR_SUCCEED,
    ),
    "failsafe-go: half-open, a failure threshold above one is counted": Vector(
        "failsafe-go, TestHalfOpenFailureWithFailureThreshold", "3*F +30 HALF_OPEN F OPEN",
        {"failure_threshold": 3},
        differs="failsafe-go needs three failures there too. Ours opens at the first: its rule for "
        "probes is how "
        "many must succeed (`half_open_successes`).",
    ),
    # ------------------------------------------------------------ pybreaker
    "pybreaker: a success starts the count of failures again": Vector(
        "pybreaker, test_one_successful_call_after_failed_call", "F F S F F CLOSED F OPEN",
        {"failure_threshold": 3}
    ),
    "pybreaker: after the timeout a failure opens it": Vector(
        "pybreaker, test_failed_call_after_timeout", "F F CLOSED F OPEN R +0.6 F OPEN R",
        {"failure_threshold": 3, "open_seconds": 0.5},
    ),
    "pybreaker: after the timeout a success closes it": Vector(
        "pybreaker, test_successful_after_timeout", "3*F OPEN R +2 S CLOSED",
        {"failure_threshold": 3, "open_seconds": 1.0},
    ),
    "pybreaker: three successes close it": Vector(
        "pybreaker, test_success_threshold_multiple_successes_required",
        "3*F +0.2 S HALF_OPEN S HALF_OPEN S CLOSED",
        {"failure_threshold": 3, "open_seconds": 0.1, "half_open_permits": 3},
    ),
    "pybreaker: a failure after two of three successes opens it": Vector(
        "pybreaker, test_success_threshold_failure_resets_counter",
        "3*F +0.2 S S HALF_OPEN F OPEN",
        {"failure_threshold": 3, "open_seconds": 0.1, "half_open_permits": 3},
    ),
    "pybreaker: the failure that opens it": Vector(
        "pybreaker, test_several_failed_calls_setting_absent", "F F F OPEN R", {"failure_threshold": 3},
        differs="With pybreaker the call that opens it raises CircuitBreakerError. With ours that call "
        "raises its own "
        "error, and only the calls after it are rejected.",
    ),
    "pybreaker: an error that is not counted": Vector(
        "pybreaker, test_excluded_exceptions", "F F X F OPEN", {"failure_threshold": 3},
        differs="pybreaker counts an excluded error as a success. With ours `is_failure` chooses: False "
        "is a success, "
        "None, as here, neither.",
    ),
    "pybreaker: after three failures and a success, three more open it": Vector(
        "pybreaker, test_several_failed_calls_setting_absent", "F F S F F F OPEN R R",
        {"failure_threshold": 3},
    ),
    "pybreaker: it is closed by hand": Vector(
        "pybreaker, test_close", "3*F OPEN R close CLOSED S CLOSED", {"failure_threshold": 3}
    ),
    "pybreaker: open by hand, a failure after the timeout opens it": Vector(
        "pybreaker, test_failed_call_when_halfopen", "open/1 R +1 HALF_OPEN F OPEN", {"failure_threshold": 3}
    ),
    "pybreaker: open by hand, a success after the timeout closes it": Vector(
        "pybreaker, test_successful_call_when_halfopen", "open/1 R +1 HALF_OPEN S CLOSED",
        {"failure_threshold": 3},
    ),
    "pybreaker: half-open, callers at the same time": Vector(
        "pybreaker, test_half_open_thread_safety", "3*F +30 begin R R fail OPEN R", {"failure_threshold": 3},
        differs="pybreaker holds a lock during the call, so the others wait for the probe and are then "
        "rejected. Ours rejects them at once.",
    ),
    # ------------------------------------------------------------ aiobreaker
    "aiobreaker: the failure that opens it": Vector(
        "aiobreaker 1.2.0, CircuitClosedState.on_failure", "F OPEN R", {"failure_threshold": 1},
        differs="As with pybreaker, the call that opens it raises CircuitBreakerError there.",
    ),
    "aiobreaker: half-open, callers at the same time": Vector(
        "aiobreaker 1.2.0, CircuitHalfOpenState", "5*F +60 begin R R end CLOSED",
        {"failure_threshold": 5, "open_seconds": 60.0},
        differs="aiobreaker admits every call while it is half-open, ten of ten. Ours admits its permits.",
    ),
    "aiobreaker: a failure of a call from before the opening": Vector(
        "aiobreaker 1.2.0, CircuitBreakerBaseState.call_async", "begin F OPEN +60 S CLOSED fail CLOSED",
        {"failure_threshold": 1, "open_seconds": 60.0},
        differs="In aiobreaker the late failure opens the breaker that has recovered. Ours counts an outcome "
        "only in the state in which the call began.",
    ),
    # ------------------------------------------------------------ purgatory
    "purgatory: five failures open it for thirty seconds": Vector(
        "purgatory 3.0.1, AsyncCircuitBreakerFactory's defaults", "5*F OPEN R +30.1 HALF_OPEN S CLOSED",
        {"failure_threshold": 5, "open_seconds": 30.0},
    ),
    "purgatory: a success starts the count of failures again": Vector(
        "purgatory 3.0.1, ClosedState.handle_end_request", "4*F S 4*F CLOSED F OPEN", {"failure_threshold": 5}
    ),
    "purgatory: half-open, a failure opens it": Vector(
        "purgatory 3.0.1, HalfOpenedState.handle_exception", "5*F +30.1 F OPEN R", {"failure_threshold": 5}
    ),
    "purgatory: an excluded error is a success": Vector(
        "purgatory 3.0.1, Context.handle_exception", "4*F X F OPEN", {"failure_threshold": 5},
        differs="purgatory counts an excluded error as a success, as pybreaker does.",
    ),
    "purgatory: half-open, callers at the same time": Vector(
        "purgatory 3.0.1, HalfOpenedState.handle_new_request", "5*F +30.1 begin R end CLOSED",
        {"failure_threshold": 5},
        differs="purgatory admits every call while it is half-open. Ours admits its permits.",
    ),
    # ------------------------------------------------------------ states by hand
    "resilience4j: open by hand, it rejects calls": Vector(
        "resilience4j, shouldThrowCallNotPermittedExceptionWhenStateIsOpen", "open/5 OPEN R", RESILIENCE4J
    ),
    "resilience4j: forced open, it rejects calls however long": Vector(
        "resilience4j, shouldForceOpenCircuitBreaker", "hold OPEN R +9999 OPEN R close CLOSED S", RESILIENCE4J
    ),
    "resilience4j: disabled, it admits calls however many fail": Vector(
        "resilience4j, shouldDisableCircuitBreaker", "allow 20*F CLOSED S F CLOSED", RESILIENCE4J
    ),
    "resilience4j: open for a time that is given by hand": Vector(
        "resilience4j, shouldTransitionToHalfOpenAfterPassedWaitDuration",
        "open/7200 +7199.9 OPEN R +0.1 HALF_OPEN", RESILIENCE4J,
    ),
    "resilience4j: a reset closes it with empty counts": Vector(
        "resilience4j, shouldResetToClosedState", "5*F OPEN close CLOSED 4*F CLOSED F OPEN", RESILIENCE4J
    ),
    "resilience4j: a reset empties the counts of a closed one": Vector(
        "resilience4j, shouldResetClosedState", "4*F close 4*F CLOSED F OPEN", RESILIENCE4J
    ),
    "resilience4j: the wait grows with each failed probing": Vector(
        "resilience4j, shouldTransitionToHalfOpenAfterWaitInterval",
        "5*F +5 F F OPEN +9.9 OPEN +0.1 HALF_OPEN F F OPEN +19.9 OPEN +0.1 HALF_OPEN 3*S CLOSED "
        "5*F +5 HALF_OPEN",
        RESILIENCE4J | {"open_seconds_factor": 2.0, "open_seconds_max": 3600.0},
    ),
    "resilience4j: half-open, no further calls are permitted": Vector(
        "resilience4j, shouldThrowCallNotPermittedExceptionWhenNotFurtherTestCallsArePermitted",
        "5*F +5 4*begin R end R", RESILIENCE4J,
    ),
    "Polly: isolated, it rejects calls however long": Vector(
        "Polly, IsolateAsync_Ok", "hold OPEN R +1 R +999 OPEN close CLOSED S", POLLY_EXAMPLE
    ),
    "Polly: half-open, a success closes it": Vector(
        "Polly, Flow_Closed_HalfOpen_Closed", "8*F +30 HALF_OPEN S CLOSED", POLLY_EXAMPLE
    ),
    "Polly: half-open, a failure opens it for the break again": Vector(
        "Polly, Flow_Closed_HalfOpen_Open_HalfOpen_Closed",
        "8*F +30 F OPEN +0.001 R +60 HALF_OPEN S CLOSED", POLLY_EXAMPLE,
    ),
    "Polly: eleven calls with three failures": Vector(
        "Polly, OnActionFailure_WhenClosed_EnsureCorrectBehavior", "8*S F CLOSED F OPEN",
        TEN_PERCENT_OF_TEN,
        differs="Polly's case begins with eleven counted calls. A breaker that sees each call opens at the "
        "tenth.",
    ),
    "failsafe-go: opened by hand, it rejects the next call": Vector(
        "failsafe-go, TestCircuitBreaker, should reject initial execution when circuit open",
        "open/60 R OPEN", {"failure_threshold": 1},
    ),
    "failsafe-go: half-open, three executions at once and no more": Vector(
        "failsafe-go, TestCircuitBreaker, should reject excessive attempts when breaker half-open",
        "F +30 3*begin 5*R", THREE_SUCCEED,
    ),
    "failsafe-go: two failures within a period": Vector(
        "failsafe-go, TestCircuitBreaker, should support time based failure threshold",
        "F S +21 F S +5 CLOSED F OPEN +1 F OPEN +1 S CLOSED",
        {"failures_in_window": 2, "window_seconds": 20.0, "open_seconds": 1.0},
    ),
    "failsafe-go: half of three or more within a period": Vector(
        "failsafe-go, TestCircuitBreaker, should support time based failure rate thresholding",
        "F S +21 F S +5 S CLOSED F OPEN +1 F OPEN +1 S CLOSED",
        {"failure_rate_threshold": 0.5, "minimum_calls": 3, "window_seconds": 20.0, "open_seconds": 1.0},
        differs="failsafe-go applies the rate to the probes too, and closes after two successes. Ours has a "
        "number of probes, 1 by default.",
    ),
    "failsafe-go: k of the last n executions": Vector(
        "failsafe-go, documentation of WithFailureThresholdRatio(3, 5)", "F S F S S S F CLOSED F F OPEN",
        {"failures_in_window": 3, "window_calls": 5},
    ),
    # ------------------------------------------------------------ Hystrix, Akka, Envoy
    "Hystrix: half of twenty requests within ten seconds, and five seconds of rest": Vector(
        "Hystrix, documentation of the defaults of the circuit breaker",
        "10*S 9*F CLOSED F OPEN R +4.9 OPEN +0.1 HALF_OPEN begin R end CLOSED",
        {"failure_rate_threshold": 0.5, "minimum_calls": 20, "window_seconds": 10.0, "open_seconds": 5.0},
    ),
    "Hystrix: nineteen failures are below the request volume": Vector(
        "Hystrix, documentation of circuitBreaker.requestVolumeThreshold", "19*F CLOSED F OPEN",
        {"failure_rate_threshold": 0.5, "minimum_calls": 20, "window_seconds": 10.0, "open_seconds": 5.0},
    ),
    "Akka: five failures, a minute, and the first call decides": Vector(
        "Akka, documentation of the circuit breaker", "5*F OPEN +60 begin R end CLOSED",
        {"failure_threshold": 5, "open_seconds": 60.0},
    ),
    "Akka: a success resets the count of failures": Vector(
        "Akka, documentation of the circuit breaker, closed state", "4*F S 4*F CLOSED F OPEN",
        {"failure_threshold": 5, "open_seconds": 60.0},
    ),
    "Akka: an exponential backoff of the reset timeout": Vector(
        "Akka, documentation of withExponentialBackoff",
        "F +1 F +1.9 OPEN +0.1 F +3.9 OPEN +0.1 S CLOSED",
        {"failure_threshold": 1, "open_seconds": 1.0, "open_seconds_factor": 2.0, "open_seconds_max": 36.0},
    ),
    "Envoy: five consecutive errors eject a host for thirty seconds": Vector(
        "Envoy, documentation of outlier detection, consecutive_5xx and base_ejection_time",
        "5*F OPEN +29.9 R +0.1 S CLOSED",
        {"failure_threshold": 5, "open_seconds": 30.0},
    ),
}  # fmt: skip


class Uncounted(Exception):  # noqa: N818 -- an outcome, not an error of the test
    """Neither a failure nor a success."""


@dataclass
class VectorRunner:
    """Runs the steps of a vector on one breaker."""

    breaker: CircuitBreaker
    time: StoreTime
    under_way: list[tuple[asyncio.Task[None], asyncio.Event, list[bool]]] = field(default_factory=list)

    async def take(self, step: str) -> None:
        times, _, single = step.rpartition("*")
        for _ in range(int(times or 1)):
            await self._take_once(single)

    async def _take_once(self, step: str) -> None:
        name, _, seconds = step.partition("/")
        if step.startswith("+"):
            await self.time.advance(float(step))
        elif step in {"OPEN", "CLOSED", "HALF_OPEN"}:
            assert (await self.breaker.status()).state == step
        elif name in {"S", "F", "X"}:
            await self._call(name, float(seconds or 0))
        elif step == "R":
            with pytest.raises(CircuitOpenError):
                await self._call("S", 0)
        elif step == "begin":
            await self._begin()
        elif step in {"end", "fail"}:
            await self._end(fails=step == "fail")
        elif name in {"hold", "open"}:
            await self.breaker.force_open(float(seconds) if seconds else None)
        elif step == "allow":
            await self.breaker.force_closed()
        elif step == "close":
            await self.breaker.close()
        else:
            raise ValueError(step)

    async def _call(self, outcome: str, seconds: float) -> None:
        error = {"S": None, "F": ConnectionError, "X": Uncounted}[outcome]

        async def call() -> None:
            await self.time.advance(seconds)
            if error is not None:
                raise error

        if error is None:
            await self.breaker.run(call)
        else:
            with pytest.raises(error):
                await self.breaker.run(call)

    async def _begin(self) -> None:
        begun, may_end, fails = asyncio.Event(), asyncio.Event(), []

        async def call() -> None:
            begun.set()
            await may_end.wait()
            if fails:
                raise ConnectionError

        task = asyncio.create_task(self.breaker.run(call))
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        assert begun.is_set(), "the breaker rejected it"
        self.under_way.append((task, may_end, fails))

    async def _end(self, *, fails: bool) -> None:
        task, may_end, failures = self.under_way.pop(0)
        if fails:
            failures.append(True)
        may_end.set()
        await asyncio.gather(task, return_exceptions=True)

    async def stop(self) -> None:
        tasks = [task for task, *_ in self.under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
async def test_the_breaker_agrees_with_the_source(vector: Vector, store_time: StoreTime) -> None:
    link = store_time.link
    store = (
        MemoryBreakerStore(store_time.clock)
        if link is None
        else RedisBreakerStore(link, time_source=TEST_TIME)
    )
    breaker = CircuitBreaker(
        "vector",
        store,
        CircuitBreakerOptions(**vector.options),
        store_time.clock,
        is_failure=lambda error: None if isinstance(error, Uncounted) else True,
    )
    caller = VectorRunner(breaker, store_time)
    try:
        for step in vector.steps.split():
            await caller.take(step)
    finally:
        await caller.stop()
