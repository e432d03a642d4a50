"""The broker's authority and certificate, by cryptography, which Ansible brings.

They are valid from long ago, since a Raspberry Pi has no clock battery and boots in the past, and for decades: nobody
is there to renew them on a Friday, and who holds the secrets file makes new ones at will.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_FROM: Final = datetime(2000, 1, 1, tzinfo=UTC)
_UNTIL: Final = datetime(2099, 12, 31, tzinfo=UTC)


def authority() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("vagus broker authority")
    builder = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    return {"key": _pem(key), "certificate": _text(builder.sign(key, hashes.SHA256()))}


def server(ca: Mapping[str, str], hosts: Iterable[str]) -> dict[str, str]:
    """A certificate by `ca` for the names and addresses in `hosts`."""
    ca_key = load_pem_private_key(ca["key"].encode(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca_certificate = x509.load_pem_x509_certificate(ca["certificate"].encode())
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_named("vagus broker"), ca_certificate.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in sorted_hosts(hosts)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return {"key": _pem(key), "certificate": _text(builder.sign(ca_key, hashes.SHA256()))}


def hosts_of(certificate: str) -> list[str]:
    """The names and addresses that a certificate is for; none when it is no certificate."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate.encode())
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    return sorted_hosts(str(name.value) for name in names)


def mistakes(certificate: str, key: str, ca: str, hosts: Iterable[str], now: datetime) -> list[str]:
    """What is wrong with a broker's certificate that was given, for `hosts`, in the words of its variables."""
    found = []
    chain, authorities = _certificates(certificate), _certificates(ca)
    if not chain:
        found.append("vagus_broker_certificate_file: holds no certificate in PEM")
    if not authorities:
        found.append("vagus_broker_ca_file: holds no certificate in PEM")
    try:
        private = load_pem_private_key(key.encode(), None)
    except TypeError:
        found.append("vagus_broker_key_file: is encrypted, and a broker that starts by itself has nobody to ask")
    except (ValueError, UnsupportedAlgorithm):
        found.append("vagus_broker_key_file: holds no key in PEM")
    if found:
        return found
    own = chain[0]
    if private.public_key() != own.public_key():
        found.append("vagus_broker_key_file: is not the key of vagus_broker_certificate_file")
    if own.not_valid_after_utc <= now:
        found.append(f"vagus_broker_certificate_file: ended on {own.not_valid_after_utc:%Y-%m-%d}")
    if not any(chain[-1] == one or _issued(chain[-1], one) for one in authorities):
        found.append(
            "vagus_broker_ca_file: did not sign vagus_broker_certificate_file, nor the last certificate of its chain"
        )
    names = hosts_of(certificate)
    if missing := [host for host in sorted_hosts(hosts) if not any(_is_for(name, host) for name in names)]:
        found.append(
            f"vagus_broker_certificate_file: is not for {', '.join(missing)}, where agents or controllers look for the "
            f"broker; it is for {', '.join(names) or 'nothing'}"
        )
    return found


def _certificates(text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return []


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_for(name: str, host: str) -> bool:
    """A name in a certificate may begin with a star, for one label."""
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def sorted_hosts(hosts: Iterable[str]) -> list[str]:
    return sorted({_canonical(host) for host in hosts})


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
