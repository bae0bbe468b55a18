"""The `gpt-oss` command: finds its commands, imports only the one that runs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import gpt_oss
from gpt_oss import cli
from tests.helpers.processes import children_seconds

ROOT = Path(__file__).parents[1]


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_help_lists_every_command(capsys) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert cli.main(arguments) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {name} " in out for name in cli.COMMANDS)


def test_version(capsys) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{gpt_oss.__version__}\n"


def test_an_unknown_command_lists_the_known_ones(capsys) -> None:
    assert cli.main(["generat"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and "'generat'" in err and "generate, chat, serve" in err


def test_arguments_reach_the_command(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("GPT_OSS_CACHE", str(tmp_path / "elsewhere"))
    assert cli.main(["cache"]) == 0
    assert str(tmp_path / "elsewhere") in capsys.readouterr().out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_helps_within_a_second_without_torch(name: str) -> None:
    if not _exists(cli.COMMANDS[name].module):
        pytest.skip(f"{cli.COMMANDS[name].module} is not in this tree")
    code = (
        "import sys\nfrom gpt_oss.cli import main\n"
        f"try: main([{name!r}, '--help'])\n"
        "finally: assert 'torch' not in sys.modules, 'torch was imported'"
    )
    begin = children_seconds()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert children_seconds() - begin < 1


def test_help_of_the_command_itself_imports_nothing_heavy() -> None:
    code = "import sys; from gpt_oss.cli import main; main(['--help']); print([m for m in sys.modules if m in HEAVY])"
    heavy = ["numpy", "torch", "tiktoken", "openai_harmony", "pydantic", "argparse"]
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {heavy}\n{code}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")
