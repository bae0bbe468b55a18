"""A command of the package with the extension that the tests build: python -m tests.metal.with_metal MODULE OPTIONS."""

import runpy
import sys

from tests.metal.emulated import KERNELS, build
from tests.metal.extension import load_extension

if __name__ == "__main__":
    load_extension(build(sorted(KERNELS.glob("*.metal"))))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
