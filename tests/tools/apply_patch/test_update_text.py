"""Where hunks go and which bytes they leave alone."""

import pytest

from gpt_oss.tools.apply_patch import DiffError, apply_patch
from tests.helpers.trees import harvest, patch, plant

FILE = """\
class A:
    def run(self):
        prepare()
        return 1

    def stop(self):
        return 0

class B:
    def run(self):
        prepare()
        return 1
"""


def update(tmp_path, before: str, *lines: str) -> str:
    plant(tmp_path, {"f": before})
    apply_patch(patch("*** Update File: f", *lines), root=tmp_path)
    return harvest(tmp_path)["f"]


def test_first_hunk_needs_no_header(tmp_path) -> None:
    assert update(tmp_path, "a\nb\nc\n", " a", "-b", "+B", " c") == "a\nB\nc\n"


def test_headers_choose_among_equal_places(tmp_path) -> None:
    after = update(tmp_path, FILE, "@@ class B:", "         prepare()", "-        return 1", "+        return 2")
    assert after == FILE[: FILE.rindex("return 1")] + "return 2\n"


def test_line_numbers_of_a_unified_diff_are_no_header(tmp_path) -> None:
    assert update(tmp_path, "a\nb\n", "@@ -7,2 +7,2 @@ def f():", " a", "-b", "+B") == "a\nB\n"


def test_nested_headers_narrow_one_after_the_other(tmp_path) -> None:
    after = update(tmp_path, FILE, "@@ class B:", "@@     def run(self):", "+        check()")
    assert after == FILE.replace("class B:\n    def run(self):\n", "class B:\n    def run(self):\n        check()\n")


def test_header_may_be_repeated_as_first_line_of_context(tmp_path) -> None:
    after = update(tmp_path, FILE, "@@ class B:", " class B:", "+    size = 0", "     def run(self):")
    assert after == FILE.replace("class B:\n", "class B:\n    size = 0\n")


def test_second_hunk_below_the_same_header(tmp_path) -> None:
    after = update(
        tmp_path,
        FILE,
        "@@ class A:",
        "-        prepare()",
        "@@ class A:",
        "     def stop(self):",
        "-        return 0",
        "+        return None",
    )
    assert after == FILE.replace("        prepare()\n", "", 1).replace("return 0", "return None")


def test_second_hunk_stays_below_a_header_that_comes_again_later(tmp_path) -> None:
    before = "def f():\n    a\n    b\n\ndef f():\n    b\n"
    assert update(tmp_path, before, "@@ def f():", "-    a", "@@ def f():", "-    b") == "def f():\n\ndef f():\n    b\n"


def test_outer_header_may_stand_above_the_previous_hunk(tmp_path) -> None:
    hunks = ["@@ class A:", "-        prepare()", "@@ class A:", "@@     def stop(self):", "-        return 0"]
    assert update(tmp_path, FILE, *hunks) == FILE.replace("        prepare()\n", "", 1).replace(
        "        return 0\n", ""
    )
    added = ["@@ class A:", "-        prepare()", "@@ class A:", "@@     def stop(self):", "+        halt()"]
    after = FILE.replace("        prepare()\n", "", 1).replace("        return 0", "        halt()\n        return 0")
    assert update(tmp_path, FILE, *added) == after


def test_hunks_are_looked_for_below_the_previous_one(tmp_path) -> None:
    assert update(tmp_path, "x\n" * 4, " x", "-x", "+1", "@@", "-x", "+2") == "x\n1\n2\nx\n"


def test_hunk_may_repeat_the_context_with_which_the_previous_one_ended(tmp_path) -> None:
    repeated = ["-a", " b", " c", "@@", " b", "-c", "+C", " d", "@@", " c", " d", "-e"]
    assert update(tmp_path, "a\nb\nc\nd\ne\n", *repeated[:8], "@@", " d", "-e") == "b\nC\nd\n"
    with pytest.raises(DiffError, match="hunk 3 of 3"):
        update(tmp_path, "a\nb\nc\nd\ne\n", *repeated)  # c is no longer there


def test_end_of_file_chooses_the_last_place(tmp_path) -> None:
    assert update(tmp_path, "x\ny\nx\n", "@@", "-x", "+z", "*** End of File") == "x\ny\nz\n"


def test_end_of_file_is_a_preference(tmp_path) -> None:
    assert update(tmp_path, "x\ny\n", "@@", "-x", "+z", "*** End of File") == "z\ny\n"


@pytest.mark.parametrize("before", ["", "a\nb\n", "a\r\nb\r\n"])
def test_added_lines_without_a_place_go_to_the_end(tmp_path, before: str) -> None:
    newline = "\r\n" if "\r" in before else "\n"
    assert update(tmp_path, before, "@@", "+new") == before + "new" + newline


def test_added_lines_with_only_a_header_go_below_it(tmp_path) -> None:
    assert update(tmp_path, "a\nb\nc\n", "@@ b", "+new") == "a\nb\nnew\nc\n"


def test_blank_line_after_added_ones_does_not_choose_their_place(tmp_path) -> None:
    assert update(tmp_path, "a\n\nb\nc\n", "@@ b", "+new", "") == "a\n\nb\nnew\nc\n"


def test_exact_match_further_down_beats_a_loose_one_above(tmp_path) -> None:
    assert update(tmp_path, "  x\nx  \nx\n", "@@", "-x", "+y") == "  x\nx  \ny\n"


def test_trailing_then_all_blanks_are_ignored_and_context_keeps_its_own(tmp_path) -> None:
    assert update(tmp_path, "a \t\nb\n", " a", "-b", "+c") == "a \t\nc\n"
    assert update(tmp_path, "if x:\n\ta\n\tb\n", "     a", "-    b", "+    c") == "if x:\n\ta\n\tc\n"


def test_added_lines_follow_an_indentation_that_differs_as_a_whole(tmp_path) -> None:
    before = "class A:\n    def f():\n        return 1\n"
    after = update(
        tmp_path, before, " def f():", "-    return 1", "+    if x:", "+        return 2", "+", "+    return 3"
    )
    assert after == "class A:\n    def f():\n        if x:\n            return 2\n\n        return 3\n"


def test_added_lines_stay_when_the_indentation_differs_unevenly(tmp_path) -> None:
    assert update(tmp_path, "  a\n      b\n", " a", "-  b", "+  c") == "  a\n  c\n"


def test_typographic_signs_match_their_ascii_twins_last(tmp_path) -> None:
    assert update(tmp_path, "it\u2019s \u201cx\u201d \u2013 y\nz\n", ' it\'s "x" - y', "-z", "+w").endswith("y\nw\n")


def test_blank_context_line_at_the_end_may_stand_for_the_end_of_the_file(tmp_path) -> None:
    assert update(tmp_path, "a\nb\n", " a", "-b", "+c", " ") == "a\nc\n"
    assert update(tmp_path, "a\nb\n", " a", "-b", "+c", "") == "a\nc\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\nb\nc\n", "a\nB\nB2\nc\n"),
        ("a\nb\nc", "a\nB\nB2\nc"),
        ("a\nb", "a\nB\nB2"),
        ("a\r\nb\r\nc\r\n", "a\r\nB\r\nB2\r\nc\r\n"),
        ("a\r\nb", "a\r\nB\r\nB2"),
        ("\ufeffa\nb\n", "\ufeffa\nB\nB2\n"),
        ("\ufeffa\r\nb", "\ufeffa\r\nB\r\nB2"),
        ("a\r\nb\nc\r\n", "a\r\nB\nB2\nc\r\n"),  # as the line that is replaced
        ("a\nb\u2028b\nc\n", None),
        ("z\fz\na\nb\nc\u2028d\x1e\n", "z\fz\na\nB\nB2\nc\u2028d\x1e\n"),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_bytes_that_are_not_named_stay(tmp_path, before: str, after: str | None, ending: str) -> None:
    plant(tmp_path, {"f": before})
    text = patch("*** Update File: f", " a", "-b", "+B", "+B2").replace("\n", ending)
    if after is None:
        with pytest.raises(DiffError):
            apply_patch(text, root=tmp_path)
        after = before
    else:
        apply_patch(text, root=tmp_path)
    assert harvest(tmp_path)["f"] == after


def test_removing_everything_leaves_an_empty_file(tmp_path) -> None:
    assert update(tmp_path, "a\nb", "-a", "-b") == ""


def test_appending_to_an_unterminated_line_keeps_the_file_unterminated(tmp_path) -> None:
    assert update(tmp_path, "a\nb", "@@", "+c") == "a\nb\nc"


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (["@@", " alpha", "-betta", "+x"], ["f, hunk 1 of 1", "'betta'", "line 2: 'beta'"]),
        (["-alpha", "@@ gamma", " delta", "-epsilom"], ["f, hunk 2 of 2", "'epsilom'", "line 5: 'epsilon'"]),
        (["@@", "-zeta"], ["hunk 1 of 1", "'zeta'", "nearest is line 2: 'beta'"]),
        (["@@", "-qqqqqq"], ["'qqqqqq'", "nothing in the file is like it"]),
        (["@@", " epsilon", "-omega"], ["'omega'", "the file ends there, after line 5"]),
        (["@@ def nowhere():", "-alpha"], ["the header 'def nowhere():' is not in the file"]),
        (["@@ gamme", "-delta"], ["the header 'gamme' is not in the file", "line 3: 'gamma'"]),
        (["-delta", "@@", "-alpha"], ["hunk 2 of 2", "stand at line 1", "from line 5 on", "order of the file"]),
        (["@@ delta", "-alpha"], ["stand at line 1", "below 'delta'"]),
    ],
)
def test_failure_names_file_hunk_expected_line_and_nearest(tmp_path, lines: list[str], parts: list[str]) -> None:
    before = "alpha\nbeta\ngamma\ndelta\nepsilon\n"
    with pytest.raises(DiffError) as error:
        update(tmp_path, before, *lines)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert harvest(tmp_path)["f"] == before
