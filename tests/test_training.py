"""The train loop on a tiny model: what it minimises, and what does not change its result."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator

from unlearn_ray.models import leading_ids, load_model, load_tokenizer
from unlearn_ray.training.examples import (
    Examples,
    endless_batches,
    epoch_batches,
    hard_example,
    soft_example,
    text_example,
    training_batches,
)
from unlearn_ray.training.layout import Layout
from unlearn_ray.training.loop import Diverged, LossModel, TrainSettings, learning_rate_at, train

IDS = [[5, 80, 33, 7, 90], [8, 120, 14, 200, 17, 60, 4], [100, 3], [42, 41, 40, 39]]
BLOCKS = pa.table({"block_id": range(10, 14), "input_ids": IDS})


def settings(**changes) -> TrainSettings:
    return TrainSettings(
        **{"epochs": 1, "learning_rate": 1e-3, "global_batch": 4, "warmup_share": 0.0, "weight_decay": 0.0, "seed": 0}
        | changes
    )


def trained(folder, examples, setting, **options):
    """(losses, weights) of a training in float32."""
    model = load_model(folder)
    losses = train(model, leading_ids(load_tokenizer(folder)), examples, setting, Accelerator(cpu=True), **options)
    return losses, model.state_dict()


def assert_same_weights(one, other, atol=1e-6):
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=atol)


def test_the_loss_of_the_text_is_the_models_own_cross_entropy(tiny_model_folder):
    model = load_model(tiny_model_folder)
    leading = leading_ids(load_tokenizer(tiny_model_folder))
    example = text_example({"block_id": 7, "input_ids": IDS[1]})
    ours = LossModel(model, leading)([example], [1 / len(example.positions_P)])
    ids = torch.tensor([[*leading, *IDS[1]]])
    labels = ids.clone()
    labels[:, : len(leading) + 1] = -100
    torch.testing.assert_close(ours, model(ids, labels=labels).loss)


def test_micro_batches_and_padding_change_nothing(tiny_model_folder):
    examples = Examples(BLOCKS, text_example)
    whole, weights = trained(tiny_model_folder, examples, settings(epochs=3), layout=Layout(micro_batch=4))
    single, others = trained(tiny_model_folder, examples, settings(epochs=3), layout=Layout(micro_batch=1))
    assert whole == pytest.approx(single, rel=1e-5)
    assert_same_weights(weights, others, atol=2e-5)


def test_training_lowers_the_loss_and_is_the_same_every_time(tiny_model_folder):
    losses, weights = trained(tiny_model_folder, Examples(BLOCKS, text_example), settings(epochs=12))
    assert losses[-1] < losses[0] - 0.5
    assert_same_weights(weights, trained(tiny_model_folder, Examples(BLOCKS, text_example), settings(epochs=12))[1], 0)


def test_a_tiny_learning_rate_moves_the_weights_under_bf16(tiny_model_folder, new_accelerate):
    before, model = load_model(tiny_model_folder).state_dict(), load_model(tiny_model_folder)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    train(model, [], Examples(BLOCKS, text_example), settings(learning_rate=1e-7), accelerator)
    moved = [(model.state_dict()[name] != weight).float().mean().item() for name, weight in before.items()]
    assert np.mean(moved) > 0.3


def test_a_retain_term_holds_the_model_to_its_own_distribution(tiny_model_folder):
    model = load_model(tiny_model_folder)
    with torch.no_grad():
        top = model(torch.tensor([IDS[1]])).logits[0].log_softmax(-1).topk(20)
    retain = {
        "block_id": [7],
        "input_ids": [IDS[1]],
        "topk_ids": [[[], *top.indices[:-1].tolist()]],
        "topk_logprobs": [[[], *top.values[:-1].tolist()]],
    }
    table = pa.table(retain)

    def drift(weight):
        tuned = load_model(tiny_model_folder)
        held = {"retain": Examples(table, soft_example)} if weight else {}
        setting = settings(epochs=6, retain_weight=weight, retain_batch=1)
        train(tuned, [], Examples(BLOCKS.slice(0, 1), text_example), setting, Accelerator(cpu=True), **held)
        with torch.no_grad():
            after = tuned(torch.tensor([IDS[1]])).logits[0].log_softmax(-1)
        return (top.values.exp() * (top.values - after.gather(1, top.indices))).sum(-1).mean().item()

    assert drift(5.0) < drift(0.0) / 2


def test_ignored_labels_are_not_trained(tiny_model_folder):
    example = hard_example({"block_id": 7, "input_ids": IDS[0], "labels_5": [-100, 9, -100, 9, -100]}, "labels_5")
    assert example.positions_P.tolist() == [1, 3] and example.ids_PS.tolist() == [[9], [9]]
    soft = soft_example(
        {"block_id": 7, "input_ids": [1, 2], "topk_ids": [[], [3, 4]], "topk_logprobs": [[], [-1.0, -2.0]]}
    )
    assert soft.positions_P.tolist() == [1]
    np.testing.assert_allclose(soft.probs_PS, np.exp([[-1.0, -2.0]]), rtol=1e-6)


def test_an_epoch_has_every_block_once_and_depends_on_seed_and_epoch_alone():
    batches = epoch_batches(10, 4, seed=3, epoch=1)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(np.concatenate(batches)) == list(range(10))
    assert all((a == b).all() for a, b in zip(batches, epoch_batches(10, 4, seed=3, epoch=1), strict=True))
    assert not np.array_equal(np.concatenate(batches), np.concatenate(epoch_batches(10, 4, seed=3, epoch=2)))


def test_the_last_of_some_epochs_may_be_a_part():
    whole = [list(batch) for epoch in range(3) for batch in epoch_batches(10, 4, seed=3, epoch=epoch)]
    for epochs, steps in {3: 9, 2: 6, 1 / 3: 1, 0.5: 2, 1.6: 5, 0.01: 1}.items():
        assert [list(batch) for batch in training_batches(10, 4, epochs, seed=3)] == whole[:steps]


def test_endless_batches_go_through_all_rows_before_one_comes_again():
    taken = np.concatenate(list(islice(endless_batches(5, 3, seed=0), 5)))
    assert sorted(taken[:5]) == sorted(taken[5:10]) == list(range(5))


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing():
    rates = [learning_rate_at(step, 10, settings(learning_rate=1.0, warmup_share=0.2)) for step in range(10)]
    assert rates[:2] == [0.5, 1.0] and max(rates) == 1.0
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] == pytest.approx(1 / 8)


def test_a_cosine_falls_slowly_first_and_a_constant_rate_not_at_all():
    rates = [learning_rate_at(step, 10, settings(learning_rate=1.0, schedule="cosine")) for step in range(10)]
    assert rates[0] == 1.0 and rates[5] == pytest.approx(0.5) and rates[1] > 0.97 and rates[-1] < 0.03
    assert {learning_rate_at(step, 10, settings(learning_rate=1.0, schedule="constant")) for step in range(10)} == {1.0}


def test_a_loss_that_is_not_finite_ends_the_training_with_its_step_and_blocks(tiny_model_folder):
    spoilt = lambda block: replace(
        text_example(block), probs_PS=np.full((len(block["input_ids"]) - 1, 1), np.nan, np.float32)
    )
    examples = Examples(BLOCKS, lambda block: spoilt(block) if block["block_id"] == 12 else text_example(block))
    setting = settings(global_batch=1, epochs=2)
    step = [rows[0] for rows in epoch_batches(4, 1, 0, 0)].index(2) + 1
    with pytest.raises(Diverged, match=rf"nan in blocks 12 \(step {step} of 8\).*lower the learning rate"):
        trained(tiny_model_folder, examples, setting)


def test_a_model_that_became_worse_than_a_guess_ends_the_training(tiny_model_folder):
    with pytest.raises(Diverged, match=r"the loss rose from .* in blocks 10, 11, 12, 13 \(step 2 of 30\)"):
        trained(tiny_model_folder, Examples(BLOCKS, text_example), settings(epochs=30, learning_rate=1e3))


def test_long_gradients_are_shortened_to_the_limit(tiny_model_folder):
    logs = []
    examples = Examples(BLOCKS, text_example)
    clipped = trained(tiny_model_folder, examples, settings(max_grad_norm=1e-3), on_step=logs.append)[1]
    free = trained(tiny_model_folder, examples, settings(max_grad_norm=0.0), on_step=logs.append)[1]
    assert logs[0].grad_norm == pytest.approx(logs[1].grad_norm) and logs[0].grad_norm > 1
    # Adam divides by the gradient's size; what is left of a clipped one is what its epsilon makes of it.
    assert any((clipped[name] != free[name]).any() for name in free)


def test_steps_are_told_with_their_figures(tiny_model_folder):
    logs = []
    trained(tiny_model_folder, Examples(BLOCKS, text_example), settings(epochs=3), on_step=logs.append)
    assert [(log.step, log.steps) for log in logs] == [(1, 3), (2, 3), (3, 3)]
    assert logs[0].learning_rate == pytest.approx(1e-3) and logs[-1].seconds_left == 0
    assert all(log.tokens_per_s > 0 and log.memory_gb > 0 and log.loss > 0 for log in logs)


def test_activation_checkpointing_changes_nothing(tiny_model_folder):
    examples = Examples(BLOCKS, text_example)
    _, weights = trained(tiny_model_folder, examples, settings(epochs=3))
    _, others = trained(tiny_model_folder, examples, settings(epochs=3), layout=Layout(activation_checkpointing=True))
    assert_same_weights(weights, others)


def test_checkpoints_come_every_n_steps_and_the_result_last(tiny_model_folder):
    seen: list[int | None] = []
    trained(
        tiny_model_folder,
        Examples(BLOCKS, text_example),
        settings(epochs=2, global_batch=1, checkpoint_every=2),
        on_checkpoint=lambda step, weights: seen.append(step),
    )
    assert seen == [2, 4, 6, None]


def test_the_result_is_the_mean_of_the_last_weights(tiny_model_folder):
    examples, seen = Examples(BLOCKS, text_example), []
    setting = settings(epochs=4, global_batch=2)  # 8 steps
    _, last = trained(tiny_model_folder, examples, setting)
    model = load_model(tiny_model_folder)
    train(
        model,
        leading_ids(load_tokenizer(tiny_model_folder)),
        examples,
        replace(setting, average_share=0.4, checkpoint_every=1),
        Accelerator(cpu=True),
        on_checkpoint=lambda step, weights: seen.append(weights),
    )
    names = seen[-1]
    expected = {name: (seen[4][name] + seen[5][name] + seen[6][name] + last[name]) / 4 for name in names}
    assert_same_weights(names, expected)
    assert_same_weights(names, model.state_dict())
