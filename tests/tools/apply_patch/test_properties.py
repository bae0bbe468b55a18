"""What holds for any files and any patch: forth and back gives the same bytes, a failure changes none."""

import difflib
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_oss.tools.apply_patch import DiffError, apply_patch
from tests.helpers.trees import harvest, patch, plant, snapshot

LINE = st.text(st.sampled_from("ab +-@*\t\u2028\x0c\x85é😀'\"\\"), max_size=6)
Lines = list[str]


def whole_file_hunk(old: Lines, new: Lines) -> Lines:
    """One hunk with every line of the file: its place is certain."""
    lines = ["@@"]
    for tag, i, i_end, j, j_end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [" " + line for line in old[i:i_end]]
        else:
            lines += ["-" + line for line in old[i:i_end]] + ["+" + line for line in new[j:j_end]]
    return lines


def small_hunks(old: Lines, new: Lines) -> Lines:
    """Hunks with one line of context on each side, for files in which every line occurs once."""
    lines = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for group in matcher.get_grouped_opcodes(1):
        lines.append("@@")
        for tag, i, i_end, j, j_end in group:
            if tag == "equal":
                lines += [" " + line for line in old[i:i_end]]
            else:
                lines += ["-" + line for line in old[i:i_end]] + ["+" + line for line in new[j:j_end]]
    return lines


def stored(lines: Lines, ending: str, mark: str, terminated: bool) -> bytes:
    """The lines as a file's bytes."""
    text = ending.join(lines) + (ending if terminated and lines else "")
    return (mark + text).encode()


FORMAT = st.tuples(st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]), st.booleans())


def there_and_back(old: Lines, new: Lines, forth: Lines, back: Lines, shape: tuple[str, str, bool]) -> None:
    ending, mark, terminated = shape
    # An empty last line without a newline is no line, and where no line has an ending there is none to keep.
    terminated = terminated or not (old and new and old[-1] and new[-1])
    lines_with_ending = min(len(old), len(new)) - (not terminated)
    shape = (ending if lines_with_ending > 0 else "\n", mark, terminated)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f"
        file.write_bytes(stored(old, *shape))
        apply_patch(patch("*** Update File: f", *forth), root=folder)
        assert file.read_bytes() == stored(new, *shape)
        apply_patch(patch("*** Update File: f", *back), root=folder)
        assert file.read_bytes() == stored(old, *shape)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(LINE, max_size=12), st.lists(LINE, max_size=12), FORMAT)
def test_there_and_back_with_any_lines(old: Lines, new: Lines, shape: tuple[str, str, bool]) -> None:
    if old != new:
        there_and_back(old, new, whole_file_hunk(old, new), whole_file_hunk(new, old), shape)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 60), unique=True, max_size=40), st.randoms(use_true_random=False), FORMAT)
def test_there_and_back_with_small_hunks(
    numbers: list[int], chance: random.Random, shape: tuple[str, str, bool]
) -> None:
    old = [f"    line {number}" for number in numbers]
    new = [line for line in old if chance.random() > 0.15]
    for _ in range(chance.randrange(5)):
        new.insert(chance.randint(0, len(new)), f"    new {len(new)} {chance.random()}")
    # A hunk of only added lines has no place of its own: keep a first line in both.
    old, new = ["first", *old], ["first", *new]
    if old != new:
        there_and_back(old, new, small_hunks(old, new), small_hunks(new, old), shape)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from("pqrs"), st.lists(LINE, min_size=1, max_size=4), min_size=2), st.data())
def test_a_patch_with_one_bad_section_changes_nothing(files: dict[str, Lines], data: st.DataObject) -> None:
    sections = []
    for name, lines in files.items():
        kind = data.draw(st.sampled_from(["update", "move", "delete"]))
        update = [f"*** Update File: {name}", *(["*** Move to: d/" + name] if kind == "move" else [])]
        sections.append(
            [*update, *whole_file_hunk(lines, [*lines, "x"])] if kind != "delete" else [f"*** Delete File: {name}"]
        )
    bad = data.draw(
        st.sampled_from(["*** Delete File: none", "*** Add File: present", "*** Update File: present\n-none"])
    )
    sections.insert(data.draw(st.integers(0, len(sections))), [bad])
    with tempfile.TemporaryDirectory() as folder:
        root = plant(Path(folder), {name: "".join(f"{line}\n" for line in lines) for name, lines in files.items()})
        plant(root, {"present": "p\n"})
        before = snapshot(root)
        with pytest.raises(DiffError):
            apply_patch(patch(*(line for section in sections for line in section)), root=root)
        assert snapshot(root) == before


def test_a_long_file_is_patched_in_time_that_grows_with_its_length(tmp_path) -> None:
    lines = [f"line {number % 5000}" for number in range(100_000)]
    plant(tmp_path, {"f": "\n".join(lines) + "\n"})
    diff = apply_patch(
        patch("*** Update File: f", "@@ line 4998", "-line 4999", "+changed", "@@", "-line 10", "+x"), root=tmp_path
    )
    lines[4999], lines[5010] = "changed", "x"
    assert harvest(tmp_path)["f"] == "\n".join(lines) + "\n"
    assert diff.count("\n") < 30
