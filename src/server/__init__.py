"""The HTTP server: uvicorn, with the limits, the checks and the clean end that it lacks.

`server.install` changes each uvicorn server of the process. So the changes hold for each way of starting:
`python -m src`, `python -m uvicorn src.main:app`, and the workers of both. Everything that works around
uvicorn or httptools is in this folder; docs/private-parts.md lists the private parts of them that it uses.
"""
