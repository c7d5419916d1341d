"""The systemd unit of a node."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

_UNIT = """\
[Unit]
Description=Longshore worker node
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target docker.service

[Service]
Type=simple
User={user}
ExecStart={command}
EnvironmentFile=-/etc/longshore/worker.env
Environment=LONGSHORE_HOME={home}
Environment=LONGSHORE_LOG_FORMAT=json
# Stopping hands the jobs back; reloading begins anew with the code that is installed now, and jobs in Docker go on.
# Only the daemon gets the signal. Beside it runs a keeper that must outlive a crash, and ends by itself.
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
TimeoutStopSec=90
Restart=always
RestartSec=2
# A credential that the coordinator does not know will not get better by itself.
RestartPreventExitStatus={void}
StateDirectory=longshore
StateDirectoryMode=0700
UMask=0077
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ReadWritePaths={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
{groups}
[Install]
WantedBy=multi-user.target
"""


def unit_text(*, command: Sequence[str], home: Path, user: str, with_docker: bool, void_exit_code: int) -> str:
    """The unit file. Docker's group is root by another name, so it is there only where Docker makes the computers."""
    return _UNIT.format(
        command=shlex.join(command),
        home=home,
        user=user,
        void=void_exit_code,
        groups="SupplementaryGroups=docker\n" if with_docker else "",
    )
