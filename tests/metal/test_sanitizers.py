"""Kernels, emulator and launchers under AddressSanitizer and UndefinedBehaviorSanitizer: their own tests once more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.metal.emulated import COMPILER

FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all"


@pytest.mark.slow
def test_the_kernel_and_emulator_tests_are_clean(kernel_library: Path) -> None:
    runtime = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "GPTOSS_METAL_TEST_FLAGS": FLAGS,
        "LD_PRELOAD": f"{runtime.stdout.strip()} {os.environ.get('LD_PRELOAD', '')}".strip(),
        # Python's own leaks do not count, and a test wants to see the signal of a guard page.
        "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0",
    }
    tests = [str(Path(__file__).parent / name) for name in ("test_kernels.py", "test_emulator.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
