# Two images from one lock, each with the dependencies of one workspace member and no other.
#
#   docker build --target platform .                                  webserver, daemon, registrar
#   docker build --target code-location --build-arg LOCATION=orders . one code location
#
# `make images` passes version and revision, and names the result.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ARG UV_VERSION=0.13.9
ARG HATCHLING_VERSION=1.33.0
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet uv==${UV_VERSION} hatchling==${HATCHLING_VERSION}
ENV UV_PROJECT_ENVIRONMENT=/app/venv UV_PYTHON=/usr/local/bin/python UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /src

# Only what the lock is about: neither a change of code nor one of the linter's settings installs
# the dependencies again.
FROM ${PYTHON_IMAGE} AS manifests
COPY . /src
RUN find /src -type f ! -name pyproject.toml ! -name uv.lock -delete && \
    find /src -type d -empty -delete && \
    for file in $(find /src -name pyproject.toml); do \
      awk '/^\[/ {kept = /^\[(build-system|dependency-groups|project|project\.optional-dependencies|tool\.uv.*)\]$/} kept' \
        $file > /tmp/kept && mv /tmp/kept $file || exit 1; \
    done

FROM builder AS dependencies
COPY --from=manifests /src ./
# Code lies beside the environment, in a layer of its own.
ENV SITE=/app/venv/lib/python3.11/site-packages

FROM dependencies AS platform-dependencies
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --quiet --frozen --no-dev --no-install-workspace \
      --package forge-platform --extra control-plane && \
    echo /app/code > ${SITE}/code.pth

FROM dependencies AS code-location-dependencies
ARG LOCATION
ARG PACKAGE=${LOCATION}
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --quiet --frozen --no-dev --no-install-workspace --package ${PACKAGE:?} && \
    rm -rf ${SITE}/pyarrow/include ${SITE}/pyarrow/tests && \
    echo /app/code > ${SITE}/code.pth

FROM builder AS platform-code
COPY platform platform
RUN uv pip install --quiet --no-deps --no-build-isolation --target /app/code ./platform && \
    mkdir -p /app/code/bin && \
    find /app/code/bin -type f -exec sed -i '1s|.*|#!/app/venv/bin/python|' {} +

FROM builder AS code-location-code
ARG LOCATION
ARG FOLDER=code_locations/${LOCATION}
COPY platform platform
COPY ${FOLDER} location
RUN uv pip install --quiet --no-deps --no-build-isolation --target /app/code ./platform ./location && \
    mkdir -p /app/code/bin && \
    find /app/code/bin -type f -exec sed -i '1s|.*|#!/app/venv/bin/python|' {} +

FROM ${PYTHON_IMAGE} AS runtime
# A fixed number: security contexts and volumes refer to it.
RUN echo 'forge:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd && \
    echo 'forge:x:10001:' >> /etc/group && \
    mkdir -p /opt/dagster/dagster_home && chown 10001:10001 /opt/dagster/dagster_home
# The root file system is read-only in the cluster; /tmp is a volume.
ENV PATH=/app/code/bin:/app/venv/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp \
    DAGSTER_HOME=/opt/dagster/dagster_home MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Python's own images come without its byte code, and at run time none can be written.
RUN python -m compileall -q -x '/(tests?|lib2to3|(site|dist)-packages)/' \
      "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY docker/entrypoint /usr/local/bin/entrypoint
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/entrypoint"]

FROM runtime AS platform
COPY --from=platform-dependencies /app/venv /app/venv
COPY --from=platform-code /app/code /app/code
COPY docker/control-plane /app/code/bin/dagster-daemon
COPY docker/control-plane /app/code/bin/dagster-webserver
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="open-forge-platform" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
CMD ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000"]

FROM runtime AS code-location
ARG LOCATION
COPY --from=code-location-dependencies /app/venv /app/venv
COPY --from=code-location-code /app/code /app/code
ARG VERSION
ARG REVISION
ENV FORGE_LOCATION=${LOCATION} FORGE_REVISION=${REVISION}
LABEL org.opencontainers.image.title="open-forge-${LOCATION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      open-forge.location="${LOCATION}"
CMD exec dagster api grpc -h 0.0.0.0 -p 4000 -m ${FORGE_LOCATION}.definitions
