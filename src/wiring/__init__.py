"""The composition root: it turns settings into options, options into parts, and parts into an app."""

from src.wiring.app import create_app

__all__ = ["create_app"]
