"""Whom the clients trust: the CA of the cluster, and for as long as one replaces the other, both."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

_END: Final = "-----END CERTIFICATE-----\n"


class Trust:
    """``folder`` is the administrator's, with the CA, the next one, and the one that goes. ``bundle`` is the file that
    clients are given; it and ``context`` hold what ``refresh`` found last."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.bundle = folder, bundle
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._known: list[str] = []

    def refresh(self) -> bool:
        """Look again. True if it is somebody else now."""
        places = [self.folder / name / "ca.crt" for name in ("", "next", "previous")]
        found = [text for place in places if (text := _whole(place))]
        if found == self._known:
            return False
        for text in found:
            if text not in self._known:
                self.context.load_verify_locations(cadata=text)
        self._known = found
        new = self.bundle.with_suffix(".new")
        new.write_text("".join(found))
        new.replace(self.bundle)
        return True


def _whole(place: Path) -> str:
    """A certificate; nothing while there is none, or while it is being written: a playbook is at work there."""
    try:
        text = place.read_text()
    except FileNotFoundError:
        return ""
    return text if text.endswith(_END) else ""
