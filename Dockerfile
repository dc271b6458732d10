# The API and the provider, in one image. `docker build .` gives the target `production`, the last one:
# the service with its run-time dependencies. docker-compose.yml builds the target `test`, which adds the tests
# and their libraries, so that `docker-compose run --rm app pytest` works.

# The pins support CPython 3.11 to 3.14; --build-arg PYTHON_VERSION=3.14 chooses the newest. The default is 3.11
# because a build must also work where no image registry can be reached and only that image is there.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS base
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# The service writes only to /app/data, and that only with REDIS_URL=embedded://; tests write caches to /app.
RUN useradd --uid 10001 --no-create-home app && install -d -o app -g app /app /app/data
WORKDIR /app
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 \
  CMD ["python", "-c", "import os, httpx; httpx.get(f\"http://127.0.0.1:{os.environ.get('APP_PORT') or 8000}/health\", timeout=2, trust_env=False).raise_for_status()"]
CMD ["python", "-m", "src"]

FROM base AS libraries
# Where pip looks for packages, if not at its default. Not kept in the images below.
ARG PIP_INDEX_URL
RUN python -m venv /installer && python -m venv --without-pip /venv
WORKDIR /install
COPY requirements-installer.txt requirements.txt requirements-test.txt ./
COPY scripts/install.py scripts/
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 /installer/bin/python scripts/install.py requirements.txt \
  --python /venv/bin/python --compile-bytecode

FROM libraries AS test-libraries
RUN UV_NO_CACHE=1 /installer/bin/python scripts/install.py requirements-test.txt \
  --python /venv/bin/python --compile-bytecode

# Only its owner can read the files of a checkout that was made under umask 077.
FROM base AS sources
WORKDIR /sources
COPY . .
RUN chmod -R a+rX .

FROM base AS test
COPY --from=test-libraries /venv /venv
COPY --from=sources /sources ./
USER app

FROM base AS production
COPY --from=libraries /venv /venv
COPY --from=sources /sources/LICENSE ./
COPY --from=sources /sources/src src
USER app
