"""Runs inside the computer: reads the file it was given, finds out what is true of it, writes a report and a result."""

import collections
import hashlib
import json
import os
import pathlib
import platform
import re
import sys

STEPS = 6


def step(number: int, text: str) -> None:
    print(f"[{number}/{STEPS}] {text}", flush=True)


work = pathlib.Path(os.environ["WORK"])
step(1, f"Python {platform.python_version()} in {work}, as user {os.getuid()}")

source = next(iter(sorted((work / "input").iterdir())))
content = source.read_bytes()
step(2, f"Read {source.name}: {len(content)} bytes")

text = content.decode()
lines, words = text.splitlines(), re.findall(r"[A-Za-z']+", text.lower())
step(3, f"Counted {len(lines)} lines and {len(words)} words")

digest = hashlib.sha256(content).hexdigest()
step(4, f"SHA-256 {digest}")

common = collections.Counter(word for word in words if len(word) > 3).most_common(5)
longest = max(lines, key=len, default="")
step(5, "Most frequent words: " + ", ".join(f"{word} ({count})" for word, count in common))

report = [f"# {source.name}", "", f"- {len(lines)} lines", f"- {len(words)} words", f"- SHA-256 `{digest}`", ""]
report += ["| word | times |", "|---|---|", *(f"| {word} | {count} |" for word, count in common)]
(work / "artifacts").mkdir(exist_ok=True)
(work / "artifacts" / "report.md").write_text("\n".join(report) + "\n")
result = {
    "file": source.name,
    "bytes": len(content),
    "lines": len(lines),
    "words": len(words),
    "sha256": digest,
    "longest_line": len(longest),
    "most_frequent_words": dict(common),
}
(work / "result.json").write_text(json.dumps(result))
step(6, "Wrote artifacts/report.md and result.json")
sys.exit(0)
