"""Soft labels against a reference in float64, and what is learnt from them."""

import numpy as np
import torch

from unlearn_ray.method.labels import best_labels
from unlearn_ray.method.losses import divergence

ALPHA, TOP_K, VOCABULARY = 5.0, 6, 50


def logits(seed: int, positions: int = 40) -> torch.Tensor:
    return 3 * torch.randn(positions, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def test_soft_labels_tell_of_the_label_and_of_what_either_model_finds_probable():
    changed, reinforced = logits(0), logits(1)
    labels = best_labels(logits(2), changed, reinforced, (ALPHA, 0.0), TOP_K)
    for row, (c, r) in enumerate(zip(changed.double().numpy(), reinforced.double().numpy(), strict=True)):
        generic = c - ALPHA * np.maximum(r - c, 0)
        logprobs = generic - np.log(np.exp(generic).sum())
        others = [int(v) for v in np.argsort(-np.maximum(c, r)) if v != generic.argmax()]
        told = labels.topk_ids_TS[row].tolist()
        assert told[0] == generic.argmax() and sorted(told[1:]) == sorted(others[: TOP_K - 1])
        assert told == sorted(told, key=lambda v: -generic[v])
        np.testing.assert_allclose(labels.topk_logprobs_TS[row], logprobs[told], rtol=1e-4, atol=1e-5)


def test_what_a_soft_label_takes_away_is_unlearnt_and_not_left_to_all_others():
    """A name that the model knows, and that the label forbids; all other tokens have a good share."""
    name = 7
    known = torch.zeros(1, VOCABULARY)
    known[0, name] = 2.0
    known[0, 10:15] = 3.0
    forbidden = known.clone()
    forbidden[0, name] = -200.0
    labels = best_labels(known, forbidden, known, (ALPHA,), TOP_K)
    model = torch.nn.Parameter(known.clone())
    optimizer = torch.optim.Adam([model], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        divergence(model, labels.topk_ids_TS.long(), labels.topk_logprobs_TS.exp()).sum().backward()
        optimizer.step()
    before, after = (values.softmax(-1)[0] for values in (known, model.detach()))
    assert before[name] > 0.04 and after[name] < 1e-3
    torch.testing.assert_close(after[10:15], forbidden.softmax(-1)[0, 10:15], rtol=0.01, atol=0)
