"""Opening the models of steps."""

import torch

from unlearn_ray.stages.baseline import open_model


def test_a_training_worker_keeps_its_model_to_itself(tiny_model_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # Ray Train shows a worker the GPUs of its neighbours
    model = open_model(tiny_model_folder, False, dtype=torch.float32, spread=False)
    assert not hasattr(model, "hf_device_map") and model.dtype == torch.float32
