"""The training loss against plain float64 arithmetic."""

import numpy as np
import pytest
import torch

from unlearn_ray.method.losses import OutputLayer, divergence, linear_divergence


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def test_a_hard_label_gives_the_ordinary_cross_entropy():
    logits = torch.randn(5, 11, dtype=torch.float64)
    labels = torch.tensor([0, 3, 10, 3, 7])
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(divergence(logits, labels[:, None], torch.ones(5, 1, dtype=torch.float64)), expected)


def test_a_soft_label_gives_the_kl_divergence_with_all_other_tokens_as_one():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=11), softmax(rng.normal(size=11))
    top = np.argsort(-target)[:4]
    model = softmax(logits)
    p, q = np.append(target[top], 1 - target[top].sum()), np.append(model[top], 1 - model[top].sum())
    got = divergence(torch.tensor(logits[None]), torch.tensor(top[None]), torch.tensor(target[top][None]))
    assert got.item() == pytest.approx((p * np.log(p / q)).sum(), rel=1e-6)


def test_a_model_that_agrees_with_its_soft_label_has_no_loss_and_no_gradient():
    logits = torch.randn(3, 20, dtype=torch.float64, requires_grad=True)
    probs, ids = logits.detach().softmax(-1).topk(6)
    loss = divergence(logits, ids, probs).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-9


def test_padded_targets_count_for_nothing():
    logits = torch.randn(2, 9, dtype=torch.float64)
    ids, probs = torch.tensor([[4, 2], [1, 0]]), torch.tensor([[0.5, 0.2], [1.0, 0.0]], dtype=torch.float64)
    alone = divergence(logits[1:], ids[1:, :1], probs[1:, :1])
    torch.testing.assert_close(divergence(logits, ids, probs)[1:], alone)


def problem(**options):
    """Ten positions of three known tokens each, in float64, with an output layer of 30 tokens."""
    torch.manual_seed(0)
    hidden = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(30, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(30, dtype=torch.float64, requires_grad=True)
    ids = torch.stack([torch.randperm(30)[:3] for _ in range(10)])
    probs = torch.tensor([[0.5, 0.2, 0.1], [0.7, 0.3, 0.0]], dtype=torch.float64).repeat(5, 1)
    return hidden, OutputLayer(weight, bias, **options), ids, probs, torch.rand(10, dtype=torch.float64)


def gradients(loss, hidden, layer):
    return torch.autograd.grad(loss, [hidden, layer.weight_VH, layer.bias_V])


@pytest.mark.parametrize("options", [{}, {"scale": 0.4}, {"scale": 2.0, "cap": 3.0}])
@pytest.mark.parametrize("chunk", [3, 100])
def test_the_fused_loss_and_its_gradients_are_those_of_whole_logits(options, chunk):
    hidden, layer, ids, probs, weights = problem(**options)
    logits = layer.scale * (hidden @ layer.weight_VH.t() + layer.bias_V)
    if layer.cap:
        logits = layer.cap * torch.tanh(logits / layer.cap)
    expected = (weights * divergence(logits, ids, probs)).sum()
    got = linear_divergence(hidden, layer, ids, probs, weights, chunk=chunk)
    torch.testing.assert_close(got, expected)
    # Times 3, as data parallelism scales a loss before backward.
    for ours, theirs in zip(gradients(3 * got, hidden, layer), gradients(3 * expected, hidden, layer), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_frozen_output_layer_gets_no_gradient():
    hidden, layer, ids, probs, weights = problem()
    frozen = OutputLayer(layer.weight_VH.detach())
    linear_divergence(hidden, frozen, ids, probs, weights).backward()
    assert hidden.grad is not None and frozen.weight_VH.grad is None


def test_autocast_reaches_the_products_and_leaves_the_gradients_in_the_weights_own_type():
    hidden, layer, ids, probs, weights = problem()
    hidden32, weight32 = (x.detach().float().requires_grad_() for x in (hidden, layer.weight_VH))
    expected = linear_divergence(hidden, OutputLayer(layer.weight_VH), ids, probs, weights)
    with torch.autocast("cpu", torch.bfloat16):
        got = linear_divergence(hidden32, OutputLayer(weight32), ids, probs.float(), weights.float())
    got.backward()
    assert got.dtype == weight32.grad.dtype == hidden32.grad.dtype == torch.float32
    assert got.item() == pytest.approx(expected.item(), rel=1e-2)
    [theirs] = torch.autograd.grad(expected, [layer.weight_VH])
    torch.testing.assert_close(weight32.grad, theirs.float(), rtol=0.05, atol=0.05)


def test_a_rank_without_positions_still_takes_part_in_backward():
    hidden, layer, ids, probs, weights = problem()
    linear_divergence(hidden[:0], layer, ids[:0], probs[:0], weights[:0]).backward()
    assert layer.weight_VH.grad is not None and not layer.weight_VH.grad.any()
