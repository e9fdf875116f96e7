"""Soft labels against a reference in float64, and what is learnt from them."""

import numpy as np
import torch

from unlearn_ray.method.labels import best_labels, cap_own_token
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


def test_a_capped_own_token_gives_what_it_loses_to_all_others_in_proportion():
    v = logits(3)
    labels = best_labels(v, v, v, (ALPHA,), TOP_K)
    own = labels.labels_KT[0].long().clone()
    own[:5] = labels.topk_ids_TS[:5, -1]  # not the best token
    own[5] = next(token for token in range(VOCABULARY) if token not in labels.topk_ids_TS[5])
    capped = cap_own_token(labels, own, cap=0.1)
    before = v.double().softmax(-1)
    kept = torch.where(before.gather(1, own[:, None]) > 0.1, before, 0)
    expected = before * 0.9 / (1 - before.gather(1, own[:, None]))
    expected.scatter_(1, own[:, None], 0.1)
    expected = torch.where(kept.any(1, keepdim=True), expected, before)
    ids = capped.topk_ids_TS.long()
    assert torch.equal(ids.sort(1).values, labels.topk_ids_TS.long().sort(1).values)
    torch.testing.assert_close(capped.topk_logprobs_TS.double().exp(), expected.gather(1, ids), rtol=1e-4, atol=1e-7)
    assert (capped.topk_logprobs_TS.diff(dim=1) <= 0).all() and torch.equal(capped.labels_KT, labels.labels_KT)


def test_a_token_that_has_all_probability_is_capped():
    v = torch.full((1, VOCABULARY), -60.0)
    v[0, 3], v[0, 4] = 60.0, 0.0
    labels = best_labels(v, v, v, (ALPHA,), TOP_K)
    capped = cap_own_token(labels, torch.tensor([3]), cap=0.2)
    assert capped.topk_ids_TS[0, :2].tolist() == [4, 3]
    np.testing.assert_allclose(capped.topk_logprobs_TS[0, :2].exp(), [0.8, 0.2], rtol=1e-4)
