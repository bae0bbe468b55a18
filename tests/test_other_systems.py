"""What Linux can show about Windows and macOS: everything is there without what only POSIX or Linux has.

Each test is a process of its own that `helpers.other_system` has stripped. Paths in the manner of Windows are tested
where they are read (`tools/apply_patch/test_files`, `test_cache`); what only the systems themselves can show is said
in the README.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]


def stripped(imports: str, code: str, *arguments: object, **environment: str) -> str:
    """What `code` prints in a process that was stripped after `imports`, which are then done again."""
    imports = textwrap.dedent(imports)
    lines = ["from tests.helpers.other_system import import_all, strip", imports, "strip()", imports]
    command = [sys.executable, "-c", "\n".join([*lines, textwrap.dedent(code)]), *map(str, arguments)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_every_module_can_be_imported():
    assert stripped("import_all()", "print('all of them')") == "all of them\n"


PATCH = """*** Begin Patch
*** Update File: a/old.txt
*** Move to: b/new.txt
@@
-one
+two
*** Delete File: gone.txt
*** Add File: c/added.txt
+three
*** End Patch
"""


def test_a_patch_is_applied_without_open_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old.txt").write_text("one\n")
    (tmp_path / "gone.txt").write_text("")
    (tmp_path / "link").symlink_to("a")
    code = """
        import sys
        patch, root = sys.argv[1:]
        for wrong in ("link", "gone.txt"):
            try:
                apply_patch(patch.replace("a/old", f"{wrong}/old"), root)
            except DiffError as error:
                print(error)
        apply_patch(patch, root)
    """
    said = stripped("from gpt_oss.tools.apply_patch import DiffError, apply_patch", code, PATCH, tmp_path)
    first, second = said.splitlines()
    assert first.startswith("link: this is a symbolic link") and second.endswith("Not a directory")
    found = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.txt")}
    assert found == {"b/new.txt": "two\n", "c/added.txt": "three\n"}


def test_the_tools_and_the_terminal_do_without(tmp_path):
    (tmp_path / "notes.txt").write_text("Tulips come up in spring.")
    imports = """
        import asyncio, sys, threading
        from gpt_oss.terminal.line_input import PlainInput, history_file, quiet_keyboard
        from gpt_oss.tools.python_docker.limits import Limits
        from gpt_oss.tools.python_docker.uv import UvProcess
        from gpt_oss.tools.simple_browser.local import LocalBackend
    """
    code = """
        with quiet_keyboard():
            print(PlainInput(history_file(), ask=lambda prompt: "typed").read())
        page = asyncio.run(LocalBackend(sys.argv[1]).search("tulips", 5, None))
        print("notes.txt" in page.text)
        result = UvProcess(Limits()).execute("print(17 + 25)", threading.Event())
        print(result.output.strip(), result.exit_code)
    """
    said = stripped(imports, code, tmp_path, GPT_OSS_CACHE=str(tmp_path / "cache"))
    assert said.splitlines() == ["typed", "True", "42 0"]


def test_a_prompt_is_answered():
    imports = "import gpt_oss.torch.model; from gpt_oss.generate import main"
    ask = "main(['--backend', 'torch', '--temperature', '0', '--limit', '3', '--raw', '--prompt', 'Hello!'])"
    assert stripped(imports, ask).strip()


def test_a_port_that_is_taken_is_refused():
    code = """
        with socket.create_server(("127.0.0.1", 0)) as used:
            try:
                listen("127.0.0.1", used.getsockname()[1])
            except RequestError as error:
                print(error)
    """
    imports = "import socket; from gpt_oss.errors import RequestError; from gpt_oss.responses_api.serve import listen"
    assert "Address already in use" in stripped(imports, code)
