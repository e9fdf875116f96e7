"""Sequential forgetting: the model that forgot one set is where the next one starts, and every earlier set is asked
about again, since what a later training brings back would not show in its own evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from transformers import PreTrainedTokenizerFast

from unlearn_ray.config import Evaluate, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.evaluation import Readings, measure
from unlearn_ray.evidence import BEFORE, completion_rows, kept_utility
from unlearn_ray.material import Material
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.metrics import estimate, familiarity_items, mean_items
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.baseline import BELOW_ROOT, POINTER, open_tokenizer
from unlearn_ray.stages.evaluate import checkpoint_folder, prepare_material
from unlearn_ray.stages.examine import examine

HISTORY = "history.json"
FAMILIARITY = ("probability_familiarity", "completion_familiarity")
RESULT = "result"


def keep_result(run: StepRun) -> dict:
    """Inputs: unlearned, evaluation. Writes which checkpoint was chosen, so that the folder can stand where a baseline
    does."""
    chosen = _metrics(run.inputs["evaluation"])["choice"]["model"]
    folder = checkpoint_folder(run.inputs["unlearned"], chosen)
    storage.write_json(storage.join(run.out, POINTER), {BELOW_ROOT: run.below_root(folder)})
    return {"choice": chosen}


def follow(
    run: StepRun,
    *,
    name: str,
    earlier: Sequence[str],
    settings: Evaluate,
    resources: Resources,
    trust_remote_code: bool,
) -> dict:
    """Writes history.json: for every set so far a row with what the model that had forgotten it shows of all sets up to
    it, and keeps of the baseline's utility.

    Inputs: baseline, result, evaluation and, for every earlier set, "blocks of SET", "anchors of SET" and, where they
    were written, "prompts of SET"; before, the history up to the set before this one.
    """
    tokenizer = open_tokenizer(run.inputs[BEFORE], trust_remote_code)
    asked = {one: _material(run, one, settings, trust_remote_code) for one in earlier}
    found = examine(
        run.out,
        {RESULT: run.inputs[RESULT]},
        {one: partial(measure, material=material) for one, material in asked.items()},
        baseline=run.inputs[BEFORE],
        resources=resources,
        trust_remote_code=trust_remote_code,
    )
    shown = {
        one: _familiarity(
            found[one][RESULT], material, read_dictionary(run.inputs[f"anchors of {one}"]), tokenizer, settings
        )
        for one, material in asked.items()
    }
    metrics = _metrics(run.inputs["evaluation"])
    chosen = metrics["choice"]["model"]
    own = {what: metrics["metrics"][what] for what in FAMILIARITY if what in metrics["metrics"]}
    row = {
        "after": name,
        "model": chosen,
        "sets": shown | {name: {what: own[what][chosen] for what in own}},
        "baseline": {what: own[what][BEFORE] for what in own},
        "utility": kept_utility(metrics["metrics"], chosen),
    }
    before = storage.read_json(storage.join(run.inputs["before"], HISTORY)) if "before" in run.inputs else []
    storage.write_json(storage.join(run.out, HISTORY), [*before, row])
    return {"rows": {"sets": len(before) + 1}, "utility": row["utility"]}


def _material(run: StepRun, one: str, settings: Evaluate, trust_remote_code: bool) -> Material:
    """What shows familiarity with an earlier set, as it was asked then; the rest was measured by this set's own
    evaluation."""
    names = {key: f"{key} of {one}" for key in ("blocks", "anchors", "prompts")}
    of_set = {key: run.inputs[name] for key, name in names.items() if name in run.inputs}
    whole = prepare_material(StepRun(run.out, of_set | {BEFORE: run.inputs[BEFORE]}), settings, trust_remote_code)
    return replace(whole, texts={}, verbatim=[], probes=[], controls=[], shown=[])


def _familiarity(
    readings: Readings,
    material: Material,
    dictionary: AnchorDictionary,
    tokenizer: PreTrainedTokenizerFast,
    settings: Evaluate,
) -> dict[str, dict]:
    """Both familiarities with an earlier set. Where a language model graded then, its completions are not graded again:
    two judges cannot be compared."""
    samples = {FAMILIARITY[0]: mean_items(readings["specific_mass"])}
    if settings.judge.source == "dictionary":
        rows = completion_rows(material, {RESULT: readings}, dictionary, tokenizer)
        samples[FAMILIARITY[1]] = familiarity_items(np.array([row["grade"] for row in rows]))
    return {
        what: asdict(estimate(sample, settings.bootstrap, settings.seed))
        for what, sample in samples.items()
        if sample.n
    }


def _metrics(folder: str) -> Mapping:
    return storage.read_json(storage.join(folder, "metrics.json"))
