"""States of a training on disk: which one it goes on from, and what becomes of the others."""

import pyarrow as pa
import pytest
from accelerate import Accelerator

from unlearn_ray.errors import StepFailed
from unlearn_ray.models import load_model
from unlearn_ray.training.examples import Examples, text_example
from unlearn_ray.training.loop import TrainSettings, train
from unlearn_ray.training.saves import Background, Saves

BLOCKS = pa.table({"block_id": range(4), "input_ids": [[5, 80, 33, 7], [8, 120, 14, 200], [100, 3, 9], [42, 41, 40]]})
SETTINGS = TrainSettings(epochs=3, learning_rate=1e-3, global_batch=1, seed=0, average_share=0.5)  # 12 steps


class Killed(Exception):
    pass


def run(model_folder, folder, *, killed_after=None):
    """(losses, result) of a training that keeps a state every two steps."""
    background, results = Background(), []

    def watch(log):
        if log.step == killed_after:
            background.finish()
            raise Killed

    losses = train(
        load_model(model_folder),
        [],
        Examples(BLOCKS, text_example),
        SETTINGS,
        Accelerator(cpu=True),
        saves=Saves(str(folder), 2, background),
        on_step=watch,
        on_checkpoint=lambda step, weights: results.append(weights),
    )
    background.finish()
    return losses, results[-1]


@pytest.fixture
def quiet(tiny_model_folder, tmp_path):
    return run(tiny_model_folder, tmp_path / "quiet")


@pytest.mark.parametrize("killed_after", [1, 5, 9])
def test_a_training_goes_on_from_its_newest_state_to_the_same_bits(quiet, tiny_model_folder, tmp_path, killed_after):
    with pytest.raises(Killed):
        run(tiny_model_folder, tmp_path / "saves", killed_after=killed_after)
    losses, weights = run(tiny_model_folder, tmp_path / "saves")  # also the average, which began at step 7
    assert losses == quiet[0]
    assert all(weights[name].equal(weight) for name, weight in quiet[1].items())


def test_what_is_half_written_or_of_another_layout_is_passed_over_and_removed(quiet, tiny_model_folder, tmp_path):
    saves = tmp_path / "saves"
    with pytest.raises(Killed):
        run(tiny_model_folder, saves, killed_after=5)
    for stale in ("step-6/.data-parallel.pt.1234.tmp", "step-90/zero2-0-of-2.pt"):
        (saves / stale).parent.mkdir()
        (saves / stale).write_bytes(b"half")
    with pytest.raises(Killed):
        run(tiny_model_folder, saves, killed_after=7)
    assert sorted(path.name for path in saves.iterdir()) == ["step-4", "step-6"]
    assert run(tiny_model_folder, saves)[0] == quiet[0]


def test_what_fails_in_the_background_is_raised_in_the_training():
    background = Background()

    def full(path):
        raise StepFailed(f"cannot write {path}")

    background.submit(full, "a")
    with pytest.raises(StepFailed, match="cannot write a"):
        background.finish()
    with pytest.raises(StepFailed, match="cannot write a"):
        background.submit(lambda: None)
