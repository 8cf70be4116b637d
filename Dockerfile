# The server of tuned files, on the CPU or, where the container has one, a GPU.
#
#     docker build -t vpt .
#     docker run -p 8000:8000 -v ./tasks:/tasks -e VPT_SERVE_TOKEN vpt
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir ".[serve]"
RUN vpt --version
RUN mkdir -m 777 cache
ENV HF_HOME=/src/cache
USER 1000
EXPOSE 8000
HEALTHCHECK CMD python -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz')"
ENTRYPOINT ["vpt", "serve", "/tasks", "--host", "0.0.0.0"]
