"""The whole method on one screen: forget sets -> steps.

    documents -> blocks -> reinforced -> anchors -> labels -> unlearned -> evaluation -> report.html
                 retain text -> retain (soft labels of the baseline) --^        ^-- held-out prose

Where people decided something (review/), a step of its own applies it to the dictionary, the labels or the score, and
what follows reads that. Without review there is no such step.

A step's params are what its result depends on; where and how fast it runs (config.resources) is not among them.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from unlearn_ray.config import ForgetSet, RunConfig
from unlearn_ray.engine import storage
from unlearn_ray.engine.changes import why_again
from unlearn_ray.engine.cleaning import Superfluous, superfluous
from unlearn_ray.engine.metrics import Metrics
from unlearn_ray.engine.schedule import run_steps
from unlearn_ray.engine.session import ensure_ray
from unlearn_ray.engine.steps import READERS, Outcome, Step, read_notes, step_states, with_inputs
from unlearn_ray.errors import StepFailed
from unlearn_ray.jobs import ONLY, Job, chosen_sets, urgency
from unlearn_ray.review.store import Store, decisions_of
from unlearn_ray.stages import holds
from unlearn_ray.stages.audit import ABOUT
from unlearn_ray.stages.baseline import open_tokenizer
from unlearn_ray.stages.evaluate import unchosen
from unlearn_ray.stages.inputs import check_inputs, check_model, make_root
from unlearn_ray.stages.joint import choose_together, unite_labels
from unlearn_ray.stages.label import label, label_settings
from unlearn_ray.stages.origins import absolute, model_path_of
from unlearn_ray.stages.proposals import Estimate, estimate
from unlearn_ray.stages.recipes import (
    anchor_steps,
    answers_of,
    audit_step,
    blocks_of_sets,
    evaluation_step,
    given,
    history_step,
    prompt_steps,
    shared_steps,
    texts_of,
)
from unlearn_ray.stages.reinforce import reinforce
from unlearn_ray.stages.report import collect, write_report
from unlearn_ray.stages.review import review_dictionary, review_grades, review_labels, reviewed
from unlearn_ray.stages.sequence import keep_result
from unlearn_ray.stages.unlearn import unlearn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

JOINT = "joint"  # the folder of what belongs to the one model that forgets all sets
Steps = dict[str, Step]


@dataclass(frozen=True)
class Read:
    """What of a forget set has to be read before its steps are known: its documents, and what people decided."""

    blocks: Step
    decided: dict[str, list[dict]]


def steps_of(config: RunConfig) -> dict[str, Steps]:
    """For every forget set its steps by name, in order; steps for all sets are the same objects in each."""
    shared = shared_steps(config)
    blocks, names = blocks_of_sets(config, shared["baseline"]), [one.name for one in config.forget_sets]
    with ThreadPoolExecutor(READERS) as readers:
        decided = list(readers.map(partial(decisions_of, absolute(config.root)), names))
    read = {name: Read(blocks[name], decisions) for name, decisions in zip(names, decided, strict=True)}
    modes = {"separate": _separate, "joint": _joint, "sequential": _sequential}
    return {name: shared | of_set for name, of_set in modes[config.mode](config, shared, read).items()}


def _separate(config: RunConfig, shared: Steps, read: dict[str, Read]) -> dict[str, Steps]:
    """The method: one model for each forget set."""
    found = {}
    for one in config.forget_sets:
        made = _until_labels(config, one, shared, read[one.name], shared["baseline"])
        made["unlearned"] = _unlearned(config, one.name, shared, made["labels"], shared["baseline"])
        found[one.name] = made | _evidence(config, one, shared, made, read[one.name])
    return found


def _joint(config: RunConfig, shared: Steps, read: dict[str, Read]) -> dict[str, Steps]:
    """One model for all sets: each has its own dictionary and labels, the training reads all of these, and one
    checkpoint is chosen for all."""
    baseline, sets = shared["baseline"], {one.name: one for one in config.forget_sets}
    made = {name: _until_labels(config, one, shared, read[name], baseline) for name, one in sets.items()}
    union = Step("labels", 1, JOINT, {}, unite_labels, {f"labels of {name}": of["labels"] for name, of in made.items()})
    unlearned = _unlearned(config, JOINT, shared, union, baseline)
    measures = {}
    for name, one in sets.items():
        made[name] |= {"united": union, "unlearned": unlearned} | prompt_steps(config, one, made[name]["blocks"])
        measures[name] = evaluation_step(config, name, _measured(shared, made[name]), stage="measures")
    choose = partial(choose_together, tolerance=config.evaluate.tolerance)
    params, inputs = {"tolerance": config.evaluate.tolerance}, {f"measures of {name}": measures[name] for name in sets}
    choice = Step("choice", 1, JOINT, params, choose, inputs)
    for name, one in sets.items():
        made[name] |= {"measures": measures[name], "choice": choice}
        made[name] |= _evidence(config, one, shared, made[name], read[name])
    return made


def _sequential(config: RunConfig, shared: Steps, read: dict[str, Read]) -> dict[str, Steps]:
    """Each set is forgotten by the model that forgot those before it, which takes the baseline's place in the method;
    what is kept, and what is compared with, is the baseline."""
    found: dict[str, Steps] = {}
    before, history = shared["baseline"], {}
    for one in config.forget_sets:
        made = _until_labels(config, one, shared, read[one.name], before)
        made["unlearned"] = _unlearned(config, one.name, shared, made["labels"], before)
        made |= _evidence(config, one, shared, made, read[one.name])
        chosen = {"unlearned": made["unlearned"], "evaluation": made["evaluation"]}
        made["result"] = before = Step("result", 1, one.name, {}, keep_result, chosen)
        asked = {
            f"{key} of {name}": of_set[key]
            for name, of_set in found.items()
            for key in ("blocks", "anchors", "prompts")
            if key in of_set
        }
        inputs = {"baseline": shared["baseline"], "result": before, "evaluation": made["evaluation"]} | history | asked
        made["history"] = history_step(config, one.name, list(found), inputs)
        history = {"before": made["history"]}
        found[one.name] = made
    return found


def _until_labels(config: RunConfig, one: ForgetSet, shared: Steps, read: Read, before: Step) -> Steps:
    """The method up to the labels. before: the model that is to forget."""
    resources, seed, trust = config.resources, config.seed, config.trust_remote_code
    common = {"resources": resources, "trust_remote_code": trust}
    reinforced = Step(
        "reinforced",
        1,
        one.name,
        config.reinforce.model_dump() | {"seed": seed},
        partial(reinforce, settings=config.reinforce, seed=seed, **common),
        {"baseline": before, "blocks": read.blocks},
        holds=holds.training(resources),
    )
    blocks, decided = read.blocks, read.decided
    proposing = anchor_steps(config, one, shared, before, blocks, reinforced)
    proposing |= reviewed(proposing["anchors"], decided["anchors"], review_dictionary)
    settings = label_settings(config.label, config.unlearn_alpha)
    labels = Step(
        "labels",
        3,
        one.name,
        config.label.model_dump(exclude={"block_tokens"}) | {"first_alpha": config.unlearn_alpha},
        partial(label, settings=settings, block_tokens=config.label.block_tokens, **common),
        {"baseline": before, "blocks": blocks, "anchors": proposing["anchors"], "reinforced": reinforced},
        holds=holds.scoring(resources, beside=holds.PREPARER_CPUS),
    )
    correct = partial(review_labels, alpha=config.unlearn_alpha, trust_remote_code=trust)
    params, inputs = {"alpha": config.unlearn_alpha}, {"baseline": shared["baseline"]}
    labelling = reviewed(labels, decided["labels"], correct, params, inputs)
    return {"blocks": blocks, "reinforced": reinforced, **proposing, **labelling}


def _unlearned(config: RunConfig, owner: str, shared: Steps, labels: Step, before: Step) -> Step:
    settings, seed = config.unlearn, config.seed
    common = {"resources": config.resources, "trust_remote_code": config.trust_remote_code}
    return Step(
        "unlearned",
        1,
        owner,
        settings.model_dump() | {"seed": seed},
        partial(unlearn, settings=settings, alpha=config.unlearn_alpha, seed=seed, **common),
        {"baseline": before, "labels": labels} | given(shared, "retain"),
        holds=holds.training(config.resources),
    )


def _measured(shared: Steps, made: Steps) -> Steps:
    """What an evaluation reads, of a set's steps."""
    own = [name for name in ("blocks", "anchors", "reinforced", "unlearned", "prompts") if name in made]
    return {"baseline": shared["baseline"]} | {name: made[name] for name in own} | texts_of(shared)


def _evidence(config: RunConfig, one: ForgetSet, shared: Steps, made: Steps, read: Read) -> Steps:
    """The evaluation of what was made for a set, as people graded it, and the audit."""
    prompts = prompt_steps(config, one, made["blocks"])
    inputs = _measured(shared, made | prompts) | given(made, "measures") | given(made, "choice")
    evaluation = evaluation_step(config, one.name, inputs)
    grades = read.decided["judge"]
    resampling = {"resamples": config.evaluate.bootstrap, "seed": config.evaluate.seed}
    graded = reviewed(evaluation, grades, partial(review_grades, **resampling), resampling)
    return {
        **prompts,
        "evaluation": evaluation,
        **({"grades": graded["evaluation"]} if grades else {}),
        "audit": audit_step(config, one.name, inputs | {"evaluation": evaluation} | given(shared, ABOUT)),
    }


def run(
    config: RunConfig,
    *,
    until: str = "evaluation",
    sets: Sequence[str] | None = None,
    job: Job = ONLY,
    on_event: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Runs what is not done, up to the step `until` of every forget set ("audit" for the attacks too).

    sets: only these. job: which of several drivers this is, that share the sets and the cluster. Returns one outcome a
    step; a failed step is among them as failed and does not raise.
    """
    config = job.share_of(config)
    wanted = steps_of(config)
    steps = [step for name in chosen_sets(config, sets) for step in _up_to(wanted[name], until)]
    root, resources = absolute(config.root), config.resources
    make_root(root)
    work = partial(run_steps, root, steps, urgency=urgency(config, job), on_event=on_event)
    to_do = _to_do(root, steps)
    if not to_do:
        return work()  # without starting Ray, which takes longer than everything else here
    check_inputs(config, to_do)
    with ensure_ray(resources, job.share), Metrics() as metrics:

        def hear(outcome: Outcome) -> None:
            metrics.hear(outcome)
            on_event(outcome)

        capacity = partial(holds.capacity, job.share)
        return work(max_parallel=holds.most_at_once(resources), capacity=capacity, on_event=hear)


def _up_to(of_set: Mapping[str, Step], until: str) -> list[Step]:
    """The steps to ask for. What people graded corrects a score of the evaluation, and the history of a sequence
    follows it; nothing else waits for either."""
    beside = ("grades", "history") if until in ("evaluation", "audit") else ()
    return [of_set[until], *(of_set[name] for name in beside if name in of_set)]


def status(config: RunConfig) -> list[Outcome]:
    """Where every step of every forget set stands on disk; the audit, which is not part of every run, where it was
    begun."""
    return watch(config)()


def watch(config: RunConfig, sets: Sequence[str] | None = None) -> Callable[[], list[Outcome]]:
    """status, of these sets, to be asked again and again: what it costs to know the steps is paid once."""
    wanted, names = steps_of(config), chosen_sets(config, sets)
    steps = [step for name in names for step in _up_to(wanted[name], "audit")]
    evaluated = [step for name in names for step in _up_to(wanted[name], "evaluation")]
    regular = {step.digest for step in with_inputs(evaluated)}

    def look() -> list[Outcome]:
        states = step_states(absolute(config.root), steps)
        audits = {outcome.state for outcome in states if outcome.step.stage == "audit"}
        begun = audits != {"to do"}  # else what only an audit reads is not to be done either
        return [
            outcome
            for outcome in states
            if outcome.step.digest in regular or (begun and (outcome.step.stage, outcome.state) != ("audit", "to do"))
        ]

    return look


def clean(config: RunConfig, *, delete: bool = False) -> list[Superfluous]:
    """What of the root no step of this configuration refers to, and the checkpoints that no evaluation chose where all
    that measure them are done. delete: removes it."""
    root, wanted = absolute(config.root), steps_of(config)
    steps = [step for of_set in wanted.values() for step in of_set.values()]
    found = superfluous(root, steps, partial(unchosen, root, [of_set["evaluation"] for of_set in wanted.values()]))
    for one in found if delete else ():
        storage.remove(one.path)
    return found


def redone(config: RunConfig, sets: Sequence[str] | None = None) -> list[str]:
    """What was done before and is to be done again, and why: a line a stage and set."""
    wanted = steps_of(config)
    steps = [step for name in chosen_sets(config, sets) for step in _up_to(wanted[name], "evaluation")]
    return why_again(absolute(config.root), steps)


def estimate_asking(config: RunConfig) -> dict[str, Estimate]:
    """What asking a language model for the dictionaries will cost at most: set -> estimate; asks nothing."""
    return {
        one.name: estimate(
            storage.expand(one.documents), settings=config.anchors, seed=config.seed, answers=answers_of(config)
        )
        for one in config.forget_sets
    }


def report(config: RunConfig, *, only_new: bool = False) -> dict[str, str]:
    """Writes report.html and report.json of every forget set that was evaluated; returns set -> path of the page.

    only_new: not those whose steps and reviewers are what they were when it was written.
    """
    root, pages, wanted = absolute(config.root), {}, steps_of(config)
    states = step_states(root, [step for steps in wanted.values() for step in steps.values()])
    done = {outcome.step.digest: outcome.folder for outcome in states if outcome.state == "done"}
    for name, steps in wanted.items():
        folders = {key: done[step.digest] for key, step in steps.items() if step.digest in done}
        if "evaluation" not in folders:
            continue
        into, agreement = storage.join(root, name), Store(root, name).agreement()
        pages[name], notes = storage.join(into, "report.html"), storage.join(into, ".report.json")
        told = {"steps": {key: steps[key].digest for key in folders}, "agreement": agreement}
        if not only_new or read_notes(notes) != told or not storage.exists(pages[name]):
            pages[name] = _write_report(config, name, folders, into, agreement)
            storage.write_json(notes, told)
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
        tokenizer=_tokenizer(folders["baseline"], config.trust_remote_code),
        agreement=agreement or {},
    )
    return write_report(into, data)


@cache
def _tokenizer(baseline: str, trust_remote_code: bool) -> "PreTrainedTokenizerFast":
    """For the reports of a thousand sets it is opened once."""
    return open_tokenizer(baseline, trust_remote_code)


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
    inputs = {name: steps[name] for name in ("baseline", "blocks", "anchors", "prompts") if name in steps}
    measured = evaluation_step(config, forget_set, inputs | texts_of(steps), model=model)
    attacked = dict(measured.inputs) | {"evaluation": measured} | given(steps, ABOUT)
    audited = audit_step(config, forget_set, attacked, unlearned=model_path_of(model))
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


def _to_do(root: str, steps: list[Step]) -> set[str]:
    """The stages of what is not done."""
    return {outcome.step.stage for outcome in step_states(root, steps) if outcome.state != "done"}
