"""The API: `uvicorn src.main:app`."""

from src.wiring import create_app

app = create_app()
