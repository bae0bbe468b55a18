"""What the compiler makes of every kernel, for GPUs that are not here: a table, and JSON with --out.

    python -m benchmarks.gpu.compiled [--targets sm_90,gfx942] [--models 20b,120b] [--batches 1,8] [--out FILE]

The real model code runs on shapes alone (device "meta"), with a driver that names a target and has no device; each
launch compiles exactly what it would run there. NVIDIA code is disassembled with the nvdisasm of the
Triton wheel and counted: all instructions, spills (local-memory access), 16-byte loads, shared memory. A kernel that
breaks a promise (`broken_promises`) is named after the table, and the command then fails. One target
takes about a minute.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from benchmarks.gpu.random_weights import MODELS, RandomWeights
from gpt_oss.triton.decode import DecodeStep, key_splits
from gpt_oss.triton.graphs import BUCKETS
from gpt_oss.triton.model import Transformer
from gpt_oss.triton.variants import Variant, mma_variant, portable_variant

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Multiprocessors of a card of each kind (A100, RTX 4090, H100 and H200, B200, RTX 5090, MI300X): they decide into how
# many splits attention is cut.
PROCESSORS = {"sm_80": 108, "sm_89": 128, "sm_90": 132, "sm_100": 148, "sm_120": 170, "gfx942": 304}
# Bytes that a program may ask for: of Ampere (163 KB), Hopper and Blackwell (227 KB) less is used than there is, so
# that 99 KB, what consumer Blackwells and Ada have, is the bound everywhere but on AMD.
SHARED_LIMIT = {"gfx942": 64 * 1024}
NVIDIA_SHARED_LIMIT = 99 * 1024
MOST_PER_WEIGHT = 3.0
# What an epilogue loads after the products costs a whole wait for memory. One is left: a counter that lies in L2.
MOST_LATE_LOADS = 1
DECODE_EXPERTS = ("gate_up_kernel", "down_kernel")
EXPERTS = (*DECODE_EXPERTS, "grouped_gate_up_kernel", "grouped_down_kernel")
# One size for each way that the grouped products are cut (grouped.Tiling.for_pairs).
PREFILL_TOKENS = (2048, 512, 64)
# A label, or an instruction and what it branches to.
_STATEMENT = re.compile(
    r"^(?P<label>\.L_x_\d+):|^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?P<opcode>[A-Z][\w.]*)[^\n]*?(?P<to>\.L_x_\d+)?[^\n.]*$",
    re.M,
)
_AMD_INSTRUCTION = re.compile(r"^\t([a-z]+_\w+)", re.M)
_AMD_SPILLS = re.compile(r"^\s+\.vgpr_spill_count: +(\d+)", re.M)
# AMD parks scalar registers it is short of in lanes of a vector register: moves, no access to memory.
_AMD_PARKED = re.compile(r"^\s+\.sgpr_spill_count: +(\d+)", re.M)


@dataclass(frozen=True)
class Compiled:
    """One kernel for one target. Counts are of static instructions, None where there is no disassembler."""

    target: str
    model: str
    kernel: str
    batch: int | None  # of the decode step; None for prefill kernels
    shared_bytes: int
    instructions: int
    spills: int
    wide_loads: int
    dependent_launch: bool = False  # whether the code waits for the kernel before it by itself
    weight_loads: int | None = None  # NVIDIA's 16-byte loads that bypass L1 allocation: MXFP4 words, and nothing else
    per_weight: float | None = None  # instructions of the whole decode kernel per MXFP4 weight that a lane decodes
    parked_scalars: int | None = None  # AMD: scalar registers kept in lanes of vector registers
    main_per_weight: float | None = None  # the same between the first weight load and the last matrix product
    late_loads: int | None = None  # of those kernels: global loads between the last matrix product and the first store
    loop_loads: int | None = None  # loads into registers in the shortest loop with a matrix product; None without one


class OfflineDriver:
    """As much of Triton's driver as compiling needs; one device number per target keeps their caches apart."""

    def __init__(self, name: str):
        self._name = name

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self._name]

    def get_current_device(self) -> int:
        return list(TARGETS).index(self._name)

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def recording(target: str, kernels: list[tuple[str, Any]]) -> Iterator[None]:
    """Launches compile for `target`, append (name, compiled kernel) and run nothing."""
    launch = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        kernels.append((self.fn.__name__, kernel))
        return kernel

    triton.runtime.driver.set_active(OfflineDriver(target))
    JITFunction.run = compile_only
    try:
        yield
    finally:
        JITFunction.run = launch


def variant_for(target: str) -> Variant:
    """What `variants.choose_variant` would take there."""
    import triton.language as tl

    if target.startswith("sm_"):
        return mma_variant(divmod(int(TARGETS[target].arch), 10))
    return portable_variant(torch.bfloat16, tl.bfloat16)


def compile_all(target: str, models: list[str], batches: list[int], prefill: bool = True) -> list[Compiled]:
    """Every kernel of the decode steps of these batch sizes and of a prefill; what models share is shown once."""
    seen: set[str] = set()
    result: list[Compiled] = []

    def add(name: str, batch: int | None, run: Callable[[], object]) -> None:
        kernels: list[tuple[str, Any]] = []
        with recording(target, kernels):
            run()
        for kernel_name, kernel in kernels:
            if kernel.hash not in seen:
                seen.add(kernel.hash)
                result.append(examine(target, name, kernel_name, kernel, batch))

    for name in models:
        config = replace(MODELS[name], num_hidden_layers=2)
        weights = RandomWeights(config, "meta").model()
        model = Transformer(config, weights, variant_for(target), slots=max(batches), context_length=8192)
        for batch in batches:
            splits = key_splits(PROCESSORS[target], batch, config.num_key_value_heads)
            step = DecodeStep(config, weights, model.rope, model.cache, model.state, model.variant, batch, splits)
            add(name, batch, step.run)
        for tokens in PREFILL_TOKENS if prefill else ():
            add(name, None, partial(model.prefill, 0, [0] * tokens))
    return result


def examine(target: str, model: str, name: str, kernel: Any, batch: int | None) -> Compiled:
    """Count what the disassembly shows."""
    shared = kernel.metadata.shared
    if "cubin" not in kernel.asm:
        text = kernel.asm["amdgcn"]
        code = _AMD_INSTRUCTION.findall(text)
        return Compiled(
            target, model, name, batch, shared, instructions=len(code),
            spills=sum(map(int, _AMD_SPILLS.findall(text))),
            parked_scalars=sum(map(int, _AMD_PARKED.findall(text))),
            wide_loads=sum(opcode.endswith("load_dwordx4") for opcode in code),
        )  # fmt: skip
    text = disassemble(kernel.asm["cubin"])
    opcodes = [statement["opcode"] for statement in _STATEMENT.finditer(text)]
    code = [opcode for opcode in opcodes if opcode not in (None, "NOP")]
    weight_loads = sum(".128" in opcode and ".NA" in opcode for opcode in code)
    per_weight = main = late = None
    if weight_loads:
        first = next(i for i, opcode in enumerate(code) if ".128" in opcode and ".NA" in opcode)
        last = max(i for i, opcode in enumerate(code) if opcode.startswith("HMMA"))
        # A 16-byte load is 32 weights; the loop is unrolled, so static counts are what one lane executes.
        per_weight = round(len(code) / (32 * weight_loads), 2)
        main = round((last - first + 1) / (32 * weight_loads), 2)
        store = next(i for i in range(last, len(code)) if code[i].startswith("STG"))
        late = sum(opcode.startswith("LDG") for opcode in code[last:store])
    return Compiled(
        target, model, name, batch, shared, instructions=len(code),
        spills=sum(opcode.startswith(("LDL", "STL")) for opcode in code),
        wide_loads=sum(opcode.startswith("LDG") and ".128" in opcode for opcode in code),
        dependent_launch="ACQBULK" in code, weight_loads=weight_loads, per_weight=per_weight, main_per_weight=main,
        late_loads=late, loop_loads=loop_loads(text),
    )  # fmt: skip


def loop_loads(text: str) -> int | None:
    """Global loads into registers in a disassembly's shortest loop with a matrix product; None without such a loop.

    Each makes every round wait for memory: what a loop reads has to come through its pipeline of copies (LDGSTS).
    """
    code: list[str] = []
    labels: dict[str, int] = {}
    loops: list[list[str]] = []
    for statement in _STATEMENT.finditer(text):
        if label := statement["label"]:
            labels[label] = len(code)
            continue
        code.append(statement["opcode"])
        if statement["opcode"].startswith("BRA") and statement["to"] in labels:
            loops.append(code[labels[statement["to"]] :])
    products = [loop for loop in loops if any("MMA" in opcode for opcode in loop)]
    if not products:
        return None
    return sum(opcode.startswith("LDG.") for opcode in min(products, key=len))


def broken_promises(row: Compiled) -> list[str]:
    """What is wrong with a kernel, one sentence each; nothing in a good build."""
    found = []
    if row.spills:
        found.append(f"spills registers {row.spills} times")
    limit = SHARED_LIMIT.get(row.target, NVIDIA_SHARED_LIMIT)
    if row.shared_bytes > limit:
        found.append(f"needs {row.shared_bytes} bytes of shared memory and {limit} are there")
    if row.kernel in EXPERTS and not row.wide_loads:
        found.append("does not load MXFP4 words 16 bytes at a time")
    if row.kernel in DECODE_EXPERTS and row.target.startswith("sm_"):
        if not row.weight_loads:
            found.append("does not load MXFP4 words past L1")
        elif row.per_weight is None or row.per_weight > MOST_PER_WEIGHT:
            found.append(f"takes {row.per_weight} instructions per MXFP4 weight, more than {MOST_PER_WEIGHT}")
        elif row.late_loads is None or row.late_loads > MOST_LATE_LOADS:
            found.append(f"waits for {row.late_loads} loads after its products, more than {MOST_LATE_LOADS}")
    if row.loop_loads:
        found.append(f"waits for {row.loop_loads} loads in every round of its loop")
    if row.batch and row.dependent_launch != variant_for(row.target).dependent_launch:
        found.append("waits for the kernel before it where it should not, or does not where it should")
    where = "prefill" if row.batch is None else f"batch {row.batch}"
    return [f"{row.kernel} for {row.target}, {row.model}, {where}, {what}" for what in found]


def disassemble(cubin: bytes) -> str:
    """SASS of a cubin."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout


def table(rows: list[Compiled]) -> str:
    """The rows as text."""
    lines = [
        f"{'target':8}{'model':6}{'kernel':28}{'batch':>6}{'instr':>7}{'spills':>7}{'LDG.128':>8}{'smem':>8}{'i/weight':>9}{'main':>6}{'late':>6}{'loop':>6}"
    ]
    for row in rows:
        cells = ["-" if value is None else str(value) for value in (
            row.batch, row.instructions, row.spills, row.wide_loads, row.shared_bytes, row.per_weight,
            row.main_per_weight, row.late_loads, row.loop_loads,
        )]  # fmt: skip
        widths = (6, 7, 7, 8, 8, 9, 6, 6, 6)
        lines.append(
            f"{row.target:8}{row.model:6}{row.kernel:28}"
            + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
        )
    return "\n".join(lines)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """As JSON, a line per kernel. What the file has of other targets stays, if the same compiler made it."""
    versions = {"triton": triton.__version__, "torch": torch.__version__}
    before = json.loads(path.read_text()) if path.exists() else {}
    if all(before.get(name) == version for name, version in versions.items()):
        fresh = {row["target"] for row in rows}
        rows = rows + [row for row in before["kernels"] if row["target"] not in fresh]
    rows.sort(key=lambda row: list(TARGETS).index(row["target"]))
    head = json.dumps(versions, indent=1).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    path.write_text(f'{head},\n "kernels": [\n  {lines}\n ]\n}}\n')


def main() -> None:
    """The command."""
    if os.environ.get("TRITON_INTERPRET"):
        sys.exit("unset TRITON_INTERPRET: interpreted kernels are not compiled")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default=",".join(TARGETS), type=lambda text: text.split(","))
    parser.add_argument("--models", default=",".join(MODELS), type=lambda text: text.split(","))
    parser.add_argument("--batches", default=list(BUCKETS), type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--decode-only", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [
        row for target in options.targets
        for row in compile_all(target, options.models, options.batches, not options.decode_only)
    ]  # fmt: skip
    print(table(rows))
    if options.out:
        write(options.out, [asdict(row) for row in rows])
    if broken := [sentence for row in rows for sentence in broken_promises(row)]:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
