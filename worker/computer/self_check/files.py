"""Checks: files in and out, also when the job wants to lead the worker astray."""

from __future__ import annotations

import hashlib
import io
import os
import threading

from shared.errors import Invalid
from worker.computer.contract import Collected, ComputerError, InputFile
from worker.computer.self_check.checks import Bench, check, expect, expect_raises, fails, out, sh

_MIB = 1024 * 1024


def _names(collected: Collected) -> list[str]:
    return sorted(artifact.name for artifact in collected.artifacts)


def _refused(collected: Collected, name: str) -> bool:
    return any(line.startswith(f"{name}:") for line in collected.refused)


@check("A file that is put arrives byte for byte, with its mode, owned by the job's user")
def _put(bench: Bench) -> None:
    computer = bench.computer()
    computer.put("data.bin", bytes(range(256)))
    computer.put("run", b"#!/bin/sh\necho ran\n", mode=0o755)
    expect(out(computer, "od -An -tu1 -v data.bin | tr -s ' \\n' ' '").split() == [str(n) for n in range(256)], "bytes")
    expect(out(computer, "./run && echo more >>data.bin && rm run && ls") == "ran\ndata.bin", "owner or mode")


@check("A file of megabytes arrives whole, from memory and from a stream")
def _put_large(bench: Bench) -> None:
    computer = bench.computer()
    content = os.urandom(3 * _MIB)
    computer.put("memory", content)
    computer.put("stream", io.BytesIO(content))
    computer.put("sized", io.BytesIO(content + b"more"), size=len(content))
    digest = hashlib.sha256(content).hexdigest()
    expect(out(computer, "sha256sum memory stream sized | cut -d' ' -f1").split() == [digest] * 3, "other bytes")


@check("Directories above a file are made, and belong to the job's user")
def _put_nested(bench: Bench) -> None:
    computer = bench.computer()
    computer.put("input/a/b/c.txt", b"deep")
    expect(out(computer, "cat input/a/b/c.txt && touch input/a/b/new && ls input/a/b") == "deepc.txt\nnew", "not so")


@check("Names with spaces, quotes, line ends, dashes and any language arrive as they are")
def _put_odd_names(bench: Bench) -> None:
    computer = bench.computer()
    names = ["a b", "-rf", "quote'\"`$x", "line\nbreak", "žluť 漢字 😀", "x" * 200, "a\\b", "...", "*"]
    computer.put_files([InputFile(f"odd/{name}", name.encode()) for name in names])
    for name in names:
        done = computer.exec(["cat", f"./odd/{name}"], timeout_seconds=10)
        expect(done.stdout == name.encode(), (name, done))


@check("Many files are put at once, and putting none is fine")
def _put_many(bench: Bench) -> None:
    computer = bench.computer()
    computer.put_files([])
    computer.put_files([InputFile(f"many/{number}", b"%d" % number) for number in range(200)])
    expect(out(computer, "ls many | wc -l && cat many/199") == "200\n199", "not all are there")


@check("A file that is put again is replaced")
def _put_again(bench: Bench) -> None:
    computer = bench.computer()
    computer.put("file", b"first, and longer")
    computer.put("file", b"second")
    expect(out(computer, "cat file") == "second", "it is not")


@check("Paths that lead out of the work directory are refused")
def _put_outside(bench: Bench) -> None:
    computer = bench.computer()
    for path in ("../x", "a/../../x", "/etc/x", "", ".", "a/..", "nul\0byte", "x" * 300):
        expect_raises(Invalid, lambda path=path: computer.put(path, b""))  # type: ignore[misc]


@check("A link that the job made does not lead a put file elsewhere")
def _put_through_link(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "mkdir elsewhere && ln -s elsewhere input && ln -s elsewhere/target file")
    for path in ("input/x", "file"):
        try:
            computer.put(path, b"put")
        except (ComputerError, Invalid):
            continue
    expect(out(computer, "ls elsewhere") == "", "it went through the link")


@check("The result comes back")
def _result(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, """echo '{"sum": 42}' >result.json""")
    collected = bench.collect(computer)
    expect(collected.result == b'{"sum": 42}\n' and not collected.artifacts and not collected.refused, collected)


@check("Without result and artifacts nothing comes back, and nothing is wrong")
def _nothing(bench: Bench) -> None:
    collected = bench.collect(bench.computer())
    expect(collected == Collected(None, (), ()), collected)


@check("Artifacts come back with name, size, digest and content, also from directories below")
def _artifacts(bench: Bench) -> None:
    computer = bench.computer()
    out(
        computer,
        "mkdir -p artifacts/s/deep artifacts/empty; printf one >artifacts/a; printf two >artifacts/s/deep/b",
    )
    collected = bench.collect(computer)
    expect(_names(collected) == ["a", "s/deep/b"] and not collected.refused, collected)
    for artifact in collected.artifacts:
        content = artifact.path.read_bytes()
        expect(len(content) == artifact.size == 3, artifact)
        expect(hashlib.sha256(content).hexdigest() == artifact.sha256, artifact)


@check("An artifact of megabytes comes back unchanged, and an empty one too")
def _large_artifact(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "mkdir artifacts; seq 1 1000000 >artifacts/numbers; touch artifacts/empty")
    collected = bench.collect(computer)
    sizes = {artifact.name: len(artifact.path.read_bytes()) for artifact in collected.artifacts}
    expect(sizes == {"numbers": 6_888_896, "empty": 0}, sizes)


@check("Links, pipes and hard links among the artifacts are refused with the reason, the rest is taken")
def _odd_kinds(bench: Bench) -> None:
    computer = bench.computer()
    secret = bench.folder / "secret"
    secret.write_text("of the host")
    script = f"""mkdir artifacts; cd artifacts; ln -s {secret} link; ln -s /etc etc; mkfifo pipe
        echo x >hard; ln hard hard2; echo good >zgood"""
    out(computer, script)
    collected = bench.collect(computer)
    expect({"link", "etc", "pipe"} <= {line.partition(":")[0] for line in collected.refused}, collected.refused)
    expect("zgood" in _names(collected) and not {"link", "etc", "pipe"} & set(_names(collected)), collected)
    expect(all(b"of the host" not in a.path.read_bytes() for a in collected.artifacts), "the host's file came out")


@check("An artifact comes without the rights that the job gave it")
def _setuid(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "mkdir artifacts; cp /bin/true artifacts/tool; chmod 4755 artifacts/tool")
    (artifact,) = bench.collect(computer).artifacts
    expect(artifact.path.stat().st_mode & 0o7111 == 0, oct(artifact.path.stat().st_mode))


@check("A file that is too large is refused, the others are taken")
def _too_large(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "mkdir artifacts; cd artifacts; echo a >a; head -c 2m /dev/zero >big; echo z >z")
    collected = bench.collect(computer, max_file_bytes=_MIB)
    expect(_names(collected) == ["a", "z"] and _refused(collected, "big"), collected)


@check("Too many files, or too much in all, are cut at the cap and said")
def _too_many(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "mkdir artifacts; cd artifacts; for i in $(seq 100 149); do head -c 1000 /dev/zero >f$i; done")
    few = bench.collect(computer, max_files=10)
    expect(len(few.artifacts) == 10 and few.refused, (len(few.artifacts), few.refused))
    small = bench.collect(computer, max_total_bytes=5500)
    expect(len(small.artifacts) == 5 and small.refused, (len(small.artifacts), small.refused))


@check("A file that only looks huge is refused without being read")
def _sparse(bench: Bench) -> None:
    computer = bench.computer(disk_mb=4096)
    out(computer, "mkdir artifacts; echo a >artifacts/a; truncate -s 4000M artifacts/huge")
    collected = bench.collect(computer, max_file_bytes=_MIB, max_total_bytes=10 * _MIB)
    expect(_names(collected) == ["a"] and _refused(collected, "huge"), collected)


@check("A link in place of the artifacts, or of the result, is not followed")
def _link_tops(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "ln -s /etc artifacts; ln -s /etc/passwd result.json")
    collected = bench.collect(computer)
    expect(collected.result is None and not collected.artifacts and collected.refused, collected)


@check("A result that is too large, or a directory, is refused with the reason")
def _odd_results(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "head -c 5000 /dev/zero >result.json")
    collected = bench.collect(computer, max_result_bytes=1000)
    expect(collected.result is None and _refused(collected, "result.json"), collected)
    out(computer, "rm result.json; mkdir result.json")
    again = bench.collect(computer)
    expect(again.result is None and _refused(again, "result.json"), again)


@check("Names that no file of the host should have are refused")
def _bad_names(bench: Bench) -> None:
    computer = bench.computer()
    out(
        computer,
        r"""mkdir artifacts; cd artifacts; for name in 'line\nbreak' '\377' ok; do
        echo x >"$(printf "$name")"; done""",
    )
    collected = bench.collect(computer)
    expect(_names(collected) == ["ok"] and len(collected.refused) == 2, collected)


@check("A tree that changes while it is collected does no harm")
def _changing(bench: Bench) -> None:
    computer = bench.computer()
    script = """mkdir -p artifacts; cd artifacts; while [ ! -e ../stop ]; do for i in 1 2 3 4 5; do
        seq 1 2000 >f$i; : >f$i; rm f$i; ln -s /etc/passwd f$i; rm f$i; done; done"""
    changing = threading.Thread(target=lambda: sh(computer, script))
    changing.start()
    try:
        for _ in range(5):
            taken = [artifact.path.read_bytes() for artifact in bench.collect(computer).artifacts]
            expect(all(b"root:" not in content for content in taken), "a link was followed")
    finally:
        out(computer, "touch stop")
        changing.join()


@check("Directories that the job locked or nested deeply do not stop collecting or destroying")
def _locked(bench: Bench) -> None:
    computer = bench.computer()
    deep = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); mkdir d && cd d || exit 1; done"
    out(computer, f"mkdir -p artifacts/locked; echo a >artifacts/a; chmod 000 artifacts/locked; cd artifacts; {deep}")
    expect("a" in _names(bench.collect(computer)), "the plain file is missing")
    computer.destroy()
    expect(computer.spec.id not in bench.driver.list_owned(), "it is still there")


@check("What another command left unreadable is not handed out by mistake")
def _unreadable(bench: Bench) -> None:
    computer = bench.computer()
    fails(computer, "cat result.json")
    expect(bench.collect(computer).result is None, "there is a result")
