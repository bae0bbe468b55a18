"""The transformers engine says what the torch backend says, from either layout."""

import pytest
import torch

from gpt_oss.engines.hugging_face import hugging_face_folder
from gpt_oss.engines.transformers import TokenGenerator
from gpt_oss.torch.backend import TokenGenerator as TorchGenerator
from tests.helpers.checkpoints import tiny_checkpoint


@pytest.mark.parametrize("layout", ["original", "huggingface"])
def test_greedy_text_equals_the_torch_backends(tmp_path, layout):
    folder = tiny_checkpoint(tmp_path / "model", layout=layout)
    assert (hugging_face_folder(folder) == folder) == (layout == "huggingface")
    prompt = [5, 17, 100, 3] * 40  # longer than the sliding window
    with TokenGenerator(folder, "cpu", context_length=256, slots=2, dtype=torch.float32) as theirs:
        first = list(theirs.generate(prompt, temperature=0.0, max_tokens=12))
        again = theirs.stream([*prompt, *first[:4]], temperature=0.0, max_tokens=8)
        assert [token.id for token in again] == first[4:]
        assert again.cached_tokens >= len(prompt)
    with TorchGenerator(folder, "cpu", context_length=256, dtype=torch.float32) as ours:
        assert list(ours.generate(prompt, temperature=0.0, max_tokens=12)) == first
