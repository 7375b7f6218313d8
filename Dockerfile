# One image for every step of the pipelines, for notebooks and for `basekamp` itself.
#
#   docker build -t basekamp .                                               CPU
#   docker build --build-arg FLAVOUR=cuda -t basekamp:cuda .                 CUDA, as in torch on PyPI
#   docker build --build-arg BASE_IMAGE=IMAGE@sha256:… .                     another base than the pinned one
#
# The base needs python3 3.11 or newer with venv and ensurepip; nothing else of it is used. A package source of
# your own goes into PIP_ARGS, for example "--no-index --find-links /wheels" with a mounted folder; it is seen by
# the stages that are thrown away, not by the image.
#
# An image with a model of your own begins with ours:
#   FROM basekamp
#   USER root
#   RUN python3 -m ensurepip && python3 -m pip install --no-cache-dir my-package
#   USER 1000:1000
ARG BASE_IMAGE=python:3.12.14-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254
# checkov:skip=CKV_DOCKER_7: the tag and the digest stand in BASE_IMAGE, which checkov does not read.
# checkov:skip=CKV_DOCKER_2: a step runs to its end; Kubernetes does not look at a HEALTHCHECK.

# Dependencies: what pyproject.toml asks for, in the versions of constraints.txt. Edits of the source leave it cached.
FROM ${BASE_IMAGE} AS dependencies
ARG FLAVOUR=cpu
ARG PIP_ARGS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# pip stays outside the environment that is shipped.
RUN python3 -m venv /opt/tools && python3 -m venv --without-pip /opt/venv
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*project['dependencies'], *project['optional-dependencies']['examples'], sep='\n')" > requirements.txt
# The CPU index serves torch==X as X+cpu, which pip prefers to PyPI's X with CUDA. The packages' own tests, torch's
# among them 130 MB of programs, are of no use in an image. Like pip, compileall passes over files for another Python.
# hadolint ignore=SC2086
RUN case "$FLAVOUR" in \
      cpu) index="--extra-index-url https://download.pytorch.org/whl/cpu" ;; \
      cuda) index="" ;; \
      *) echo "FLAVOUR=$FLAVOUR is not allowed: use cpu or cuda." >&2; exit 1 ;; \
    esac \
    && /opt/tools/bin/pip --python /opt/venv/bin/python3 install --no-cache-dir --no-compile $index $PIP_ARGS \
      --constraint constraints.txt --requirement requirements.txt \
    && if [ "$FLAVOUR" = cpu ] && [ -n "$(find /opt/venv -maxdepth 4 -name 'nvidia_cu*')" ]; then \
      echo "FLAVOUR=cpu got a torch with CUDA: give an index with CPU builds in PIP_ARGS." >&2; exit 1; fi \
    && find /opt/venv/lib -depth \( -type d -name tests -o -path '*/torch/test' \
      -o -path '*/torch/bin/*' ! -name torch_shm_manager \) -exec rm -rf {} + \
    && { python3 -m compileall -qq -j 0 /opt/venv/lib || true; }

# basekamp itself as a wheel, with the compiled pipelines inside, laid out to be copied into the environment.
FROM dependencies AS package
ARG PIP_ARGS=""
COPY README.md LICENSE ./
COPY basekamp basekamp
COPY pipelines/*.yaml pipelines/
# hadolint ignore=SC2086
RUN /opt/tools/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /dist $PIP_ARGS . \
    && /opt/tools/bin/pip --python /opt/venv/bin/python3 install --no-cache-dir --compile --no-index --no-deps \
      --prefix /opt/package /dist/*.whl

FROM ${BASE_IMAGE}
RUN groupadd --gid 1000 basekamp \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin basekamp \
    && install --directory --owner 1000 --group 1000 /work
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /opt/package /opt/venv
# Whatever is written goes below /tmp: a pod mounts it, and the root file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    BASEKAMP_HOME=/tmp/basekamp \
    MPLCONFIGDIR=/tmp/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ARG VERSION=unknown
ARG REVISION=unknown
ENV BASEKAMP_REVISION=$REVISION
LABEL org.opencontainers.image.title="basekamp" \
      org.opencontainers.image.description="The base camp of deep-learning work on Kubeflow: baseline first, every attempt judged against it, every result findable by its name." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /work
USER 1000:1000
CMD ["basekamp", "--help"]
