"""The steps of a run that take more than a line to describe: what is shared, dictionaries, prompts, evaluation, audit.

pipeline.py puts them together. What a step holds while it runs is declared beside it (stages/holds.py).
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePath

from unlearn_ray.config import ForgetSet, RunConfig
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import READERS, Holds, Step, StepRun
from unlearn_ray.errors import InputError
from unlearn_ray.stages import holds
from unlearn_ray.stages.anchors import copy_dictionary, propose_dictionary, settle_dictionary
from unlearn_ray.stages.asking import ASKING_CPUS
from unlearn_ray.stages.audit import ABOUT, audit
from unlearn_ray.stages.baseline import identity, prepare_baseline
from unlearn_ray.stages.blocks import cut_documents
from unlearn_ray.stages.evaluate import TEXTS, evaluate
from unlearn_ray.stages.judging import judging_params
from unlearn_ray.stages.label import label_retain
from unlearn_ray.stages.origins import absolute, evaluated_contents, evaluation_settings, hashes, hub_id, model_path_of
from unlearn_ray.stages.proposals import asking_params, propose_by_model
from unlearn_ray.stages.sequence import follow
from unlearn_ray.stages.written_prompts import write_prompts, writing_params

SHARED = "shared"  # the folder of the steps that all forget sets have in common
EVALUATED_FILES: dict = dict.fromkeys(
    ("retain", "nonmembers", "neighbours", "reference", "probes", "controls", "token_prompts"), True
)
"""Keys of the evaluation that digests know by what lies there."""


def shared_steps(config: RunConfig) -> dict[str, Step]:
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
            holds=partial(Holds, 1),
        )
    }
    if config.retain and config.unlearn.retain_weight > 0:
        steps["retain_blocks"] = blocks_step(config, SHARED, config.retain, steps["baseline"])
        params = {"at_most": config.unlearn.retain_blocks, "top_k": config.label.top_k}
        steps["retain"] = Step(
            "retain",
            1,
            SHARED,
            params,
            partial(label_retain, **params, resources=config.resources, trust_remote_code=trust),
            {"baseline": steps["baseline"], "blocks": steps["retain_blocks"]},
            holds=holds.scoring(config.resources),
        )
    if config.audit.about:
        steps[ABOUT] = blocks_step(config, SHARED, config.audit.about, steps["baseline"])
    others = {"retain": config.evaluation_retain, "nonmembers": config.evaluate.nonmembers}
    for name, patterns in (others | config.evaluate.neighbours).items():
        if patterns:
            steps[TEXTS + name] = blocks_step(config, SHARED, patterns, steps["baseline"])
    return steps


def audit_step(config: RunConfig, name: str, inputs: dict[str, Step], unlearned: str | None = None) -> Step:
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
        holds.scoring(config.resources),
    )


def anchor_steps(
    config: RunConfig, one: ForgetSet, shared: Mapping[str, Step], before: Step, blocks: Step, reinforced: Step
) -> dict[str, Step]:
    """The dictionary, and before it what a language model proposes where one is asked. before: the model that was
    reinforced."""
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
        inputs = {"baseline": before, "blocks": blocks, "reinforced": reinforced}
        needs = holds.scoring(config.resources)
        return {"anchors": Step("anchors", 2, one.name, params, propose, inputs, holds=needs)}
    inputs, steps, contents = {"baseline": shared["baseline"], "blocks": blocks}, {}, {}
    if wanted.proposals:
        contents = hashes([wanted.proposals])
    else:
        ask = partial(
            propose_by_model, settings=wanted, seed=seed, resources=config.resources, answers=answers_of(config)
        )
        params = asking_params(wanted) | {"seed": seed}
        asking = Step("proposals", 1, one.name, params, ask, {"blocks": blocks}, holds=partial(Holds, ASKING_CPUS))
        steps["proposals"] = inputs["proposals"] = asking
    settle = partial(
        settle_dictionary,
        settings=wanted,
        seed=seed,
        proposals=absolute(wanted.proposals) if wanted.proposals else None,
        trust_remote_code=trust,
    )
    params = settling | {"source": "proposals"}
    return steps | {"anchors": Step("anchors", 1, one.name, params, settle, inputs, contents)}


def prompt_steps(config: RunConfig, one: ForgetSet, blocks: Step) -> dict[str, Step]:
    """The prompts of the completion familiarity, where a language model writes them."""
    if config.evaluate.prompts.source != "openai":
        return {}
    write = partial(write_prompts, settings=config.evaluate, resources=config.resources, answers=answers_of(config))
    params, needs = writing_params(config.evaluate), partial(Holds, ASKING_CPUS)
    return {"prompts": Step("prompts", 1, one.name, params, write, {"blocks": blocks}, holds=needs)}


def evaluation_step(
    config: RunConfig, name: str, inputs: Mapping[str, Step], *, stage: str = "evaluation", model: str | None = None
) -> Step:
    """The measurement of the models in the inputs. model: a checkpoint from elsewhere in place of the unlearned one."""
    settings, trust = evaluation_settings(config), config.trust_remote_code
    asked = {"resources": config.resources, "trust_remote_code": trust, "answers": answers_of(config)}

    def measure(run: StepRun) -> dict:
        given = run.inputs | ({"unlearned": model_path_of(model)} if model else {})
        return evaluate(StepRun(run.out, given), settings=settings, **asked)

    params = config.evaluate.model_dump(exclude=EVALUATED_FILES | {"prompts": True, "benchmarks": {"data"}})
    params |= {"reference": hub_id(config.evaluate.reference), "judge": judging_params(config.evaluate.judge)}
    contents = evaluated_contents(config) | (identity(model) if model else {})
    return Step(
        stage,
        2,
        name,
        params | ({"model": PurePath(model).name} if model else {}),
        measure,
        inputs,
        contents,
        holds.scoring(config.resources),
    )


def history_step(config: RunConfig, name: str, earlier: list[str], inputs: Mapping[str, Step]) -> Step:
    """What the model that forgot this set shows of all sets before it."""
    settings = config.evaluate
    work = partial(
        follow,
        name=name,
        earlier=earlier,
        settings=settings,
        resources=config.resources,
        trust_remote_code=config.trust_remote_code,
    )
    params = settings.model_dump(
        include={"completions", "completion_tokens", "probability_prompts", "seed", "bootstrap"}
    )
    needs = holds.scoring(config.resources) if earlier else Holds
    return Step("history", 1, name, params | {"set": name}, work, inputs, holds=needs)


def blocks_step(
    config: RunConfig, owner: str, patterns: tuple[str, ...], baseline: Step, shared: Collection[str] = ()
) -> Step:
    """shared: documents, of whatever set, that several sets have."""
    documents = storage.expand(patterns)
    tokens = config.label.block_tokens
    cut = partial(
        cut_documents,
        documents=[absolute(path) for path in documents],
        shared={absolute(path) for path in documents if path in shared},
        block_tokens=tokens,
        resources=config.resources,
        trust_remote_code=config.trust_remote_code,
    )
    inputs, needs = {"baseline": baseline}, holds.cutting(config.resources, len(documents))
    return Step("blocks", 1, owner, {"block_tokens": tokens}, cut, inputs, hashes(documents), needs)


def blocks_of_sets(config: RunConfig, baseline: Step) -> dict[str, Step]:
    """The blocks of every forget set. Where there are several, one whose documents are not there is a step that fails,
    and costs its own set alone."""

    def documents_of(one: ForgetSet) -> list[str]:
        try:
            return storage.expand(one.documents)
        except InputError:
            return []  # told by the step

    def of_set(one: ForgetSet) -> Step:
        try:
            return blocks_step(config, one.name, one.documents, baseline, shared)
        except InputError as error:
            if len(config.forget_sets) == 1:
                raise
            return Step("blocks", 1, one.name, {"refused": str(error)}, partial(_refuse, str(error)))

    with ThreadPoolExecutor(READERS) as readers:  # which hash thousands of documents
        owners = Counter(path for found in readers.map(documents_of, config.forget_sets) for path in found)
        shared = {path for path, count in owners.items() if count > 1}
        return dict(zip((one.name for one in config.forget_sets), readers.map(of_set, config.forget_sets), strict=True))


def _refuse(problem: str, run: StepRun) -> dict:
    raise InputError(problem)


def answers_of(config: RunConfig) -> str:
    """Where the answers of language models are kept."""
    return storage.join(absolute(config.root), SHARED, "answers")


def texts_of(shared: dict[str, Step]) -> dict[str, Step]:
    return {name: step for name, step in shared.items() if name.startswith(TEXTS)}


def given(steps: Mapping[str, Step], name: str) -> dict[str, Step]:
    return {name: steps[name]} if name in steps else {}
