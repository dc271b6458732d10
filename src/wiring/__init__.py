"""Where the parts are joined: settings become options, options become parts, parts become an app."""

from src.wiring.app import create_app

__all__ = ["create_app"]
