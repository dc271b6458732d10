"""The cost of the framework: minimal FastAPI routes with the paths of the API."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/api/metrics/summary")
@app.post("/api/metrics")
async def hello() -> dict[str, str]:
    """Return a constant message."""
    return {"message": "hello"}
