"""What is settled before a start: ports, certificate, the brokers' settings, the clients' configuration."""

import errno
import random
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from local_kafka.client import ClientConfig
from local_kafka.errors import LocalKafkaError

HERE = Path(__file__).parent
BROKER_SETTINGS = (HERE / "broker.properties.template").read_text(encoding="utf-8")
CLIENT_SETTINGS = (HERE / "client.properties.template").read_text(encoding="utf-8")
# No system hands out these by itself, so that no other program gets the port of a broker that is dead for a while.
FIRST_PORT = 20_000
LAST_PORT = 32_767
BLOCK = 16  # a cluster's ports lie in one block


class Ports(NamedTuple):
    """Where a broker listens, for whom; and the proxy, where clients come to a distant one."""

    clients: int
    brokers: int
    controllers: int
    proxy: int


def choose_ports(brokers: int) -> list[Ports]:
    """Free ports for each broker; LocalKafkaError where there are none, OSError where no socket can be opened."""
    each = len(Ports._fields)
    free = free_ports(brokers * each)
    return [Ports(*free[first : first + each]) for first in range(0, len(free), each)]


def free_ports(count: int) -> list[int]:
    """At most 16 ports that are free now."""
    starts = range(FIRST_PORT, LAST_PORT + 1 - BLOCK, BLOCK)
    for start in random.sample(starts, len(starts)):
        ports = list(range(start, start + count))
        try:
            for port in ports:
                socket.create_server(("127.0.0.1", port)).close()
            return ports
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise LocalKafkaError(f"Kafka finds no free ports from {FIRST_PORT} to {LAST_PORT}; end what has taken them.")


def write_certificate(folder: Path) -> None:
    """Write ``key.pem`` for the brokers and ``certificate.pem``, the authority that brokers and clients trust."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Kafka reads no other form
    (folder / "key.pem").write_bytes(key_pem + b"".join(part.bytes() for part in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "certificate.pem")


def write_settings(
    folder: Path, ports: list[Ports], *, through_proxy: bool, more: Mapping[str, str], header: str
) -> ClientConfig:
    """Write the brokers' settings, with ``more``, and the clients' configuration, under ``header``; return that."""
    addresses = [f"127.0.0.1:{each.proxy if through_proxy else each.clients}" for each in ports]
    shared = {
        "quorum": ",".join(f"{node}@127.0.0.1:{each.controllers}" for node, each in enumerate(ports)),
        "password": secrets.token_urlsafe(24),
        "copies": len(ports),
        "most": len(ports) // 2 + 1,
    }
    for node, address in enumerate(addresses):
        settings = _parsed(BROKER_SETTINGS.format(node=node, address=address, ports=ports[node], **shared))
        for key, value in more.items():
            settings[key] = str(value).replace("{default}", settings.get(key, ""))
        _write_properties(folder / f"broker-{node}.properties", settings)
        data = folder / f"data-{node}"
        data.mkdir()
        # What Kafka's own tool for a new data folder (kafka-storage format) writes; it would take a second.
        _write_properties(data / "meta.properties", {"version": 1, "cluster.id": "local", "node.id": node})
    text = CLIENT_SETTINGS.format(header=header, servers=",".join(addresses), folder=folder, **shared)
    (folder / "client.properties").write_text(text, encoding="utf-8")
    return ClientConfig(_parsed(text))


def _parsed(properties: str) -> dict[str, str]:
    lines = [line for line in properties.split("\n") if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _write_properties(path: Path, settings: Mapping[str, object]) -> None:
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
