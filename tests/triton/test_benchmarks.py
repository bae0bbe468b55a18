"""What the GPU benchmark stands on, as far as it shows without a card."""

import json

import torch

from benchmarks.gpu import peer_transformers, picture
from benchmarks.gpu.random_weights import HostWeights, RandomWeights
from gpt_oss import mxfp4
from gpt_oss.config import ModelConfig
from gpt_oss.triton.layout import pack
from gpt_oss.triton.model import Transformer
from gpt_oss.triton.variants import choose_variant
from gpt_oss.triton.weights import Staging, load_weights, weight_bytes

TINY = ModelConfig(
    num_hidden_layers=2, num_experts=4, experts_per_token=2, vocab_size=131, hidden_size=64, intermediate_size=32,
    head_dim=16, num_attention_heads=8, num_key_value_heads=2, sliding_window=8,
)  # fmt: skip


def test_unpacked_experts_are_the_checkpoints(generator):
    for rows, interleaved in ((38, True), (21, False)):
        blocks = torch.randint(0, 256, (2, rows, 3, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(100, 140, (2, rows, 3), generator=generator, dtype=torch.uint8)
        packed = pack(blocks, scales, interleaved_rows=interleaved)
        found = peer_transformers.unpacked(packed, 1, interleaved_rows=interleaved)
        assert torch.equal(found.float(), torch.from_numpy(mxfp4.decode(blocks[1].numpy(), scales[1].numpy())))


def test_the_peer_has_the_same_weights(device):
    """transformers and this backend agree on the next token's logits; in fp32, where they choose the same experts."""
    weights = RandomWeights(TINY, device, seed=3, dtype=torch.float32).model()
    tokens = list(range(9))
    variant = choose_variant(device, torch.float32)
    ours = Transformer(TINY, weights, variant, context_length=16).prefill(0, tokens).cpu()
    with torch.inference_mode():
        model = peer_transformers.build(TINY, weights)
        theirs = model(torch.tensor([tokens], device=device)).logits[0, -1].float().cpu()
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_loading_takes_exactly_the_bytes_it_announces(device):
    weights = load_weights(HostWeights(TINY), device, torch.bfloat16, progress=False)
    layers = [
        [getattr(layer, name) for name in layer.__dataclass_fields__] for layer in weights.layers
    ]  # fmt: skip
    parts = [weights.embedding, weights.norm, weights.unembedding, *(part for layer in layers for part in layer)]
    tensors = [t for part in parts for t in ([part] if torch.is_tensor(part) else [part.words, part.scales])]
    assert sum(tensor.nbytes for tensor in tensors) == weight_bytes(TINY, torch.bfloat16)


def test_tensors_larger_than_the_staging_buffers_arrive_whole(device, generator):
    staging = Staging(device, 1000)
    for shape in ((3, 7), (1, 1000), (1111, 9)):
        source = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).numpy()
        assert staging.to_device(source).tolist() == source.tolist()
        assert staging.to_device(source.T).tolist() == source.T.tolist()
    bf16 = torch.randn(40, 33, generator=generator).bfloat16()
    found = staging.to_device(bf16.view(torch.int16).numpy().view("uint16"))
    assert torch.equal(found.cpu(), bf16)


def test_the_picture_is_drawn_from_results(tmp_path):
    results = {
        "prompt 1024": {"decode_tokens_per_second": 401.0},
        "decode at 1024": {"share": 0.4},
        "batch 8": {"share": 0.5},
    }
    for stage in ("20b", "120b"):
        report = {"stage": stage, "device": "a card", "results": results}
        (tmp_path / f"gpu-{stage}.json").write_text(json.dumps(report))
    peer = {"eager decode at 1024": {"median": 20.0}, "batched_mm decode at 1024": {"error": "out of memory"}}
    (tmp_path / "gpu-peer-20b.json").write_text(json.dumps({"stage": "peer-20b", "results": peer}))
    picture.draw(picture.load(tmp_path), tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "gpu-120b.json").write_text(json.dumps({"stage": "120b", "device": "a card", "results": {"load": {}}}))
    assert picture.drawable(picture.load(tmp_path)) == ["20b"]  # the other was cut off
