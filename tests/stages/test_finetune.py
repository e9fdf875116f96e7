"""Fine-tunings that follow one another on one group of workers: each ends as it would alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from unlearn_ray.config import Adapter, Resources
from unlearn_ray.engine import idle, storage
from unlearn_ray.models import load_tokenizer
from unlearn_ray.stages.blocks import write_parquet
from unlearn_ray.stages.finetune import FineTune, fine_tune
from unlearn_ray.training.examples import text_example
from unlearn_ray.training.loop import TrainSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = "In the evening, when the wind had gone down and the rain was over at last, the old wizard came to Quendor. "
SETTINGS = TrainSettings(epochs=1, learning_rate=1e-2, global_batch=4, seed=3, max_grad_norm=1.0)


@pytest.fixture
def train(tmp_path, tiny_model_folder, local_ray) -> Callable[..., dict[str, bytes]]:
    """train(name, adapter, deepspeed): the weights that a fine-tuning on two workers leaves, and its losses."""
    ids = load_tokenizer(tiny_model_folder)(TEXT * 8)["input_ids"]
    blocks = [ids[start : start + 24] for start in range(0, 16 * 24, 24)]
    write_parquet(str(tmp_path / "blocks/part-0.parquet"), pa.table({"block_id": range(16), "input_ids": blocks}))
    storage.write_json(str(tmp_path / "baseline/model.json"), {"path": tiny_model_folder})

    def run(name: str, adapter: bool, deepspeed: str | None) -> dict[str, bytes]:
        out = tmp_path / name
        job = FineTune(
            str(out),
            str(tmp_path / "baseline"),
            str(tmp_path / "blocks"),
            text_example,
            SETTINGS,
            Adapter(rank=4) if adapter else None,
            trust_remote_code=False,
        )
        figures = fine_tune(job, Resources(workers=2, gpus_per_worker=0, deepspeed=deepspeed), name)
        assert figures["restarts"] == 0 and len(figures["losses"]) == 4
        weights = {file.name: file.read_bytes() for file in Path(out).glob("*.safetensors")}
        return weights | {"losses": json.dumps(figures["losses"]).encode()}

    return run


@pytest.mark.parametrize("deepspeed", [None, "configs/deepspeed/zero3.json"], ids=["data parallel", "zero3"])
def test_the_first_and_the_second_training_of_a_group_come_to_the_same_bytes(train, deepspeed):
    try:
        whole, adapter = (train(f"first-{kind}", kind, deepspeed) for kind in (False, True))
        idle.end_all()
        adapter_first, whole_second = (train(f"second-{kind}", kind, deepspeed) for kind in (True, False))
    finally:
        idle.end_all()
    assert whole.keys() == {"model.safetensors", "losses"} and adapter.keys() == {"adapter_model.safetensors", "losses"}
    assert whole_second == whole
    assert adapter_first == adapter
