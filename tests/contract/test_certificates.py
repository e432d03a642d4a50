"""A certificate's end and names, read from a real TLS server that nobody vouches for."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vagus_agent.probes.certificates import missing, read

DAY = 86_400.0


def openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def server(root: Path, days: int, names: str, *, client: bool = False) -> Iterator[int]:
    """A TLS server on 127.0.0.1 with a certificate for so many days; `client`: it asks for the client's own."""
    key, csr, crt, san = root / "k.pem", root / "r.pem", root / "c.pem", root / "san"
    san.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"),
        "-keyout",
        key,
        "-out",
        csr,
    )
    openssl("x509", "-req", "-in", csr, "-signkey", key, "-days", days, "-extfile", san, "-out", crt)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(crt)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.mark.parametrize("days", [13, 400, -1])
def test_its_end_is_told_also_when_it_is_past(tmp_path: Path, days: int) -> None:
    with server(tmp_path, days, "IP:127.0.0.1") as port:
        found = read("127.0.0.1", port, ["127.0.0.1"], None, 2.0)
    assert found is not None
    assert found.where == f"127.0.0.1:{port}"
    assert found.expires_s is not None
    assert (days - 0.1) * DAY < found.expires_s <= days * DAY
    assert found.missing == ""


def test_a_service_address_that_it_does_not_name(tmp_path: Path) -> None:
    with server(tmp_path, 90, "IP:127.0.0.1,DNS:pi-1") as port:
        found = read("127.0.0.1", port, ["10.118.0.1", "fd76::1"], None, 2.0)
    assert found is not None
    assert found.missing == "10.118.0.1"


def test_a_server_that_asks_for_ours(tmp_path: Path) -> None:
    with server(tmp_path, 90, "IP:127.0.0.1", client=True) as port:
        own = (str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))
        assert read("127.0.0.1", port, ["127.0.0.1"], own, 2.0) is not None


def test_nobody_there_or_no_tls_is_nothing_to_tell() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert read("127.0.0.1", silent.getsockname()[1], [], None, 0.2) is None
        port = silent.getsockname()[1]
    assert read("127.0.0.1", port, [], None, 0.2) is None


@pytest.mark.parametrize(
    ("names", "host", "wanted", "found"),
    [
        ([("IP Address", "10.0.0.1")], "10.0.0.1", ["10.0.0.1"], ""),
        ([("IP Address", "FD76:0:0:0:0:0:0:1")], "fd76::1", ["fd76::1"], ""),
        ([("DNS", "PI-1.example")], "pi-1.example", ["10.0.0.1"], ""),
        ([("DNS", "other")], "10.0.0.1", ["10.0.0.1"], "10.0.0.1"),
        ([("IP Address", "nonsense")], "10.0.0.1", ["10.0.0.1"], "10.0.0.1"),
        ([], "127.0.0.1", [], ""),
    ],
)
def test_what_counts_as_named(names: list[tuple[str, str]], host: str, wanted: list[str], found: str) -> None:
    assert missing(names, host, wanted) == found
