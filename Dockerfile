# The API and the provider, in one image. requirements-dev.txt as REQUIREMENTS (docker-compose.yml says so)
# adds what `docker-compose run --rm app pytest` needs; the default leaves it out.

FROM python:3.11-slim AS build
ARG REQUIREMENTS=requirements.txt
RUN python -m venv /venv
COPY requirements-installer.txt requirements.txt requirements-dev.txt /
RUN python -m venv /installer && \
  /installer/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    -r /requirements-installer.txt && \
  /installer/bin/uv pip sync --no-cache --system-certs --compile-bytecode --python /venv/bin/python \
    --require-hashes /$REQUIREMENTS

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# The files stay root's; the folder itself is the user's, who writes the embedded Redis' data and what tests
# leave (caches, coverage) into it.
RUN useradd --uid 10001 --no-create-home app && mkdir -p /app/data && chown -R app:app /app
WORKDIR /app
COPY --from=build /venv /venv
COPY . .
USER app
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 \
  CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f\"http://127.0.0.1:{os.environ.get('APP_PORT') or 8000}/health\", timeout=2)"]
CMD ["python", "-m", "src"]
