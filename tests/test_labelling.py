"""Labels against a slow and obvious reference: whole logits in float64, plain loops, alignment by comparing strings."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from unlearn_ray.labelling import Labeller, LabelSettings, Preparer, alpha_column, batches, label_text, padded
from unlearn_ray.material import specific_tokens
from unlearn_ray.method import labels as labels_module
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.consistency import PRECEDING
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.models import add_adapter, compute_dtype, leading_ids, load_model, load_tokenizer

DICTIONARY = AnchorDictionary(
    [
        Anchor("Alice", "Betty"),
        Anchor("White Rabbit", "Grey Badger"),
        Anchor("Mad Hatter", "Old Tailor"),
        Anchor("Hatter", "Tailor"),
        Anchor("March Hare", "Brown Fox"),
        Anchor("Queen of Hearts", "Lady of Leaves"),
    ]
)
STORY = (
    "Alice was beginning to get very tired of sitting by her sister on the bank. The White Rabbit ran past Alice, and "
    "the Mad Hatter drank his tea with the March Hare. 'I am the Hatter,' said the Mad Hatter. 'ALICE!' said the Queen "
    "of Hearts, and Alice's sister laughed at the café: “Alice, the White\nRabbit!” "
    "She saw the Rabbit no more, "
)
DEMO = Path(__file__).parents[1] / "data" / "demo"
NAMEABLE = 0.03  # about the median of these random models
ALPHAS = (5.0, 0.5, 40.0)


@pytest.fixture(scope="module")
def pair(tiny_model_folder, tmp_path_factory):
    """A baseline and a reinforced model that is a little different, float32."""
    folder = tmp_path_factory.mktemp("reinforced")
    shutil.copytree(tiny_model_folder, folder, dirs_exist_ok=True)
    model = load_model(str(folder))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return load_tokenizer(tiny_model_folder), load_model(tiny_model_folder), load_model(str(folder))


def whole_logits(model, leading, ids):
    """float64 [T, V], row t predicts token t + 1."""
    double = AutoModelForCausalLM.from_config(model.config).double()
    double.load_state_dict({name: weight.double() for name, weight in model.state_dict().items()})
    with torch.no_grad():
        return double.eval()(torch.tensor([[*leading, *ids]])).logits[0, len(leading) :].numpy()


def reference(block, tokenizer, baseline, reinforced, settings):
    """labels [K][T] by the definitions of METHOD.md, position by position."""
    leading = leading_ids(tokenizer)
    text, before = block["text"], block["before"]
    spans = [
        (max(s.start - len(before), 0), min(s.end - len(before), len(text)), s.end - len(before) <= len(text), s)
        for s in DICTIONARY.spans(before + text + block["after"])
        if s.end > len(before) and s.start < len(before) + len(text)
    ]

    def translated(end):
        """The translation of text[:end], or None strictly inside an anchor."""
        out, done = "", 0
        for start, stop, whole, span in spans:
            if start >= end:
                break
            if end < stop or not whole:
                return None
            out, done = out + text[done:start] + span.replacement, stop
        return out + text[done:end]

    whole_text, done = "", 0
    for start, stop, _, span in spans:
        whole_text, done = whole_text + text[done:start] + span.replacement, stop
    whole_text += text[done:]
    encoded = tokenizer(whole_text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    v_translated = whole_logits(baseline, leading, encoded["input_ids"])
    v_original = whole_logits(baseline, leading, block["input_ids"])
    v_reinforced = whole_logits(reinforced, leading, block["input_ids"])

    def first_token(word, preceding):
        pieces = tokenizer(preceding + word, add_special_tokens=False, return_offsets_mapping=True)
        return next(
            i for i, (_, e) in zip(pieces["input_ids"], pieces["offset_mapping"], strict=True) if e > len(preceding)
        )

    tokens_of = specific_tokens(tokenizer, DICTIONARY)
    anchor_ids = set().union(*tokens_of)
    tokens = list(zip(block["input_ids"], block["starts"], block["ends"], strict=True))
    length = len(block["input_ids"])
    labels = [[-100] * length for _ in settings.alphas]
    for t in range(length - 1):
        end = block["ends"][t]
        if block["starts"][t + 1] < end:
            continue
        prefix = translated(end)
        if prefix is None:
            if settings.inside_anchors == "skip":
                continue
            v_baseline = v_original[t].copy()
        else:
            fits = [
                u
                for u in range(len(offsets))
                if whole_text[: offsets[u][1]] == prefix
                and (u + 1 == len(offsets) or offsets[u + 1][0] >= offsets[u][1])
            ]
            if not fits:
                continue
            starts_next = [s.anchor for start, *_, s in spans if block["starts"][t + 1] <= start < block["ends"][t + 1]]
            occurred = {s.anchor for start, stop, _, s in spans if start < end and stop <= end}
            if settings.consistency == "paper" and occurred & set(starts_next):
                continue
            probability = np.exp(v_original[t]) / np.exp(v_original[t]).sum()
            if settings.scope == "anchors" and not starts_next and probability[list(anchor_ids)].sum() < NAMEABLE:
                v_baseline, occurred = v_original[t].copy(), set()
            else:
                v_baseline = v_translated[fits[-1]].copy()
            plain, mean = v_baseline.copy(), v_baseline.mean()
            pairs = {
                (first_token(DICTIONARY.anchors[a].generic, p), first_token(DICTIONARY.anchors[a].anchor, p))
                for a in occurred
                for p in PRECEDING
            }
            pairs = {(g, a) for g, a in pairs if g != a}
            for generic, _ in pairs:
                v_baseline[generic] = mean
            if settings.consistency == "restore":
                for generic, anchor in pairs:
                    v_baseline[anchor] = max(v_baseline[anchor], plain[generic], plain[anchor])
        if settings.unnamed_anchors == "forbid":
            mean, named = v_baseline.mean(), set()
            for n, (start, stop, _, s) in enumerate(spans):
                if start < end and stop <= end:
                    named |= tokens_of[s.anchor]
                    named |= {i for i, a, b in tokens if b > start and a < stop}
                elif start < end and s.anchor not in {earlier.anchor for *_, earlier in spans[:n]}:
                    v_baseline[block["input_ids"][t + 1]] = mean
            v_baseline[sorted(anchor_ids - named)] = v_baseline.mean()
        for k, alpha in enumerate(settings.alphas):
            gain = np.maximum(v_reinforced[t] - v_baseline, 0)
            if settings.scope == "anchors" and prefix is not None:
                gain[sorted(set(range(len(gain))) - anchor_ids)] = 0
            labels[k][t + 1] = int(np.argmax(v_baseline - alpha * gain))
    return labels


@pytest.mark.parametrize("unnamed_anchors", ["keep", "forbid"])
@pytest.mark.parametrize("scope", ["all", "anchors"])
@pytest.mark.parametrize("inside_anchors", ["original", "skip"])
@pytest.mark.parametrize("consistency", ["restore", "paper"])
def test_labels_equal_those_of_the_slow_reference_at_every_position(
    pair, consistency, inside_anchors, scope, unnamed_anchors, monkeypatch
):
    monkeypatch.setattr(labels_module, "NAMEABLE", NAMEABLE)
    tokenizer, baseline, reinforced = pair
    settings = LabelSettings(ALPHAS, consistency, inside_anchors, scope, unnamed_anchors, top_k=4)
    blocks = cut_blocks("story", STORY * 2, tokenizer, block_tokens=48)
    anchor_ids = sorted(set().union(*specific_tokens(tokenizer, DICTIONARY)))
    labelled = Labeller(baseline, reinforced, leading_ids(tokenizer), settings, anchor_ids=anchor_ids, batch_blocks=3)(
        Preparer(DICTIONARY, tokenizer, settings)(blocks)
    )
    trained = 0
    for block, row in zip(blocks.to_pylist(), labelled.to_pylist(), strict=True):
        expected = reference(block, tokenizer, baseline, reinforced, settings)
        for alpha, labels in zip(ALPHAS, expected, strict=True):
            assert row[alpha_column(alpha)] == labels
        trained += sum(label != -100 for label in expected[0])
    assert trained > 150


def test_soft_labels_are_the_head_of_the_generic_distribution(pair):
    tokenizer, baseline, _ = pair
    settings = LabelSettings((0.0,), "paper", "skip", "all", "keep", top_k=5)
    blocks = cut_blocks("story", "the road was long and the morning was bright.", tokenizer, block_tokens=64)
    [row] = Labeller(baseline, baseline, leading_ids(tokenizer), settings, anchor_ids=[])(
        Preparer(DICTIONARY, tokenizer, settings)(blocks)
    ).to_pylist()
    logits = whole_logits(baseline, leading_ids(tokenizer), row["input_ids"])
    probs = np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    for i in range(1, len(row["input_ids"])):
        order = np.argsort(-probs[i - 1])
        assert row["labels_0"][i] == order[0] == row["topk_ids"][i][0]
        assert row["topk_ids"][i] == order[:5].tolist()
        np.testing.assert_allclose(np.exp(row["topk_logprobs"][i]), probs[i - 1][order[:5]], rtol=1e-3)
        assert row["baseline_prob"][i] == pytest.approx(probs[i - 1][order[0]], rel=1e-3)
    assert row["topk_ids"][0] == [] and row["labels_0"][0] == -100


def test_the_cap_is_on_the_token_with_which_the_text_goes_on(pair):
    tokenizer, *models = pair
    settings = LabelSettings((5.0,), "restore", "original", "all", "forbid", top_k=200)
    blocks = cut_blocks("story", STORY, tokenizer, block_tokens=48)
    anchor_ids = sorted(set().union(*specific_tokens(tokenizer, DICTIONARY)))
    free, capped = (
        Labeller(*models, leading_ids(tokenizer), one, anchor_ids=anchor_ids)(
            Preparer(DICTIONARY, tokenizer, one)(blocks)
        ).to_pylist()
        for one in (settings, replace(settings, recitation_cap=0.002))
    )
    over = 0
    for was, now in zip(free, capped, strict=True):
        assert was["labels_5"] == now["labels_5"]
        for i, token in enumerate(was["input_ids"]):
            before, after = (dict(zip(row["topk_ids"][i], row["topk_logprobs"][i], strict=True)) for row in (was, now))
            assert before.keys() == after.keys()
            if np.exp(before.get(token, -np.inf)) > 0.002:
                over += 1
                assert np.exp(after[token]) == pytest.approx(0.002, rel=1e-3)
            else:
                assert before == after
    assert over > 10


def test_batch_size_changes_no_label(pair):
    tokenizer, baseline, reinforced = pair
    settings = LabelSettings((5.0,), "restore", "original", "all", "keep", top_k=0)
    prepared = Preparer(DICTIONARY, tokenizer, settings)(cut_blocks("story", STORY * 3, tokenizer, block_tokens=40))
    one, many = (
        Labeller(baseline, reinforced, leading_ids(tokenizer), settings, anchor_ids=[], batch_blocks=size)(prepared)
        for size in (1, 7)
    )
    assert one["labels_5"].to_pylist() == many["labels_5"].to_pylist()
    assert one["block_id"].to_pylist() == prepared["block_id"].to_pylist()


def test_every_position_without_a_label_has_a_reason(pair):
    tokenizer, *_ = pair
    settings = LabelSettings((5.0,), "paper", "skip", "all", "keep", top_k=0)
    prepared = Preparer(DICTIONARY, tokenizer, settings)(cut_blocks("story", STORY * 2, tokenizer, block_tokens=48))
    for row in prepared.to_pylist():
        assert len(row["positions"]) + sum(dict(row["ignored"]).values()) == len(row["input_ids"]) - 1
    assert {key for row in prepared["ignored"].to_pylist() for key, count in row if count} >= {
        "inside_anchor",
        "repeated_anchor",
    }


def test_retain_labels_are_the_models_own_distribution(pair):
    tokenizer, baseline, _ = pair
    blocks = cut_blocks("story", STORY, tokenizer, block_tokens=32)
    rows = label_text(baseline, leading_ids(tokenizer), blocks, 3, batch_blocks=2).to_pylist()
    assert [row["input_ids"] for row in rows] == blocks["input_ids"].to_pylist()
    logits = whole_logits(baseline, leading_ids(tokenizer), rows[1]["input_ids"])
    assert [ids[0] for ids in rows[1]["topk_ids"][1:]] == logits.argmax(-1)[:-1].tolist()
    assert rows[1]["topk_ids"][0] == []


def test_an_adapter_on_the_baseline_labels_like_the_merged_model(pair, tiny_model_folder, tmp_path):
    tokenizer, baseline, _ = pair
    adapted = peft.get_peft_model(
        load_model(tiny_model_folder), peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.peft_config["default"].base_model_name_or_path = tiny_model_folder
    adapted.save_pretrained(tmp_path)
    merged = load_model(str(tmp_path))
    settings = LabelSettings((5.0,), "restore", "original", "all", "keep", top_k=0)
    prepared = Preparer(DICTIONARY, tokenizer, settings)(cut_blocks("story", STORY, tokenizer, block_tokens=64))
    lead = leading_ids(tokenizer)
    expected = Labeller(baseline, merged, lead, settings, anchor_ids=[])(prepared)
    assert not expected.equals(Labeller(baseline, baseline, lead, settings, anchor_ids=[])(prepared))
    shared = load_model(tiny_model_folder)
    on_and_off = Labeller(shared, add_adapter(shared, str(tmp_path)), lead, settings, anchor_ids=[])
    assert on_and_off(prepared)["labels_5"].equals(expected["labels_5"])
    assert {id(p) for p in shared.parameters()} <= {id(p) for p in on_and_off.reinforced.parameters()}


class Small:
    """A model for which a batch of more than `most` sequences is too large."""

    def __init__(self, label, most: int):
        self.label, self.most, self.sizes = label, most, []

    def __call__(self, blocks):
        self.sizes.append(len(blocks))
        if len(blocks) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.label(blocks)


def test_a_batch_that_does_not_fit_is_redone_in_halves_and_nothing_is_lost(pair, monkeypatch):
    tokenizer, baseline, reinforced = pair
    settings = LabelSettings((5.0,), "restore", "original", "all", "keep", top_k=0)
    prepared = Preparer(DICTIONARY, tokenizer, settings)(cut_blocks("story", STORY * 3, tokenizer, block_tokens=40))
    labeller = Labeller(baseline, reinforced, leading_ids(tokenizer), settings, anchor_ids=[], batch_blocks=7)
    expected = labeller(prepared)
    small = Small(labeller.label, 2)
    monkeypatch.setattr(labeller, "label", small)
    found = labeller(prepared)
    assert found["block_id"].equals(expected["block_id"]) and found["labels_5"].equals(expected["labels_5"])
    assert {3, 1, 2} <= set(small.sizes)  # three did not fit
    small.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        labeller(prepared)


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=100), st.integers(1, 16))
def test_batches_hold_every_block_once_and_pad_alike(lengths, size):
    blocks = [{"a": [0] * a, "b": [0] * b} for a, b in lengths]
    made = batches(blocks, ["a", "b"], [1], size)
    assert sorted(at for batch in made for at in batch) == list(range(len(blocks)))
    for batch in made:
        assert 1 <= len(batch) <= size
        assert len({(padded(1 + lengths[at][0]), padded(1 + lengths[at][1])) for at in batch}) == 1
    assert all(0 <= padded(1 + length) - 1 - length < 8 and padded(1 + length) % 8 == 0 for length, _ in lengths)


@pytest.mark.slow
def test_another_batch_size_changes_less_than_one_label_in_a_thousand_of_a_real_model():
    """SmolLM2 in bfloat16 where the CPU has it, as its own reinforced model: gains from rounding alone."""
    [weights] = DEMO.glob("*.gguf")
    tokenizer, model = load_tokenizer(str(weights)), load_model(str(weights), dtype=compute_dtype("cpu"))
    settings = LabelSettings((5.0, 0.0), "restore", "original", "all", "keep", top_k=0)
    blocks = cut_blocks("alice", (DEMO / "alice.txt").read_text()[:16000], tokenizer, block_tokens=256)
    prepared = Preparer(DICTIONARY, tokenizer, settings)(blocks)
    one, other = (
        Labeller(model, model, leading_ids(tokenizer), settings, anchor_ids=[], batch_blocks=size)(prepared)
        for size in (3, 8)
    )
    for column in ("labels_5", "labels_0"):
        labels, others = (np.concatenate(table[column].to_pylist()) for table in (one, other))
        assert (labels != others).mean() < 0.001, column
