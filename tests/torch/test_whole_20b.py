"""The true shape of gpt-oss-20b, packed, in 16 GB of memory. Slow: writes 13.8 GB, unless GPTOSS_TEST_20B names a
folder with a checkpoint that `python -m gpt_oss.synthetic --model 20b FOLDER` wrote before.

    pytest -m slow tests/torch/test_whole_20b.py
"""

import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.whole_20b import TOKENS, measure
from gpt_oss import native
from gpt_oss.synthetic import MODELS, write_synthetic

DISK = 14 << 30
MEMORY = 16 * 10**9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    if sys.platform != "linux":
        pytest.skip("memory is measured through /proc, which only Linux has")
    if native.load() is None:
        pytest.skip("the native library is not built (make native)")
    if psutil.virtual_memory().available < MEMORY:
        pytest.skip("needs 16 GB of memory that is free or page cache")
    if "GPTOSS_TEST_20B" in os.environ:
        yield Path(os.environ["GPTOSS_TEST_20B"])
        return
    folder = tmp_path_factory.mktemp("20b")
    if shutil.disk_usage(folder).free < DISK:
        pytest.skip(f"needs {DISK >> 30} GiB of disk below {folder}, or GPTOSS_TEST_20B")
    yield write_synthetic(folder / "model", MODELS["20b"])
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_whole_20b_generates_within_16_gb(checkpoint):
    found = measure(checkpoint)
    assert found["tokens"] == TOKENS
    assert found["start_to_first_token_s"] < 15
    assert found["peak_resident_bytes"] < MEMORY
    assert found["peak_resident_beyond_files_bytes"] < 2 * 10**9
