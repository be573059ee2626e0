"""An Ansible module that looks from a machine at the others: which addresses answer, and what time it is here."""

from __future__ import annotations

import socket
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: raftfs_probe
short_description: Look from a machine at the others
description:
  - Connects to TCP addresses. One that refuses the connection counts as reachable, because its machine answered.
  - Changes nothing, so it does the same in check mode.
options:
  addresses:
    description: What to connect to.
    type: list
    elements: dict
    required: true
    suboptions:
      host:
        description: Name or IP address.
        type: str
        required: true
      port:
        description: TCP port.
        type: int
        required: true
  timeout_s:
    description: How long to wait for each address, in seconds.
    type: float
    default: 5
author:
  - raftfs
"""

EXAMPLES = r"""
- name: See whether the peers answer
  raftfs_probe:
    addresses:
      - host: 192.0.2.12
        port: 7411
"""

RETURN = r"""
silent:
  description: For each address that does not answer, what happened.
  type: list
  elements: str
  returned: always
time_s:
  description: This machine's clock, in seconds since the epoch.
  type: float
  returned: always
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "addresses": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}},
            },
            "timeout_s": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    now = time.time()
    found = [_trouble(one["host"], one["port"], module.params["timeout_s"]) for one in module.params["addresses"]]
    module.exit_json(changed=False, time_s=now, silent=[trouble for trouble in found if trouble])


def _trouble(host: str, port: int, timeout_s: float) -> str | None:
    try:
        with socket.create_connection((host, port), timeout_s):
            return None
    except ConnectionRefusedError:
        return None
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error or 'timed out'}"


if __name__ == "__main__":
    main()
