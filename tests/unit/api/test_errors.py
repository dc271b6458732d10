"""The rendering of errors for clients."""

import orjson
import pytest
from pydantic import TypeAdapter, ValidationError

from src.api.errors import Problem, error_problem, field_errors, problem_document, render, status_title
from src.api.models.metrics import METRIC_IN
from src.resilience.errors import CircuitOpenError, QueueTimeoutError
from src.services.external_service import ExternalServiceUnavailableError

NOW = 1_769_860_800.0


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (404, "Not Found"),
        (413, "Content Too Large"),
        (414, "URI Too Long"),
        (416, "Range Not Satisfiable"),
        (422, "Unprocessable Content"),
        (503, "Service Unavailable"),
    ],
)
def test_a_title_is_the_phrase_of_rfc_9110_in_every_python_version(status, name):
    assert status_title(status) == name
    assert orjson.loads(problem_document(Problem(status, "CODE", "message"), "id", NOW))["title"] == name


@pytest.mark.parametrize(
    "validate",
    [
        lambda: METRIC_IN.validate_python("x"),
        lambda: METRIC_IN.validate_json("[]"),
        lambda: METRIC_IN.validate_python(object(), from_attributes=True),
        lambda: TypeAdapter(dict[str, int]).validate_python(1),
    ],
)
def test_an_error_about_an_object_names_no_python_class(validate):
    with pytest.raises(ValidationError) as caught:
        validate()
    assert field_errors(caught.value.errors()) == [{"field": "body", "message": "must be a JSON object"}]


def test_a_response_has_the_documented_members_and_a_whole_retry_after():
    problem = Problem(503, "CODE", "message", retry_after=1.2, extra={"accepted": 0})
    answer = render(problem, "id", NOW)
    assert orjson.loads(answer.body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "message",
        "code": "CODE",
        "message": "message",
        "timestamp": "2026-01-31T12:00:00Z",
        "request_id": "id",
        "accepted": 0,
    }
    assert answer.headers["retry-after"] == "2"


def test_an_error_is_rendered_by_its_nearest_known_class():
    class CircuitOpenSubclassError(CircuitOpenError):
        pass

    problem = error_problem(CircuitOpenSubclassError("external-service", "open", 7.0))
    assert (problem.code, problem.retry_after) == ("CIRCUIT_OPEN", 7.0)


@pytest.mark.parametrize("policy", ["external-service", "proxy"])
@pytest.mark.parametrize(
    "error",
    [
        lambda policy: CircuitOpenError(policy, "open", 7.0),
        lambda policy: ExternalServiceUnavailableError(7.0, policy),
    ],
)
def test_an_error_names_the_service_that_failed(policy, error):
    assert f"'{policy}'" in error_problem(error(policy)).message


def test_a_breaker_that_is_forced_open_has_a_retry_after():
    assert (
        error_problem(CircuitOpenError("external-service", "the circuit is forced open", None)).retry_after
        == 30
    )


def test_a_call_whose_slot_would_come_too_late_gets_a_retry_after():
    assert error_problem(QueueTimeoutError(60, 12.5)).retry_after == 12.5
    assert error_problem(QueueTimeoutError(60)).retry_after is None
