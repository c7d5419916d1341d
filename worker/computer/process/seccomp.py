"""The filter that keeps sandboxed work from parts of the kernel that no job needs and exploits are fond of.

Docker brings its own; for bubblewrap this makes one: a list of refused calls as a classic BPF program.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_LOAD_WORD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_OFFSET_OF_NUMBER, _OFFSET_OF_ARCHITECTURE = 0, 4
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_X32_BIT = 0x40000000
"""Calls of the x32 kind have numbers of their own from here on, and would slip past the list."""

# Name → number on x86-64, on 64-bit ARM. Keyrings, BPF, performance counters, io_uring, mounts, namespaces, modules,
# clocks and the machine itself.
_REFUSED: Mapping[str, tuple[int, int]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
_ONLY_ON_X86 = (173, 172)
"""ioperm and iopl."""


@dataclass(frozen=True, slots=True)
class _Machine:
    audit_architecture: int
    numbers: tuple[int, ...]
    has_x32: bool


_MACHINES = {
    "x86_64": _Machine(0xC000003E, (*(number for number, _ in _REFUSED.values()), *_ONLY_ON_X86), has_x32=True),
    "aarch64": _Machine(0xC00000B7, tuple(number for _, number in _REFUSED.values()), has_x32=False),
}


def filter_program(machine: str | None = None) -> bytes | None:
    """The program as the kernel reads it, or None on a machine whose call numbers are not known here."""
    known = _MACHINES.get(machine or platform.machine())
    return None if known is None else _assembled(known)


def _assembled(machine: _Machine) -> bytes:
    """Each test jumps to the refusal behind the last line; what passes all of them is allowed."""
    tests = [(_JUMP_AT_LEAST, _X32_BIT)] if machine.has_x32 else []
    tests += [(_JUMP_EQUAL, number) for number in machine.numbers]
    lines = [
        _line(_LOAD_WORD, _OFFSET_OF_ARCHITECTURE),
        # Another architecture's calls (32-bit programs) have other numbers: none of them is let through.
        _line(_JUMP_EQUAL, machine.audit_architecture, otherwise=len(tests) + 2),
        _line(_LOAD_WORD, _OFFSET_OF_NUMBER),
    ]
    lines += [_line(code, value, then=len(tests) - at) for at, (code, value) in enumerate(tests)]
    return b"".join([*lines, _line(_RETURN, _ALLOW), _line(_RETURN, _REFUSE)])


def _line(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
