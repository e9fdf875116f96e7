"""The audit: what an attacker gets back from the chosen model, beside the same attack on models for control."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

from unlearn_ray.audit.probing import LEAST_EXAMPLES, probe, probed
from unlearn_ray.audit.prompting import JAILBREAKS, KNOW_NOTHING, ask_in_languages, context_sentences
from unlearn_ray.audit.quantisation import ask_quantised
from unlearn_ray.audit.questions import Asked, ask, ask_framed
from unlearn_ray.audit.relearning import ask_relearning
from unlearn_ray.audit.translating import ask_translated, translated
from unlearn_ray.config import Audit, Evaluate, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import InputError
from unlearn_ray.evaluation import Readings
from unlearn_ray.evidence import BEFORE, REFERENCE
from unlearn_ray.material import Question, documents_of
from unlearn_ray.method.metrics import compare, estimate, mean_items
from unlearn_ray.method.prompts import anchor_prompts
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.baseline import open_tokenizer
from unlearn_ray.stages.blocks import read_blocks
from unlearn_ray.stages.evaluate import COLUMNS, checkpoint_folder, prepare_material, read_questions
from unlearn_ray.stages.examine import Study, examine

NO_ATTACK, AFTER = "no attack", "unlearned"
ABOUT = "about"  # the input with harmless text about the forget set


def audit(
    run: StepRun, *, settings: Audit, evaluation: Evaluate, title: str, resources: Resources, trust_remote_code: bool
) -> dict:
    """Writes audit.json: every attack with its figures for the baseline, the chosen model ("unlearned") and, where
    there is one, the reference; and what was not tested, with the reason.

    Inputs: baseline, blocks, anchors, unlearned, evaluation and, where there is such text, about.
    """
    chosen = storage.read_json(storage.join(run.inputs["evaluation"], "metrics.json"))["choice"]["model"]
    models = {BEFORE: run.inputs[BEFORE], AFTER: checkpoint_folder(run.inputs["unlearned"], chosen)}
    if evaluation.reference:
        models[REFERENCE] = evaluation.reference
    studies, not_tested = prepare_studies(run, settings, evaluation, title, trust_remote_code)
    readings = examine(
        run.out,
        models,
        studies,
        baseline=run.inputs[BEFORE],
        resources=resources,
        trust_remote_code=trust_remote_code,
    )
    attacks = summarise_attacks(readings, evaluation.bootstrap, evaluation.seed)
    found = {
        "title": title,
        "model": chosen,
        "models": list(models),
        "attacks": attacks,
        "not_tested": not_tested,
        "settings": settings.model_dump(mode="json"),
    }
    storage.write_json(storage.join(run.out, "audit.json"), found)
    return {"rows": {"attacks": len(studies) - 1, "figures": len(attacks)}, "not_tested": not_tested}


def prepare_studies(
    run: StepRun, settings: Audit, evaluation: Evaluate, title: str, trust_remote_code: bool
) -> tuple[dict[str, Study], dict[str, str]]:
    """The studies by name, the model as it is first; and why an attack is not among them, by its name."""
    dictionary, tokenizer = (
        read_dictionary(run.inputs["anchors"]),
        open_tokenizer(run.inputs[BEFORE], trust_remote_code),
    )
    material = prepare_material(run, evaluation, trust_remote_code)
    blocks = read_blocks(run.inputs["blocks"], COLUMNS).sort_by([("document", "ascending"), ("index", "ascending")])
    documents, seed = documents_of(blocks), evaluation.seed
    asked = Asked(
        probability=material.probability[: settings.prompts],
        completion=material.completion[: settings.prompts],
        probes=material.probes,
        completion_tokens=material.completion_tokens,
        dictionary=dictionary,
        themes=material.themes,
    )
    about = read_blocks(run.inputs[ABOUT], COLUMNS) if ABOUT in run.inputs else None
    told = " ".join(documents_of(about).values())[: settings.context_characters] if about else ""
    quoted = context_sentences(documents, dictionary, settings.context_sentences, seed)[: settings.context_characters]
    learnt = blocks.slice(0, max(1, round(blocks.num_rows * settings.relearn_share)))
    outside = asked.outside("".join(learnt["text"].to_pylist()))
    relearnt = {"part of the forget set": (learnt["input_ids"].to_pylist(), outside)}
    if about:
        relearnt["text about it"] = (about["input_ids"].to_pylist(), asked)
    entities = probed(anchor_prompts(documents, dictionary, settings.probing_prompts, seed + 2), dictionary, seed)
    languages = read_languages(settings.languages) if settings.languages else {}
    contexts = [("sentences of it", quoted, False)] + ([("text about it", told, False)] if told else [])

    possible: dict[str, Study | str] = {
        "jailbreak": partial(
            ask_framed,
            asked=asked,
            frames=[(name, text.format(title=title), True) for name, text in JAILBREAKS.items()],
        ),
        "context": partial(ask_framed, asked=asked, frames=contexts),
        "know nothing": partial(
            ask_framed, asked=asked, frames=[("instruction", KNOW_NOTHING.format(title=title), True)]
        ),
        "languages": partial(ask_in_languages, questions=languages) if languages else "no questions: audit.languages",
        "relearning": partial(
            ask_relearning,
            texts=relearnt,
            steps=settings.relearn_steps,
            learning_rate=settings.relearn_rate,
            blocks=settings.relearn_batch,
            seed=seed,
        ),
        "quantisation": partial(ask_quantised, asked=asked, bits=settings.bits),
        "probing": _probing(entities),
        "translation": partial(ask_translated, asked=translated(asked.probability, dictionary, tokenizer)),
    }
    studies: dict[str, Study] = {NO_ATTACK: partial(ask, asked=asked, condition="")}
    not_tested = {}
    for name, study in possible.items():
        if name not in settings.attacks:
            not_tested[name] = "not among audit.attacks"
        elif isinstance(study, str):
            not_tested[name] = study
        else:
            studies[name] = study
    if not about:
        not_tested["context and relearning from text about the forget set"] = "no such text: audit.about"
    return studies, not_tested


def _probing(entities: Any) -> Study | str:
    if find_spec("sklearn") is None:
        return "scikit-learn is not installed: pip install 'unlearn-ray[eval]'"
    if entities is None:
        return f"the documents have no two entities with {LEAST_EXAMPLES} places that do not give them away"
    return partial(probe, asked=entities)


def summarise_attacks(
    readings: Mapping[str, Mapping[str, Readings]], resamples: int, seed: int
) -> list[dict[str, Any]]:
    """One row an attack, condition and measure: each model's figure, the difference of the unlearned model to the
    baseline, and for each model that to itself without the attack, where as many items were asked."""
    rows = []
    for attack, of_models in readings.items():
        for name in of_models[BEFORE]:
            condition, measure = name.split("|")
            items = {model: mean_items(found[name]) for model, found in of_models.items() if measure != "text"}
            if not items or not items[BEFORE].n:
                continue
            plain = {
                model: mean_items(found[f"|{measure}"])
                for model, found in readings[NO_ATTACK].items()
                if attack != NO_ATTACK and len(found.get(f"|{measure}", ())) == items[model].n
            }
            rows.append(
                {
                    "attack": attack,
                    "condition": condition,
                    "measure": measure,
                    "figures": {model: asdict(estimate(one, resamples, seed)) for model, one in items.items()},
                    "to_baseline": asdict(compare(items[BEFORE], items[AFTER], resamples, seed).absolute),
                    "to_no_attack": {
                        model: asdict(compare(one, items[model], resamples, seed).absolute)
                        for model, one in plain.items()
                    },
                }
            )
    return rows


def read_languages(path: str) -> dict[str, list[Question]]:
    """JSONL of {"language", "prompt", "answer"}: language -> questions. Raises InputError for one without."""
    found: dict[str, list[Question]] = {}
    for question in read_questions(path):
        if not question.language:
            raise InputError(f'{path}: a question without "language": {question.prompt!r}')
        found.setdefault(question.language, []).append(question)
    return found
