"""The whole method on one screen: forget sets -> steps.

    documents -> blocks -> reinforced -> anchors -> labels -> unlearned -> evaluation -> report.html
                 retain text -> retain (soft labels of the baseline) --^        ^-- held-out prose

Where people decided something (review/), a step of its own applies it to the dictionary, the labels or the score, and
what follows reads that. Without review there is no such step.

A step's params are what its result depends on; where and how fast it runs (config.resources) is not among them.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unlearn_ray.config import ForgetSet, RunConfig
from unlearn_ray.engine import storage
from unlearn_ray.engine.schedule import run_steps
from unlearn_ray.engine.session import ensure_ray
from unlearn_ray.engine.steps import Outcome, Step, StepRun, step_states
from unlearn_ray.errors import StepFailed
from unlearn_ray.review.store import Store, decisions_of
from unlearn_ray.stages.anchors import copy_dictionary, propose_dictionary, settle_dictionary
from unlearn_ray.stages.audit import ABOUT, audit
from unlearn_ray.stages.baseline import identity, open_tokenizer, prepare_baseline
from unlearn_ray.stages.blocks import cut_documents
from unlearn_ray.stages.evaluate import TEXTS, evaluate
from unlearn_ray.stages.inputs import check_inputs, check_model, make_root
from unlearn_ray.stages.judging import judging_params
from unlearn_ray.stages.label import label, label_retain, label_settings
from unlearn_ray.stages.origins import absolute, evaluated_contents, evaluation_settings, hashes, hub_id, model_path_of
from unlearn_ray.stages.proposals import Estimate, asking_params, estimate, propose_by_model
from unlearn_ray.stages.reinforce import reinforce
from unlearn_ray.stages.report import collect, write_report
from unlearn_ray.stages.review import review_dictionary, review_grades, review_labels, reviewed
from unlearn_ray.stages.unlearn import unlearn
from unlearn_ray.stages.written_prompts import write_prompts, writing_params

SHARED = "shared"  # the folder of the steps that all forget sets have in common
EVALUATED_FILES: dict = dict.fromkeys(
    ("retain", "nonmembers", "neighbours", "reference", "probes", "controls", "token_prompts"), True
)
"""Keys of the evaluation that digests know by what lies there."""


def steps_of(config: RunConfig) -> dict[str, dict[str, Step]]:
    """For every forget set its steps by name, in order; steps for all sets are the same objects in each."""
    shared = _shared_steps(config)
    return {one.name: shared | _steps_of_set(config, one, shared) for one in config.forget_sets}


def _shared_steps(config: RunConfig) -> dict[str, Step]:
    """The baseline, and the text that is to be kept: as retain labels for training, held out for evaluation."""
    trust = config.trust_remote_code
    steps = {
        "baseline": Step(
            "baseline",
            1,
            SHARED,
            {"baseline": hub_id(config.baseline), "trust_remote_code": trust},
            partial(prepare_baseline, baseline=model_path_of(config.baseline), trust_remote_code=trust),
            contents=identity(config.baseline),
        )
    }
    if config.retain and config.unlearn.retain_weight > 0:
        steps["retain_blocks"] = _blocks_step(config, SHARED, config.retain, steps["baseline"])
        params = {"at_most": config.unlearn.retain_blocks, "top_k": config.label.top_k}
        steps["retain"] = Step(
            "retain",
            1,
            SHARED,
            params,
            partial(label_retain, **params, resources=config.resources, trust_remote_code=trust),
            {"baseline": steps["baseline"], "blocks": steps["retain_blocks"]},
        )
    if config.audit.about:
        steps[ABOUT] = _blocks_step(config, SHARED, config.audit.about, steps["baseline"])
    others = {"retain": config.evaluation_retain, "nonmembers": config.evaluate.nonmembers}
    for name, patterns in (others | config.evaluate.neighbours).items():
        if patterns:
            steps[TEXTS + name] = _blocks_step(config, SHARED, patterns, steps["baseline"])
    return steps


def _steps_of_set(config: RunConfig, one: ForgetSet, shared: dict[str, Step]) -> dict[str, Step]:
    """The method, for one forget set."""
    resources, seed, trust = config.resources, config.seed, config.trust_remote_code
    common = {"resources": resources, "trust_remote_code": trust}
    baseline = shared["baseline"]

    blocks = _blocks_step(config, one.name, one.documents, baseline)
    reinforced = Step(
        "reinforced",
        1,
        one.name,
        config.reinforce.model_dump() | {"seed": seed},
        partial(reinforce, settings=config.reinforce, seed=seed, **common),
        {"baseline": baseline, "blocks": blocks},
    )
    decided = decisions_of(absolute(config.root), one.name)
    proposing = _anchor_steps(config, one, baseline, blocks, reinforced)
    proposing |= reviewed(proposing["anchors"], decided["anchors"], review_dictionary)
    anchors = proposing["anchors"]
    settings = label_settings(config.label, config.unlearn_alpha)
    labels = Step(
        "labels",
        2,
        one.name,
        config.label.model_dump(exclude={"block_tokens"}) | {"first_alpha": config.unlearn_alpha},
        partial(label, settings=settings, block_tokens=config.label.block_tokens, **common),
        {"baseline": baseline, "blocks": blocks, "anchors": anchors, "reinforced": reinforced},
    )
    correct = partial(review_labels, alpha=config.unlearn_alpha, trust_remote_code=trust)
    labelling = reviewed(labels, decided["labels"], correct, {"alpha": config.unlearn_alpha}, {"baseline": baseline})
    unlearned = Step(
        "unlearned",
        1,
        one.name,
        config.unlearn.model_dump() | {"seed": seed},
        partial(unlearn, settings=config.unlearn, alpha=config.unlearn_alpha, seed=seed, **common),
        {"baseline": baseline, "labels": labelling["labels"]} | _given(shared, "retain"),
    )
    prompts = _prompt_steps(config, one, blocks)
    evaluation = Step(
        "evaluation",
        2,
        one.name,
        config.evaluate.model_dump(exclude=EVALUATED_FILES | {"prompts": True, "benchmarks": {"data"}})
        | {"reference": hub_id(config.evaluate.reference), "judge": judging_params(config.evaluate.judge)},
        partial(evaluate, settings=evaluation_settings(config), answers=_answers_of(config), **common),
        {"baseline": baseline, "blocks": blocks, "anchors": anchors, "reinforced": reinforced, "unlearned": unlearned}
        | _texts(shared)
        | prompts,
        evaluated_contents(config),
    )
    resampling = {"resamples": config.evaluate.bootstrap, "seed": config.evaluate.seed}
    graded = reviewed(evaluation, decided["judge"], partial(review_grades, **resampling), resampling)
    return {
        "blocks": blocks,
        "reinforced": reinforced,
        **proposing,
        **labelling,
        "unlearned": unlearned,
        **prompts,
        "evaluation": evaluation,
        **({"grades": graded["evaluation"]} if decided["judge"] else {}),
        "audit": _audit_step(
            config, one.name, dict(evaluation.inputs) | {"evaluation": evaluation} | _given(shared, ABOUT)
        ),
    }


def _audit_step(config: RunConfig, name: str, inputs: dict[str, Step], unlearned: str | None = None) -> Step:
    """Attacks on the model that the evaluation chose. inputs: those of the evaluation, and the evaluation; unlearned:
    a model from elsewhere in place of the step of that name."""
    settings, title = config.audit, config.audit.title or re.sub("[-_.]+", " ", name)

    def attack(run: StepRun) -> dict:
        return audit(
            StepRun(run.out, run.inputs | ({"unlearned": unlearned} if unlearned else {})),
            settings=settings,
            evaluation=evaluation_settings(config),
            title=title,
            resources=config.resources,
            trust_remote_code=config.trust_remote_code,
        )

    return Step(
        "audit",
        1,
        name,
        settings.model_dump(exclude={"about", "languages"}) | {"title": title},
        attack,
        inputs,
        {"languages": storage.sha256_of(settings.languages)} if settings.languages else {},
    )


def _anchor_steps(config: RunConfig, one: ForgetSet, baseline: Step, blocks: Step, reinforced: Step) -> dict[str, Step]:
    """The dictionary, and before it what a language model proposes where one is asked."""
    wanted, seed, trust = config.anchors, config.seed, config.trust_remote_code
    if wanted.dictionary:
        copy = partial(copy_dictionary, dictionary=absolute(wanted.dictionary))
        contents = hashes([wanted.dictionary])
        return {"anchors": Step("anchors", 1, one.name, {"source": "file"}, copy, contents=contents)}
    settling = wanted.model_dump(include={"max_anchors", "min_count"}) | {"seed": seed}
    if wanted.source == "offline" and not wanted.proposals:
        propose = partial(
            propose_dictionary, settings=wanted, seed=seed, resources=config.resources, trust_remote_code=trust
        )
        params = settling | {"source": "offline", "dictionary": None}
        inputs = {"baseline": baseline, "blocks": blocks, "reinforced": reinforced}
        return {"anchors": Step("anchors", 2, one.name, params, propose, inputs)}
    inputs, steps, contents = {"baseline": baseline, "blocks": blocks}, {}, {}
    if wanted.proposals:
        contents = hashes([wanted.proposals])
    else:
        ask = partial(
            propose_by_model, settings=wanted, seed=seed, resources=config.resources, answers=_answers_of(config)
        )
        params = asking_params(wanted) | {"seed": seed}
        steps["proposals"] = inputs["proposals"] = Step("proposals", 1, one.name, params, ask, {"blocks": blocks})
    settle = partial(
        settle_dictionary,
        settings=wanted,
        seed=seed,
        proposals=absolute(wanted.proposals) if wanted.proposals else None,
        trust_remote_code=trust,
    )
    params = settling | {"source": "proposals"}
    return steps | {"anchors": Step("anchors", 1, one.name, params, settle, inputs, contents)}


def _prompt_steps(config: RunConfig, one: ForgetSet, blocks: Step) -> dict[str, Step]:
    """The prompts of the completion familiarity, where a language model writes them."""
    if config.evaluate.prompts.source != "openai":
        return {}
    write = partial(write_prompts, settings=config.evaluate, resources=config.resources, answers=_answers_of(config))
    return {"prompts": Step("prompts", 1, one.name, writing_params(config.evaluate), write, {"blocks": blocks})}


def run(
    config: RunConfig, *, until: str = "evaluation", on_event: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Runs what is not done, up to the step `until` of every forget set ("audit" for the attacks too).

    Returns one outcome a step; a failed step is among them as failed and does not raise.
    """
    steps = [step for of_set in steps_of(config).values() for step in _up_to(of_set, until)]
    root = absolute(config.root)
    make_root(root)
    work = partial(run_steps, root, steps, max_parallel=config.resources.parallel_sets, on_event=on_event)
    to_do = _to_do(root, steps)
    if not to_do:
        return work()  # without starting Ray, which takes longer than everything else here
    check_inputs(config, to_do)
    with ensure_ray(config.resources):
        return work()


def _up_to(of_set: Mapping[str, Step], until: str) -> list[Step]:
    """The steps to ask for: what people graded corrects a score of the evaluation, and nothing else waits for it."""
    return [of_set[until], *(_given(of_set, "grades").values() if until in ("evaluation", "audit") else ())]


def status(config: RunConfig) -> list[Outcome]:
    """Where every step of every forget set stands on disk; the audit, which is not part of every run, where it was
    begun."""
    steps = [step for of_set in steps_of(config).values() for step in _up_to(of_set, "audit")]
    states = step_states(absolute(config.root), steps)
    return [outcome for outcome in states if outcome.step.stage != "audit" or outcome.state != "to do"]


def estimate_asking(config: RunConfig) -> dict[str, Estimate]:
    """What asking a language model for the dictionaries will cost at most: set -> estimate; asks nothing."""
    return {
        one.name: estimate(
            storage.expand(one.documents), settings=config.anchors, seed=config.seed, answers=_answers_of(config)
        )
        for one in config.forget_sets
    }


def report(config: RunConfig) -> dict[str, str]:
    """Writes report.html and report.json of every forget set that was evaluated; returns set -> path of the page."""
    root = absolute(config.root)
    pages = {}
    for name, steps in steps_of(config).items():
        folders = done_folders(root, steps)
        if "evaluation" in folders:
            agreement = Store(root, name).agreement()
            pages[name] = _write_report(config, name, folders, storage.join(root, name), agreement)
    return pages


def done_folders(root: str, steps: Mapping[str, Step]) -> dict[str, str]:
    """The folders of the steps that are done, by name."""
    outcomes = {outcome.step.digest: outcome for outcome in step_states(root, list(steps.values()))}
    found = {name: outcomes[step.digest] for name, step in steps.items()}
    return {name: outcome.folder for name, outcome in found.items() if outcome.state == "done"}


def _write_report(
    config: RunConfig, name: str, folders: Mapping[str, str], into: str, agreement: Mapping[str, Any] | None = None
) -> str:
    data = collect(
        folders,
        forget_set=name,
        baseline=config.baseline,
        alpha=config.unlearn_alpha,
        tokenizer=open_tokenizer(folders["baseline"], config.trust_remote_code),
        agreement=agreement or {},
    )
    return write_report(into, data)


def read_run(config: RunConfig) -> dict[str, dict]:
    """What report.json says of every forget set that has a report: set -> metrics, completions, dictionary, steps."""
    pages = {one.name: storage.join(absolute(config.root), one.name, "report.json") for one in config.forget_sets}
    return {name: storage.read_json(path) for name, path in pages.items() if storage.exists(path)}


def evaluate_model(
    config: RunConfig, model: str, forget_set: str, *, on_event: Callable[[Outcome], None] = lambda outcome: None
) -> str:
    """Measures and attacks any checkpoint, also one made elsewhere, as this run does its own; returns the path of the
    report, beside which are report.json and audit.json.

    Needs the forget set's dictionary, and runs what is missing for it. Raises StepFailed where a step fails.
    """
    steps = steps_of(config)[forget_set]

    def measure(run: StepRun) -> dict:
        given = StepRun(run.out, run.inputs | {"unlearned": model_path_of(model)})
        return evaluate(
            given,
            settings=evaluation_settings(config),
            answers=_answers_of(config),
            resources=config.resources,
            trust_remote_code=config.trust_remote_code,
        )

    inputs = {name: steps[name] for name in ("baseline", "blocks", "anchors", "prompts") if name in steps}
    measured = Step(
        "evaluation",
        2,
        forget_set,
        dict(steps["evaluation"].params) | {"model": Path(model).name},
        measure,
        inputs | _texts(steps),
        dict(steps["evaluation"].contents) | identity(model),
    )
    given = dict(measured.inputs) | {"evaluation": measured} | _given(steps, ABOUT)
    audited = _audit_step(config, forget_set, given, unlearned=model_path_of(model))
    root = absolute(config.root)
    make_root(root)
    if to_do := _to_do(root, [audited]):
        check_inputs(config, to_do)
        check_model(model, config.trust_remote_code)
        with ensure_ray(config.resources):
            for outcome in run_steps(root, [audited], on_event=on_event):
                if outcome.error:
                    raise StepFailed(f"{outcome.step.stage} of {forget_set}: {outcome.error}") from outcome.error
    folders = done_folders(root, inputs | {"evaluation": measured, "audit": audited})
    return _write_report(config, forget_set, folders, folders["audit"])


def _blocks_step(config: RunConfig, owner: str, patterns: tuple[str, ...], baseline: Step) -> Step:
    documents = storage.expand(patterns)
    tokens = config.label.block_tokens
    cut = partial(
        cut_documents,
        documents=[absolute(path) for path in documents],
        block_tokens=tokens,
        workers=config.resources.workers,
        trust_remote_code=config.trust_remote_code,
    )
    return Step("blocks", 1, owner, {"block_tokens": tokens}, cut, {"baseline": baseline}, hashes(documents))


def _to_do(root: str, steps: list[Step]) -> set[str]:
    """The stages of what is not done."""
    return {outcome.step.stage for outcome in step_states(root, steps) if outcome.state != "done"}


def _answers_of(config: RunConfig) -> str:
    """Where the answers of language models are kept."""
    return storage.join(absolute(config.root), SHARED, "answers")


def _texts(shared: dict[str, Step]) -> dict[str, Step]:
    return {name: step for name, step in shared.items() if name.startswith(TEXTS)}


def _given(steps: Mapping[str, Step], name: str) -> dict[str, Step]:
    return {name: steps[name]} if name in steps else {}
