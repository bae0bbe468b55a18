"""The chat under `torchrun`, on a model with random weights: rank 0 alone talks, and noise does no harm."""

import subprocess
import sys

from tests.chat.conftest import ROOT
from tests.helpers.checkpoints import tiny_checkpoint, tiny_config


def test_rank_0_alone_talks(tmp_path):
    checkpoint = tiny_checkpoint(
        tmp_path / "model", tiny_config(vocab_size=201_088, num_attention_heads=4, num_key_value_heads=2)
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    chat = ["-m", "gpt_oss.chat", str(checkpoint), "--backend", "torch", "-c", "1024", "--max-tokens", "16"]
    done = subprocess.run(
        [*torchrun, *chat, "--seed", "1"],
        input=b"first\n/nonsense\nsecond\n",
        capture_output=True,
        cwd=ROOT,
        timeout=200,
        check=False,
    )
    errors = done.stderr.decode()
    assert done.returncode == 0, errors
    assert errors.count("there is no command /nonsense") == 1
    assert "Traceback" not in errors and done.stdout
