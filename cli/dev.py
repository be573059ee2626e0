"""``raftfs dev``: a local cluster of real processes, for trying things out and for scripts."""

from __future__ import annotations

import signal
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftfs_cli import exitcodes, output

if TYPE_CHECKING:
    from raftfs.testing import LocalCluster

app = typer.Typer(no_args_is_help=True, help="A cluster of real processes on this machine.")

DEFAULT_DIR = Path(".raftfs-dev")
DEFAULT_PORT = 7400

Dir = Annotated[Path, typer.Option("--dir", help="Directory of the cluster: data, configurations, logs.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="n1, n2, ... or frontend")]


@app.command()
def up(
    nodes: Annotated[int | None, typer.Option(help="How many nodes (1 to 9; 3 in a new directory).")] = None,
    dir: Dir = DEFAULT_DIR,
    port: Annotated[
        int | None,
        typer.Option(
            help="The frontend's port P; nodes listen on P+1, ..., peers on P+11, ... (7400 in a new directory)."
        ),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option("--tls", help="All ports speak TLS, with a CA of the cluster's own, in DIR/tls (new directory)."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it serves, and leave it running.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the nodes' configuration, such as chunk_grace_s=5."),
    ] = None,
    json: output.Json = False,
) -> None:
    """Start nodes and a frontend; without --detach, run until Ctrl-C and then stop them all.

    Starting again in the same directory goes on with its data.
    """
    from raftfs.testing import LocalCluster
    from raftfs.testing.layout import Layout

    if port is None and not Layout.exists(dir):
        port = DEFAULT_PORT
    cluster = LocalCluster(nodes, dir, port, detach=detach, tls=tls, **_parse_settings(settings or []))
    if detach:
        _up_detached(cluster)
        _show(cluster, dir, json, foreground=False)
    else:
        _run_in_foreground(cluster, dir, json)


def _up_detached(cluster: LocalCluster) -> None:
    before = _running(cluster)
    try:
        cluster.up()
    except BaseException:
        if not before:  # a half-started cluster helps nobody; one that ran before is not ours to stop
            cluster.down()
        raise


def _run_in_foreground(cluster: LocalCluster, dir: Path, json: bool) -> None:
    if running := _running(cluster):
        output.say(
            f"raftfs: {', '.join(running)} already run in {dir}: `raftfs dev status{_dir_option(dir)}` shows them, "
            f"`raftfs dev down{_dir_option(dir)}` stops them"
        )
        raise typer.Exit(exitcodes.CONFLICT)
    previous = [signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with cluster:
            _show(cluster, dir, json, foreground=True)
            _watch(cluster, dir)
    except KeyboardInterrupt:
        output.say("stopped")
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    # Stopping takes a bounded time, and a second Ctrl-C in the midst of it would only leave servers behind.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    output.say(f"{signal.Signals(number).name}: stopping all servers ...")
    raise KeyboardInterrupt


def _watch(cluster: LocalCluster, dir: Path) -> None:
    """Sleep until a signal comes; say so when a server comes or goes in the meantime."""
    running = set(_running(cluster))
    while True:
        time.sleep(0.5)
        now = set(_running(cluster))
        for name in sorted(running - now):
            output.say(f"{name} ended; `raftfs dev start {name}{_dir_option(dir)}` starts it again")
        for name in sorted(now - running):
            output.say(f"{name} runs again")
        running = now


@app.command()
def down(dir: Dir = DEFAULT_DIR, json: output.Json = False) -> None:
    """Stop all servers. The data stay; `raftfs dev up` goes on with them."""
    cluster = _open(dir)
    stopped = _running(cluster)
    cluster.down()
    if json:
        output.emit_json(cluster.status())
    else:
        output.emit(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@app.command()
def status(dir: Dir = DEFAULT_DIR, json: output.Json = False) -> None:
    """Show what runs where, and who leads."""
    _print_status(_open(dir).status(), json)


@app.command()
def kill(
    names: Names,
    signal_name: Annotated[
        str, typer.Option("--signal", "-s", help="KILL, TERM, STOP (freeze), CONT (go on), or a number.")
    ] = "KILL",
    dir: Dir = DEFAULT_DIR,
    json: output.Json = False,
) -> None:
    """Send a signal to servers (KILL if no other is named): see what the cluster does without them."""
    number = _parse_signal(signal_name)
    cluster = _open(dir)
    for name in names:
        cluster.kill(name, number)
    if json:
        output.emit_json(cluster.status())
    else:
        output.emit(*(f"{name}: sent {signal.Signals(number).name}" for name in names))


@app.command()
def start(names: Names, dir: Dir = DEFAULT_DIR, json: output.Json = False) -> None:
    """Start servers that do not run, and wait until they serve."""
    cluster = _open(dir)
    for name in names:
        cluster.start(name, wait=False)
    cluster.wait_ready(*names)
    if json:
        output.emit_json(cluster.status())
    else:
        output.emit(*(f"{name}: running, pid {cluster.pid(name)}" for name in names))


@app.command()
def add(dir: Dir = DEFAULT_DIR, json: output.Json = False) -> None:
    """Start one more node, empty, and add it to the cluster; it votes when it has caught up."""
    cluster = _open(dir)
    name = cluster.grow()
    with cluster.client() as client:
        client.cluster_add(name, cluster.peer(name), cluster.node_urls[name])
    if json:
        output.emit_json(cluster.status())
    else:
        output.emit(f"{name}: running, pid {cluster.pid(name)}, added; it votes when it has caught up")


@app.command()
def logs(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="n1, n2, ... or frontend; all")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    dir: Dir = DEFAULT_DIR,
) -> None:
    """Show the end of the servers' logs."""
    cluster = _open(dir)
    wanted = names or [*cluster.nodes, "frontend"]
    paths = {name: cluster.log_path(name) for name in wanted}
    ends = {name: path.stat().st_size if path.exists() else 0 for name, path in paths.items()}
    for name in wanted:
        if len(wanted) > 1:
            output.emit(f"==> {paths[name]} <==")
        if tail := cluster.log_tail(name, lines):
            output.emit(*tail.splitlines())
    while follow:
        time.sleep(0.2)
        for name, path in paths.items():
            ends[name] = _emit_from(path, ends[name], name if len(wanted) > 1 else None)


def _emit_from(path: Path, start: int, name: str | None) -> int:
    """Print the whole lines of a log after ``start``; returns where they end."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    data = data[: data.rfind(b"\n") + 1]
    prefix = f"{name}: " if name else ""
    output.emit(*(prefix + line for line in data.decode("utf-8", "replace").splitlines()))
    return start + len(data)


def _open(dir: Path) -> LocalCluster:
    from raftfs.testing import LocalCluster

    return LocalCluster.open(dir)


def _running(cluster: LocalCluster) -> list[str]:
    return [name for name in [*cluster.nodes, "frontend"] if cluster.process(name)]


def _parse_signal(name: str) -> signal.Signals:
    word = name.upper()
    try:
        return signal.Signals(int(word)) if word.isdecimal() else signal.Signals[f"SIG{word.removeprefix('SIG')}"]
    except (KeyError, ValueError):
        raise typer.BadParameter(f"there is no signal {name!r}", param_hint="--signal") from None


def _parse_settings(settings: list[str]) -> dict[str, Any]:
    """``["chunk_grace_s=5", "times.heartbeat_ms=20"]`` as nested keys; a value that is not TOML is taken as text."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.replace(".", "").replace("_", "").isalnum():
            raise typer.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="--set")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        *tables, last = key.split(".")
        place = values
        for table in tables:
            place = place.setdefault(table, {})
        place[last] = parsed
    return values


def _print_status(status: dict[str, Any], json: bool) -> None:
    if json:
        output.emit_json(status)
        return
    frontend = status["frontend"]
    rows = [("frontend", frontend["pid"] or "-", "up" if frontend["pid"] else "down", frontend["url"], "")]
    for node in status["nodes"]:
        state = (node["role"] or "no answer") if node["pid"] else "down"
        rows.append((node["id"], node["pid"] or "-", state, node["url"], node["data_dir"]))
    output.emit(*output.columns([("NAME", "PID", "STATE", "URL", "DATA"), *rows], right=[1]))


def _show(cluster: LocalCluster, dir: Path, json: bool, *, foreground: bool) -> None:
    """Say where everything is and what to type next."""
    status = cluster.status()
    _print_status(status, json)
    if json:
        return
    output.emit(
        "", f"Logs and data are in {cluster.dir}. What to type next" + (", in another terminal:" if foreground else ":")
    )
    default_url = f"http://127.0.0.1:{DEFAULT_PORT}"
    option = _dir_option(dir)
    steps = [] if cluster.url == default_url else [f"export RAFTFS_ENDPOINTS={cluster.url}"]
    steps += [] if cluster.ca is None else [f"export RAFTFS_CA={cluster.ca}"]
    steps += ["echo hello | raftfs put - /hello.txt", "raftfs cat /hello.txt", "raftfs ls /", "raftfs cluster status"]
    steps += [f"raftfs dev kill n1{option}", f"raftfs dev start n1{option}"]
    output.emit(*(f"  {step}" for step in steps), "")
    output.emit("Ctrl-C stops all servers." if foreground else f"`raftfs dev down{option}` stops all servers.")


def _dir_option(dir: Path) -> str:
    return "" if dir == DEFAULT_DIR else f" --dir {dir}"
