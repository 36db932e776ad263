"""TLS: a server that cannot prove who it is gets nothing, and the message says why."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors.base import Outcome
from connectors.hostile import HostilePartner
from connectors.http.settings import HttpSinkSettings
from connectors.http.sink import HttpSink
from connectors.testing import deliver, make_parcel, surroundings
from state.model.errors import NotConnectedError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make a certificate with")


def make_certificate(folder: Path, name: str, subject: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-addext", f"subjectAltName={subject}"]
    subprocess.run([*command, *files], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificate(folder, "right", "IP:127.0.0.1")
    make_certificate(folder, "elsewhere", "DNS:erp.example")
    return folder


@pytest.fixture
async def partner(certificates: Path, request: pytest.FixtureRequest) -> AsyncIterator[HostilePartner]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{request.param}.pem", certificates / f"{request.param}.key")
    async with HostilePartner(tls=context) as running:
        yield running


@pytest.mark.parametrize(
    ("partner", "ca_file", "why"),
    [
        ("right", None, "self-signed"),
        ("right", "elsewhere.pem", "verify failed"),
        ("elsewhere", "elsewhere.pem", "not valid for '127.0.0.1'"),
    ],
    indirect=["partner"],
    ids=["unknown authority", "another authority", "another name"],
)
async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    partner: HostilePartner, certificates: Path, ca_file: str | None, why: str
) -> None:
    sink = HttpSink(HttpSinkSettings(base_url=partner.url, path="/orders", ca_file=ca_file), surroundings(certificates))
    [answer] = await deliver(sink, make_parcel("PO-1"))
    assert isinstance(answer, NotConnectedError)
    assert (answer.code, "ca_file" in answer.hint) == ("certificate", True)
    assert why in answer.message
    assert partner.requests == []
    await sink.close()


@pytest.mark.parametrize("partner", ["right"], indirect=True)
async def test_a_server_known_by_its_own_authority_is_served(partner: HostilePartner, certificates: Path) -> None:
    settings = HttpSinkSettings(base_url=partner.url, path="/orders", ca_file="right.pem")
    sink = HttpSink(settings, surroundings(certificates))
    [answer] = await deliver(sink, make_parcel("PO-1"))
    assert isinstance(answer, Outcome)
    assert len(partner.ledger) == 1
    await sink.close()
