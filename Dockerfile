# syntax=docker/dockerfile:1
# deploy/README.md says how to build it, and how to pin what it stands on by digest.

ARG PYTHON_IMAGE=python:3.13-slim-bookworm
ARG UV_IMAGE=ghcr.io/astral-sh/uv:0.13.8

# hadolint ignore=DL3006
FROM ${UV_IMAGE} AS uv

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS builder

# All backends. Not `embedded`, which is for development, nor `parquet`, because pyarrow is larger than all else together:
# --build-arg MORE_EXTRAS=--extra=parquet adds it.
ARG EXTRAS="--extra=api --extra=kafka --extra=nats --extra=object-storage --extra=rabbitmq --extra=rabbitmq-broker \
--extra=redis --extra=sqs --extra=webhook"
ARG MORE_EXTRAS=""

COPY --from=uv /uv /opt/uv/
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never

WORKDIR /app

# What changes seldom comes first: a change of our code keeps the layer of the libraries.
COPY pyproject.toml uv.lock ./
# hadolint ignore=SC2086
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/uv sync --frozen --no-dev --no-editable --no-install-project ${EXTRAS} ${MORE_EXTRAS}

COPY README.md LICENSE ./
COPY relay relay/
COPY scheduler scheduler/
COPY workers workers/
# hadolint ignore=SC2086
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/uv sync --frozen --no-dev --no-editable ${EXTRAS} ${MORE_EXTRAS}

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}

ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="tide-relay" \
      org.opencontainers.image.description="Moves messages between PostgreSQL and the world, and loses none" \
      org.opencontainers.image.source="https://github.com/tide-relay/tide-relay" \
      org.opencontainers.image.documentation="https://tide-relay.github.io/tide-relay/" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# HOME is where client libraries look for files of their own (.aws, .postgresql): mount them there. Only /tmp is written to.
ENV PATH=/app/.venv/bin:${PATH} \
    HOME=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app
COPY --from=builder /app/.venv /app/.venv
COPY --chmod=0644 deploy/image/healthcheck.py /app/

USER 65532:65532

# Scheduler, workers, relay api, its metrics and the admin API.
EXPOSE 9090 9191 8080 9292 8090

STOPSIGNAL SIGTERM
# For a scheduler, workers and relay api alike. Kubernetes does not read it: the chart has probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-I", "/app/healthcheck.py"]

# The command chooses the program: relay-scheduler, relay workers, relay api, relay migrate.
CMD ["relay", "--help"]
