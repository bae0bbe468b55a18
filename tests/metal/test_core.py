"""The C core under sanitizers, and what its loader says of files that are broken in one known place."""

import os
import shutil
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from gpt_oss.errors import CheckpointError
from tests.metal.extension import SOURCES, link
from tests.metal.model_file import HEADER_TYPES, read_model_file, small_model_file

HERE = Path(__file__).parent
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1"]


@pytest.fixture(scope="module")
def driver(kernel_library: Path) -> Path:
    return link("core_driver", [*SOURCES, HERE / "core_driver.c"], kernel_library, SANITIZERS)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model_file(tmp_path_factory.mktemp("small"))


def run(driver: Path, *words: object) -> str:
    done = subprocess.run([driver, *map(str, words)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def test_damaged_files_never_crash(driver: Path, model_file: Path, tmp_path: Path) -> None:
    told = run(driver, "fuzz", model_file, tmp_path / "damaged.bin", 1, 300)
    assert int(told.split()[0]) > 150, told


@pytest.mark.slow
def test_many_damaged_files_never_crash(driver: Path, model_file: Path, tmp_path: Path) -> None:
    run(driver, "fuzz", model_file, tmp_path / "damaged.bin", os.getpid(), 20_000)


def test_every_fault_of_the_device_is_reported(driver: Path, model_file: Path) -> None:
    assert run(driver, "faults", model_file) == "every fault was reported\n"


def header_at(name: str) -> int:
    return 32 + 4 * list(HEADER_TYPES).index(name)


TOKENIZER_AT = 32 + 4 * len(HEADER_TYPES) + 16
COUNTS_AT = TOKENIZER_AT + 16
PATTERN_AT = COUNTS_AT + 16 + 16 * 16


@pytest.mark.parametrize(
    ("at", "content", "message"),
    [
        (0, b"GGUF", 'byte 0: expected the magic "GPT-OSS v1.0"'),
        (12, b"\1", 'byte 0: expected the magic "GPT-OSS v1.0"'),
        (16, b"\0", "byte 16: expected the UUID of a gpt-oss model"),
        (header_at("head_dim"), struct.pack("<I", 128), r"byte 60: head_dim is 128, expected a number from 64 to 64"),
        (header_at("num_blocks"), bytes(4), r"byte 36: num_blocks is 0"),
        (header_at("num_active_experts"), struct.pack("<I", 5), r"num_active_experts is 5, expected .* from 1 to 4"),
        (header_at("embedding_dim"), struct.pack("<I", 65), r"embedding_dim 65 .* multiples of 32"),
        (header_at("num_kv_heads"), struct.pack("<I", 3), r"num_heads 4 must be a multiple of num_kv_heads 3"),
        (header_at("rope_theta"), struct.pack("<f", float("nan")), r"rope_theta is -?nan"),
        (header_at("num_blocks"), struct.pack("<I", 3), r"is cut off: it has \d+ bytes, its header describes \d+"),
        (header_at("num_blocks"), struct.pack("<I", 1), r"bytes behind its last tensor, which ends at byte \d+"),
        (TOKENIZER_AT - 16, b"\0", rf"byte {TOKENIZER_AT - 16}: expected the UUID of the Apple GPU weight layout"),
        (TOKENIZER_AT, b"\0", rf"byte {TOKENIZER_AT}: expected the tokenizer's UUID"),
        (COUNTS_AT + 4, struct.pack("<I", 100), "num_text_tokens is 100, expected a number from 256"),
        (COUNTS_AT + 12, struct.pack("<I", 2**32 - 1), "is cut off: the text tokens at byte .* needs 4294967295 bytes"),
        (PATTERN_AT, b"x", f"byte {PATTERN_AT}: the tokenizer's regex is not that of o200k_base"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    extension: ModuleType, model_file: Path, tmp_path: Path, at: int, content: bytes, message: str
) -> None:
    damaged = bytearray(model_file.read_bytes())
    damaged[at : at + len(content)] = content
    path = tmp_path / "damaged.bin"
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=message) as raised:
        extension.Model(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_broken_tokens_are_named(extension: ModuleType, model_file: Path, tmp_path: Path) -> None:
    content = model_file.read_bytes()
    first = content.index(struct.pack("<H", 1) + b"\0" + struct.pack("<H", 1) + b"\1")
    path = tmp_path / "damaged.bin"
    for at, replacement, message in (
        (first + 3 * 65, b"\0\0", rf"byte {first + 195}: text token 65 is empty"),
        (first + 3 * 65 + 2, b"B", rf"byte {first + 198}: text token 66 has the same bytes as token 65"),
        (first + 3 * 65, b"\xff\xff", r"text token 65 ends behind"),
    ):
        path.write_bytes(content[:at] + replacement + content[at + len(replacement) :])
        with pytest.raises(CheckpointError, match=message):
            extension.Model(path)


def test_cut_off_files_are_named_at_every_length(extension: ModuleType, model_file: Path, tmp_path: Path) -> None:
    content = model_file.read_bytes()
    path = tmp_path / "cut.bin"
    for length in (0, 15, 16, 40, 100, 131, 400, 700, 2000, 16384, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"is cut off|too few"):
            extension.Model(path)


def test_a_last_page_may_be_filled_up(extension: ModuleType, model_file: Path, tmp_path: Path) -> None:
    content = model_file.read_bytes()
    path = tmp_path / "padded.bin"
    path.write_bytes(content + bytes(-len(content) % 16384))
    assert extension.Model(path).vocabulary_size == len(read_model_file(model_file).text) + 16
    path.write_bytes(content + bytes(-len(content) % 16384 + 1))
    with pytest.raises(CheckpointError, match="behind its last tensor"):
        extension.Model(path)


def test_paths_that_are_no_files(extension: ModuleType, tmp_path: Path) -> None:
    for path, message in ((tmp_path, "is not a file"), (tmp_path / "absent", r"cannot be opened \(No such file")):
        with pytest.raises(CheckpointError, match=message):
            extension.Model(path)
    with pytest.raises(TypeError):
        extension.Model(3)


def test_the_file_may_be_deleted_while_the_model_lives(extension: ModuleType, model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    shutil.copy(model_file, path)
    model = extension.Model(path)
    path.unlink()
    context = extension.Context(model)
    del model
    context.append("the")
    assert len(context.sample(2)) == 2
