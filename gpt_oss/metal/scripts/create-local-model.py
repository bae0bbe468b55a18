"""Convert a checkpoint into the model file of the Metal backend; see `gpt_oss.metal.converter`.

python gpt_oss/metal/scripts/create-local-model.py -s MODEL_DIR -d OUTPUT_FILE
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt_oss.command_line import run_command
from gpt_oss.errors import MissingExtra


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description="Convert a gpt-oss checkpoint, in its original or its Hugging Face layout, into one model file."
    )
    parser.add_argument(
        "-s",
        "--src",
        metavar="MODEL_DIR",
        type=Path,
        help="folder of the checkpoint (default: the embedded demo model)",
    )
    parser.add_argument("-d", "--dst", metavar="OUTPUT_FILE", type=Path, required=True, help="model file to write")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _convert(options.src, options.dst))


def _convert(source: Path | None, output: Path) -> None:
    try:
        from tqdm import tqdm

        from gpt_oss.demo import demo_checkpoint
        from gpt_oss.metal.converter import convert
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "numpy", "metal") from error

    with tqdm(unit="B", unit_scale=True) as bar:

        def advance(written: int, total: int) -> None:
            bar.total = total
            bar.update(written)

        convert(source or demo_checkpoint(), output, progress=advance)


if __name__ == "__main__":
    sys.exit(main())
