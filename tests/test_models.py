"""Models: the LM head's product, adapters that go on and off, layers on several devices."""

import pytest
import torch

from unlearn_ray.labelling import hidden_states
from unlearn_ray.models import decoder, lm_head, load_model, out_of_memory


def test_the_logits_of_a_bfloat16_model_are_much_finer_than_bfloat16(tiny_model_folder):
    model = load_model(tiny_model_folder, dtype=torch.bfloat16)
    hidden = decoder(model)(torch.arange(40)[None]).last_hidden_state[0].detach()
    weight = model.get_output_embeddings().weight.detach()
    exact = hidden.double() @ weight.double().t()
    ours, plain = lm_head(model)(hidden), (hidden @ weight.t()).float()
    largest = exact.abs().max()
    assert (ours - exact).abs().max() < 1e-4 * largest < 1e-3 * largest < (plain - exact).abs().max()


def test_some_columns_of_the_head_are_those_of_the_whole(tiny_model_folder):
    model = load_model(tiny_model_folder)
    hidden = decoder(model)(torch.arange(8)[None]).last_hidden_state
    assert torch.allclose(lm_head(model, [3, 400])(hidden), lm_head(model)(hidden)[..., [3, 400]], atol=1e-5)


def test_layers_on_several_devices_compute_the_same(tiny_model_folder):
    spread = {"model.embed_tokens": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu", "model.norm": "disk",
              "model.rotary_emb": "cpu", "lm_head": "cpu"}  # fmt: skip
    model, whole = load_model(tiny_model_folder, device_map=spread), load_model(tiny_model_folder)
    assert model.hf_device_map == spread and {"meta", "cpu"} == {p.device.type for p in model.parameters()}
    with torch.inference_mode():
        for one, other in zip(*(hidden_states(m, [0], [[5, 6, 7], [8]]) for m in (model, whole)), strict=True):
            torch.testing.assert_close(lm_head(model)(one), lm_head(whole)(other))


def test_too_little_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(2**62, dtype=torch.uint8)
    assert out_of_memory(too_much.value) and out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("shapes do not fit"))
