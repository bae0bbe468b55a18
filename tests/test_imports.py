"""No import points upward in the list that CONTRIBUTING.md gives, and every part of the package stands in it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gpt_oss"


def levels() -> dict[str, int]:
    """Part of the package -> its place in the list."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (listed,) = re.findall(
        r"^- Imports point down this list, never up \(.*?\): (.*?)^- ", text, re.MULTILINE | re.DOTALL
    )
    groups = [re.findall(r"`(\w+)/?`", group) for group in listed.split("·")]
    return {name: level for level, group in enumerate(groups) for name in group}


def imported(source: str) -> Iterator[str]:
    """The parts of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("gpt_oss."))


def test_imports_point_down():
    place = levels()
    upward = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in PACKAGE.rglob("*.py")
        if (own := path.relative_to(PACKAGE).with_suffix("").parts[0]) in place
        for name in imported(path.read_text(encoding="utf-8"))
        if place.get(name, -1) > place[own]
    ]
    assert upward == []


def test_every_part_has_a_place():
    parts = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts - {"__init__", "data"} == set(levels())


def test_an_import_upward_would_be_seen():
    source = (
        "def later():\n    from gpt_oss.chat import main\nimport gpt_oss.tools.tool\nfrom gpt_oss import engine, errors"
    )
    place = levels()
    assert [place[name] > place["tools"] for name in imported(source)] == [False, False, False, True]
