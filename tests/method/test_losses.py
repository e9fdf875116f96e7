"""The training loss against plain float64 arithmetic."""

import numpy as np
import pytest
import torch

from unlearn_ray.method.losses import chunked_divergence, divergence


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


def test_chunks_change_neither_loss_nor_gradients():
    weight = torch.randn(30, 8, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    ids, weights = torch.randint(0, 30, (10, 3)), torch.rand(10, dtype=torch.float64)
    probs = torch.full((10, 3), 0.3, dtype=torch.float64)
    results = []
    for chunk in (3, 100):
        weight.grad = hidden.grad = None
        loss = chunked_divergence(hidden, lambda h: h @ weight.t(), ids, probs, weights, chunk=chunk)
        loss.backward()
        assert weight.grad is not None and hidden.grad is not None
        results.append((loss.detach(), weight.grad.clone(), hidden.grad.clone()))
    for few, many in zip(*results, strict=True):
        torch.testing.assert_close(few, many, rtol=1e-4, atol=1e-6)  # heads give float32 to the loss
