"""Certificates for people who have none: a CA in a folder, what it issues, and what a certificate file says.

Keys are EC P-256 and readable by their owner alone. Nothing is ever overwritten: a key that is gone cannot be had back,
and whatever was issued by a lost CA has to be issued again.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raftfs.errors import AlreadyExists, ConfigError
from raftfs.limits import CA_DAYS_DEFAULT, CERTIFICATE_DAYS_DEFAULT, CERTIFICATE_DAYS_MAX, CERTIFICATE_SKEW_S

CA_NAME: Final = "ca"
CA_SUBJECT: Final = "raftfs CA"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SUBJECT = re.compile(r"[ -~]{1,64}")
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$)(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. ``names``: of hosts and members, then IP addresses; times in ms since the epoch."""

    subject: str
    names: tuple[str, ...]
    issuer: str
    not_before_ms: int
    not_after_ms: int
    is_ca: bool

    def days_left(self, now_s: float | None = None) -> float:
        """Days until it expires, below zero if it has."""
        return (self.not_after_ms / 1000 - (time.time() if now_s is None else now_s)) / 86_400


def make_ca(folder: Path, *, subject: str = CA_SUBJECT, days: float = CA_DAYS_DEFAULT) -> Path:
    """Make ``ca.crt`` and ``ca.key`` in ``folder``; the certificate's path. AlreadyExists if one of them is there,
    ConfigError for a name or a number of days that makes no sense, OSError."""
    if not _SUBJECT.fullmatch(subject):
        raise ConfigError(f"the name {subject!r} of a CA must be 1 to 64 printable ASCII characters")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    public = key.public_key()
    builder = (
        _builder(name, name, public, _days(days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _write(folder, CA_NAME, key, builder.sign(key, hashes.SHA256()))


def issue(folder: Path, name: str, *, hosts: Sequence[str] = (), days: float = CERTIFICATE_DAYS_DEFAULT) -> Path:
    """Make ``NAME.crt`` and ``NAME.key`` in ``folder``, signed by the CA there; the certificate's path.

    ``name``, a member's id or what else the certificate is for, is one of its DNS names; ``hosts`` are more of them, or
    IP addresses. Good for servers and for clients, and never for longer than the CA. AlreadyExists, ConfigError (no CA,
    a wrong name, an expired CA), OSError.
    """
    if not _NAME.fullmatch(name) or name == CA_NAME:
        raise ConfigError(f"{name!r} cannot name a certificate: letters, digits, '.', '_' and '-', and not 'ca'")
    ca, ca_key = _load_ca(folder)
    end = min(_days(days), ca.not_valid_after_utc)
    if ca.not_valid_after_utc <= datetime.now(UTC):
        raise ConfigError(f"the CA in {folder} expired on {ca.not_valid_after_utc:%Y-%m-%d}: make a new one")
    names = list(dict.fromkeys(map(_general_name, (name, *hosts))))
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(subject, ca.subject, key.public_key(), end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_authority(ca), critical=False)
    )
    return _write(folder, name, key, builder.sign(ca_key, hashes.SHA256()))


def read(path: Path) -> list[Certificate]:
    """What the certificates in a PEM file say, in its order. ConfigError if there is none; OSError."""
    return [_describe(certificate) for certificate in _load(path)]


def earliest_expiry_ms(path: Path) -> int:
    """When the first certificate of a file's chain expires. ConfigError, OSError as :func:`read`."""
    return min(certificate.not_after_ms for certificate in read(path))


def _load(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate in PEM: {error}") from None


def _load_ca(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The CA of a folder. ``ca.crt`` may hold others, too, while one takes the place of another."""
    crt, key_path = folder / f"{CA_NAME}.crt", folder / f"{CA_NAME}.key"
    if not (crt.exists() and key_path.exists()):
        raise ConfigError(f"there is no CA in {folder}: `raftfs certs ca {folder}` makes one")
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        raise ConfigError(f"{key_path} is not a private key without a password in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{key_path} is not a key of an elliptic curve")
    for certificate in _load(crt):
        if certificate.public_key() == key.public_key():
            return certificate, key
    raise ConfigError(f"{key_path} belongs to no certificate in {crt}")


def _days(days: float) -> datetime:
    if not 0 < days <= CERTIFICATE_DAYS_MAX:
        raise ConfigError(
            f"{days:g} days: a certificate is valid for more than 0 and up to {CERTIFICATE_DAYS_MAX} days"
        )
    return datetime.now(UTC) + timedelta(days=days)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificateIssuerPublicKeyTypes, end: datetime
) -> x509.CertificateBuilder:
    # Machines whose clocks are a little behind must believe it, too.
    start = datetime.now(UTC) - timedelta(seconds=CERTIFICATE_SKEW_S)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    if not _HOST.fullmatch(name):
        raise ConfigError(f"{name!r} is neither an IP address nor the name of a host (without a port, in ASCII)")
    return x509.DNSName(name)


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Path:
    crt, key_path = folder / f"{name}.crt", folder / f"{name}.key"
    for path in (crt, key_path):
        if path.exists():
            raise AlreadyExists(f"{path} exists, and is not overwritten: move it away, or choose another folder")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _create(key_path, pem, 0o600)
    try:
        _create(crt, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except BaseException:
        key_path.unlink()
        raise
    return crt


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists, and is not overwritten") from None
    with open(fd, "wb") as file:
        file.write(data)


def _describe(certificate: x509.Certificate) -> Certificate:
    return Certificate(
        subject=_words(certificate.subject),
        names=_names(certificate),
        issuer=_words(certificate.issuer),
        not_before_ms=int(certificate.not_valid_before_utc.timestamp() * 1000),
        not_after_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
        is_ca=_is_ca(certificate),
    )


def _words(name: x509.Name) -> str:
    """The common name if there is one; people know certificates by that."""
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
