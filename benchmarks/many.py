"""What many forget sets cost beside their compute: python benchmarks/many.py

(1) Overhead: runs of 10, 100 and 1,000 sets through the real driver (configuration, hashing, leases, manifests, events,
scheduling, status) whose stages compute nothing, so that all the time it takes is overhead.
(2) Runs of small sets with all that the stages do: many_runs.py.
(3) Memory and time of labelling: many_labels.py.
(4) On paper: 1,000 sets of 3 million tokens on 64 GPUs, by the real admission of steps in simulated time, from the
rates of the stages (--train-tokens-per-s and --score-tokens-per-s: Llama 2 7B on one H200) and the measured cost of a
step.

--small leaves out 1,000 sets and is small in (2) and (3); --driver-only leaves these two out.
"""

import argparse
import heapq
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import many_labels
import many_runs

from unlearn_ray import pipeline
from unlearn_ray.config import RunConfig, load_config
from unlearn_ray.engine.schedule import Ready, run_steps
from unlearn_ray.engine.steps import Holds, Step, StepRun
from unlearn_ray.jobs import ONLY, urgency

STAGES = ("blocks", "reinforced", "anchors", "labels", "unlearned", "evaluation")


def idle(run: StepRun) -> dict:
    return {"rows": {}}


def idle_steps(config: RunConfig) -> list[Step]:
    """The last steps of a real run's graph, whose stages do nothing."""
    made: dict[int, Step] = {}

    def copy(step: Step) -> Step:
        if id(step) not in made:
            inputs = {name: copy(given) for name, given in step.inputs.items()}
            made[id(step)] = replace(step, run=idle, inputs=inputs, holds=Holds)
        return made[id(step)]

    return [copy(of_set["evaluation"]) for of_set in pipeline.steps_of(config).values()]


def write_sets(folder: Path, count: int) -> RunConfig:
    """A configuration of so many sets with a document each."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    with open(folder / "sets.jsonl", "w") as sets:
        for number in range(count):
            (folder / f"{number}.txt").write_text(f"The story of number {number}. " * 20)
            sets.write(json.dumps({"name": f"set-{number:04}", "documents": f"{folder}/{number}.txt"}) + "\n")
    (folder / "run.yaml").write_text(
        f"root: {folder}/runs\nbaseline: {folder}/model\nforget_sets: {folder}/sets.jsonl\n"
    )
    return load_config(folder / "run.yaml")


def overhead(count: int, parallel: int) -> dict[str, float]:
    """Seconds a set of the parts of a run of so many sets, and a second run that finds all done."""
    with tempfile.TemporaryDirectory() as folder:
        times = [time.perf_counter()]

        def lap() -> float:
            times.append(time.perf_counter())
            return (times[-1] - times[-2]) / count

        config = write_sets(Path(folder), count)
        lap()
        config = load_config(Path(folder) / "run.yaml")
        steps = idle_steps(config)
        parts = {"steps": lap()}
        work = partial(run_steps, config.root, steps, max_parallel=parallel, urgency=urgency(config, ONLY))
        outcomes = work()
        parts["run"] = lap()
        assert Counter(one.state for one in outcomes) == {"ran": len(outcomes)}
        work()
        parts["found done"] = lap()
        look = pipeline.watch(config)
        lap()
        look()
        parts["status"] = lap()
        return parts


@dataclass(frozen=True)
class Cluster:
    """gpus, cpus: what there is. train, score: tokens a second of one GPU in training, and in one model's forward pass;
    start: seconds before a stage on GPUs computes; driver: seconds of the driver's one thread a step."""

    gpus: int
    cpus: int
    train: float
    score: float
    cut: float
    start: float
    driver: float


def seconds_of(stage: str, tokens: float, gpus: int, cluster: Cluster) -> float:
    """How long a stage of one set takes on so many GPUs, with the defaults of a run: 3 epochs of reinforcing, 2 of
    unlearning with as many retain blocks beside, two models in labelling, and about 20 models in an evaluation that
    reads 100 thousand tokens with each."""
    work = {
        "blocks": tokens / cluster.cut,
        "reinforced": cluster.start + 3 * tokens / cluster.train / gpus,
        "anchors": cluster.start + 2 * 48 * 512 / cluster.score / gpus,
        "labels": cluster.start + 2 * tokens / cluster.score / gpus,
        "unlearned": cluster.start + 2 * 2 * tokens / cluster.train / gpus,
        "evaluation": cluster.start + 20 * 1e5 / cluster.score / gpus,
    }
    return work[stage]


def simulate(sets: int, tokens: float, gpus_a_step: int, cluster: Cluster) -> dict[str, float]:
    """The run on paper: wall time, the busy share of GPUs and driver, and which stages hold the GPUs for how long."""
    ready, ended, free = Ready(), [], Holds(cluster.cpus, cluster.gpus)
    clock = driver_free = driver_busy = 0.0
    gpu_seconds: Counter[str] = Counter()
    holds = {stage: Holds(1, 0) if stage == "blocks" else Holds(0, gpus_a_step) for stage in STAGES}
    step = {stage: Step(stage, 1, "set", {}, idle) for stage in STAGES}
    at: dict[int, int] = dict.fromkeys(range(sets), 0)
    place: dict[int, int] = {}
    for number in range(sets):
        ready.push(step["blocks"], holds["blocks"], (number,))
    order = 0
    while ended or ready.heaps:
        while found := ready.pop(free, alone=False):
            (one, held), order = found[:2], order + 1
            number = found[2][0]
            driver_free = max(driver_free, clock) + cluster.driver
            driver_busy += cluster.driver
            seconds = seconds_of(one.stage, tokens, gpus_a_step, cluster)
            gpu_seconds[one.stage] += seconds * held.gpus
            free = free - held
            place[order] = number
            heapq.heappush(ended, (driver_free + seconds, order, held))
        clock, done, held = heapq.heappop(ended)
        free = Holds(free.cpus + held.cpus, free.gpus + held.gpus)
        number = place.pop(done)
        at[number] += 1
        if at[number] < len(STAGES):
            stage = STAGES[at[number]]
            ready.push(step[stage], holds[stage], (number,))
    busy = sum(gpu_seconds.values())
    shares = {f"gpu_share_{stage}": seconds / busy for stage, seconds in gpu_seconds.items() if seconds}
    return {
        "hours": clock / 3600,
        "gpus_busy": busy / (clock * cluster.gpus),
        "driver_busy": driver_busy / clock,
    } | shares


def storage(tokens: float, parameters: float) -> dict[str, float]:
    """GB that a set moves with the defaults of a run: kept files, the states of trainings that are removed again (16
    bytes a parameter every 50 steps), and models that are read, of which a node keeps the baseline in memory."""
    model, steps = 2 * parameters, tokens / 512 / 128
    labels, checkpoints = tokens * 64 * 8, 1 + 1 + int(2 * steps / 20)
    saves, loads = int(3 * steps / 50) + int(2 * steps / 50), 1 + 2 + 2 + 1 + 1 + checkpoints
    return {
        "labels": labels / 1e9,
        "checkpoints": checkpoints * model / 1e9,
        "states": saves * 16 * parameters / 1e9,
        "read": loads * model / 1e9,
    }


def told(title: str, rows: Mapping[str, Mapping[str, float]] | Sequence) -> None:
    print(f"\n{title}")
    for name, row in dict(rows).items():
        print(f"  {name:>12}  " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="10 and 100 sets alone")
    parser.add_argument("--driver-only", action="store_true", help="without (2) and (3)")
    parser.add_argument("--parallel", type=int, default=16, help="steps at a time")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--gpus-a-step", type=int, default=1)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--tokens", type=float, default=3e6, help="of each set")
    parser.add_argument("--parameters", type=float, default=6.7e9, help="of the model")
    parser.add_argument("--train-tokens-per-s", type=float, default=7153, help="of one GPU: docs/training.md")
    parser.add_argument("--score-tokens-per-s", type=float, default=42000, help="one model: docs/labelling.md")
    parser.add_argument("--start-s", type=float, default=30, help="before a stage on GPUs computes")
    options = parser.parse_args()

    counts = (10, 100) if options.small else (10, 100, 1000)
    overhead(10, options.parallel)  # what is imported and cached by the first run is not of a set
    parts = {count: overhead(count, options.parallel) for count in counts}
    told("(1) overhead, seconds a set", {f"{count} sets": row for count, row in parts.items()})
    a_step = parts[counts[-1]]["run"] / len(STAGES)

    cluster = Cluster(
        options.gpus,
        8 * options.gpus,
        options.train_tokens_per_s,
        options.score_tokens_per_s,
        cut=1e5,
        start=options.start_s,
        driver=a_step,
    )
    on_paper = {
        f"{gpus} GPUs": simulate(options.sets, options.tokens, options.gpus_a_step, replace(cluster, gpus=gpus))
        for gpus in (options.gpus, 4 * options.gpus, 64 * options.gpus)
    }
    told(f"(4) on paper: {options.sets} sets of {options.tokens:.3g} tokens", on_paper)

    first = on_paper[f"{options.gpus} GPUs"]
    files = storage(options.tokens, options.parameters)
    moved = {name: gigabytes * options.sets / first["hours"] / 3600 for name, gigabytes in files.items()}
    told("files, GB a set", {"": files})
    told("files, GB a second over the run on paper", {"": moved})

    numbers = {f"overhead_s_per_set_{count}": round(row["steps"] + row["run"], 5) for count, row in parts.items()}
    numbers |= {"driver_s_per_step": round(a_step, 5), "paper_hours": round(first["hours"], 2)}
    if not options.driver_only:
        print("\n(2) small sets, one run against many")
        runs = many_runs.measure(**(many_runs.SMALL if options.small else many_runs.WHOLE))
        print("\n(3) labelling")
        labels = many_labels.measure(None, **(many_labels.SMALL if options.small else many_labels.WHOLE))
        numbers |= {
            name: runs[name] for name in ("speedup_over_serial", "overhead_s_per_set", "training_overhead_s_per_set")
        }
        numbers |= {name: labels[name] for name in ("adapter_memory_share", "adapter_s_per_set")}
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
