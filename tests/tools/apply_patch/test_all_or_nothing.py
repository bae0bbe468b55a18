"""A failing write, wherever it fails and for whatever reason, leaves every byte, every mode and no trace."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpt_oss.tools.apply_patch import DiffError, apply_patch
from tests.helpers.trees import harvest, patch, plant, snapshot

BEFORE: dict[str, str | bytes] = {"a": "1\n", "b": "1\n", "d/c": "1\n", "gone": "x\n", "old": "o\n"}
PATCH = patch(
    *["*** Update File: a", "-1", "+2", "*** Add File: n/e/w", "+n", "*** Delete File: gone"],
    *["*** Update File: b", "-1", "+2", "*** Update File: old", "*** Move to: m/new", " o", "+p"],
    *["*** Update File: d/c", "-1", "+2", "*** Add File: last", "+l"],
)
AFTER = {"a": "2\n", "n/e/w": "n\n", "b": "2\n", "m/new": "o\np\n", "d/c": "2\n", "last": "l\n"}


class Files(dict[str, str]):
    """Files in memory whose n-th write or removal fails; `permanent`: and all later ones of that kind."""

    def __init__(self, fail_at: int, error: BaseException):
        super().__init__({name: str(text) for name, text in BEFORE.items()})
        self.calls = 0
        self.fail_at = fail_at
        self.error = error

    def step(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error

    def write(self, path: str, text: str) -> None:
        self[path] = text[: len(text) // 2]  # half of it is there when it fails
        self.step()
        self[path] = text

    def remove(self, path: str) -> None:
        self.step()
        del self[path]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), RuntimeError("lost"), KeyboardInterrupt()])
def test_functions_that_fail_at_any_call(error: BaseException) -> None:
    for fail_at in range(1, 9):
        files = Files(fail_at, error)
        expected = DiffError if isinstance(error, Exception) else type(error)
        with pytest.raises(expected) as raised:
            apply_patch(PATCH, open_fn=files.__getitem__, write_fn=files.write, remove_fn=files.remove)
        assert files == BEFORE
        if expected is DiffError:
            assert "no file was changed" in str(raised.value)
    files = Files(9, error)
    apply_patch(PATCH, open_fn=files.__getitem__, write_fn=files.write, remove_fn=files.remove)
    assert files == AFTER


def test_functions_that_cannot_undo_say_which_files_are_left() -> None:
    files = Files(0, OSError())

    def write_twice(path: str, text: str) -> None:
        files.write(path, text)
        if files.calls > 2:
            raise OSError("disk gone")

    with pytest.raises(DiffError, match=r"m/new: disk gone; could not be restored: b, a|.*could not be restored"):
        apply_patch(PATCH, open_fn=files.__getitem__, write_fn=write_twice, remove_fn=files.remove)


def test_write_function_on_top_of_the_disk_is_undone_by_our_own_hand(tmp_path) -> None:
    for fail_at in range(1, 7):
        root = plant(tmp_path / str(fail_at), BEFORE)
        before = snapshot(root)
        calls = 0

        def write(path: str, text: str, fail_at: int = fail_at) -> None:
            nonlocal calls
            calls += 1
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(b"\xff\0half")
            if calls >= fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            Path(path).write_text(text)

        with pytest.raises(DiffError, match="No space left on device"):
            apply_patch(PATCH, root=root, write_fn=write)
        assert {name: found for name, found in snapshot(root).items() if found[0] is not None} == {
            name: found for name, found in before.items() if found[0] is not None
        }


def test_remove_function_on_top_of_the_disk(tmp_path) -> None:
    root = plant(tmp_path, BEFORE)
    (root / "gone").chmod(0o751)
    before = snapshot(root)

    def remove(path: str) -> None:
        os.unlink(path)
        if path.endswith("old"):
            raise OSError(errno.EIO, "I/O error")

    with pytest.raises(DiffError, match="I/O error"):
        apply_patch(PATCH, root=root, remove_fn=remove)
    after = snapshot(root)
    assert {name: after[name] for name in BEFORE} == {name: before[name] for name in BEFORE}
    assert set(harvest(root)) == set(BEFORE)


def test_open_function_with_the_disk_for_the_rest(tmp_path) -> None:
    root = plant(tmp_path, BEFORE)
    apply_patch(PATCH, root=root, open_fn=lambda path: Path(path).read_text())
    assert harvest(root) == AFTER


class Fault:
    """Fails the n-th operation on the file system, through Python's own audit events."""

    EVENTS = frozenset({"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.chmod", "os.chown"})

    def __init__(self) -> None:
        self.fail_at = 0
        self.count = 0
        self.error: type[BaseException] = OSError
        self.armed = False
        sys.addaudithook(self.hook)

    def hook(self, event: str, _: object) -> None:
        if self.armed and event in self.EVENTS:
            self.count += 1
            if self.count == self.fail_at:
                raise OSError(errno.EIO, "injected") if self.error is OSError else self.error()

    @contextmanager
    def at(self, step: int, error: type[BaseException]) -> Iterator[None]:
        self.fail_at, self.count, self.error, self.armed = step, 0, error, True
        try:
            yield
        finally:
            self.armed = False


@pytest.fixture(scope="module")
def fault() -> Fault:
    return Fault()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_every_operation_on_the_disk_failing_in_turn(tmp_path, fault: Fault, error: type[BaseException]) -> None:
    failures = 0
    for step in range(1, 1000):
        root = plant(tmp_path / str(step), BEFORE)
        (root / "b").chmod(0o751)
        before = snapshot(root)
        try:
            with fault.at(step, error):
                apply_patch(PATCH, root=root)
        except (DiffError, KeyboardInterrupt) as raised:
            if snapshot(root) == before:
                failures += 1
                assert isinstance(raised, KeyboardInterrupt) or "injected" in str(raised)
                continue
            assert isinstance(raised, KeyboardInterrupt)
        if fault.count < step:
            break
        # Only the cleaning after the last switch is left: the patch stands, a backup may lie beside it.
        after = harvest(root)
        left = [name for name in after if ".apply_patch-" in name]
        assert {name: text for name, text in after.items() if name not in left} == AFTER, f"operation {step}"
        assert len(left) <= 1
    assert harvest(root) == AFTER
    assert failures > 40


@contextmanager
def without_rights() -> Iterator[None]:
    """Act as nobody where the tests run as root, for whom no folder is read-only."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@pytest.mark.parametrize("folder", [".", "d"])
def test_read_only_folder(tmp_path, folder: str) -> None:
    temporary = Path(tempfile.gettempdir())
    for path in (tmp_path, *tmp_path.parents):
        if temporary in path.parents:
            path.chmod(0o755)  # pytest keeps its folders to its own user
    root = plant(tmp_path / "root", BEFORE)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    (root / folder).chmod(0o555)
    before = snapshot(root)
    with without_rights(), pytest.raises(DiffError, match="Permission denied; no file was changed"):
        apply_patch(PATCH, root=root)
    assert snapshot(root) == before


def test_file_that_grows_over_the_limit_of_the_process(tmp_path) -> None:
    root = plant(tmp_path, BEFORE)
    before = snapshot(root)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        big = ["*** Add File: big", *["+" + "x" * 99] * 20]
        with pytest.raises(DiffError, match="big: File too large; no file was changed"):
            apply_patch(PATCH.replace("*** End Patch", "\n".join([*big, "*** End Patch"])), root=root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert snapshot(root) == before


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from gpt_oss.tools.apply_patch import DiffError, apply_patch
from tests.helpers.trees import harvest, plant, snapshot
from tests.tools.apply_patch.test_all_or_nothing import AFTER, BEFORE, PATCH

disk, kind = Path(sys.argv[1]), sys.argv[2]
failures = 0
for size in range(1, 40):
    # tmpfs: every file takes a page, every name an inode; grow the disk until the patch fits.
    options = f"nr_inodes={size}" if kind == "inodes" else f"size={4 * size}k,nr_inodes=1k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)
    try:
        try:
            plant(disk, BEFORE)
        except OSError:
            continue
        before = snapshot(disk)
        try:
            apply_patch(PATCH, root=disk)
        except DiffError as error:
            assert "No space left on device; no file was changed" in str(error), error
            assert snapshot(disk) == before, size
            failures += 1
        else:
            assert harvest(disk) == AFTER
            break
    finally:
        subprocess.run(["umount", disk], check=True)
else:
    raise SystemExit("never enough")
print(failures)
"""


@pytest.mark.parametrize(("kind", "failures"), [("inodes", 7), ("pages", 5)])
def test_full_disk(tmp_path, kind: str, failures: int) -> None:
    """A tiny tmpfs in its own mount namespace, in every size from too small to large enough."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("needs `unshare` and user namespaces to mount a small disk")
    command = [*namespace, sys.executable, "-c", FULL_DISK, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= failures


def test_change_by_someone_else_between_reading_and_writing(tmp_path) -> None:
    root = plant(tmp_path, {"a": "1\n", "b": "1\n"})
    text = patch("*** Update File: a", "-1", "+2", "*** Update File: b", "-1", "+2")
    changed = race(lambda: plant(root, {"b": "someone else's\n"}), lambda: apply_patch(text, root=root))
    assert "b: was changed by someone else meanwhile" in changed
    assert harvest(root) == {"a": "1\n", "b": "someone else's\n"}


def test_file_made_by_someone_else_where_one_is_added(tmp_path) -> None:
    root = plant(tmp_path, {"a": "1\n"})
    text = patch("*** Update File: a", "-1", "+2", "*** Add File: new", "+mine")
    changed = race(lambda: plant(root, {"new": "theirs\n"}), lambda: apply_patch(text, root=root))
    assert changed.startswith("new: ")
    assert harvest(root) == {"a": "1\n", "new": "theirs\n"}


def race(interfere: Callable[[], object], run: Callable[[], object]) -> str:
    """Run, and at the first file written interfere once, as another process might; returns the complaint."""
    state = {"left": 1}

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and ".apply_patch-" in str(arguments[0]) and state["left"]:
            state["left"] = 0
            interfere()

    sys.addaudithook(hook)
    with pytest.raises(DiffError) as error:
        run()
    state["left"] = 0
    return str(error.value)
