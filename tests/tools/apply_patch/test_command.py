"""`python -m gpt_oss.tools.apply_patch` as a user or a model's shell calls it."""

import subprocess
import sys
from pathlib import Path

from tests.helpers.trees import harvest, patch, plant, snapshot

PATCH = patch("*** Update File: a", " 1", "-2", "+zwei – ü")


def run(*arguments: str, text: str | bytes = b"", folder: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONIOENCODING": "ascii"}
    return subprocess.run(
        [sys.executable, "-m", "gpt_oss.tools.apply_patch", *arguments],
        input=text.encode() if isinstance(text, str) else text,
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=300,
    )


def test_reads_standard_input_and_prints_the_diff(tmp_path) -> None:
    plant(tmp_path, {"a": "1\r\n2\r\n"})
    done = run(text=PATCH, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    expected = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n 1\r\n-2\r\n+zwei – ü\r\n"
    assert done.stdout == expected.encode()
    assert harvest(tmp_path) == {"a": "1\r\nzwei – ü\r\n"}


def test_patch_as_argument_and_another_root(tmp_path) -> None:
    plant(tmp_path / "root", {"a": "1\n2\n"})
    assert run("--root", "root", PATCH, folder=tmp_path).returncode == 0
    assert harvest(tmp_path) == {"root/a": "1\nzwei – ü\n"}


def test_dry_run(tmp_path) -> None:
    plant(tmp_path, {"a": "1\n2\n"})
    before = snapshot(tmp_path)
    done = run("--dry-run", text=PATCH, folder=tmp_path)
    assert done.returncode == 0
    assert b"+zwei" in done.stdout
    assert snapshot(tmp_path) == before


def test_failures_end_with_status_1_and_one_line(tmp_path) -> None:
    plant(tmp_path, {"a": "1\n3\n"})
    before = snapshot(tmp_path)
    for text, complaint in [
        (PATCH.encode(), b"apply_patch: a, hunk 1 of 1: expected line 2"),
        (b"", b"apply_patch: standard input is empty"),
        (b"\xff\xfe", b"apply_patch: the patch on standard input is not UTF-8"),
        (b"hello", b"apply_patch: a patch begins with"),
    ]:
        done = run(text=text, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(complaint)
        assert done.stderr.count(b"\n") == 1
        assert done.stdout == b""
    assert snapshot(tmp_path) == before
