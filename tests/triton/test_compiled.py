"""What the compiler makes of the kernels for GPUs that are not here; the table is printed, the promises asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.compiled import loop_loads
from gpt_oss.triton.graphs import BUCKETS

ROOT = Path(__file__).parents[2]


def compiled(tmp_path, *options):
    out = tmp_path / "compiled.json"
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu.compiled", "--out", str(out), *options]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    print(result.stdout)
    return json.loads(out.read_text())["kernels"]


def check(kernels):
    for kernel in kernels:
        where = f"{kernel['kernel']} for {kernel['target']}, batch {kernel['batch']}"
        assert not kernel["spills"], f"{where} spills"
        assert kernel["shared_bytes"] <= 99 * 1024, f"{where} needs {kernel['shared_bytes']} bytes of shared memory"
        if kernel["kernel"] in ("gate_up_kernel", "down_kernel") and kernel["target"].startswith("sm_"):
            assert kernel["weight_loads"], f"{where} does not load 16 bytes at a time"
            assert kernel["per_weight"] <= 3.0, f"{where} takes {kernel['per_weight']} instructions per weight"


def disassembly(*loop):
    lines = ["LDG.E.128 R4, desc[UR4][R2.64] ;", ".L_x_0:", *loop, "@!P0 BRA `(.L_x_0) ;", "STG.E R4 ;", "EXIT ;"]
    return "\n".join(
        line if line.endswith(":") else f"        /*{16 * n:04x}*/  {line}" for n, line in enumerate(lines)
    )


def test_loads_that_every_round_waits_for_are_counted():
    product, copy = "HMMA.16816.F32.BF16 R8, R4, R6, R8 ;", "LDGSTS.E.BYPASS.128 [R9], desc[UR4][R2.64] ;"
    assert loop_loads(disassembly(copy, product)) == 0
    assert loop_loads(disassembly(copy, "@P1 LDG.E.U8 R5, desc[UR4][R2.64] ;", product)) == 1
    assert loop_loads(disassembly(copy)) is None


def test_the_decode_step_for_hopper(tmp_path):
    check(compiled(tmp_path, "--targets", "sm_90", "--models", "20b", "--batches", "1", "--decode-only"))


@pytest.mark.slow
def test_every_kernel_for_every_target(tmp_path):
    check(compiled(tmp_path))


def test_the_committed_table_covers_every_target_and_keeps_every_promise():
    kernels = json.loads((ROOT / "benchmarks" / "results" / "triton_targets.json").read_text())["kernels"]
    expected = {"sm_80", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942"}
    assert {kernel["target"] for kernel in kernels} == expected
    for target in expected:
        assert {kernel["batch"] for kernel in kernels if kernel["target"] == target} == {*BUCKETS, None}
        names = {kernel["kernel"] for kernel in kernels if kernel["target"] == target}
        assert {"gate_up_kernel", "decode_attention_kernel", "finish_kernel", "grouped_down_kernel"} <= names
    check(kernels)
