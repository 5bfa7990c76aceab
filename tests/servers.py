"""Find a real RabbitMQ and a real PostgreSQL: named by environment, started by Docker, or running here."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields

import docker
import docker.errors
from testcontainers.core.container import DockerContainer

from toolkit.configuration.server_urls import hosts_of
from toolkit.urls import is_loopback

NOT_FOUND = """\
No {what} was found for the tests. Three ways to give them one:
  1. name one:        {variable}={example}
  2. start Docker:    the tests then run {image} themselves
  3. start it on this machine: 127.0.0.1:{port}
Docker: {docker}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server to test against, and how it was found."""

    url: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is looked for, and under which names."""

    what: str
    variable: str
    example: str
    image: str
    port: int
    url: str
    password: dict[str, str]
    greeting: bytes
    command: str | None = None


RABBITMQ = Kind(
    what="RabbitMQ",
    variable="SAGA_TEST_AMQP_URL",
    example="amqp://guest:guest@127.0.0.1:5672/",
    image="rabbitmq:4-management",
    port=5672,
    url="amqp://guest:guest@{host}:{port}/",
    password={},
    greeting=b"AMQP\x00\x00\x09\x01",
)

POSTGRESQL = Kind(
    what="PostgreSQL",
    variable="SAGA_TEST_POSTGRES_URL",
    example="postgresql://postgres@127.0.0.1:5432/postgres",
    image="postgres:17",
    port=5432,
    url="postgresql://postgres:postgres@{host}:{port}/postgres",
    password={"POSTGRES_PASSWORD": "postgres"},
    greeting=b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # "do you speak TLS?", which needs no login
    # Only a power cut makes a difference without fsync, and a database a test costs seconds otherwise. Eight replicas
    # whose tables are locked open 30 connections each, and the administrator still needs one.
    command="postgres -c fsync=off -c max_connections=400",
)


@contextmanager
def find(kind: Kind) -> Iterator[Server]:
    """Yield the first server that is there, in the order of the three ways; end only what was started here."""
    if url := os.environ.get(kind.variable):
        yield Server(_as_on_this_machine(url), f"named by {kind.variable}")
        return
    with ExitStack() as stack:
        container, trouble = _started(kind, stack)
        if container:
            host, port = container.get_container_host_ip(), int(container.get_exposed_port(kind.port))
            wait_for_answer(kind, host, port, container)
            yield Server(kind.url.format(host=host, port=port), f"started by Docker from {kind.image}")
        elif _answers(kind, "127.0.0.1", kind.port):
            yield Server(kind.url.format(host="127.0.0.1", port=kind.port), f"running on 127.0.0.1:{kind.port}")
        else:
            known = {each.name: getattr(kind, each.name) for each in fields(kind)}
            raise RuntimeError(NOT_FOUND.format(docker=trouble, **known))


def _as_on_this_machine(url: str) -> str:
    """Let the tests use a server elsewhere with its usual password, and without TLS, as they use one here."""
    if all(map(is_loopback, hosts_of(url))):
        return url
    os.environ.setdefault("SAGA_DEMO", "1")
    if not url.startswith("postgresql") or "ssl" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}sslmode=disable"


def docker_is_there() -> bool:
    """Whether a Docker engine answers."""
    return _trouble_with_docker() is None


def _trouble_with_docker() -> str | None:
    """Return why no Docker engine answers; None where one does."""
    try:
        client = docker.from_env()
        client.ping()
        client.close()
    except (docker.errors.DockerException, OSError) as error:
        return f"no engine answers: {error}"
    return None


def _started(kind: Kind, stack: ExitStack) -> tuple[DockerContainer | None, str | None]:
    """Start a container; where there is no Docker or no image to be had, return why."""
    if trouble := _trouble_with_docker():
        return None, trouble
    try:
        return stack.enter_context(container_for(kind)), None
    except docker.errors.APIError as error:
        trouble = f"it could not start {kind.image}: {error.explanation or error}"
        warnings.warn(f"Docker: {trouble}", stacklevel=2)
        return None, trouble


def container_for(kind: Kind) -> DockerContainer:
    """Return a container that is not started yet."""
    container = DockerContainer(kind.image).with_exposed_ports(kind.port)
    for name, value in kind.password.items():
        container = container.with_env(name, value)
    return container.with_command(kind.command) if kind.command else container


def wait_for_answer(kind: Kind, host: str, port: int, container: DockerContainer | None = None) -> None:
    """Wait for the server itself: Docker's own proxy takes connections long before it is up."""
    for _ in range(300):
        if _answers(kind, host, port):
            return
        time.sleep(0.3)
    silent = f"{kind.what} was started by Docker, but did not answer on {host}:{port} within 90 seconds"
    raise RuntimeError(silent + _last_words(container))


def _last_words(container: DockerContainer | None) -> str:
    if container is None:
        return ""
    out, err = container.get_logs()
    return "; it printed:\n" + (out + err).decode(errors="replace")[-2_000:]


def _answers(kind: Kind, host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2) as probe:
            probe.sendall(kind.greeting)
            return bool(probe.recv(1))
    except OSError:
        return False
