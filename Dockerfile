# syntax=docker/dockerfile:1

# Two stages from one base, so that the environment's interpreter path holds in both. A release
# pins the base to its digest: --build-arg PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/countersign \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
COPY requirements-bootstrap.txt ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    -r requirements-bootstrap.txt
# Dependencies first: a change of our own code reuses this layer. --frozen takes versions and
# hashes from uv.lock and nothing else.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-cache --no-default-groups --no-install-project
COPY README.md LICENSE ./
COPY rego ./rego
COPY verify/countersign_verify.py verify/countersign_verify_bundle.py ./verify/
COPY connectors ./connectors
COPY gateway ./gateway
RUN uv sync --frozen --no-cache --no-default-groups --no-editable

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="countersign" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, so that an orchestrator can check that it is not root. Only the state folder is its own.
RUN groupadd --system --gid 10001 countersign \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin countersign \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/countersign
COPY --from=build /opt/countersign /opt/countersign
# Nothing is written outside /var/lib/countersign, so the root file system may be read-only:
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -v countersign:/var/lib/countersign -v ./countersign.yaml:/etc/countersign/countersign.yaml:ro
ENV PATH=/opt/countersign/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/countersign
VOLUME ["/var/lib/countersign"]
USER 10001:10001
ENTRYPOINT ["countersign"]
CMD ["serve", "--config", "/etc/countersign/countersign.yaml"]
