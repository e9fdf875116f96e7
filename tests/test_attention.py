"""Attention on CPUs: what PyTorch's own gives, and that function itself wherever ours does not apply."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from unlearn_ray import attention
from unlearn_ray.attention import ROWS, causal_on_cpu
from unlearn_ray.models import decoder, load_model

LAYER = cast(Any, SimpleNamespace(is_causal=True, num_key_value_groups=3))


def inputs(length: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(length)
    return [torch.randn(2, heads, length, 16).to(dtype) for heads in (6, 2, 2)]


@pytest.mark.parametrize("length", [1, 5, ROWS, ROWS + 1, 2 * ROWS + 60])
@pytest.mark.parametrize("scaling", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_gives_what_pytorch_gives(length, scaling, dtype):
    with torch.inference_mode():
        ours, _ = causal_on_cpu(LAYER, *inputs(length, dtype), None, scaling=scaling)
        theirs, _ = sdpa_attention_forward(LAYER, *inputs(length, dtype), None, scaling=scaling)
    torch.testing.assert_close(ours, theirs)


def test_in_bfloat16_it_is_no_further_from_the_truth_than_pytorch():
    with torch.inference_mode():
        exact, ours, theirs = (
            attend(LAYER, *(part.to(dtype) for part in inputs(300, torch.bfloat16)), None)[0].double()
            for attend, dtype in (
                (sdpa_attention_forward, torch.float64),
                (causal_on_cpu, torch.bfloat16),
                (sdpa_attention_forward, torch.bfloat16),
            )
        )
    assert 0 < (ours - exact).abs().mean() < 1.2 * (theirs - exact).abs().mean()
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"  # for float32 models everything stays as it was


@pytest.mark.parametrize("what", ["a mask", "gradients", "earlier keys", "dropout", "a layer that looks ahead"])
def test_elsewhere_it_is_the_attention_of_transformers(what, monkeypatch):
    asked = []
    monkeypatch.setattr(
        attention, "sdpa_attention_forward", lambda *args, **options: asked.append(options) or (0, None)
    )
    query, key, value = inputs(8)
    if what == "earlier keys":
        query = query[:, :, -1:]
    with torch.set_grad_enabled(what == "gradients"):
        mask = torch.ones(8, 8, dtype=torch.bool) if what == "a mask" else None
        causal_on_cpu(
            LAYER,
            query,
            key,
            value,
            mask,
            dropout=0.1 * (what == "dropout"),
            is_causal=what != "a layer that looks ahead",
        )
    assert len(asked) == 1


def test_models_on_cpus_have_it_and_their_checkpoints_do_not_know(tiny_model_folder, tmp_path):
    model, ids = load_model(tiny_model_folder), torch.arange(3, 60)[None]
    with torch.inference_mode():
        ours = decoder(model)(ids).last_hidden_state
        assert model.config._attn_implementation == attention.NAME
        model.save_pretrained(tmp_path)
        model.set_attn_implementation("sdpa")
        torch.testing.assert_close(ours, decoder(model)(ids).last_hidden_state, atol=1e-4, rtol=1e-4)
    assert attention.NAME not in (tmp_path / "config.json").read_text()
