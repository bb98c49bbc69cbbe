# Ramify's server on a CPU:  docker build -t ramify .  &&  docker run --rm -p 30000:30000 ramify
#
# torch is what constraints.txt names. The default index of pip has it with CUDA, which a CPU does not need; for the much
# smaller CPU build give its version, and the index that has it:
#   docker build --build-arg TORCH='torch==2.13.0+cpu' --build-arg TORCH_INDEX=URL -t ramify .
#
# The bundled model is in the image. Another one: docker run -v /path/to/checkpoint:/model:ro ... ramify serve /model --host 0.0.0.0
# Settings: RAMIFY_* variables (docs/server.md), such as -e RAMIFY_API_KEY=...

FROM python:3.12-slim AS build
ARG TORCH=""
ARG TORCH_INDEX=""
RUN python -m venv /opt/ramify
ENV PATH=/opt/ramify/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONSAFEPATH=1
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt .
RUN torch="${TORCH:-$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)}" \
    && pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$torch"
COPY . .
RUN pip install -c constraints.txt ".[serve]" && python -m ramify.kernels.native

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 ramify
COPY --from=build /opt/ramify /opt/ramify
ENV PATH=/opt/ramify/bin:$PATH PYTHONSAFEPATH=1
USER 10001
WORKDIR /home/ramify
EXPOSE 30000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:30000/health', timeout=4)"]
ENTRYPOINT ["ramify"]
CMD ["serve", "--host", "0.0.0.0"]
