"""The external service's client: answers, failures, and client errors."""

import gzip

import httpx
import orjson
import pytest

from src.resilience.clock import SystemRandomizer
from src.resilience.errors import CallTimeoutError, CircuitOpenError, RateLimitedError
from src.resilience.http.http_date import MAX_RETRY_AFTER_SECONDS
from src.resilience.pipeline import Pipeline
from src.resilience.retry import Fixed, Retry, RetryOptions
from src.services.errors import StorageUnavailableError
from src.services.external_service import (
    ExternalService,
    ExternalServiceError,
    ExternalServiceRefusedError,
    ExternalServiceUnavailableError,
    is_failure,
    is_worth_retrying,
    set_failure_rate,
)
from src.services.simulated_faults import FaultControl, SimulatedFaults
from tests.support.clock import FakeClock


class RaisingPolicy:
    """A policy that raises an error instead of running the call."""

    def __init__(self, error):
        self._error = error

    async def run(self, call):
        raise self._error


class ErrorRecordingPolicy:
    """A policy that keeps the error of the call."""

    error: BaseException | None = None

    async def run(self, call):
        try:
            return await call()
        except Exception as error:
            self.error = error
            raise


class SharedFaults:
    def __init__(self, agreed=None, *, away=False):
        self.agreed = agreed or {}
        self.away = away

    async def get(self):
        if self.away:
            raise StorageUnavailableError("away")
        return dict(self.agreed)

    async def set(self, changes):
        self.agreed |= changes


def _raise_error(error):
    raise error


def client_of(answer):
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://service")


def service(answer, pipeline=None, clock=None):
    return ExternalService(client_of(answer), pipeline or Pipeline(), clock or FakeClock())


def service_with_faults(answer, shared_faults):
    client = client_of(answer)
    control = FaultControl(client, shared_faults)
    return ExternalService(client, Pipeline(), FakeClock(), control.apply_shared), control


async def test_reference_data_is_any_json():
    asked = []

    def answer(request):
        asked.append(request.url.raw_path)
        return httpx.Response(200, json={"unit": "%"})

    assert await service(answer).reference("cpu.load/host:1") == {"unit": "%"}
    assert asked == [b"/kv/metric-types/cpu.load%2Fhost%3A1"]


async def test_not_found_is_a_result_and_no_error():
    assert await service(lambda _: httpx.Response(404)).reference("cpu") is None


@pytest.mark.parametrize(
    ("answer", "judged"),
    [
        (lambda _: httpx.Response(503), ExternalServiceError),
        (lambda _: httpx.Response(302), ExternalServiceError),
        (lambda _: httpx.Response(200, text="<html>"), ExternalServiceError),
        (lambda _: httpx.Response(200, json="x" * 70_000), ExternalServiceError),
        (lambda _: httpx.Response(403), ExternalServiceRefusedError),
    ],
)
async def test_any_other_error_counts_as_a_failure_and_is_raised_as_unavailable(answer, judged):
    keeping = ErrorRecordingPolicy()
    with pytest.raises(ExternalServiceUnavailableError):
        await service(answer, Pipeline(keeping)).reference("cpu")
    assert type(keeping.error) is judged


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), ConnectionResetError("cut")])
async def test_a_failed_connection_counts_as_a_failure(error):
    def answer(request):
        raise error

    with pytest.raises(ExternalServiceUnavailableError):
        await service(answer).reference("cpu")


def test_only_failures_of_the_service_count_as_failures():
    assert is_failure(ExternalServiceError("x"))
    assert is_failure(CallTimeoutError(1))
    assert is_failure(ExternalServiceRefusedError(403)) is None


def test_client_errors_are_not_retried():
    assert is_worth_retrying(ExternalServiceError("x"))
    assert is_worth_retrying(CallTimeoutError(1))
    assert not is_worth_retrying(ExternalServiceRefusedError(403))
    assert is_worth_retrying(ExternalServiceRefusedError(429))
    assert not is_worth_retrying(CircuitOpenError("p", "open", 1))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"failure_rate": 0.5}),
        httpx.Response(200, json={"failure_rate": 0.5, "latency_ms": None}),
    ],
)
async def test_a_service_without_faults_is_reported_as_unavailable(answer):
    with pytest.raises(ExternalServiceUnavailableError):
        await FaultControl(client_of(lambda _: answer)).change({"failure_rate": 0.5})


async def test_an_open_circuit_is_a_503_circuit_open():
    with pytest.raises(CircuitOpenError):
        await service(None, Pipeline(RaisingPolicy(CircuitOpenError("p", "open", 7)))).reference("cpu")


async def test_another_rejection_keeps_its_retry_after():
    with pytest.raises(ExternalServiceUnavailableError) as caught:
        await service(None, Pipeline(RaisingPolicy(RateLimitedError("p", "spent", 7)))).reference("cpu")
    assert caught.value.retry_after == 7


class TestRetryAfter:
    """The header Retry-After of a response with status 429 or 503 (RFC 9110, section 10.2.3)."""

    @pytest.fixture
    def retry(self, clock):
        options = RetryOptions(attempts=3, total_seconds=60, backoff=Fixed(0.1), retry_on=is_worth_retrying)
        return Retry(options, clock, SystemRandomizer())

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("value", "wait"),
        [
            ("7", 7.0),
            ("Fri, 15 Jan 2027 08:00:20 GMT", 20.0),  # 1,800,000,000 on the clock is 08:00:00
            ("Fri, 15 Jan 2027 07:59:00 GMT", 0.1),
            ("0", 0.1),
            ("soon", 0.1),
            (None, 0.1),
        ],
    )
    async def test_the_next_attempt_waits_for_retry_after(self, clock, retry, status, value, wait):
        answers = [
            httpx.Response(status, headers={} if value is None else {"Retry-After": value}),
            httpx.Response(200, json={"unit": "%"}),
        ]
        external = service(lambda _: answers.pop(0), Pipeline(retry), clock=clock)
        assert await clock.drive(external.reference("cpu")) == {"unit": "%"}
        assert clock.sleeps == [wait]

    @pytest.mark.parametrize("status", [429, 503])
    async def test_after_a_long_pause_the_caller_gets_a_retry_after(self, clock, retry, status):
        asked = []

        def answer(request):
            asked.append(request)
            return httpx.Response(status, headers={"Retry-After": "90"})

        with pytest.raises(ExternalServiceUnavailableError) as caught:
            await service(answer, Pipeline(retry), clock=clock).reference("cpu")
        assert (len(asked), clock.sleeps, caught.value.retry_after) == (1, [], 90)

    async def test_the_wait_is_bounded(self, clock):
        answer = httpx.Response(503, headers={"Retry-After": "9" * 400})
        with pytest.raises(ExternalServiceUnavailableError) as caught:
            await service(lambda _: answer, clock=clock).reference("cpu")
        assert caught.value.retry_after == MAX_RETRY_AFTER_SECONDS

    async def test_an_encoded_error_body_is_accepted(self):
        headers = {"Retry-After": "7", "Content-Encoding": "gzip"}
        answer = httpx.Response(503, headers=headers, content=gzip.compress(b"come back"))
        with pytest.raises(ExternalServiceUnavailableError) as caught:
            await service(lambda _: answer).reference("cpu")
        assert caught.value.retry_after == 7


class TestSharedFaults:
    """The faults of a simulated service that runs in the process of every worker."""

    @staticmethod
    def recorder(puts):
        faults = {"failure_rate": 0.0, "latency_ms": 0}

        def answer(request):
            if request.url.path == "/faults":
                if request.method == "PUT":
                    puts.append(request.content)
                    faults.update(orjson.loads(request.content))
                return httpx.Response(200, json=faults)
            return httpx.Response(404)

        return answer

    async def test_faults_of_another_worker_are_applied_once(self):
        puts = []
        external, _ = service_with_faults(self.recorder(puts), SharedFaults({"failure_rate": 0.5}))
        await external.reference("cpu")
        await external.reference("cpu")
        assert puts == [b'{"failure_rate":0.5}']

    async def test_a_change_is_stored_for_other_workers_and_not_applied_twice(self):
        puts = []
        shared = SharedFaults()
        external, control = service_with_faults(self.recorder(puts), shared)
        assert await control.change({"latency_ms": 40}) == SimulatedFaults(0.0, 40)
        await external.reference("cpu")
        assert shared.agreed == {"latency_ms": 40}
        assert puts == [b'{"latency_ms":40}']

    async def test_a_change_keeps_the_faults_that_other_workers_set(self):
        _, control = service_with_faults(self.recorder([]), SharedFaults({"failure_rate": 0.5}))
        assert await control.change({"latency_ms": 40}) == SimulatedFaults(0.5, 40)

    async def test_an_empty_change_is_answered_without_a_write(self):
        shared = SharedFaults({"failure_rate": 0.5})
        _, control = service_with_faults(self.recorder([]), shared)
        assert await control.change({}) == SimulatedFaults(0.5, 0)
        assert shared.agreed == {"failure_rate": 0.5}

    async def test_while_the_store_is_unavailable_the_last_faults_apply(self):
        puts = []
        external, _ = service_with_faults(self.recorder(puts), SharedFaults({"failure_rate": 0.5}, away=True))
        assert await external.reference("cpu") is None
        assert puts == []


class TestSetFailureRateFromAShell:
    def test_set_failure_rate_calls_the_api_on_this_machine_with_the_key(self, monkeypatch):
        sent = {}

        def put(url, **options):
            sent.update(options, url=url)
            return httpx.Response(200, json={"failure_rate": 1.0}, request=httpx.Request("PUT", url))

        monkeypatch.setattr(httpx, "put", put)
        monkeypatch.setenv("APP_PORT", "8123")
        monkeypatch.setenv("ADMIN_API_KEY", "secret")
        assert set_failure_rate(1.0) == 1.0
        assert sent["url"] == "http://127.0.0.1:8123/api/admin/external-service/failure-rate"
        assert sent["headers"] == {"X-API-Key": "secret"}

    def test_the_command_reads_the_env_file_like_the_service(self, monkeypatch, tmp_path):
        asked = []
        monkeypatch.setattr(
            httpx, "put", lambda url, **_: asked.append(url) or _raise_error(httpx.ConnectError("x"))
        )
        monkeypatch.chdir(tmp_path)
        (tmp_path / ".env").write_text("APP_PORT=8134\n", encoding="utf-8-sig")
        with pytest.raises(RuntimeError):
            set_failure_rate(1.0)
        assert asked[0].startswith("http://127.0.0.1:8134/")

    def test_an_api_that_does_not_respond_is_an_error(self):
        with pytest.raises(RuntimeError, match="no API answers at"):
            set_failure_rate(1.0, "http://127.0.0.1:1")
