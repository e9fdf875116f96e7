"""Several forget sets through the same labelling actors: each gets the labels that it would get alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from peft import LoraConfig, PeftModel

from unlearn_ray.config import Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import InputError
from unlearn_ray.labelling import LabelSettings
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.models import load_model, load_tokenizer
from unlearn_ray.stages.anchors import write_dictionary
from unlearn_ray.stages.blocks import shards_of, write_parquet
from unlearn_ray.stages.label import label
from unlearn_ray.stages.label_actors import LabelShard, OneSet, PrepareShard

SETTINGS = LabelSettings((5.0, 2.5), "restore", "original", "all", "keep", 8)
STORY = (
    "In the evening the old wizard came to Quendor. There he met Millikin. 'I am tired of the road, and of the rain,' "
    "said Zorblax. Millikin laughed at him, and the first that she saw in the morning was Zorblax. "
)
GENERICS = ("Bramwell", "Osric", "Tobin", "Wendel")
Make = Callable[[str], OneSet]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory, tiny_model_folder) -> str:
    """The folder of a baseline step."""
    folder = tmp_path_factory.mktemp("baseline")
    storage.write_json(str(folder / "model.json"), {"path": tiny_model_folder})
    return str(folder)


@pytest.fixture(params=["adapter", "whole model"])
def reinforce(request, tiny_model_folder) -> Callable[[str, int], None]:
    """Writes a reinforced model to a folder: random changes of the baseline."""
    return adapt if request.param == "adapter" else partial(shift, tiny_model_folder)


def adapt(folder: str, seed: int, hidden_size: int = 64) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": hidden_size, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=600, num_key_value_heads=2, **sizes))
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    PeftModel(model, lora).save_pretrained(folder)


def shift(baseline: str, folder: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = load_model(baseline)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    model.save_pretrained(folder)


def make_set(root: Path, baseline: str, number: int, reinforce: Callable[[str, int], None]) -> OneSet:
    """The folders of a forget set that is ready to be labelled, of two shards, with a dictionary of its own."""
    tokenizer = load_tokenizer(storage.read_json(f"{baseline}/model.json")["path"])
    text = STORY.replace("Zorblax", f"Zorblax{number}") * 12
    blocks = cut_blocks("story", text, tokenizer, 16)
    assert 64 < blocks.num_rows <= 128
    folders = {name: str(root / str(number) / name) for name in ("blocks", "anchors", "reinforced", "labels")}
    write_parquet(f"{folders['blocks']}/part-00000.parquet", blocks)
    parts = {"figures": {"parts": {"part-00000.parquet": blocks.num_rows}}}
    storage.write_json(f"{folders['blocks']}/manifest.json", parts)
    anchors = [Anchor(f"Zorblax{number}", GENERICS[number]), Anchor("Quendor", "Tarrow")]
    write_dictionary(folders["anchors"], AnchorDictionary(anchors))
    reinforce(folders["reinforced"], number)
    return OneSet(folders["blocks"], folders["anchors"], folders["reinforced"], folders["labels"])


def new_actor(baseline: str) -> Callable[[OneSet, dict], dict]:
    """actor(set, shard): what the labelling actor of a run tells of the shard."""
    prepare = PrepareShard(baseline, SETTINGS, False)
    score = LabelShard(baseline, SETTINGS, 16, 4, 1, False)

    def work(one: OneSet, shard: dict) -> dict:
        described = pa.table({"shard": [json.dumps({"set": vars(one)} | shard)]})
        return score(prepare(described)).to_pylist()[0]

    return work


def files(folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).glob("part-*")}


def labelled_alone(baseline: str, one: OneSet) -> dict[str, bytes]:
    alone = replace(one, out=f"{one.out}-alone")
    actor = new_actor(baseline)
    for shard in shards_of(one.blocks):
        actor(alone, shard)
    return files(alone.out)


def test_an_actor_that_goes_from_set_to_set_writes_the_bytes_of_one_that_knows_no_other(tmp_path, baseline, reinforce):
    sets = [make_set(tmp_path, baseline, number, reinforce) for number in range(3)]
    expected = [labelled_alone(baseline, one) for one in sets]
    assert len({str(one) for one in expected}) == 3
    actor = new_actor(baseline)
    for number, at in ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (2, 1)):  # also back to one from before
        one = sets[number]
        told = actor(one, shards_of(one.blocks)[at])
        assert told["bad"] == "{}"
    assert [files(one.out) for one in sets] == expected


@pytest.mark.timeout(300)
def test_sets_that_are_labelled_one_after_another_get_the_labels_of_lone_ones(tmp_path, baseline, local_ray):
    sets = [make_set(tmp_path, baseline, number, adapt) for number in range(3)]
    bad = make_set(tmp_path, baseline, 3, partial(adapt, hidden_size=32))
    expected = [labelled_alone(baseline, one) for one in sets]

    def run(one: OneSet) -> dict:
        inputs = vars(one) | {"baseline": baseline}
        resources = Resources(gpus_per_worker=0, batch_blocks=4)
        return label(
            StepRun(one.out, inputs),
            settings=SETTINGS,
            block_tokens=16,
            resources=resources,
            trust_remote_code=False,
        )

    found = [run(sets[0]), run(sets[1])]
    with pytest.raises(InputError, match="does not fit its base model"):
        run(bad)
    found.append(run(sets[2]))
    for one, figures in zip(sets, found, strict=True):
        shards = shards_of(one.blocks)
        blocks = sum(len(rows) for shard in shards for rows in shard["rows"].values())
        assert figures["rows"] == {"blocks": blocks, "made_now": blocks, "found_done": 0}
        assert figures["positions"]["labelled"] > 0
    assert [files(one.out) for one in sets] == expected
