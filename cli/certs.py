"""``raftfs certs``: a CA and certificates for a cluster whose people have none."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftfs import limits
from raftfs_cli import output

if TYPE_CHECKING:
    from raftfs.certificates import Certificate

app = typer.Typer(no_args_is_help=True, help="Make a CA and certificates, and look at them.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the CA: ca.crt and ca.key.")]


@app.command()
def ca(
    folder: Folder,
    name: Annotated[str, typer.Option(help="Name of the CA.")] = "raftfs CA",
    days: Annotated[float, typer.Option(help="How long it is valid.")] = limits.CA_DAYS_DEFAULT,
    json: output.Json = False,
) -> None:
    """Make a CA. Whoever has its key (DIR/ca.key, without a password) can be any member: keep it off the machines."""
    from raftfs.certificates import make_ca

    _made(make_ca(folder, subject=name, days=days), json)


@app.command()
def issue(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="A member's id, or frontend, or the name of a client.")],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="A host name or an IP address in its URL; repeat for several."),
    ] = None,
    days: Annotated[float, typer.Option(help="How long it is valid.")] = limits.CERTIFICATE_DAYS_DEFAULT,
    json: output.Json = False,
) -> None:
    """Make DIR/NAME.crt and DIR/NAME.key, good for NAME and every HOST, for servers and clients."""
    from raftfs.certificates import issue as make

    _made(make(folder, name, hosts=host or [], days=days), json)


@app.command()
def show(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="PEM files with certificates.")],
    json: output.Json = False,
) -> None:
    """Show whom certificates name, who issued them, and until when they are valid."""
    from raftfs.certificates import read

    found = [(file, certificate) for file in files for certificate in read(file)]
    if json:
        output.emit_json([_as_json(file, certificate) for file, certificate in found])
        return
    rows = [(file, c.subject, ",".join(c.names) or "-", c.issuer, _day(c.not_after_ms), _left(c)) for file, c in found]
    output.emit(*output.columns([("FILE", "SUBJECT", "NAMES", "ISSUER", "EXPIRES", "DAYS LEFT"), *rows], right=[5]))


def _made(path: Path, json: bool) -> None:
    from raftfs.certificates import read

    certificate = read(path)[0]
    key = path.with_suffix(".key")
    if json:
        output.emit_json(_as_json(path, certificate) | {"key": str(key)})
    else:
        output.emit(f"made {path} and {key}, valid until {_day(certificate.not_after_ms)}")


def _as_json(file: Path, certificate: Certificate) -> dict[str, Any]:
    return {"file": str(file)} | asdict(certificate) | {"names": list(certificate.names)}


def _day(ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(ms / 1000))


def _left(certificate: Certificate) -> str:
    left = certificate.days_left()
    return f"{left:.0f}" if left > 0 else "expired"
