"""The service's logs, instruments and traces."""
