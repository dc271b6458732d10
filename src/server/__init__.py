"""The HTTP server: uvicorn with additional limits, checks, and a graceful stop.

`server.install` changes each uvicorn server of the process. The changes therefore apply to `python -m src`,
to `python -m uvicorn src.main:app`, and to the workers of both. This folder contains all code that works
around uvicorn and httptools. docs/private-parts.md lists the private parts of both that the code uses.
"""
