"""A collector that receives OTLP over HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(ThreadingHTTPServer):
    """Receives OTLP over HTTP, and keeps the messages."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.received = {"/v1/traces": [], "/v1/metrics": []}

    @property
    def spans(self):
        requests = map(ExportTraceServiceRequest.FromString, self.received["/v1/traces"])
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def metrics(self):
        requests = map(ExportMetricsServiceRequest.FromString, self.received["/v1/metrics"])
        return {
            metric.name: metric
            for request in requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    @property
    def services(self):
        """Return the service names of the received metrics."""
        requests = map(ExportMetricsServiceRequest.FromString, self.received["/v1/metrics"])
        resources = [one.resource for request in requests for one in request.resource_metrics]
        return {attributes(resource)["service.name"] for resource in resources}


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        self.server.received[self.path].append(body if kind == "application/x-protobuf" else b"?")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def attributes(described):
    return {
        attribute.key: attribute.value.string_value or attribute.value.int_value
        for attribute in described.attributes
    }


@contextmanager
def running_collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()
