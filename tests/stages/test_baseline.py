"""Opening the models of steps."""

import json

import torch
from peft import LoraConfig, get_peft_model

from unlearn_ray.config import Adapter
from unlearn_ray.engine import storage
from unlearn_ray.models import load_model, load_tokenizer
from unlearn_ray.stages.baseline import open_model, open_tokenizer, write_checkpoint
from unlearn_ray.stages.finetune import FineTune, adapted
from unlearn_ray.training.examples import text_example
from unlearn_ray.training.loop import TrainSettings


def test_a_training_worker_keeps_its_model_to_itself(tiny_model_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # Ray Train shows a worker the GPUs of its neighbours
    model = open_model(tiny_model_folder, False, dtype=torch.float32, spread=False)
    assert not hasattr(model, "hf_device_map") and model.dtype == torch.float32


def test_an_adapter_in_an_object_store_finds_its_base_there(s3, tiny_model_folder, tmp_path):
    base = "s3://runs/shared/baseline"
    storage.upload_folder(tiny_model_folder, base)
    model = get_peft_model(
        load_model(tiny_model_folder), LoraConfig(target_modules="all-linear", init_lora_weights=False)
    )
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(tmp_path)
    storage.upload_folder(str(tmp_path), "s3://runs/story/reinforced")
    opened = open_model("s3://runs/story/reinforced", False, dtype=torch.float32)
    expected = model.merge_and_unload().state_dict()
    torch.testing.assert_close(opened.state_dict(), expected)


def test_what_is_written_of_an_adapter_depends_on_the_root_alone(s3, tiny_model_folder):
    tokenizer = load_tokenizer(tiny_model_folder)

    def written(root: str) -> dict[str, bytes]:
        baseline, out = f"{root}/shared/baseline", f"{root}/story/reinforced"
        storage.upload_folder(tiny_model_folder, baseline)
        storage.write_json(f"{baseline}/model.json", {"path": baseline})
        settings = TrainSettings(epochs=1, learning_rate=1e-3, global_batch=1, seed=0)
        job = FineTune(out, baseline, "", text_example, settings, Adapter(rank=4), trust_remote_code=False)
        torch.manual_seed(0)
        model = adapted(open_model(baseline, False, dtype=torch.float32, spread=False), job)
        write_checkpoint(model, tokenizer, out)
        return {
            file.removeprefix(root): storage.read_bytes(file).replace(root.encode(), b"ROOT")
            for file in storage.list_files(out)
        }

    files = written("s3://runs/one")
    assert files == written("s3://runs/another-one")
    card = files["/story/reinforced/README.md"].decode()
    assert card.count("ROOT/shared/baseline") >= 2 and "unlearn-ray" not in card
    modules = json.loads(files["/story/reinforced/adapter_config.json"])["target_modules"]
    assert modules == sorted(modules)


def test_a_tokenizer_is_opened_without_its_models_weights(s3, tiny_model_folder):
    folder = "s3://runs/shared/with-weights"
    storage.upload_folder(tiny_model_folder, folder)
    s3.requests.clear()
    assert len(open_tokenizer(folder, False)) == len(load_tokenizer(tiny_model_folder))
    read = {path.rpartition("/")[2] for method, path in s3.requests if method == "GET"}
    assert "tokenizer.json" in read and "model.safetensors" not in read
