"""The README's road "A Mac" on Linux: its commands as they are written, in a fresh tree and a fresh environment."""

import os
import re
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROAD = re.search(r"^### A Mac\n(.*?)^###? ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]
INSTALL, DEVICE, ANSWER, *EXAMPLES = re.findall(r"^    (.+)$", ROAD, re.MULTILINE)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which `python` and `pip` are those of an own environment, which has this one's packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "packages_of_the_tests.pth").write_text("\n".join(site.getsitepackages()))
    return os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "GPT_OSS_CACHE": str(folder / "cache"),
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would commit, so that no file of an earlier build helps."""
    folder = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def run(command: str, tree: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=tree, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="on a Mac this is not emulated; see .github/workflows/metal.yml")
def test_the_commands_of_the_readme(tree: Path, environment: dict[str, str], demo_model_file: Path) -> None:
    before = sorted(path for path in tree.rglob("*") if "__pycache__" not in path.parts)
    assert INSTALL.startswith("GPTOSS_BUILD_METAL=1 pip install")
    run(INSTALL, tree, environment)
    left = {path.relative_to(tree).parts[0] for path in tree.rglob("*") if path not in before}
    assert left - {"__pycache__"} <= {"build", "gpt_oss"}
    assert run(DEVICE, tree, environment) == (
        "emulated Metal device (CPU); verified against an emulated Metal device, never run on Apple hardware\n"
    )
    assert "Paris" in run(ANSWER, tree, environment)
    for example in EXAMPLES:
        command = example.replace("gpt-oss-20b/metal/model.bin", str(demo_model_file))
        assert command != example
        run(f"{command} --context-length 100 < /dev/null", tree, environment)
