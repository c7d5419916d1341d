"""What a process computer honestly offers: pure functions from the way it is made to words and features."""

from __future__ import annotations

from worker.computer.contract import Feature, Isolation, IsolationReport
from worker.computer.process.sandbox import Way

_SANDBOX = frozenset(
    {
        Feature.absolute_work,
        Feature.hidden_host,
        Feature.kills_everything,
        Feature.network_none,
        Feature.network_open,
        Feature.no_privileges,
        Feature.pids_limit,
        Feature.private_processes,
        Feature.read_only_root,
        Feature.unprivileged_user,
    }
)
_ALWAYS = frozenset({Feature.disk_watch})
_BY_GROUP = frozenset(
    {
        Feature.cpu_limit,
        Feature.kills_everything,
        Feature.memory_limit,
        Feature.oom_told,
        Feature.pids_limit,
        Feature.usage,
    }
)
_SOFT_DISK = "the disk limit is a soft quota: looked at while a command runs and when it ended"


def features_of(way: Way, *, grouped: bool, filtered: bool) -> frozenset[str]:
    found = set(_ALWAYS)
    if way is not Way.bare:
        found |= _SANDBOX | ({Feature.seccomp} if filtered else set())
    else:
        found |= {Feature.network_open, Feature.usage}
    return frozenset(found | _BY_GROUP if grouped else found)


def isolation_of(way: Way, *, grouped: bool) -> IsolationReport:
    memory = (
        "limited by a control group" if grouped else "limited for each process (address space), not for all together"
    )
    notes = [_SOFT_DISK]
    if not grouped:
        notes.append("no CPU limit: this node may not make control groups")
    if way is Way.bare:
        return _none(memory, grouped, notes)
    return IsolationReport(
        kind=Isolation.bwrap,
        filesystem="the machine's own programs, read-only, with /work and /tmp to write in; no home, no settings",
        network="none unless the job's policy opens it",
        pids="processes of its own, limited",
        memory=memory,
        user="uid 1000 without capabilities",
        notes=(
            *notes,
            "the kernel is shared with the host",
            "the image of the job is ignored: it sees the programs of this machine",
            "what a command leaves in the background ends with the command",
        ),
    )


def _none(memory: str, grouped: bool, notes: list[str]) -> IsolationReport:
    return IsolationReport(
        kind=Isolation.none,
        filesystem="all of the machine that the worker's user can read and write",
        network="the machine's own",
        pids="the machine's own, limited in number" if grouped else "the machine's own, not limited",
        memory=memory,
        user="the worker's own user",
        notes=(
            *notes,
            "runs as the worker's user and can do everything that user can",
            "/work is not there: the work directory is in $WORK",
            "what a command leaves in the background ends with the command",
        ),
    )
