"""The C core and its Python extension for tests, linked to the kernels' library that `tests.metal.emulated` builds.

Built once per state of the sources with the flags of gpt_oss/metal/CMakeLists.txt and kept under build/metal-tests.
"""

import hashlib
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import gpt_oss.metal
from tests.metal.emulated import CACHE, COMPILER, METAL

SOURCES = sorted((METAL / "src").glob("*.c"))
INCLUDES = [f"-I{METAL}", f"-I{METAL / 'include'}", f"-I{METAL / 'src'}"]
CORE_FLAGS = re.search(r"set\(CORE_FLAGS (.*?)\)", (METAL / "CMakeLists.txt").read_text())[1].split()


def link(name: str, sources: Sequence[Path], kernel_library: Path, flags: Sequence[str] = ()) -> Path:
    """Compile C sources into `name` (a shared library if flags say so), linked to the kernels; returns its path."""
    command = [COMPILER.replace("g++", "gcc"), "-std=c11", "-D_GNU_SOURCE", *CORE_FLAGS, "-Werror", *INCLUDES, *flags]
    headers = [*METAL.glob("*.h"), *METAL.glob("*/*.h")]
    inputs = [*command, str(kernel_library), *(file.read_text() for file in sorted([*sources, *headers]))]
    folder = CACHE / f"core-{hashlib.sha256(chr(0).join(inputs).encode()).hexdigest()[:16]}"
    target = folder / name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{name}.{os.getpid()}"
        libraries = [str(kernel_library), f"-Wl,-rpath,{kernel_library.parent}", "-lstdc++", "-lpthread", "-lm"]
        command += ["-o", str(partial), *map(str, sources), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        partial.rename(target)
    return target


def load_extension(kernel_library: Path) -> ModuleType:
    """Build `gpt_oss.metal._metal` and import it under that name."""
    flags = ["-shared", "-fPIC", f"-I{sysconfig.get_paths()['include']}"]
    name = f"_metal{sysconfig.get_config_var('EXT_SUFFIX')}"
    path = link(name, [*SOURCES, METAL / "python" / "module.c"], kernel_library, flags)
    loader = importlib.machinery.ExtensionFileLoader("gpt_oss.metal._metal", str(path))
    spec = importlib.util.spec_from_loader("gpt_oss.metal._metal", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules["gpt_oss.metal._metal"] = module
    gpt_oss.metal._metal = module
    return module
