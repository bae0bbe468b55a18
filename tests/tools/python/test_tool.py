"""PythonTool as its callers see it: messages, description, errors, images; with and without an engine."""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from openai_harmony import Author, Conversation, Message, Role, SystemContent, TextContent

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.choice import BACKENDS
from gpt_oss.tools.python_docker.docker_tool import PythonTool
from gpt_oss.tools.python_docker.images import ProgressBar, ready_image
from tests.helpers.docker_engine import import_image
from tests.helpers.python_tool import answer, code_message

REGISTRY = Path(__file__).parents[2] / "helpers" / "image_registry.py"


async def test_the_check_of_vllms_tool_server(engine, monkeypatch):
    """`PythonTool()` and this message are what vLLM's demo tool server starts with."""
    if engine.pid is None:
        pytest.skip("the user's engine may have no python:3.N-slim, and tests do not download one")
    tool = PythonTool()
    message = Message(
        author=Author(role=Role.ASSISTANT),
        content=[TextContent(text="print('Hello, world!')")],
        channel="analysis",
        recipient="python",
        content_type="code",
    )
    replies = [reply async for reply in tool.process(message)]
    assert [reply.content[0].text for reply in replies] == ["Hello, world!\n"]
    assert (replies[0].author, replies[0].channel) == (Author(role=Role.TOOL, name="python"), "analysis")


async def test_the_model_sees_the_description(harmony):
    tool = PythonTool()
    system = SystemContent.new().with_tools(tool.tool_config)
    messages = [Message.from_role_and_content(Role.SYSTEM, system)]
    prompt = harmony.decode(harmony.render_conversation(Conversation.from_messages(messages)))
    assert "## python\n\n" in prompt and tool.instruction in prompt


@pytest.mark.parametrize(
    "backend", ["docker", "docker_session", "bwrap", "dangerously_use_uv", "dangerously_use_local_jupyter"]
)
async def test_what_the_description_says_is_true(engine, backend):
    skip_without(backend)
    options = {"execution_backend": backend, "image": engine.image, "pool_size": 0}
    async with PythonTool(**options, timeout=2.5) as tool:
        started = time.monotonic()
        stopped = await answer(tool, "import time\nwhile True: time.sleep(0.01)")
        assert 2.4 < time.monotonic() - started < 30
        assert "stopped after 2.5 seconds" in tool.instruction and "the time limit of 2.5 seconds" in stopped
    async with PythonTool(**options) as tool:
        text = tool.instruction
        await answer(tool, "x = 1")
        kept = await answer(tool, "print(x)")
        assert ("State is kept between calls" in text) == (kept == "1\n")
        assert ("Nothing is kept between calls" in text) == ("NameError" in kept)
        assert ("value of a last expression is shown" in text) == (await answer(tool, "6 * 7") == "42\n")
        network = await answer(tool, "import socket\nprint('lo' in [n for _, n in socket.if_nameindex()])")
        assert ("There is no network" in text) == ("PermissionError" in network)
        folder = re.search(r"written in (.*)\.$", text)[1].replace("the current directory", ".")
        assert await answer(tool, f"open('{folder}/x', 'w').write('x'); print(open('x').read())") == "x\n"
        limit = int(re.search(r"at most ([\d,]+) bytes", text)[1].replace(",", ""))
        assert f"limited to {limit:,} bytes" in await answer(tool, f"print('x' * {limit + 1})")


def skip_without(backend: str) -> None:
    """Skip where a backend's program or package is not installed here."""
    if backend == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bwrap (package bubblewrap) is not installed")
    package = {"dangerously_use_local_jupyter": "ipykernel", "dangerously_use_uv": "uv"}.get(backend)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")


def test_importing_the_tool_is_cheap():
    """The tools library has no torch, and docker is loaded by the backends that need it."""
    code = "import sys, gpt_oss.tools.python_docker.docker_tool as d; print(*sys.modules); d.PythonTool()"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "docker", "requests", "jupyter_client"} & set(loaded)


def test_the_variable_chooses_the_backend(monkeypatch):
    monkeypatch.setenv("PYTHON_EXECUTION_BACKEND", "docker_session")
    assert "State is kept" in PythonTool().instruction
    assert "Nothing is kept" in PythonTool(execution_backend="docker").instruction
    monkeypatch.setenv("PYTHON_EXECUTION_BACKEND", "dokcer")
    with pytest.raises(ToolError, match=r"'dokcer' \(PYTHON_EXECUTION_BACKEND\); known are docker, "):
        PythonTool()


def test_unknown_backend_is_an_error():
    with pytest.raises(ToolError, match=r"'podmam'.*known are docker, docker_session, bwrap, dangerously_use_uv"):
        PythonTool(execution_backend="podmam")
    assert len(BACKENDS) == 5


@pytest.mark.parametrize("host", ["unix:///nonexistent.sock", "tcp://127.0.0.1:9", "nonsense"])
async def test_without_an_engine_the_conversation_goes_on(monkeypatch, host):
    monkeypatch.setenv("DOCKER_HOST", host)
    for backend in ("docker", "docker_session"):
        text = await answer(PythonTool(execution_backend=backend), "print(1)")
        assert text.startswith(
            f"Error: Python cannot run: no container engine answers at {host}; install and start Docker"
        )
        assert "\n" not in text


@pytest.mark.parametrize("backend", ["bwrap", "dangerously_use_uv"])
async def test_without_the_program_the_conversation_goes_on(monkeypatch, backend):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")  # a uv of our virtual environment is found, too
    text = await answer(PythonTool(execution_backend=backend), "print(1)")
    assert text.startswith("Error: Python cannot run: ") and "not installed" in text and "\n" not in text


async def test_other_recipients_get_an_answer():
    replies = [reply async for reply in PythonTool().process(code_message("1", recipient="browser.search"))]
    assert "does not answer to the name" in replies[0].content[0].text


@pytest.mark.parametrize("text", ['{"code": "print(6 * 7)"}', "```python\nprint(6 * 7)\n```"])
async def test_wrapped_code_is_run(make_tool, text):
    assert await answer(make_tool(), text) == "42\n"


@pytest.mark.slow  # the image with matplotlib takes 10 s to make; test_runner.py draws without one
async def test_figures_come_back_as_images(engine, make_tool):
    packages = ("matplotlib", "mpl_toolkits", "numpy", "contourpy", "cycler", "kiwisolver", "packaging")
    packages += ("PIL", "pyparsing", "dateutil", "fontTools")
    image = "gpt-oss-test-matplotlib:1"
    import_image(engine.url.removeprefix("unix://"), image, sys._base_executable, packages)
    draw = (
        "import matplotlib.pyplot as plt\nfor n in (1, 2): plt.figure(); plt.plot([n, 2])\nplt.show()\nprint('drawn')"
    )
    for backend in ("docker", "docker_session"):
        async with make_tool(image=image, execution_backend=backend, timeout=60) as tool:
            text = await answer(tool, draw)
            assert text.endswith("drawn\n[figure saved as figure-1.png]\n[figure saved as figure-2.png]")
            first, second = tool.figures.values()
            assert first.startswith(b"\x89PNG\r\n") and second.startswith(b"\x89PNG\r\n") and first != second
            assert await tool.fetch("figure-2.png") == second


def test_progress_bar():
    stream = io.StringIO()
    bar = ProgressBar(stream, width=10)
    for done, total in ((0, 0), (0, 50), (0, 50), (25, 50), (50, 50)):
        bar("python:3.12-slim", done * 10**6, total * 10**6)
    bar.close()
    bar.close()
    assert stream.getvalue() == (
        "\rpython:3.12-slim [>         ]   0 of 0 MB\rpython:3.12-slim [>         ]   0 of 50 MB"
        "\rpython:3.12-slim [=====>    ]  25 of 50 MB\rpython:3.12-slim [==========]  50 of 50 MB\n"
    )


def test_an_image_is_pulled_with_progress(engine, client, tmp_path):
    if engine.pid is None:
        pytest.skip("a registry can only be put into the network namespace of a private engine")
    name = "127.0.0.1:5000/python:3.99-slim"
    tar = tmp_path / "layer.tar"
    with tarfile.open(tar, "w") as layer:
        content = tarfile.TarInfo("random")
        content.size = 3_000_000
        layer.addfile(content, io.BytesIO(os.urandom(content.size)))
    seen: list[tuple[str, int, int]] = []
    with registry(engine.pid, tar):
        assert ready_image(client.api, name, lambda *state: seen.append(state)) == name
        size = tar.stat().st_size
        assert seen[-1] == (name, size, size)
        assert len(seen) > 3 and [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
        assert ready_image(client.api, name, lambda *_: pytest.fail("it is there already")) == name
        with pytest.raises(ToolError, match=r"the image 127.0.0.1:5000/python:3.98-slim could not be pulled: \S+"):
            ready_image(client.api, "127.0.0.1:5000/python:3.98-slim", None)
    client.images.remove(name)


def test_the_newest_slim_image_is_chosen(engine, client):
    if engine.pid is None:
        pytest.skip("tests give no image of a user's engine another name")
    image = client.images.get(engine.image)
    for tag in ("3.8-slim", "3.99", "4.0-slim", "3.100-slim", "3.98-slim-bookworm"):
        image.tag("python", tag)
    image.tag("other/python", "3.101-slim")
    try:
        assert ready_image(client.api, None, None) == "python:3.100-slim"
        client.images.remove("python:3.100-slim")
        assert ready_image(client.api, None, None) == engine.image
    finally:
        for name in ("python:3.8-slim", "python:3.99", "python:4.0-slim", "python:3.98-slim-bookworm"):
            client.images.remove(name)
        client.images.remove("other/python:3.101-slim")


async def test_an_image_that_cannot_be_pulled(make_tool):
    text = await answer(make_tool(image="registry.invalid/python:3.12"), "print(1)")
    assert text.startswith("Error: the image registry.invalid/python:3.12 could not be pulled: ") and "\n" not in text


@contextlib.contextmanager
def registry(engine_pid: int, layer: Path):
    """Run a registry with one image of one layer on 127.0.0.1:5000 of the engine's network namespace."""
    (inner,) = Path(f"/proc/{engine_pid}/task/{engine_pid}/children").read_text().split()
    command = ["nsenter", "-t", inner, "-n", sys.executable, str(REGISTRY), "5000", "3.99-slim", str(layer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
