"""The batch-oriented forward pass against the model it stands for, and the MXFP4 view of weights."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt_oss import mxfp4
from gpt_oss.checkpoint_writer import write_checkpoint
from gpt_oss.tokenizer import VOCAB_SIZE
from gpt_oss.torch.model import Transformer
from recipes.demo_model.export import mean_of_runs, original_tensors
from recipes.demo_model.model import COMPUTE, TokenLoss, TrainingTransformer, demo_config, through_mxfp4
from recipes.demo_model.optimizer import orthogonalise
from recipes.demo_model.train import Run
from recipes.demo_model.vocabulary import Vocabulary


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Compiling takes longer than all tests together."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("n", [5, 200, 451])
def test_hidden_states_have_the_gradients_of_the_reference(n: int) -> None:
    torch.manual_seed(n)
    model = TrainingTransformer(demo_config(300))
    model.initialise(0, torch.randn(300, 128) * 0.1)
    reference = Transformer(model.config, dtype=torch.float32)
    reference.load_state_dict(model.state_dict())
    tokens, weights = torch.randint(300, (2, n)), torch.randn(2 * n, 300)
    (model.hidden_states(tokens, 2 * n + 7)[: 2 * n].float() @ model.unembedding.weight.T * weights).sum().backward()
    (reference(tokens).flatten(0, 1) * weights).sum().backward()
    found, expected = dict(model.named_parameters()), dict(reference.named_parameters())
    for name, parameter in found.items():
        wanted = expected[name].grad
        if name == "embedding.weight":  # tied in the model, two tensors in the reference
            wanted = wanted + expected["unembedding.weight"].grad
        # BF16 against fp32 over six layers; a gradient of another function differs by its own size.
        bound = 0.15 if COMPUTE is torch.bfloat16 else 1e-3
        assert (parameter.grad - wanted).norm() < bound * wanted.norm() + 1e-5, name


@pytest.mark.parametrize("n", [5, 200, 451])
def test_hidden_states_give_the_logits_of_the_reference(n: int) -> None:
    torch.manual_seed(n)
    model = TrainingTransformer(demo_config(300))
    model.initialise(0, torch.randn(300, 128) * 0.1)
    with torch.no_grad():
        for block in model.block:
            block.attn.sinks.normal_()
            block.mlp.gate.weight.mul_(3)
    reference = Transformer(model.config, dtype=torch.float32)
    reference.load_state_dict(model.state_dict())
    tokens = torch.randint(300, (2, n))
    with torch.no_grad():
        expected = reference(tokens).flatten(0, 1)
        found = model.hidden_states(tokens, 2 * n + 7)[: 2 * n].float() @ model.embedding.weight.T
    # BF16 against fp32 over six layers; a wrong mask, sink or expert moves logits by their own size.
    difference = (found - expected).square().mean().sqrt() / expected.std()
    assert difference < 0.1


def test_a_deeper_model_begins_as_the_one_it_starts_from(tmp_path: Path) -> None:
    config = replace(demo_config(301), num_hidden_layers=2)
    shallow = TrainingTransformer(config)
    shallow.initialise(5, torch.randn(301, 128) * 0.1)
    vocabulary = Vocabulary(np.arange(300))
    tensors = original_tensors(shallow.state_dict(), vocabulary.known)
    checkpoint = write_checkpoint(tmp_path / "original", replace(config, vocab_size=VOCAB_SIZE), tensors)
    run = Run.from_checkpoint(checkpoint, vocabulary, "any", 1e-3)
    assert run.model.config.num_hidden_layers > config.num_hidden_layers
    tokens = torch.randint(300, (2, 150))
    with torch.no_grad():
        expected = Transformer.from_checkpoint(checkpoint, "cpu", dtype=torch.float32)(tokens)
        assert torch.equal(run.model(tokens), expected[..., :301])


def test_fake_quantisation_is_what_the_encoder_writes() -> None:
    values = torch.randn(3, 4, 96) * torch.logspace(-6, 2, 12).view(3, 4, 1)
    values[0, 0, :32] = 0
    values[1, 1] = torch.tensor([0.5, 0.25, 2.5, 5.0, 3.5, -0.75, -5.0, 6.0]).repeat(12)
    expected = mxfp4.decode(*mxfp4.encode(values.numpy()))
    np.testing.assert_array_equal(through_mxfp4(values).numpy(), expected)


def test_fake_quantisation_passes_the_gradient() -> None:
    weight = torch.randn(2, 32, requires_grad=True)
    through_mxfp4(weight).sum().backward()
    assert (weight.grad == 1).all()


@pytest.mark.parametrize("shape", [(128, 96), (3, 64, 128)])
def test_orthogonalise_evens_out_singular_values(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
    assert values.max() < 1.3 and values.median() > 0.6
    assert math.isfinite(values.sum())


def test_the_loss_and_its_gradients_are_cross_entropy() -> None:
    torch.manual_seed(1)
    hidden, rows = torch.randn(9, 128), torch.randn(70, 128) * 0.2
    targets = torch.randint(70, (9,))
    inputs = [t.bfloat16().float().requires_grad_() for t in (hidden, rows)]
    logits = inputs[0] @ inputs[1].T
    logits = logits + torch.tensor([0.0] * 69 + [3.0])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    expected.backward()
    h, e = hidden.bfloat16().to(COMPUTE).requires_grad_(), rows.clone().requires_grad_()
    loss, right = TokenLoss.apply(h, e, targets, 3.0)
    loss.backward()
    assert right.item() == pytest.approx((logits.argmax(-1) == targets).float().mean().item())
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    torch.testing.assert_close(h.grad.float(), inputs[0].grad, rtol=0.05, atol=1e-3)
    torch.testing.assert_close(e.grad, inputs[1].grad, rtol=0.05, atol=1e-3)


def test_gradients_reach_every_parameter_and_equal_the_references() -> None:
    torch.manual_seed(2)
    model = TrainingTransformer(demo_config(64))
    model.initialise(0, torch.randn(64, 128) * 0.1)
    reference = Transformer(model.config, dtype=torch.float32)
    reference.load_state_dict(model.state_dict())
    tokens, weights = torch.randint(64, (2, 160)), torch.randn(2, 160, 64)
    (reference(tokens) * weights).sum().backward()
    hidden = model.hidden_states(tokens, 320).float() @ model.embedding.weight.T
    (hidden * weights.flatten(0, 1)).sum().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        if name == "embedding.weight":
            continue  # tied here, two tensors there
        wanted, found = expected[name].grad.flatten(), parameter.grad.flatten()
        assert torch.cosine_similarity(wanted, found, dim=0) > 0.9, name


def test_runs_are_averaged_if_they_know_the_same_tokens(tmp_path):
    runs = []
    for number in range(3):
        state = {"model": {"w": torch.full((2,), float(number))}, "known": torch.tensor([1, 5 + number // 2])}
        runs.append(tmp_path / f"{number}.pt")
        torch.save(state, runs[-1])
    model, known = mean_of_runs(runs[:2])
    assert model["w"].tolist() == [0.5, 0.5] and known.tolist() == [1, 5]
    with pytest.raises(ValueError, match="different tokens"):
        mean_of_runs(runs)
