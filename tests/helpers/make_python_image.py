"""Write a minimal `python:3.x-slim`-like root file system as a tar to stdout, from an interpreter of this machine.

Usage: make_python_image.py [--packages NAME ...] INTERPRETER | docker import - python:3.x-slim

In goes a path to a CPython on Linux; out comes a tar with that interpreter (also as /usr/local/bin/python,
python3, python3.x), its standard library, a few shell tools and every shared library these need. No network,
no root. With `--packages`, top-level packages of the interpreter that runs this script come along.
"""

import argparse
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

TOOLS = ("sh", "sleep", "cat", "ls", "env", "timeout", "kill", "id", "head", "yes", "true")
SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "lib2to3",
}
WHEEL_LIBRARIES = {"PIL": "pillow.libs"}  # named after the distribution where its name is another
FACTS = """
import json, os, sys, sysconfig
print(json.dumps({"version": "%d.%d" % sys.version_info[:2], "executable": os.path.realpath(sys.executable),
                  "stdlib": sysconfig.get_path("stdlib")}))
"""


class Image:
    """A tar under construction: adding a file adds its folders' links and the libraries it is linked to."""

    def __init__(self, tar: tarfile.TarFile):
        self._tar = tar
        self._added: set[str] = set()

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add an empty folder."""
        info = tarfile.TarInfo(path.lstrip("/"))
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(info)

    def text(self, path: str, content: str) -> None:
        """Add a small text file."""
        info = tarfile.TarInfo(path.lstrip("/"))
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content.encode()))

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        if path not in self._added:
            self._added.add(path)
            info = tarfile.TarInfo(path.lstrip("/"))
            info.type, info.linkname = tarfile.SYMTYPE, target
            self._tar.addfile(info)

    def file(self, source: Path, path: str) -> None:
        """Add the content of `source` at `path`, with true modification time (else .pyc files are stale)."""
        if path not in self._added:
            self._added.add(path)
            info = self._tar.gettarinfo(str(source.resolve()), path.lstrip("/"))
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            with source.resolve().open("rb") as content:
                self._tar.addfile(info, content)

    def binary(self, source: Path, path: str) -> None:
        """Add a program or extension module and, at the path where the loader looks, what it is linked to."""
        self.file(source, path)
        for library in linked_libraries(source):
            if "site-packages" not in library:  # wheels bring theirs along, found relative to the module
                self.file(Path(library), library)

    def tree(self, top: Path, path: str) -> None:
        """Add all of the folder `top` at `path` but tests and graphical parts."""
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(set(folders) - SKIPPED)
            for name in sorted(names):
                source = Path(folder, name)
                target = f"{path}/{source.relative_to(top)}"
                if source.is_file() and not name.endswith((".a", ".opt-1.pyc", ".opt-2.pyc")):
                    (self.binary if ".so" in name else self.file)(source, target)


def linked_libraries(binary: Path) -> list[str]:
    """Absolute paths of the loader and shared libraries that `ldd` finds for `binary`."""
    told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    return [path for path in re.findall(r"(?:=> )?(/\S+) \(0x", told) if Path(path).exists()]


def write_image(interpreter: str, packages: list[str], out: tarfile.TarFile) -> None:
    """Write the whole root file system to `out`."""
    facts = json.loads(subprocess.run([interpreter, "-I", "-c", FACTS], capture_output=True, check=True).stdout)
    image, stdlib, executable = Image(out), Path(facts["stdlib"]), Path(facts["executable"])
    for path in ("/bin", "/usr/bin", "/usr/local/bin", "/etc", "/proc", "/sys", "/dev", "/root", "/mnt", "/var"):
        image.folder(path)
    image.folder("/tmp", 0o1777)
    image.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    image.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
    image.binary(executable, str(executable))
    for name in ("python", "python3", f"python{facts['version']}"):
        image.link(f"/usr/local/bin/{name}", str(executable))
    image.tree(stdlib, str(stdlib))
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            image.binary(Path(found), f"/bin/{tool}")
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"make_python_image: no package {package} beside {sys.executable}")
        top = Path(next(iter(spec.submodule_search_locations)))
        image.tree(top, f"{stdlib}/{package}")
        bundled = top.with_name(WHEEL_LIBRARIES.get(package, f"{package}.libs"))
        if bundled.is_dir():
            image.tree(bundled, f"{stdlib}/{bundled.name}")


def main() -> None:
    """Read the command line and write the tar to stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("interpreter")
    parser.add_argument("--packages", nargs="*", default=[])
    options = parser.parse_args()
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
        write_image(options.interpreter, options.packages, out)


if __name__ == "__main__":
    main()
