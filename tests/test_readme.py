"""Every command and every snippet of the README runs, in the order in which a newcomer meets them.

Fenced blocks marked `sh` and `python` are executed, those of clients against a server that runs here, as are the
examples that are clients; a `toml` block is a file of `examples/`, which other tests use. Indented blocks need weights,
keys or programs that a test has not, and stand beside a fenced one that shows the same road with the embedded model.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(sh|python|toml)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip()]
SNIPPETS = [text for kind, text in BLOCKS if kind == "python"]
(CODEX,) = [text for kind, text in BLOCKS if kind == "toml"]
SERVER = "http://127.0.0.1:8000/v1"

# The suite that is running right now.
RUNNING = {"make test"}


def run(command: list[str]) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["VENV"] = str(Path(sys.executable).parents[1])
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in RUNNING])
def test_command(command):
    run(["bash", "-c", command])


@pytest.mark.parametrize(
    "snippet", [text for text in SNIPPETS if SERVER not in text], ids=lambda text: text.splitlines()[0]
)
def test_snippet(snippet):
    run([sys.executable, "-c", snippet])


@pytest.fixture(scope="module")
def server():
    """What `gpt-oss serve` serves, on a free port."""
    command = [sys.executable, "-m", "gpt_oss.responses_api.serve", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield re.match(r"gpt-oss: gpt-oss-demo on (http://127\.0\.0\.1:\d+/v1) ", process.stdout.readline())[1]
        process.terminate()


@pytest.mark.parametrize(
    "snippet", [text for text in SNIPPETS if SERVER in text], ids=lambda text: text.splitlines()[0]
)
def test_client(snippet, server):
    assert run([sys.executable, "-c", snippet.replace(SERVER, server)]).strip()


@pytest.mark.parametrize(("example", "shown"), [("openai_sdk", "parsed: parity="), ("agents_sdk", "answer: ")])
def test_client_example(example, shown, server):
    assert shown in run([sys.executable, f"examples/{example}.py", server])


def test_codex_is_configured_as_the_example():
    example = (ROOT / "examples/codex/config.toml").read_text()
    assert "".join(line for line in example.splitlines(True) if not line.startswith("#")) == CODEX


def test_the_first_command_answers():
    assert "Paris" in run(["bash", "-c", COMMANDS[0]])


def test_make_passes_a_prompt_on_as_it_was_typed(tmp_path):
    prompt = f"-n It costs $5 or $$5; $(shell touch {tmp_path}/ran) `touch {tmp_path}/ran` \"a\" 'b' # c"
    # This environment counts as installed: make would "install" with this printf, and remember that it did.
    installed = Path(sys.executable).parents[1] / ".installed"
    told = run(["make", "--silent", "--old-file", str(installed), "run", f"PROMPT={prompt}", "RUN=printf '<%s>'"])
    assert f"<--prompt={prompt}>" in told
    assert not (tmp_path / "ran").exists()


def test_the_two_commands_come_first():
    assert COMMANDS[0].startswith("make run PROMPT=")
    assert COMMANDS[1] == "make test"


PAGES = [
    (page.name, text)
    for page in sorted((ROOT / "docs").glob("*.md"))
    for text in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("page", "snippet"), PAGES, ids=[page for page, _ in PAGES])
def test_snippet_of_a_page(page, snippet):
    run([sys.executable, "-c", snippet])


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
DOCUMENTS += [ROOT / "benchmarks/README.md", ROOT / "recipes/demo_model/README.md"]


def anchors(document):
    """The headings of a document as GitHub makes addresses of them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        found = document.parent / file if file else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_every_room_is_in_the_table():
    """Names in the table are of gpt_oss/ unless they begin elsewhere."""
    rooms = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is in the house")[2].partition("##")[0]
    names = [name.removeprefix("gpt_oss/") for row in rooms.splitlines()[4:] for name in re.findall(r"`([^`]+)`", row)]
    package = ROOT / "gpt_oss"
    parts = {path.name for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    named = {path.name for name in names for path in package.glob(name.rstrip("/"))}
    assert parts - {"__init__.py"} - named == set()
    assert [name for name in names if not list(package.glob(name)) and not list(ROOT.glob(name))] == ["gpt-oss"]
