import pytest
from conftest import TEXT

from unlearn_ray.audit.prompting import context_sentences
from unlearn_ray.audit.questions import COMPLETION, PROBABILITY, PROBES, ask, ask_framed
from unlearn_ray.material import specific_tokens
from unlearn_ray.method.metrics import POINTS
from unlearn_ray.scoring import answer_probability, specific_mass


def test_readings_of_a_condition_are_those_of_the_evaluation(model, tokenizer, asked, monkeypatch):
    monkeypatch.setattr("unlearn_ray.audit.questions.complete", lambda *_: [" the Hatter", " a teapot"])
    readings = ask(model, tokenizer, 2, asked=asked, condition="x")
    assert readings[f"x|{PROBABILITY}"].tolist() == specific_mass(model, tokenizer, asked.probability, 8).tolist()
    assert readings[f"x|{PROBES}"].tolist() == answer_probability(model, tokenizer, asked.probes, 8).tolist()
    assert readings[f"x|{COMPLETION}"].tolist() == [POINTS[3], POINTS[2]]
    assert readings["x|text"].tolist() == [" the Hatter", " a teapot"]


def test_what_a_frame_gives_away_is_no_longer_asked(tokenizer, asked):
    framed = asked.framed(tokenizer, lambda prompt: f"The Hatter drank tea.\n\n{prompt}")
    alice, cat, hatter = specific_tokens(tokenizer, asked.dictionary)
    assert [set(one.specific) for one in framed.probability] == [(alice | cat) - hatter] * 2
    assert [one.answer for one in framed.probes] == [" Rabbit"]
    assert all(one.text.startswith("The Hatter drank tea.") for one in (*framed.probability, *framed.completion))
    assert framed.probes[0].prompt == "The Hatter drank tea.\n\nthe White"


def test_an_instruction_is_a_system_prompt_where_the_model_has_a_chat(model, tokenizer, asked, monkeypatch):
    seen = []
    monkeypatch.setattr("unlearn_ray.audit.questions.complete", lambda *given: seen.append(given[2]) or ["", ""])
    frames = [("told", "You know it all.", True), ("context", "Once upon a time.", False)]
    ask_framed(model, tokenizer, 2, asked=asked, frames=frames)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    ask_framed(model, tokenizer, 2, asked=asked, frames=frames)
    assert [texts[0] for texts in seen] == [
        "You know it all.\n\nShe sat by",
        "Once upon a time.\n\nShe sat by",
        "<system>You know it all.<user>Continue the text.<assistant>She sat by",
        "Once upon a time.\n\nShe sat by",
    ]


def test_prompts_that_were_relearnt_are_not_asked(asked):
    left = asked.outside("In the morning\nthe   garden was full. She sat by a tree.")
    assert [one.text for one in left.probability] == ["Off with"]
    assert [one.text for one in left.completion] == ["It was the"]
    assert left.probes == asked.probes


def test_context_is_sentences_that_name_an_anchor_in_their_order(asked):
    text = context_sentences({"book": TEXT}, asked.dictionary, 3, seed=1)
    for sentence in text.split(". "):
        assert asked.dictionary.spans(sentence)
    assert context_sentences({"book": TEXT}, asked.dictionary, 3, seed=1) == text
    assert context_sentences({"book": "Nobody was there."}, asked.dictionary, 3, seed=1) == ""


@pytest.mark.parametrize("batch_size", [1, 4])
def test_languages_are_asked_one_by_one(model, tokenizer, asked, batch_size):
    from unlearn_ray.audit.prompting import ask_in_languages

    readings = ask_in_languages(model, tokenizer, batch_size, questions={"fr": asked.probes[:1], "de": asked.probes})
    assert {name: len(values) for name, values in readings.items()} == {f"fr|{PROBES}": 1, f"de|{PROBES}": 2}
    assert readings[f"fr|{PROBES}"][0] == pytest.approx(readings[f"de|{PROBES}"][0], rel=1e-4)
