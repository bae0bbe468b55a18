"""Adding, deleting, moving; what is refused; and that a refusal leaves no trace."""

import os
import subprocess
from pathlib import Path

import pytest

from gpt_oss.tools.apply_patch import DiffError, apply_patch
from gpt_oss.tools.apply_patch.paths import path_below_root
from tests.helpers.trees import harvest, patch, plant, snapshot


def refused(root: Path, *lines: str, because: str) -> None:
    before = snapshot(root)
    with pytest.raises(DiffError, match=because):
        apply_patch(patch(*lines), root=root)
    assert snapshot(root) == before


def test_sections_for_one_file_apply_in_order(tmp_path) -> None:
    plant(tmp_path, {"a": "1\n2\n", "gone": "x\n", "kept": "k\n"})
    apply_patch(
        patch(
            *["*** Update File: a", "-1", "+one"],
            *["*** Update File: ./a", "*** Move to: deep/er/b", " one", "-2", "+two"],
            *["*** Update File: deep//er/b", " two", "+three"],
            *["*** Add File: a", "+new"],
            *["*** Update File: a", "-new", "+newer"],
            *["*** Delete File: gone", "*** Add File: gone", "+back"],
            *["*** Add File: brief", "+x", "*** Delete File: brief"],
        ),
        root=tmp_path,
    )
    assert harvest(tmp_path) == {"a": "newer\n", "deep/er/b": "one\ntwo\nthree\n", "gone": "back\n", "kept": "k\n"}


def test_two_files_change_places(tmp_path) -> None:
    plant(tmp_path, {"a": "A\n", "b": "B\n"})
    (tmp_path / "a").chmod(0o755)
    (tmp_path / "b").chmod(0o640)
    move = ["*** Update File: a", "*** Move to: c", "*** Update File: b", "*** Move to: a"]
    apply_patch(patch(*move, "*** Update File: c", "*** Move to: b"), root=tmp_path)
    assert harvest(tmp_path) == {"a": "B\n", "b": "A\n"}
    assert [os.stat(tmp_path / name).st_mode & 0o777 for name in "ab"] == [0o640, 0o755]


def test_move_to_its_own_name_keeps_the_file(tmp_path) -> None:
    plant(tmp_path, {"d/a": "1\n"})
    apply_patch(patch("*** Update File: d/a", "*** Move to: ./d/a", "-1", "+2"), root=tmp_path)
    assert harvest(tmp_path) == {"d/a": "2\n"}


def test_move_to_a_name_that_an_earlier_section_freed(tmp_path) -> None:
    plant(tmp_path, {"a": "1\n", "b": "2\n"})
    apply_patch(patch("*** Delete File: b", "*** Update File: a", "*** Move to: b"), root=tmp_path)
    assert harvest(tmp_path) == {"b": "1\n"}


@pytest.mark.parametrize("mode", [0o755, 0o640, 0o444, 0o4755])
def test_mode_bits_survive_update_and_move(tmp_path, mode: int) -> None:
    plant(tmp_path, {"a": "1\n", "b": "1\n"})
    for name in "ab":
        (tmp_path / name).chmod(mode)
    moved = ["*** Update File: b", "*** Move to: c", "-1", "+2"]
    apply_patch(patch("*** Update File: a", "-1", "+2", *moved), root=tmp_path)
    assert {path.name: path.stat().st_mode & 0o7777 for path in tmp_path.iterdir()} == {"a": mode, "c": mode}


def test_new_files_and_folders_get_the_usual_mode(tmp_path) -> None:
    umask = os.umask(0o027)
    try:
        apply_patch(patch("*** Add File: d/a", "+1"), root=tmp_path)
    finally:
        os.umask(umask)
    assert [os.stat(tmp_path / name).st_mode & 0o777 for name in ("d", "d/a")] == [0o750, 0o640]


def test_a_patch_that_changes_nothing_writes_nothing(tmp_path) -> None:
    plant(tmp_path, {"a": "1\n2\n"})
    before = os.stat(tmp_path / "a")
    assert apply_patch(patch("*** Update File: a", " 1", "-2", "+2"), root=tmp_path) == ""
    assert os.path.samestat(os.stat(tmp_path / "a"), before)


def test_dry_run_shows_the_same_diff_and_writes_nothing(tmp_path) -> None:
    plant(tmp_path, {"a": "1\n"})
    before = snapshot(tmp_path)
    text = patch("*** Update File: a", "-1", "+2", "*** Add File: n/b", "+b")
    shown = apply_patch(text, root=tmp_path, dry_run=True)
    assert snapshot(tmp_path) == before
    assert apply_patch(text, root=tmp_path) == shown


def test_root_is_the_current_folder_when_left_out(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(plant(tmp_path / "here", {"a": "1\n"}))
    apply_patch(patch("*** Update File: a", "-1", "+2"))
    assert harvest(tmp_path / "here") == {"a": "2\n"}


def test_root_itself_may_be_a_symbolic_link(tmp_path) -> None:
    plant(tmp_path / "real", {"a": "1\n"})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    apply_patch(patch("*** Update File: a", "-1", "+2"), root=tmp_path / "link")
    assert harvest(tmp_path / "real") == {"a": "2\n"}


def test_root_must_be_a_folder(tmp_path) -> None:
    plant(tmp_path, {"a": ""})
    for root in (tmp_path / "a", tmp_path / "nowhere"):
        with pytest.raises(DiffError, match="the root of a patch must be an existing folder"):
            apply_patch(patch("*** Add File: b", "+"), root=root)


GOOD = ["*** Update File: good", "-1", "+2"]


@pytest.mark.parametrize(
    ("lines", "because"),
    [
        (["*** Add File: a", "+x"], "a: cannot be added, the file exists"),
        (["*** Add File: d", "+x"], "d: "),
        (["*** Add File: d/", "+x"], "d/: this names a folder"),
        (["*** Add File: a/b", "+x"], "a/b: "),
        (["*** Update File: a", "*** Move to: other"], "a: cannot be moved to other, that file exists"),
        (["*** Add File: n", "+", "*** Update File: a", "*** Move to: n"], "a: cannot be moved to n"),
        (["*** Update File: a", "*** Move to: d"], "d: "),
        (["*** Update File: nowhere", "-x"], "nowhere: cannot be updated, there is no such file"),
        (["*** Update File: no/where", "-x"], "no/where: cannot be updated"),
        (["*** Delete File: nowhere"], "nowhere: cannot be deleted"),
        (["*** Delete File: d"], "d: this is not a regular file"),
        (["*** Delete File: a", "*** Update File: a", "-x"], "a: cannot be updated"),
        (["*** Update File: a", "-not there"], "a, hunk 1 of 1"),
        (["*** Update File: nul", " a", "+b"], "nul: this is a binary file"),
        (["*** Update File: latin", "+b"], "latin: this is not UTF-8 text"),
        (["*** Delete File: nul"], "nul: this is a binary file"),
        (["*** Update File: pipe", "+b"], "pipe: this is not a regular file"),
        (["*** Update File: ../secret", "-s"], "must not contain '..'"),
        (["*** Add File: d/../../new", "+s"], "must not contain '..'"),
        (["*** Add File: /tmp/new", "+s"], "must be relative"),
        (["*** Update File: a", "*** Move to: ../a"], "must not contain '..'"),
        (["*** Update File: out", "-s"], "out: this is a symbolic link"),
        (["*** Delete File: out"], "out: this is a symbolic link"),
        (["*** Add File: out", "+s"], "out: this is a symbolic link"),
        (["*** Add File: dangling", "+s"], "dangling: this is a symbolic link"),
        (["*** Update File: outdoors/secret", "-s"], "outdoors: this is a symbolic link"),
        (["*** Add File: outdoors/new", "+s"], "outdoors: this is a symbolic link"),
        (["*** Update File: a", "*** Move to: outdoors/a"], "outdoors: this is a symbolic link"),
        (["*** Update File: inner", "-1"], "inner: this is a symbolic link"),
        (["*** Add File: " + "n" * 300, "+s"], "n: "),
    ],
)
def test_refusals_touch_nothing_inside_or_outside(tmp_path, lines: list[str], because: str) -> None:
    plant(tmp_path, {"secret": "s\n"})
    files: dict[str, str | bytes] = {"good": "1\n", "a": "1\n", "other": "1\n", "d/x": "", "nul": b"a\0\n"}
    root = plant(tmp_path / "root", files | {"latin": b"caf\xe9\n"})
    os.mkfifo(root / "pipe")
    for name, target in {"out": "../secret", "outdoors": "..", "inner": "a", "dangling": "../new"}.items():
        (root / name).symlink_to(target)
    before = snapshot(tmp_path)
    refused(root, *GOOD, *lines, because=because)
    assert snapshot(tmp_path) == before


def test_a_folder_replaced_by_a_link_after_reading_is_not_followed(tmp_path) -> None:
    """Between reading and writing another process turns `d` into a link that leads outside."""
    root = plant(tmp_path / "root", {"d/a": "1\n"})
    outside = plant(tmp_path / "outside", {"a": "1\n"})

    def turn_into_link(path: str) -> str:
        text = Path(path).read_text()
        (root / "d").rename(root / "moved")
        (root / "d").symlink_to(outside)
        return text

    with pytest.raises(DiffError, match="symbolic link"):
        apply_patch(patch("*** Update File: d/a", "-1", "+2"), root=root, open_fn=turn_into_link)
    assert harvest(outside) == {"a": "1\n"}


def test_one_file_under_two_spellings_is_refused_where_case_does_not_count(tmp_path) -> None:
    plant(tmp_path, {"a": "1\n"})
    if not (tmp_path / "A").exists():
        pytest.skip("needs a file system that takes a and A for one name")
    refused(tmp_path, "*** Update File: a", "-1", "+2", "*** Update File: A", "-1", "+3", because="the same file")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/b.txt", ("a", "b.txt")),
        (r"a\b.txt", ("a", "b.txt")),
        (r".\a\.\b", ("a", "b")),
        (r"..\a", None),
        (r"a\..\..\b", None),
        (r"\a", None),
        ("/a", None),
        (r"C:\a", None),
        ("C:a", None),
        (r"\\server\share\a", None),
        (r"\\?\C:\a", None),
        ("a.txt:stream", None),
        ("NUL", None),
        ("sub/con.txt", None),
        ("COM1", None),
        ("lpt9.log", None),
        ("a.", None),
        ("a /b", None),
        ("console.txt", ("console.txt",)),
        ("a\\", None),
    ],
)
def test_names_on_windows(name: str, parts: tuple[str, ...] | None) -> None:
    if parts is None:
        with pytest.raises(DiffError):
            path_below_root(name, windows=True)
    else:
        assert path_below_root(name, windows=True) == parts


def test_backslash_and_colon_are_ordinary_elsewhere() -> None:
    assert path_below_root(r"a\b:c", windows=False) == (r"a\b:c",)


NAMES = ["plain", "with blank", 'quo"te', "back\\slash", "tab\there", "dé€p/ünï", "trailing.dot."]


def test_git_takes_the_diff_and_takes_it_back(tmp_path) -> None:
    before = {name: f"{name}\n1\n2\n" for name in NAMES} | {"x": "no newline", "crlf": "a\r\nb\r\n", "pure": "p\n"}
    mine, theirs = plant(tmp_path / "mine", before), plant(tmp_path / "theirs", before)
    updates = [line for name in NAMES for line in (f"*** Update File: {name}", "-1", "+one", " 2", "+three")]
    diff = apply_patch(
        patch(
            *updates,
            *["*** Update File: x", "*** Move to: to/x y", "-no newline", "+none", "+either"],
            *["*** Update File: crlf", " a", "+a2", "*** Update File: pure", "*** Move to: pure2"],
            *["*** Add File: empty", "*** Add File: new/file", "+n", "*** Delete File: plain"],
        ),
        root=mine,
    )
    git = ["git", "-c", "core.autocrlf=false", "apply", "-p1", "--whitespace=nowarn"]
    subprocess.run(git, input=diff.encode(), cwd=theirs, check=True)
    assert harvest(theirs) == harvest(mine)
    subprocess.run([*git, "-R"], input=diff.encode(), cwd=mine, check=True)
    assert harvest(mine) == before
