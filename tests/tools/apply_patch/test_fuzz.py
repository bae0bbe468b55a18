"""50,000 patches damaged at random: each applies or raises DiffError, and a refused one has changed nothing."""

import random
import time

from gpt_oss.tools.apply_patch import DiffError, apply_patch
from tests.helpers.trees import patch, plant, snapshot

FILES = {
    "a.py": "import os\n\n\ndef f(x):\n    if x:\n        return 1\n    return 2\n\n\ndef g():\n    return f(0)\n",
    "b.txt": "one\r\ntwo\r\nthree\r\nfour",
    "d/c.md": "\ufeff# Title\n\ntext\n\ntext\n",
    "empty": "",
}
SEEDS = [
    patch(
        "*** Update File: a.py", "@@ def f(x):", "     if x:", "-        return 1", "+        return 3", "     return 2"
    ),
    patch("*** Update File: b.txt", " one", "-two", "+2", " three", "@@", "-four", "+4", "*** End of File"),
    patch("*** Update File: d/c.md", "*** Move to: e/c.md", "@@ # Title", "@@ text", " ", "-text", "+Text"),
    patch("*** Add File: new/file", "+x", "+", "+y", "*** Delete File: empty", "*** Add File: empty", "+z"),
    patch("*** Update File: empty", "+first", "*** Update File: empty", " first", "+second", "*** Delete File: b.txt"),
]
SEEDS += [
    f"```\n{SEEDS[0]}```",
    f"apply_patch <<'EOF'\n{SEEDS[1]}EOF\n",
    '{"input": "' + SEEDS[3].replace("\n", "\\n") + '"}',
    SEEDS[2].replace("\n", "\r\n"),
]
SHARDS = [
    *(
        "\n",
        "\r\n",
        " ",
        "+",
        "-",
        "@",
        "@@",
        "*** ",
        "```",
        "{",
        '"',
        "\\",
        "\0",
        "\ufeff",
        "\u2028",
        "\ud800",
        "../",
        "/",
    ),
    *("*** Begin Patch\n", "*** End Patch\n", "*** End of File\n", "*** Update File: a.py\n", "*** Add File: b.txt\n"),
    *(
        "*** Delete File: d/c.md\n",
        "*** Move to: a.py\n",
        "*** Move to: ../x\n",
        "@@ def g():\n",
        "+y\n",
        " \n",
        "-text\n",
    ),
]


def damage(text: str, chance: random.Random) -> str:
    """Change `text` at one to three places: characters, lines, pieces of other patches, truncation."""
    for _ in range(chance.randint(1, 3)):
        kind = chance.randrange(7)
        at = chance.randint(0, len(text))
        lines = text.split("\n")
        row = chance.randrange(len(lines))
        if kind == 0:
            text = text[:at] + chance.choice(SHARDS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + chance.randint(1, 8) :]
        elif kind == 2:
            text = "\n".join(lines[:row] + lines[row + 1 :])
        elif kind == 3:
            text = "\n".join([*lines[:row], lines[row], *lines[row:]])
        elif kind == 4:
            other = chance.choice(SEEDS).split("\n")
            start = chance.randrange(len(other))
            text = "\n".join(lines[:row] + other[start : start + 3] + lines[row:])
        elif kind == 5:
            lines[row] = chance.choice(" +-@*") + lines[row][1:]
            text = "\n".join(lines)
        else:
            other_row = chance.randrange(len(lines))
            lines[row], lines[other_row] = lines[other_row], lines[row]
            text = "\n".join(lines)
    return text


def test_fifty_thousand_damaged_patches() -> None:
    chance = random.Random(2026)
    files = dict(FILES)
    applied = 0
    slowest = 0.0
    for _ in range(50_000):
        text = damage(chance.choice(SEEDS), chance)
        start = time.process_time()
        try:
            apply_patch(text, open_fn=files.__getitem__, write_fn=files.__setitem__, remove_fn=files.__delitem__)
        except DiffError as error:
            assert files == FILES, text
            assert 0 < len(str(error)) < 600, text
            assert "\n" not in str(error), text
        else:
            applied += 1
            changed = [name for name in FILES if files.get(name) != FILES[name]]
            assert all(name.rpartition("/")[2] in text for name in changed), text
            assert not any(name.startswith("/") or ".." in name.split("/") for name in files), text
            files = dict(FILES)
        slowest = max(slowest, time.process_time() - start)
    assert 5_000 < applied < 45_000
    assert slowest < 1.0


def test_damaged_patches_on_disk_stay_below_the_root(tmp_path) -> None:
    chance = random.Random(7)
    plant(tmp_path, {"x": "outside\n", "a.py": "outside\n"})
    root = plant(tmp_path / "root", FILES)
    before = snapshot(root)
    outside = {name: found for name, found in snapshot(tmp_path).items() if not name.startswith("root")}
    fresh = 0
    for _ in range(2_000):
        text = damage(chance.choice(SEEDS), chance)
        try:
            apply_patch(text, root=root)
        except DiffError:
            assert snapshot(root) == before, text
        else:
            fresh += 1
            root = plant(tmp_path / f"root{fresh}", FILES)
            before = snapshot(root)
    assert fresh > 100
    assert {name: found for name, found in snapshot(tmp_path).items() if not name.startswith("root")} == outside
