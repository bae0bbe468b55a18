"""What is accepted as a patch, and what is said about the rest."""

import json

import pytest

from gpt_oss.tools.apply_patch import DiffError
from gpt_oss.tools.apply_patch.parse import AddFile, DeleteFile, Hunk, Line, UpdateFile, parse_patch

BARE = "*** Begin Patch\n*** Add File: a.txt\n+one\n+\n+two\n*** End Patch"
SECTIONS = (AddFile("a.txt", "one\n\ntwo\n"),)


@pytest.mark.parametrize(
    "text",
    [
        BARE,
        BARE + "\n",
        "\n\n  \n" + BARE + "\n \n\n",
        BARE.replace("*** Begin Patch", "*** Begin Patch  ").replace("*** End Patch", "*** End Patch\t "),
        BARE.replace("*** End Patch", " *** End Patch"),
        BARE.replace("*** Add", "\n  *** Add"),
        BARE.replace("*** End", "\n\n*** End"),
        BARE.replace("\n", "\r\n"),
        "\ufeff" + BARE,
        f"```\n{BARE}\n```",
        f"```diff\n{BARE}\n```\n",
        f"apply_patch <<'EOF'\n{BARE}\nEOF",
        f'apply_patch <<"PATCH"\n{BARE}\nPATCH\n',
        f"apply_patch <<EOF\n{BARE}\nEOF\n",
        f"<<'EOF'\n{BARE}\nEOF",
        json.dumps({"input": BARE}),
        json.dumps({"patch": BARE}, indent=2),
        json.dumps({"cmd": ["apply_patch", BARE]}),
        json.dumps({"command": ["bash", "-lc", f"apply_patch <<'EOF'\n{BARE}\nEOF\n"]}),
        json.dumps(["apply_patch", f"<<'EOF'\n{BARE}\nEOF\n"]),
        json.dumps({"input": f"```\n{BARE}\n```"}),
        json.dumps(BARE),
        '{"input": "' + BARE + '"}',  # newlines left bare inside the JSON string
    ],
)
def test_wrappers_are_taken_off(text: str) -> None:
    assert parse_patch(text) == SECTIONS


def test_every_kind_of_section() -> None:
    text = """\
*** Begin Patch
*** Update File: first.py
 context
-gone
+come
@@ class A:
@@   def f(self):
-x
*** End of File
*** Delete File: old name.txt
*** Update File: a.py
*** Move to: b.py
@@
+last

*** Add File: empty
*** End Patch
"""
    assert parse_patch(text) == (
        UpdateFile(
            "first.py",
            None,
            (
                Hunk((), (Line(" ", "context"), Line("-", "gone"), Line("+", "come")), at_end=False),
                Hunk(("class A:", "  def f(self):"), (Line("-", "x"),), at_end=True),
            ),
        ),
        DeleteFile("old name.txt"),
        UpdateFile("a.py", "b.py", (Hunk((), (Line("+", "last"),), at_end=False),)),
        AddFile("empty", ""),
    )


def test_blank_lines_are_context_inside_a_hunk_and_between_sections_nothing() -> None:
    (update, delete) = parse_patch(
        "*** Begin Patch\n*** Update File: a\n\n@@ h\n a\n\n-b\n\n\n*** Delete File: c\n*** End Patch"
    )
    blank = Line(" ", "")
    assert update == UpdateFile(
        "a", None, (Hunk(("h",), (Line(" ", "a"), blank, Line("-", "b"), blank, blank), False),)
    )
    assert delete == DeleteFile("c")


def test_lines_are_split_at_newlines_only() -> None:
    odd = "a\u2028b\fc\vd\x1ce\x85f\rg"
    assert parse_patch(f"*** Begin Patch\n*** Add File: a\n+{odd}\n*** End Patch") == (AddFile("a", odd + "\n"),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "begins with the line '*** Begin Patch', not with ''"),
        ("hello", "begins with the line '*** Begin Patch', not with 'hello'"),
        ("*** Begin Patch", "ends with the line '*** End Patch'"),
        ("*** Begin Patch\n*** Delete File: a", "ends with the line '*** End Patch', not with '*** Delete File: a'"),
        ("*** Begin Patch\n*** End Patch", "no section"),
        ("*** Begin Patch\n*** End Patch\n*** End Patch", "line 2 of the patch is '*** End Patch'"),
        ("*** Begin Patch\n*** Rename File: a\n*** End Patch", "line 2 of the patch is '*** Rename File: a'"),
        ("*** Begin Patch\n*** Delete File: \n*** End Patch", "'*** Delete File:' without a path"),
        ("*** Begin Patch\n*** Delete File: a\n+x\n*** End Patch", "line 3 of the patch is '+x'"),
        (
            "*** Begin Patch\n*** Add File: a\n+x\noops\n*** End Patch",
            "line 4 of the patch is 'oops'; a line of an added",
        ),
        ("*** Begin Patch\n*** Add File: a\n+x\n\nmore\n*** End Patch", "line 5 of the patch is 'more'"),
        ("*** Begin Patch\n*** Update File: a\n*** End Patch", "line 2 of the patch begins an update of a without any"),
        ("*** Begin Patch\n*** Update File: a\n@@\n*** End Patch", "ends hunk 1, which has no lines"),
        ("*** Begin Patch\n*** Update File: a\n@@ x\n@@ y\n\n*** End Patch", "ends hunk 1, which has no lines"),
        (
            "*** Begin Patch\n*** Update File: a\n@@\n x\ny\n*** End Patch",
            "line 5 of the patch is 'y'; a line of a hunk",
        ),
        ("*** Begin Patch\n*** Update File: a\n@@x\n-x\n*** End Patch", "line 3 of the patch is '@@x' where"),
        ("*** Begin Patch\n*** Update File: a\n-x\n*** End of File\n-y\n*** End Patch", "line 5 of the patch is '-y'"),
        (
            "*** Begin Patch\n*** Update File: a\n-x\n*** Move to: b\n*** End Patch",
            "line 4 of the patch is '*** Move to",
        ),
        ("```\n*** Begin Patch\n*** End Patch", "Markdown fence around the patch is not closed"),
        ("apply_patch <<'EOF'\n*** Begin Patch\n*** End Patch", "here-document around the patch is not closed"),
        ('{"input": "*** Begin Patch', "cannot be read as JSON"),
        ('{"input": "a", "workdir": "b"}', "has one key"),
        ('{"input": 5}', "as a string"),
        ('{"cmd": ["rm", "-rf", "/"]}', "a command around a patch must be"),
        ("[" * 100_000, "cannot be read as JSON"),
        (json.dumps(json.dumps(json.dumps(json.dumps(json.dumps(json.dumps(BARE)))))), "wrapped more than 5 times"),
        ("*** Begin Patch\n*** Add File: a\n+\0\n*** End Patch", "NUL"),
        ('"*** Begin Patch\\n*** Add File: a\\n+\\ud83d\\n*** End Patch"', "half a surrogate pair"),
    ],
)
def test_what_cannot_be_read_is_explained_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(DiffError) as error:
        parse_patch(text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
