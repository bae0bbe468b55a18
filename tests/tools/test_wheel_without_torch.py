"""The wheel as `pip install gpt-oss` gives it: in an environment of its own, without torch, the tools work."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.docker_engine import TestEngine, engine_for_session

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, install it with what it requires from the package index; returns the environment's python."""
    folder = tmp_path_factory.mktemp("wheel")
    quiet = ["--quiet", "--disable-pip-version-check"]
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("scikit_build_core") else []
    run(sys.executable, "-m", "pip", "wheel", *quiet, *isolation, "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("gpt_oss-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "env"))
    python = folder / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", *quiet, "--no-compile"]
    done = run(*install, "--constraint", str(ROOT / "constraints.txt"), str(wheel), status=None)
    if done.returncode and "No matching distribution" in done.stderr and not os.environ.get("CI"):
        pytest.skip("needs a package index to install what the wheel requires")
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope="module")
def engine() -> Iterator[TestEngine]:
    """An engine with a Python image."""
    with engine_for_session() as found:
        yield found


def run(
    *command: str, folder: Path | None = None, status: int | None = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command away from the source tree; it must end with `status` (None: any)."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        command, cwd=folder or "/", env=clean | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert status in (None, done.returncode), done.stdout + done.stderr
    return done


def test_nothing_of_torch_is_installed_or_imported(installed: Path) -> None:
    code = """
        import importlib, importlib.util, importlib.metadata, pathlib, sys
        import gpt_oss
        assert "site-packages" in gpt_oss.__file__, gpt_oss.__file__
        assert importlib.metadata.version("gpt_oss") == gpt_oss.__version__
        assert (pathlib.Path(gpt_oss.__file__).parent / "py.typed").exists()
        for name in ("tool", "registry", "apply_patch", "apply_patch.tool", "simple_browser", "simple_browser.backend",
                     "simple_browser.page_contents", "python_docker.docker_tool"):
            importlib.import_module("gpt_oss.tools." + name)
        for name in ("torch", "triton", "transformers", "fastapi"):
            assert importlib.util.find_spec(name) is None, name
        assert "torch" not in sys.modules
    """
    run(str(installed), "-c", textwrap.dedent(code))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["generate", "--prompt", "Hello"], "torch is not installed; run: pip install 'gpt-oss[torch]'"),
        (["chat"], "torch is not installed; run: pip install 'gpt-oss[torch]'"),
        (["serve"], "is not installed; run: pip install 'gpt-oss[torch]'"),
        (["serve", "--backend", "ollama"], "is not installed; run: pip install 'gpt-oss[server]'"),
        (["synthetic", "out"], "numpy is not installed; run: pip install 'gpt-oss[torch]'"),
    ],
)
def test_what_needs_more_says_what(installed: Path, command: list[str], said: str) -> None:
    done = run(str(installed), "-m", "gpt_oss.cli", *command, status=1)
    assert done.stdout == "" and done.stderr.count("\n") == 1 and said in done.stderr


def test_browser(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "tides.md").write_text("# Tides\n\nThe moon pulls the sea.\n")
    code = """
        import asyncio
        from openai_harmony import Conversation, HarmonyEncodingName, Message, Role, SystemContent
        from gpt_oss.tools.simple_browser import SimpleBrowserTool
        from gpt_oss.tools.simple_browser.backend import LocalBackend

        browser = SimpleBrowserTool(backend=LocalBackend("."))
        system = SystemContent.new().with_tools(browser.tool_config)
        messages = [Message.from_role_and_content(Role.SYSTEM, system)]

        async def main():
            for function, arguments in [("search", '{"query": "moon"}'), ("open", '{"id": 0}')]:
                call = Message.from_role_and_content(Role.ASSISTANT, arguments).with_recipient("browser." + function)
                async for reply in browser.process(call.with_channel("analysis")):
                    messages.append(reply)

        asyncio.run(main())
        print(messages[-1].content[0].text)
    """
    assert "The moon pulls the sea." in run(str(installed), "-c", textwrap.dedent(code), folder=tmp_path).stdout


def test_python(installed: Path, engine: TestEngine) -> None:
    code = f"""
        import asyncio
        from openai_harmony import Message, Role, SystemContent
        from gpt_oss.tools.python_docker.docker_tool import PythonTool

        tool = PythonTool(image={engine.image!r}, pool_size=0)
        system = SystemContent.new().with_tools(tool.tool_config)

        async def main():
            call = Message.from_role_and_content(Role.ASSISTANT, "print('Hello, world!')").with_recipient("python")
            async for reply in tool.process(call.with_channel("analysis")):
                print(reply.content[0].text, end="")

        asyncio.run(main())
    """
    assert run(str(installed), "-c", textwrap.dedent(code), DOCKER_HOST=engine.url).stdout == "Hello, world!\n"


def test_apply_patch(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    patch = "*** Begin Patch\n*** Update File: a.txt\n one\n-two\n+2\n*** End Patch"
    code = f"from gpt_oss.tools.apply_patch import apply_patch; print(apply_patch({patch!r}))"
    assert "-two\n+2\n" in run(str(installed), "-c", code, folder=tmp_path).stdout
    assert (tmp_path / "a.txt").read_text() == "one\n2\n"
    run(
        str(installed),
        "-m",
        "gpt_oss.tools.apply_patch",
        patch.replace("two", "2").replace("+2", "+3"),
        folder=tmp_path,
    )
    assert (tmp_path / "a.txt").read_text() == "one\n3\n"


def test_example(installed: Path, engine: TestEngine) -> None:
    example = str(ROOT / "examples" / "tools_without_model.py")
    printed = run(str(installed), example, DOCKER_HOST=engine.url, PYTHON_IMAGE=engine.image).stdout
    assert "The moon pulls the sea" in printed
    assert "--- python\n745\n" in printed
    assert "+Moon and sun pull the sea" in printed


def test_a_missing_extra_names_the_command(installed: Path) -> None:
    complaint = run(str(installed), "-m", "gpt_oss.tools.mcp", "python", status=1).stderr
    assert complaint.count("\n") == 1
    assert "pip install 'gpt-oss[mcp]'" in complaint
