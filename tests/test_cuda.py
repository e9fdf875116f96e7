"""What only a GPU can show. Runs without Ray: python -m pytest --noconftest tests/test_cuda.py"""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_ray.labelling import PREPARED_SCHEMA, Labeller, LabelSettings, blank_block
from unlearn_ray.method.labels import best_labels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

VOCABULARY = 32_003
ANCHOR_IDS = list(range(50, 400, 7))
SETTINGS = [
    LabelSettings((5.0, 0.5, 40.0), "restore", "original", "all", "forbid", 32),
    LabelSettings((5.0,), "paper", "skip", "all", "keep", 0),
    LabelSettings((20.0,), "restore", "original", "anchors", "forbid", 32),
]


@pytest.fixture(scope="module")
def pair():
    """Two models that differ a little, float32, on the CPU."""
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
    baseline = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.1, **shape)).eval()
    reinforced = LlamaForCausalLM(baseline.config).eval()
    reinforced.load_state_dict(baseline.state_dict())
    with torch.no_grad():
        for parameter in reinforced.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    return baseline, reinforced


@pytest.fixture(scope="module")
def prepared():
    """Blocks of random tokens, some positions inside anchors, some translations to take back."""
    import pyarrow as pa

    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in (40, 97, 300, 513, 300, 298, 64):
        ids = torch.randint(0, VOCABULARY, (2, length), generator=generator).tolist()
        positions = list(range(length - 1))
        rows.append(
            blank_block(length)
            | {
                "block_id": length,
                "document": "random",
                "index": len(rows),
                "input_ids": ids[0],
                "translated_ids": ids[1],
                "positions": positions,
                "targets": [-1 if t % 11 == 3 else t for t in positions],
                "substitution_rows": [t for t in positions if t % 5 == 0],
                "substitution_generics": [t % 400 for t in positions if t % 5 == 0],
                "substitution_anchors": [ANCHOR_IDS[t % 50] if t % 2 else -1 for t in positions if t % 5 == 0],
                "anchor_next": [t % 11 in (2, 3) for t in positions],
                "named_ids": ANCHOR_IDS[:5],
                "named_rows": [7, 0, length // 2, 11, 20],
                "ignored": [],
            }
        )
    return pa.Table.from_pylist(rows, PREPARED_SCHEMA)


def labelled(models, prepared, settings, batch_blocks=3):
    table = Labeller(*models, [1], settings, anchor_ids=ANCHOR_IDS, batch_blocks=batch_blocks)(prepared)
    return {name: table[name].combine_chunks() for name in table.column_names}


def flat(column):
    while hasattr(column, "flatten") and hasattr(column.type, "value_type"):
        column = column.flatten()
    return torch.from_numpy(column.to_numpy(zero_copy_only=False).copy())


@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize("vocabulary", [100, 4096, 151_936])
def test_the_fused_pass_gives_what_the_plain_one_gives(vocabulary, top_k):
    from unlearn_ray.method import fused

    generator = torch.Generator("cuda").manual_seed(0)
    draw = lambda: 4 * torch.randn(67, vocabulary, device="cuda", generator=generator)
    baseline, reinforced = draw(), draw()
    changed = baseline.clone()
    changed[:, ::7] -= 3
    plain, one_pass = (
        way(baseline, changed, reinforced, (5.0, 0.5, 0.0), top_k) for way in (best_labels, fused.best_labels)
    )
    assert (plain.labels_KT == one_pass.labels_KT).float().mean() > 0.999  # a product and a difference may round once
    torch.testing.assert_close(plain.baseline_prob_T, one_pass.baseline_prob_T, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(plain.topk_logprobs_TS, one_pass.topk_logprobs_TS, rtol=1e-5, atol=1e-5)
    assert torch.equal(plain.topk_ids_TS, one_pass.topk_ids_TS)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: f"{settings.consistency}-{settings.scope}")
def test_a_gpu_labels_like_a_cpu(pair, prepared, settings):
    torch.backends.cuda.matmul.allow_tf32 = False
    on_cpu = labelled(pair, prepared, settings)
    on_gpu = labelled([model.cuda() for model in pair], prepared, settings)
    [model.cpu() for model in pair]
    for name, expected in on_cpu.items():
        if name.startswith("labels_"):
            assert (flat(expected) == flat(on_gpu[name])).double().mean() > 0.995, name
    torch.testing.assert_close(flat(on_cpu["baseline_prob"]), flat(on_gpu["baseline_prob"]), rtol=0.05, atol=1e-3)


def test_batches_change_less_than_one_label_in_a_thousand_and_runs_none(pair, prepared):
    models = [model.to("cuda", torch.bfloat16) for model in pair]
    one, again, other = (labelled(models, prepared, SETTINGS[0], size) for size in (3, 3, 1))
    [model.to("cpu", torch.float32) for model in pair]
    assert all(column.equals(again[name]) for name, column in one.items())
    assert (flat(one["labels_5"]) == flat(other["labels_5"])).double().mean() > 0.999


def test_a_batch_that_does_not_fit_into_the_gpu_is_redone_in_halves(pair, prepared):
    models = [model.to("cuda", torch.bfloat16) for model in pair]
    labeller = Labeller(*models, [1], SETTINGS[0], anchor_ids=ANCHOR_IDS, batch_blocks=1)
    assert labeller.find_batch(512) >= 16
    expected = labeller(prepared)
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    sizes, label = [], labeller.label

    def counted(blocks):
        sizes.append(len(blocks))
        if len(blocks) > 2:
            return torch.empty(2 * total, dtype=torch.uint8, device="cuda")  # what a GPU says when it is full
        return label(blocks)

    labeller.label, labeller.batch_blocks = counted, 100
    found = labeller(prepared)
    [model.to("cpu", torch.float32) for model in pair]
    assert found["labels_5"].equals(expected["labels_5"])
    assert min(sizes) <= 2
