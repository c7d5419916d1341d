"""Checks: what a job can see and touch beyond its own work directory."""

from __future__ import annotations

import os
from pathlib import Path

from worker.computer.contract import ExecEnd, Feature, Network
from worker.computer.self_check.checks import Bench, check, expect, fails, out, sh


def _status(bench: Bench, field: str) -> str:
    return out(bench.computer(), f"sed -n 's/^{field}:[[:space:]]*//p' /proc/self/status")


@check("Without network there is no interface but loopback, and no route", Feature.network_none)
def _no_network(bench: Bench) -> None:
    computer = bench.computer()
    interfaces = out(computer, "sed -n 's/^ *\\([^ ]*\\):.*/\\1/p' /proc/net/dev")
    expect(interfaces == "lo", interfaces)
    expect(len(out(computer, "cat /proc/net/route").splitlines()) <= 1, "there is a route")


@check("Without network the machine's own loopback is another one", Feature.network_none)
def _own_loopback(bench: Bench) -> None:
    inside = out(bench.computer(), "readlink /proc/self/ns/net")
    expect(inside and inside != str(Path("/proc/self/ns/net").readlink()), inside)


@check("Two computers do not share a network while both live", Feature.network_none)
def _apart(bench: Bench) -> None:
    one, two = bench.computer(), bench.computer()
    networks = {out(computer, "readlink /proc/self/ns/net") for computer in (one, two)}
    expect(len(networks) == 2, networks)


@check("An open network is one only when asked for", Feature.network_open)
def _open_network(bench: Bench) -> None:
    computer = bench.computer(network=Network.open)
    interfaces = out(computer, "sed -n 's/^ *\\([^ ]*\\):.*/\\1/p' /proc/net/dev").split()
    expect(set(interfaces) - {"lo"} or not _host_has_network(), interfaces)


def _host_has_network() -> bool:
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return any(not line.strip().startswith("lo:") for line in lines)


@check("Files of the host are not there", Feature.hidden_host)
def _hidden_files(bench: Bench) -> None:
    secret = bench.folder / "secret"
    secret.write_text("of the host")
    bench.folder.chmod(0o755)
    secret.chmod(0o644)
    computer = bench.computer()
    fails(computer, f"cat {secret}")
    fails(computer, "cat /etc/shadow")
    fails(computer, "test -e /var/run/docker.sock")
    fails(computer, f"ls -A '{Path.home()}' | grep .")


@check("Processes of the host are not there", Feature.private_processes)
def _hidden_processes(bench: Bench) -> None:
    computer = bench.computer()
    inside = out(computer, "readlink /proc/self/ns/pid")
    expect(inside != str(Path("/proc/self/ns/pid").readlink()), inside)
    pids = [int(pid) for pid in out(computer, "ls /proc | grep '^[0-9]*$'").split()]
    expect(len(pids) < 12, pids)


@check("The root file system cannot be written", Feature.read_only_root)
def _read_only(bench: Bench) -> None:
    computer = bench.computer()
    for path in ("/file", "/usr/file", "/etc/file", "/usr/bin/env", "/var/file"):
        fails(computer, f"echo x >{path}")


@check("The temporary directory can be written, and programs in it run")
def _tmp(bench: Bench) -> None:
    script = "printf '#!/bin/sh\\necho ran\\n' >$T/p && chmod +x $T/p && $T/p"
    expect(out(bench.computer(), "T=${TMPDIR:-/tmp}; " + script) == "ran", "it does not")


@check("The temporary directory is the computer's own", Feature.hidden_host)
def _own_tmp(bench: Bench) -> None:
    name = f"longshore-{os.getpid()}-{id(bench)}"
    first, second = bench.computer(), bench.computer()
    out(first, f"echo x >/tmp/{name}")
    fails(second, f"cat /tmp/{name}")
    on_host = Path("/tmp", name)  # noqa: S108 - exactly the place to look
    expect(not on_host.exists(), "it is on the host")


@check("Work runs as uid 1000, not as root", Feature.unprivileged_user)
def _user(bench: Bench) -> None:
    expect(out(bench.computer(), "id -u; id -g; id -G") == "1000\n1000\n1000", "it does not")


@check("Work has no capability, and can get none", Feature.no_privileges)
def _capabilities(bench: Bench) -> None:
    computer = bench.computer()
    sets = out(computer, "sed -n 's/^Cap[A-Z][a-z]*:[[:space:]]*//p' /proc/self/status").split()
    expect(sets == ["0000000000000000"] * 5, sets)


@check("No program can raise the rights of the work", Feature.no_privileges)
def _no_new_privileges(bench: Bench) -> None:
    expect(_status(bench, "NoNewPrivs") == "1", "it could")


@check("Calls to the kernel are filtered", Feature.seccomp)
def _seccomp(bench: Bench) -> None:
    expect(_status(bench, "Seccomp") == "2", "there is no filter")


@check("New user namespaces and mounts are refused", Feature.no_privileges)
def _namespaces(bench: Bench) -> None:
    computer = bench.computer()
    fails(computer, "unshare --user true")
    fails(computer, "unshare --mount true")
    fails(computer, "mount -t tmpfs none /tmp")


@check("Settings of the kernel cannot be changed", Feature.no_privileges)
def _kernel_settings(bench: Bench) -> None:
    computer = bench.computer()
    for path in ("kernel/hostname", "kernel/core_pattern", "vm/overcommit_memory", "net/ipv4/ip_forward"):
        fails(computer, f"echo 1 >/proc/sys/{path}")
    fails(computer, "echo h >/proc/sysrq-trigger")


@check("Devices are the harmless few", Feature.hidden_host)
def _devices(bench: Bench) -> None:
    found = out(bench.computer(), "find /dev -type b -o -type c | sort").split()
    harmless = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "0")
    odd = [name for name in found if name.rpartition("/")[2] not in harmless]
    expect(not odd, odd)


@check("A job cannot end the keeper of its computer", Feature.private_processes)
def _keeper(bench: Bench) -> None:
    computer = bench.computer()
    sh(computer, "kill -9 1; kill -TERM 1; kill -9 -1", timeout_seconds=10)
    expect(out(computer, "echo well") == "well", "the computer is dead")


@check("Two computers do not share their work directories")
def _own_work(bench: Bench) -> None:
    one, two = bench.computer(), bench.computer()
    out(one, "echo x >mine")
    expect(sh(two, "cat mine").end is ExecEnd.exited and out(two, "ls") == "", "it is in the other one")


@check("A secret of one command is in no process list of the host while it runs", Feature.unprivileged_user)
def _no_secret_in_arguments(bench: Bench) -> None:
    secret = f"hidden-{id(bench)}-{os.getpid()}"
    seen: list[str] = []

    def look(_stream: str, _chunk: bytes) -> None:
        seen.extend(path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if secret in _text(path))

    sh(bench.computer(), "echo on; sleep 0.2", env={"SECRET": secret}, on_output=look)
    expect(not seen, f"processes {seen} show it")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
