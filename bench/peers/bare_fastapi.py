"""What the framework costs: FastAPI's hello, on the routes of the API."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/api/metrics/summary")
@app.post("/api/metrics")
async def hello() -> dict[str, str]:
    """Say hello."""
    return {"message": "hello"}
