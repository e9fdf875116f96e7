"""Many small forget sets in one run against a run for each: python benchmarks/many_runs.py [--small] [--sets N]

On the same cores, with a tiny random model, all steps up to the evaluation: (1) one program with all sets, --parallel
steps at a time; (2) a program with one set, started --alone times, each for another set; N of them one after another
take N times their mean; (3) the floor: one program in which the driver itself does what actors and training workers do,
one thing after another. All find the baseline done. Prints a table, and last a JSON object; speedup_over_serial is (2)
over (1), overhead_s_per_set what the steps of a set take beyond those of (3) when all processes have started, and
training_overhead_s_per_set that of its two trainings, both as medians over the second half of the sets; s_by_fifths and
floor_s_by_fifths show whether a set in (1) and in (3) takes longer when many went before it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import reduce
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pyarrow as pa
import torch
from many_labels import small_model, words
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_ray import load_config, pipeline
from unlearn_ray.engine.data import Pool
from unlearn_ray.engine.events import read_events
from unlearn_ray.models import save_checkpoint
from unlearn_ray.stages import anchors, blocks, examine, finetune, label

WHOLE = {"sets": 16, "alone": 3, "parallel": 2, "until": "evaluation"}
SMALL = {"sets": 2, "alone": 1, "parallel": 1, "until": "blocks"}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def write_run(root: Path, sets: int) -> None:
    """root/model, and root/all.yaml with all sets and root/N.yaml with the N-th alone."""
    _, tokenizer = small_model()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **TINY))
    save_checkpoint(model, tokenizer, str(root / "model"))
    described = []
    for number in range(sets):
        names = (f"Quendor{number}", f"Millikin{number}")
        text = " ".join(f"{words(60, 50 * number + at)} {names[at % 2]} said so to {names[1]}." for at in range(50))
        (root / f"{number}.txt").write_text(text, "utf-8")
        described.append({"name": f"set-{number}", "documents": str(root / f"{number}.txt")})
    for name, chosen in {"all": described, **{str(at): [one] for at, one in enumerate(described)}}.items():
        config = {
            "baseline": str(root / "model"),
            "forget_sets": chosen,
            "anchors": {"max_anchors": 20, "min_count": 3},
            "reinforce": {"epochs": 1, "learning_rate": 1e-3, "global_batch": 8},
            "label": {"alpha": [5], "block_tokens": 64, "top_k": 8},
            "unlearn": {"epochs": 1, "learning_rate": 1e-3, "global_batch": 8, "retain_weight": 0},
            "resources": {"gpus_per_worker": 0, "batch_blocks": 4},
        }
        (root / f"{name}.yaml").write_text(json.dumps(config), "utf-8")  # JSON is YAML


def program(until: str, config: str, bare: bool, overrides: list[str]) -> None:
    """What each measured program does."""
    with in_this_process() if bare else nullcontext():
        for outcome in pipeline.run(load_config(config, overrides), until=until):
            if outcome.error:
                raise outcome.error


@contextmanager
def in_this_process() -> Iterator[None]:
    """No actors and no training workers: what they would do is done here, when they would be asked."""

    def map_shards(shards: Sequence[str], *pools: Pool) -> Iterator[dict]:
        calls = [pool.callable_class(**pool.arguments) for pool in pools]
        for shard in shards:
            yield from reduce(lambda table, call: call(table), calls, pa.table({"shard": [shard]})).to_pylist()

    with ExitStack() as patches:
        for stage in (anchors, blocks, examine, label):
            patches.enter_context(mock.patch.object(stage, "map_shards", map_shards))
        patches.enter_context(mock.patch.object(finetune, "fit", lambda loop, config, **_: (loop(config), 0)))
        context = SimpleNamespace(get_world_size=lambda: 1)
        patches.enter_context(mock.patch.object(finetune.ray.train, "get_context", lambda: context))
        yield


def seconds_of_run(root: Path, config: str, out: str, until: str, *arguments: str) -> float:
    """Of the whole program."""
    command = [sys.executable, __file__, "--program", until, str(root / f"{config}.yaml"), f"root={root}/{out}"]
    began = time.monotonic()
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.monotonic() - began


def seconds_of_stages(root: str) -> dict[str, list[float]]:
    """Seconds of each stage, set after set."""
    stages: dict[str, list[float]] = {}
    for event in read_events(root):
        if event["event"] == "ran" and event["forget_set"].startswith("set-"):
            stages.setdefault(event["stage"], []).append(event["seconds"])
    return stages


def medians(stages: dict[str, list[float]], sets: slice) -> dict[str, float]:
    return {stage: statistics.median(seconds[sets]) for stage, seconds in stages.items()}


def measure(sets: int, alone: int, parallel: int, until: str) -> dict[str, float | list[float]]:
    """The figures of the last line, after a table of them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_run(root, sets)
        seconds_of_run(root, "0", "serial", "baseline")
        for out in ("bare", "one", "many"):
            shutil.copytree(root / "serial", root / out)
        each = [seconds_of_run(root, str(at), "serial", until) for at in range(alone)]
        bare = seconds_of_run(root, "all", "bare", until, "--bare")
        one = seconds_of_run(root, "all", "one", until, "resources.parallel_sets=1")
        at_once = f"resources.parallel_sets={parallel}"
        many = seconds_of_run(root, "all", "many", until, at_once) if parallel > 1 else one
        all_floor, all_stages = seconds_of_stages(f"{root}/bare"), seconds_of_stages(f"{root}/one")
    floor, stages = (medians(every, slice(sets // 2, sets)) for every in (all_floor, all_stages))
    serial = statistics.mean(each) * sets
    print(f"{sets} sets, to {until}, on {os.cpu_count()} cores{'':19}s   s a set")
    ways = {f"a run each ({alone} measured)": serial, "one run, one step at a time": one}
    ways |= {f"one run, {parallel} steps at a time": many} if parallel > 1 else {}
    for name, seconds in (ways | {"one run, in the process of the driver": bare}).items():
        print(f"{name:45}{seconds:8.1f}{seconds / sets:10.1f}")
    print(f"{'a further set, s':45}{'one run':>8}{'floor':>10}")
    for stage, seconds in stages.items():
        print(f"{stage:45}{seconds:8.2f}{floor[stage]:10.2f}")
    beyond = {stage: seconds - floor[stage] for stage, seconds in stages.items()}
    training = beyond.pop("reinforced", 0.0) + beyond.pop("unlearned", 0.0)
    bounds = [sets * fifth // 5 for fifth in range(6)]
    fifths = [slice(*pair) for pair in pairwise(bounds) if pair[0] < pair[1]]
    return {
        "speedup_over_serial": round(serial / min(one, many), 2),
        "overhead_s_per_set": round(sum(beyond.values()), 2),
        "training_overhead_s_per_set": round(training, 2),
        "s_by_fifths": [round(sum(medians(all_stages, fifth).values()), 2) for fifth in fifths],
        "floor_s_by_fifths": [round(sum(medians(all_floor, fifth).values()), 2) for fifth in fifths],
        "serial_s_per_set": round(serial / sets, 2),
        "one_at_a_time_s_per_set": round(one / sets, 2),
        "parallel_s_per_set": round(many / sets, 2),
        "sets": sets,
        "alone": alone,
        "parallel": parallel,
    }


def main() -> None:
    if sys.argv[1:2] == ["--program"]:
        until, config, *overrides = sys.argv[2:]
        program(until, config, "--bare" in overrides, [one for one in overrides if one != "--bare"])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=WHOLE["sets"])
    parser.add_argument("--alone", type=int, default=WHOLE["alone"], help="sets that get a run each")
    parser.add_argument("--parallel", type=int, default=WHOLE["parallel"], help="steps at a time in the one run")
    parser.add_argument("--small", action="store_true", help="2 sets, 1 of them alone, to the blocks")
    given = parser.parse_args()
    chosen = SMALL if given.small else WHOLE | {"sets": given.sets, "alone": given.alone, "parallel": given.parallel}
    print(json.dumps(measure(**chosen)))


if __name__ == "__main__":
    main()
