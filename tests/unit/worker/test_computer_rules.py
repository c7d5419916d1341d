"""The pure rules of computers: names, output, frames, recipes, counters, sandbox command lines."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Invalid
from worker.computer import cgroups
from worker.computer.collecting import Harvest
from worker.computer.contract import CollectLimits, ComputerSpec, InputFile, Isolation, Network, Usage
from worker.computer.disk import parse_du
from worker.computer.docker.archive import tar_of
from worker.computer.docker.driver import isolation_of
from worker.computer.docker.engine import api_version
from worker.computer.docker.frames import FrameDecoder
from worker.computer.docker.recipe import Identity, computer_body, computer_labels, holder_body, network_mode
from worker.computer.names import artifact_name_fault, check_id, inside_path, printable
from worker.computer.output import Output, Tail
from worker.computer.process import sandbox
from worker.computer.process.sandbox import Descriptors, Tools, Way
from worker.computer.process.seccomp import filter_program
from worker.computer.running import check_argv, check_variable

OURS = Identity("install-1", "node-1")
SPEC = ComputerSpec(id="attempt-1", memory_mb=64, disk_mb=100, pids=50, cpus=1.5)


# ---- names


@pytest.mark.parametrize("path", ["a", "a/b", "a//b/./c", "...", "a b", "-x", "ž/漢"])
def test_a_path_inside_is_made_plain(path: str) -> None:
    assert inside_path(path) == "/".join(part for part in path.split("/") if part not in ("", "."))


@pytest.mark.parametrize("path", ["", ".", "/a", "..", "a/../b", "a\0b", "x" * 256, "y/" * 600])
def test_a_path_that_leads_elsewhere_is_invalid(path: str) -> None:
    with pytest.raises(Invalid) as caught:
        inside_path(path)
    assert caught.value.details["field"] == "path"


@pytest.mark.parametrize("computer_id", ["", "a/b", "..", "-a", "a b", "a\n", "x" * 101])
def test_an_id_that_could_mean_something_else_is_invalid(computer_id: str) -> None:
    with pytest.raises(Invalid):
        check_id(computer_id)


@pytest.mark.parametrize("name", ["../a", "a/../b", "/a", "a//b", "", "a\nb", "\udcff", "x" * 1025])
def test_an_artifact_with_such_a_name_is_not_taken(name: str) -> None:
    assert artifact_name_fault(name)


@given(st.text(st.characters(codec=None)))
def test_any_name_can_be_shown(name: str) -> None:
    shown = printable(name)
    shown.encode("utf-8")
    assert len(shown) <= 200
    assert not any(ord(char) < 32 for char in shown)


def test_a_command_needs_a_word_and_has_no_nul() -> None:
    for argv in ([], [""], ["a", "b\0"]):
        with pytest.raises(Invalid):
            check_argv(argv)


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("a=b", "x"), ("a\0", "x"), ("a", "x\0")])
def test_a_variable_that_no_environment_can_hold_is_invalid(name: str, value: str) -> None:
    with pytest.raises(Invalid):
        check_variable(name, value)


# ---- output


@given(st.lists(st.binary(max_size=40)), st.integers(min_value=1, max_value=60))
def test_a_tail_is_the_end_of_all_that_came(chunks: list[bytes], limit: int) -> None:
    tail = Tail(limit)
    for chunk in chunks:
        tail.add(chunk)
    whole = b"".join(chunks)
    assert tail.value() == whole[-limit:]
    assert tail.dropped == (len(whole) > limit)


def test_output_beyond_its_cap_is_dropped_and_said() -> None:
    passed: list[tuple[str, bytes]] = []
    output = Output(on_output=lambda stream, chunk: passed.append((stream, chunk)), max_bytes=5, keep_bytes=100)
    output.add("stdout", b"abc")
    assert not output.flooded
    output.add("stderr", b"defg")
    output.add("stdout", b"more")
    assert (output.flooded, output.truncated) == (True, True)
    assert passed == [("stdout", b"abc"), ("stderr", b"de")]


def test_output_of_exactly_the_cap_is_no_flood() -> None:
    output = Output(on_output=None, max_bytes=3, keep_bytes=100)
    output.add("stdout", b"abc")
    assert not output.flooded


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=30)), max_size=20),
    st.integers(min_value=1, max_value=50),
)
def test_frames_are_told_apart_wherever_they_are_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(bytes([stream, 0, 0, 0]) + len(body).to_bytes(4, "big") + body for stream, body in frames)
    decoder = FrameDecoder()
    got: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    for at in range(0, len(data), step):
        for stream, chunk in decoder(data[at : at + step]):
            got[stream] += chunk
    assert got["stdout"] == b"".join(body for stream, body in frames if stream == 1)
    assert got["stderr"] == b"".join(body for stream, body in frames if stream == 2)


# ---- the container recipe


def test_a_container_has_no_rights_and_all_limits() -> None:
    body = computer_body(SPEC, image="i", labels={}, network="none", volume=None, runtime=None)
    host = body["HostConfig"]
    assert body["User"] == "0:0"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["Memory"] == host["MemorySwap"] == 64 * 1024 * 1024
    assert host["NanoCpus"] == 1_500_000_000
    assert host["PidsLimit"] == 50
    assert "Env" not in body
    assert "Runtime" not in host


def test_the_temporary_directory_takes_only_a_part_of_the_memory() -> None:
    body = computer_body(SPEC, image="i", labels={}, network="none", volume=None, runtime="runsc")
    assert "size=16m" in body["HostConfig"]["Tmpfs"]["/tmp"]
    assert body["HostConfig"]["Runtime"] == "runsc"


def test_a_jobs_own_labels_cannot_pose_as_ours() -> None:
    spec = ComputerSpec(id="a", expires_at=99, labels={"longshore.owner": "someone", "team": "x"})
    labels = computer_labels(OURS, spec)
    assert labels["longshore.owner"] == "install-1"
    assert labels["longshore.expires"] == "99"
    assert labels["team"] == "x"
    assert labels["longshore.attempt"] == labels["longshore.computer"] == "a"


def test_only_both_labels_make_a_container_ours() -> None:
    assert OURS.owns(computer_labels(OURS, SPEC))
    assert OURS.owns(holder_body(OURS, image="i", runtime=None)["Labels"])
    assert not OURS.owns({"longshore.owner": "install-1", "longshore.node": "node-2"})
    assert not OURS.owns({"longshore.owner": "install-2", "longshore.node": "node-1"})
    assert not OURS.owns(None)


def test_a_computer_joins_a_holder_only_without_network() -> None:
    assert network_mode(SPEC, "h") == "container:h"
    assert network_mode(SPEC, None) == "none"
    assert network_mode(ComputerSpec(id="a", network=Network.open), "h") == "bridge"


@pytest.mark.parametrize(
    ("runtime", "kind"),
    [
        (None, Isolation.container),
        ("runsc", Isolation.gvisor),
        ("kata-qemu", Isolation.vm),
        ("odd", Isolation.container),
    ],
)
def test_isolation_is_named_by_the_runtime_and_never_overrated(runtime: str | None, kind: Isolation) -> None:
    assert isolation_of(runtime).kind is kind


def test_the_newest_version_that_both_know_is_spoken() -> None:
    assert api_version("1.41") == "1.41"
    assert api_version("1.99") == "1.47"
    assert api_version("1.9") == "1.9"


# ---- files


def test_a_tar_of_inputs_holds_parents_once_and_belongs_to_the_job() -> None:
    files = [InputFile("a/b/one", b"1"), InputFile("a/b/two", io.BytesIO(b"22"), mode=0o4755), InputFile("ž", b"")]
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar_of(files)))) as tar:
        members = tar.getmembers()
        content = {member.name: tar.extractfile(member) for member in members if member.isfile()}
        assert [member.name for member in members] == ["a", "a/b", "a/b/one", "a/b/two", "ž"]
        assert {(member.uid, member.gid) for member in members} == {(1000, 1000)}
        assert members[3].mode == 0o755
        two = content["a/b/two"]
        assert two is not None
        assert two.read() == b"22"


def test_a_source_that_ends_early_is_told_and_not_padded() -> None:
    with pytest.raises(Invalid, match="early"):
        list(tar_of([InputFile("a", io.BytesIO(b"12"), size=3)]))


def test_a_harvest_keeps_its_caps_and_says_what_it_refused(tmp_path: Path) -> None:
    limits = CollectLimits(max_files=2, max_file_bytes=10, max_total_bytes=12, max_result_bytes=3)
    harvest = Harvest(tmp_path / "out", limits)
    for name, content in {"a": b"12345678", "big": b"x" * 11, "sum": b"12345", "b": b"1234", "c": b"1"}.items():
        if harvest.wants(name, len(content)):
            harvest.take(name, len(content), io.BytesIO(content).read)
    harvest.take_result("result.json", 4, io.BytesIO(b"1234").read)
    collected = harvest.collected()
    assert [artifact.name for artifact in collected.artifacts] == ["a", "b"]
    assert collected.result is None
    assert [line.partition(":")[0] for line in collected.refused] == ["big", "sum", "and 2 more"]
    assert collected.artifacts[0].path.read_bytes() == b"12345678"


def test_names_from_inside_never_become_names_on_the_host(tmp_path: Path) -> None:
    harvest = Harvest(tmp_path / "out", CollectLimits())
    harvest.take("deep/odd name", 1, io.BytesIO(b"x").read)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00001"]


# ---- counters


def test_counters_of_both_generations_are_read() -> None:
    assert cgroups.cpu_ms("1500000000\n") == 1500
    assert cgroups.cpu_ms("usage_usec 1500000\nuser_usec 1\n") == 1500
    assert cgroups.oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n") == 2
    assert cgroups.oom_kills("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n") == 1
    assert cgroups.usage_from(None, "max\n") == Usage(None, None)


def test_membership_of_both_generations_is_read() -> None:
    old = cgroups.parse_membership(["4:memory:/docker/abc", "3:cpu,cpuacct:/docker/abc", "0::/"])
    assert old["memory"] == old["cpuacct"] == "docker/abc"
    assert cgroups.parse_membership(["0::/system.slice/docker-abc.scope"]) == {"": "system.slice/docker-abc.scope"}


def test_the_answer_of_du_is_read_and_rubbish_is_unknown() -> None:
    assert parse_du(b"12\t/work\n") == 12 * 1024
    assert parse_du(b"") is None
    assert parse_du(b"du: cannot\n") is None


# ---- the sandbox's command line

FDS = Descriptors(status=7, passwd=8, group=9)
ROOT = Tools(Way.bwrap_as_root, (0, 8, 0), (("usr/bin", "/bin"),), ())


def test_root_gives_up_its_rights_before_the_sandbox_begins() -> None:
    words = sandbox.outer_command(ROOT, doors=["/cg/procs"], work="/host/work", inner=["bwrap"])
    assert words.index("setpriv") < words.index("bwrap")
    assert {"--reuid=1000", "--regid=1000", "--clear-groups", "--no-new-privs"} <= set(words)


def test_secrets_and_host_paths_are_in_no_command_line() -> None:
    words = sandbox.bwrap_words(ROOT, SPEC, work="/host/work", env={"TOKEN": "secret"}, fds=FDS)
    assert words[-3:] == ["--setenv", "TOKEN", "secret"]
    assert "--clearenv" in words
    assert "/host/work" not in words
    inner = sandbox.limited(["sh"], SPEC, grouped=True, count_processes=True)
    assert "secret" not in " ".join(sandbox.outer_command(ROOT, doors=[], work="/host/work", inner=inner))


def test_a_sandbox_has_no_network_unless_it_is_opened() -> None:
    opened = ComputerSpec(id="a", network=Network.open)
    assert "--unshare-net" in sandbox.bwrap_words(ROOT, SPEC, work="w", env={}, fds=FDS)
    words = sandbox.bwrap_words(ROOT, opened, work="w", env={}, fds=FDS)
    assert "--unshare-net" not in words
    assert "/etc/resolv.conf" in words


def test_options_that_an_old_bubblewrap_lacks_are_left_out() -> None:
    old = Tools(Way.bwrap, (0, 4, 1))
    words = sandbox.bwrap_words(old, SPEC, work="/host/work", env={}, fds=FDS)
    assert not {"--size", "--disable-userns"} & set(words)
    assert {"--size", "--disable-userns"} <= set(sandbox.bwrap_words(ROOT, SPEC, work="w", env={}, fds=FDS))


def test_memory_is_limited_by_the_process_only_where_no_group_does_it() -> None:
    assert "ulimit -v" not in sandbox.limited(["x"], SPEC, grouped=True, count_processes=True)[2]
    assert f"ulimit -v {64 * 1024}" in sandbox.limited(["x"], SPEC, grouped=False, count_processes=True)[2]


def test_versions_are_read_from_what_bubblewrap_says() -> None:
    assert sandbox.bwrap_version("bubblewrap 0.8.0\n") == (0, 8, 0)
    assert sandbox.bwrap_version("rubbish") == ()


# ---- the filter of calls


def _verdict(program: bytes, architecture: int, number: int) -> int:
    """Runs the program as the kernel would."""
    lines = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at, loaded = 0, 0
    while True:
        code, then, otherwise, value = lines[at]
        if code == 0x06:
            return int(value)
        if code == 0x20:
            loaded = {0: number, 4: architecture}[value]
            at += 1
        else:
            taken = loaded == value if code == 0x15 else loaded >= value
            at += 1 + (then if taken else otherwise)


@pytest.mark.parametrize(
    ("machine", "architecture", "mount"), [("x86_64", 0xC000003E, 165), ("aarch64", 0xC00000B7, 40)]
)
def test_the_filter_refuses_its_list_and_nothing_else(machine: str, architecture: int, mount: int) -> None:
    program = filter_program(machine)
    assert program is not None
    verdicts = {number: _verdict(program, architecture, number) for number in range(500)}
    refused = {number for number, verdict in verdicts.items() if verdict == 0x00050001}
    assert mount in refused
    assert {425, 426, 427} <= refused
    assert 40 < len(refused) < 50
    assert {verdicts[number] for number in range(500) if number not in refused} == {0x7FFF0000}


def test_calls_of_other_architectures_do_not_slip_past_the_filter() -> None:
    program = filter_program("x86_64")
    assert program is not None
    assert _verdict(program, 0x40000003, 1) == 0x00050001
    assert _verdict(program, 0xC000003E, 0x40000000 + 1) == 0x00050001


def test_a_machine_whose_numbers_are_not_known_gets_no_filter_rather_than_a_wrong_one() -> None:
    assert filter_program("riscv64") is None
