"""Opening the models of steps."""

import torch
from peft import LoraConfig, get_peft_model

from unlearn_ray.engine import storage
from unlearn_ray.models import load_model, load_tokenizer
from unlearn_ray.stages.baseline import open_model, open_tokenizer


def test_a_training_worker_keeps_its_model_to_itself(tiny_model_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # Ray Train shows a worker the GPUs of its neighbours
    model = open_model(tiny_model_folder, False, dtype=torch.float32, spread=False)
    assert not hasattr(model, "hf_device_map") and model.dtype == torch.float32


def test_an_adapter_in_an_object_store_finds_its_base_there(s3, tiny_model_folder, tmp_path):
    base = "s3://runs/shared/baseline"
    storage.upload_folder(tiny_model_folder, base)
    adapted = get_peft_model(
        load_model(tiny_model_folder), LoraConfig(target_modules="all-linear", init_lora_weights=False)
    )
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(tmp_path)
    storage.upload_folder(str(tmp_path), "s3://runs/story/reinforced")
    opened = open_model("s3://runs/story/reinforced", False, dtype=torch.float32)
    expected = adapted.merge_and_unload().state_dict()
    torch.testing.assert_close(opened.state_dict(), expected)


def test_a_tokenizer_is_opened_without_its_models_weights(s3, tiny_model_folder):
    folder = "s3://runs/shared/with-weights"
    storage.upload_folder(tiny_model_folder, folder)
    s3.requests.clear()
    assert len(open_tokenizer(folder, False)) == len(load_tokenizer(tiny_model_folder))
    read = {path.rpartition("/")[2] for method, path in s3.requests if method == "GET"}
    assert "tokenizer.json" in read and "model.safetensors" not in read
