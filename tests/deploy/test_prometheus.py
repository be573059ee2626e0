"""The alert rules name metrics that a running node really has, and each fires on what it is for, and only then.

The second half needs promtool (Debian's package prometheus). Without it those tests are skipped and say so;
RAFTFS_TEST_PROMTOOL=1 makes them fail instead.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftfs.certificates import issue, make_ca
from raftfs.config import ClientTLS, MemberConfig, NodeConfig, PeerTLS
from raftfs.limits import DISK_FREE_BYTES_MIN, DOCTOR_LAG_ENTRIES_MAX
from raftfs.service.node import Node
from tests.consensus.ports import free_address

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES}


def samples(url: str, ca: Path) -> set[str]:
    """Names of all that a server exposes with a value."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30, context=ssl.create_default_context(cafile=ca)) as answer:
        lines = answer.read().decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


def node_with_tls(folder: Path) -> NodeConfig:
    make_ca(folder)
    cert = issue(folder, "n1", hosts=["127.0.0.1"])
    files = {"cert": cert, "key": cert.with_suffix(".key"), "ca": folder / "ca.crt"}
    member = MemberConfig(id="n1", peer=free_address(), url=f"https://{free_address()}")
    return NodeConfig(
        id="n1", cluster_id="c", data_dir=folder / "data", members=[member], peer_tls=PeerTLS(**files),
        client_tls=ClientTLS(**files),
    )  # fmt: skip


async def test_every_metric_that_a_rule_names_is_one_of_a_node(tmp_path: Path) -> None:
    named = {name for expression in EXPRESSIONS.values() for name in re.findall(r"raftfs_\w+", expression)}
    assert len(named) > 5
    config = node_with_tls(tmp_path)
    async with Node(config), asyncio.timeout(60):
        while missing := named - await asyncio.to_thread(samples, config.me.url, tmp_path / "ca.crt"):
            print(f"not there yet: {missing}")  # some are known only when the node has looked, or was asked
            await asyncio.sleep(0.1)


def test_rules_say_what_is_wrong_and_how_bad_it_is() -> None:
    assert len(EXPRESSIONS) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["for"]


def test_rules_and_doctor_agree_on_what_is_too_much() -> None:
    assert f"raftfs_disk_free_bytes < {DISK_FREE_BYTES_MIN}" in EXPRESSIONS["RaftfsDiskFull"]
    assert f"raftfs_member_lag_entries > {DOCTOR_LAG_ENTRIES_MAX} " in EXPRESSIONS["RaftfsMemberLags"]


def test_the_rules_know_the_jobs_and_the_label_of_the_scrape_configuration() -> None:
    scrape = yaml.safe_load((FOLDER / "scrape.yml").read_text())
    jobs = {job["job_name"]: job for job in scrape["scrape_configs"]}
    named = {job for expression in EXPRESSIONS.values() for job in re.findall(r'job="([^"]+)"', expression)}
    assert named == set(jobs)
    assert all("cluster" in target["labels"] for job in jobs.values() for target in job["static_configs"])
    assert scrape["rule_files"] == ["alerts.yml"]


# --- with promtool ---------------------------------------------------------------------------------------------------


def promtool(*words: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        message = "NOT SHOWN: what Prometheus says of the rules; promtool (Debian's package prometheus) is not here"
        if os.environ.get("RAFTFS_TEST_PROMTOOL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)


def test_prometheus_takes_the_rules_and_the_scrape_configuration() -> None:
    done = promtool("check", "rules", FOLDER / "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    # --syntax-only: the CA's file is not on this machine
    done = promtool("check", "config", "--syntax-only", FOLDER / "scrape.yml")
    assert done.returncode == 0, done.stdout + done.stderr


HEALTHY = {
    'up{job="raftfs-nodes",instance="1"}': "1", 'up{job="raftfs-nodes",instance="2"}': "1",
    'up{job="raftfs-frontends",instance="f"}': "1",
    'raftfs_raft_is_leader{instance="1"}': "1", 'raftfs_raft_is_leader{instance="2"}': "0",
    'raftfs_raft_has_quorum{instance="1"}': "1", 'raftfs_raft_has_quorum{instance="2"}': "1",
    'raftfs_member_reachable{instance="1",member="n2"}': "1",
    'raftfs_member_lag_entries{instance="1",member="n2"}': "3",
    'raftfs_member_missing_chunks{instance="1",member="n2"}': "0",
    'raftfs_check_ok{instance="2",check="lag"}': "1",
    'raftfs_disk_free_bytes{instance="1"}': "5e9", 'raftfs_disk_size_bytes{instance="1"}': "1e10",
    'raftfs_fsync_seconds_bucket{instance="1",le="0.05"}': "0+100x150",
    'raftfs_fsync_seconds_bucket{instance="1",le="0.5"}': "0+100x150",
    'raftfs_fsync_seconds_bucket{instance="1",le="+Inf"}': "0+100x150",
    'raftfs_certificate_expiry_timestamp_seconds{instance="1",listener="client"}': str(30 * 86400),
    'raftfs_certificate_reload_failures_total{instance="1",listener="client"}': "0",
    'raftfs_http_request_seconds_count{instance="1",status="500"}': "0",
    'raftfs_http_request_seconds_count{instance="1",status="503"}': "0+5x150",
    'raftfs_member_format_version_max{instance="1",member="n2"}': "1",
    'raftfs_format_version{instance="1"}': "1",
    'node_systemd_unit_state{instance="b",name="raftfs-backup.service",state="failed"}': "0",
    'node_systemd_unit_state{instance="b",name="other.service",state="failed"}': "1",
    'node_systemd_timer_last_trigger_seconds{instance="b",name="raftfs-backup.timer"}': "0",
}  # fmt: skip
"""Series of a cluster with which nothing is wrong (without their label ``cluster``)."""

WRONG = {
    "RaftfsNoLeader": {'raftfs_raft_is_leader{instance="1"}': "0"},
    "RaftfsQuorumLost": dict.fromkeys(
        ['raftfs_raft_has_quorum{instance="1"}', 'raftfs_raft_has_quorum{instance="2"}'], "0"
    ),
    "RaftfsNoNodeAnswers": dict.fromkeys(
        ['up{job="raftfs-nodes",instance="1"}', 'up{job="raftfs-nodes",instance="2"}'], "0"
    ),
    "RaftfsNodeDown": {'up{job="raftfs-nodes",instance="2"}': "0"},
    "RaftfsFrontendDown": {'up{job="raftfs-frontends",instance="f"}': "0"},
    "RaftfsMemberUnreachable": {'raftfs_member_reachable{instance="1",member="n2"}': "0"},
    "RaftfsNodeCutOff": {'raftfs_raft_has_quorum{instance="2"}': "0"},
    "RaftfsNotReady": {'raftfs_check_ok{instance="2",check="lag"}': "0"},
    "RaftfsMemberLags": {'raftfs_member_lag_entries{instance="1",member="n2"}': "1001"},
    "RaftfsChunksUnderReplicated": {'raftfs_member_missing_chunks{instance="1",member="n2"}': "1"},
    "RaftfsDiskFull": {'raftfs_disk_free_bytes{instance="1"}': "5e6"},
    "RaftfsDiskNearlyFull": {'raftfs_disk_free_bytes{instance="1"}': "9e8"},
    "RaftfsFsyncSlow": {'raftfs_fsync_seconds_bucket{instance="1",le="0.05"}': "0+98x150"},
    "RaftfsCertificateExpires": {
        'raftfs_certificate_expiry_timestamp_seconds{instance="1",listener="client"}': str(13 * 86400)
    },
    "RaftfsCertificateRefused": {'raftfs_certificate_reload_failures_total{instance="1",listener="client"}': "0+1x150"},
    "RaftfsServerErrors": {'raftfs_http_request_seconds_count{instance="1",status="500"}': "0+1x150"},
    "RaftfsBackupFailed": {'node_systemd_unit_state{instance="b",name="raftfs-backup.service",state="failed"}': "1"},
    "RaftfsBackupOld": {
        'node_systemd_timer_last_trigger_seconds{instance="b",name="raftfs-backup.timer"}': str(-31 * 3600)
    },
    "RaftfsUpgradeUnfinished": {'raftfs_member_format_version_max{instance="1",member="n2"}': "2"},
}
"""For each alert, the series that differ when it has to fire."""

BESIDE = {"RaftfsNoNodeAnswers": {"RaftfsNodeDown"}, "RaftfsDiskFull": {"RaftfsDiskNearlyFull"}}
"""What fires for the same reason."""


def firing(folder: Path, cases: dict[str, dict[str, str]]) -> dict[str, set[str]]:
    """Of each case, the alerts that fire after some hours of its series, as promtool judges."""
    # promtool says what does not fit: so it is told that none fires, and says which ones do
    expected = [{"eval_time": "150m", "alertname": alert, "exp_alerts": []} for alert in EXPRESSIONS]
    tests = [
        {"name": name, "interval": "1m", "input_series": inputs(series), "alert_rule_test": expected}
        for name, series in cases.items()
    ]
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(FOLDER / "alerts.yml")], "tests": tests}))
    done = promtool("test", "rules", path)
    said = done.stdout + done.stderr
    assert ("SUCCESS" in said) != ("alertname:" in said), said
    found: dict[str, set[str]] = {name: set() for name in cases}
    for name, alert in re.findall(r"name: (\w+),\s+alertname:\s*(\w+)", said):
        found[name].add(alert)
    return found


def inputs(series: dict[str, str]) -> list[dict[str, str]]:
    return [
        {"series": name.replace("{", '{cluster="c",', 1), "values": value if "x" in value else f"{value}x150"}
        for name, value in series.items()
    ]


def test_each_alert_fires_on_what_it_is_for_and_none_on_a_healthy_cluster(tmp_path: Path) -> None:
    assert WRONG.keys() == EXPRESSIONS.keys()
    cases = {"healthy": HEALTHY, **{alert: HEALTHY | series for alert, series in WRONG.items()}}
    expected = {"healthy": set[str](), **{alert: {alert} | BESIDE.get(alert, set()) for alert in WRONG}}
    assert firing(tmp_path, cases) == expected
