"""The attacks that change a model: each is checked by hand, and gives the model back as it was."""

import numpy as np
import pytest
import torch

from unlearn_ray.audit.probing import probe, probed
from unlearn_ray.audit.quantisation import GROUP, ask_quantised, quantised, round_to_nearest
from unlearn_ray.audit.questions import PROBABILITY, PROBES, ask
from unlearn_ray.audit.relearning import ask_relearning
from unlearn_ray.audit.translating import GENERIC, ask_translated, translated
from unlearn_ray.material import TokenPrompt, specific_tokens, telling_first_tokens
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.prompts import Prompt
from unlearn_ray.models import leading_ids
from unlearn_ray.scoring import last_states, next_token


@pytest.fixture
def untouched(model):
    """Fails where a test leaves other weights, other modules or weights that cannot be trained."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    yield
    after = model.state_dict()
    assert before.keys() == after.keys() and all(weight.equal(after[name]) for name, weight in before.items())


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_what_torch_does_group_by_group(bits):
    weights = torch.randn(6, 2 * GROUP + 40, generator=torch.Generator().manual_seed(0))
    rounded, most = round_to_nearest(weights, bits), 2 ** (bits - 1) - 1
    for start in range(0, weights.shape[1], GROUP):
        part = weights[:, start : start + GROUP]
        scales, zeros = part.abs().amax(1) / most, torch.zeros(6, dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(part, scales, zeros, 0, -most, most)
        assert rounded[:, start : start + GROUP] == pytest.approx(expected, abs=1e-6)
    assert round_to_nearest(torch.zeros(2, 3), bits).equal(torch.zeros(2, 3))


def test_a_quantised_model_is_asked_and_given_back(model, tokenizer, asked, untouched):
    plain = ask(model, tokenizer, 2, asked=asked, condition="")
    readings = ask_quantised(model, tokenizer, 2, asked=asked, bits=(8, 3))
    off = {bits: np.abs(readings[f"{bits} bits|{PROBABILITY}"] - plain[f"|{PROBABILITY}"]).max() for bits in (8, 3)}
    assert 0 < off[8] < off[3]
    head = model.lm_head.weight.clone()
    with quantised(model, 3):
        assert model.lm_head.weight.equal(head)


def test_relearning_teaches_what_it_trains_on_and_is_undone(model, tokenizer, asked, untouched):
    blocks = [tokenizer(text)["input_ids"] for text in ("the Mad Hatter", "the White Rabbit")]
    texts = {"part": (blocks, asked), "again": (blocks, asked)}
    readings = ask_relearning(model, tokenizer, 2, texts=texts, steps=(0, 30), learning_rate=1e-2, blocks=2, seed=0)
    plain = ask(model, tokenizer, 2, asked=asked, condition="")
    assert readings[f"part, step 0|{PROBES}"] == pytest.approx(plain[f"|{PROBES}"], rel=1e-5)
    assert readings[f"part, step 30|{PROBES}"].min() > 0.5 > plain[f"|{PROBES}"].max()
    for name in ("step 0", "step 30"):
        assert readings[f"part, {name}|{PROBES}"] == pytest.approx(readings[f"again, {name}|{PROBES}"], rel=1e-4)
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_probe_reads_what_the_hidden_states_hold(model, tokenizer, untouched):
    # The text tells the entity: what stands before the cut is another word for each.
    dictionary = AnchorDictionary([Anchor("Alice", "Susan"), Anchor("Hatter", "Baker"), Anchor("Dormouse", "Vole")])
    cues = {"Alice": "garden", "Hatter": "road", "Dormouse": "morning"}
    prompts = [
        Prompt("book", f"{'word ' * (n % 5)}the {cue}", (f"{name} went",))
        for name, cue in cues.items()
        for n in range(8)
    ] + [Prompt("book", "nobody", ("went home",))]
    asked = probed(prompts, dictionary, seed=0)
    assert asked is not None and asked.names == list(cues)
    assert len(asked.texts) == 24 and asked.test_N.sum() == 12
    readings = probe(model, tokenizer, 2, asked=asked)
    assert readings["guessing|accuracy"].mean() == pytest.approx(1 / 3)
    assert readings["100% of the layers|accuracy"].mean() > 0.75
    assert len(readings) == 5 and all(len(values) == 12 for values in readings.values())


def test_a_probe_needs_two_entities():
    prompts = [Prompt("book", f"see {n}", ("Alice went",)) for n in range(9)]
    assert probed(prompts, AnchorDictionary([Anchor("Alice", "Susan"), Anchor("Hatter", "Baker")]), seed=0) is None


def test_hidden_states_are_those_of_the_last_token_also_beside_longer_texts(model, tokenizer):
    texts = ["Off", "Alice was beginning to get very tired", "the Mad"]
    together = last_states(model, tokenizer, texts, (0.5, 1.0), 3)
    for row, text in enumerate(texts):
        assert together[row] == pytest.approx(last_states(model, tokenizer, [text], (0.5, 1.0), 1)[0], abs=1e-4)
        ids = torch.tensor([leading_ids(tokenizer) + tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True).hidden_states
        assert together[row, 0] == pytest.approx(hidden[1][0, -1].numpy(), abs=1e-4)


def test_the_generic_names_are_asked_for_in_both_wordings(model, tokenizer):
    dictionary = AnchorDictionary([Anchor("Alice", "Rabbit"), Anchor("Hatter", "Queen"), Anchor("Mad", "Queer")])
    prompts = [TokenPrompt("Alice met the", []), TokenPrompt("nobody met the", [])]
    asked = translated(prompts, dictionary, tokenizer)
    assert [one.text for one in asked.translated] == ["Rabbit met the", "nobody met the"]
    rabbit, queen, queer = telling_first_tokens(tokenizer, ["Rabbit", "Queen", "Queer"])
    anchors = set().union(*specific_tokens(tokenizer, dictionary))
    assert set(asked.original[0].specific) == (queen | queer) - rabbit - anchors
    assert set(asked.original[1].specific) == (rabbit | queen | queer) - anchors
    readings = ask_translated(model, tokenizer, 2, asked=asked)
    [(_, probabilities)] = next_token(model, tokenizer, ["nobody met the"], 1)
    expected = probabilities[0][asked.original[1].specific].sum().item()
    assert readings[f"own words|{GENERIC}"][1] == pytest.approx(expected, rel=1e-4)
    assert readings[f"translated words|{GENERIC}"][1] == pytest.approx(expected, rel=1e-4)
