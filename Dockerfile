# One image for each of the services and for the command line: `docker run IMAGE run payment`, `docker run IMAGE --help`.

# By digest for a release: `docker compose --env-file deploy/images.env build`.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# Where the public package index is not reached: PIP_INDEX_URL, in the environment of `docker compose build`.
ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/saga
WORKDIR /build
COPY requirements.lock ./
RUN pip --python /opt/saga/bin/python install --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY toolkit toolkit
RUN pip --python /opt/saga/bin/python install --no-deps --no-build-isolation .
COPY services /opt/saga/app/services
RUN python -m compileall -q /opt/saga/app

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/saga --shell /usr/sbin/nologin saga \
 && install -d -o saga -g saga /var/lib/saga
COPY --from=build /opt/saga /opt/saga
ENV PATH=/opt/saga/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SAGA_HTTP_HOST=0.0.0.0 SAGA_HTTP_PORT=8000 SAGA_HEALTH_PORT=8001 SAGA_LOG_FORMAT=json SAGA_DATA_DIR=/var/lib/saga
# The services are found in the current directory.
WORKDIR /opt/saga/app
USER 10001:10001
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8001/healthz', timeout=3)"]
ENTRYPOINT ["saga"]
