"""Certificates as nobody should have them, of a CA made by ``raftfs certs``, and contexts of those who use them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from raftfs import certificates
from raftfs.config import PeerTLS


def forge(ca: Path, into: Path, name: str, *, start_days: float, end_days: float) -> PeerTLS:
    """A certificate for ``name`` (and 127.0.0.1) of the CA in the folder ``ca``, valid from and until so many days from
    now, in the folder ``into``."""
    crt, key_file = ca / "ca.crt", ca / "ca.key"
    issuer = x509.load_pem_x509_certificate(crt.read_bytes())
    ca_key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start_days))
        .not_valid_after(now + timedelta(days=end_days))
        .add_extension(names, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    into.mkdir(exist_ok=True)
    files = PeerTLS(cert=into / f"{name}.crt", key=into / f"{name}.key", ca=crt)
    files.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files.key.write_bytes(pem)
    return files


def issued(ca: Path, name: str) -> PeerTLS:
    """A certificate as it should be, for ``name``, 127.0.0.1 and localhost. The CA is made if there is none."""
    if not (ca / "ca.crt").exists():
        certificates.make_ca(ca)
    crt = ca / f"{name}.crt"
    if not crt.exists():
        certificates.issue(ca, name, hosts=["127.0.0.1", "localhost"])
    return PeerTLS(cert=crt, key=crt.with_suffix(".key"), ca=ca / "ca.crt")


def attacker(files: PeerTLS | None = None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that believes everybody and shows the certificate in ``files``, or none. ``version``: the highest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if files is not None:
        context.load_cert_chain(files.cert, files.key)
    return context
