"""Many small forget sets in one run against a run for each: python benchmarks/many_runs.py [--small] [--sets N]

On the same cores, with a tiny random model, all steps up to the unlearned model: (1) one program with all sets,
--parallel steps at a time; (2) a program with one set, started --alone times, each for another set; N of them one after
another take N times their mean. Both find the baseline done. Prints a table, and last a JSON object;
speedup_over_serial is (2) over (1).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from many_labels import small_model, words
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_ray.models import save_checkpoint

PROGRAM = """
import sys
from unlearn_ray import load_config, pipeline
until, config, *overrides = sys.argv[1:]
for outcome in pipeline.run(load_config(config, overrides), until=until):
    if outcome.error:
        raise outcome.error
"""
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


def seconds_of_run(root: Path, config: str, out: str, until: str, *overrides: str) -> float:
    """Of the whole program."""
    command = [sys.executable, "-c", PROGRAM, until, str(root / f"{config}.yaml"), f"root={root}/{out}", *overrides]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.monotonic() - began


def measure(sets: int, alone: int, parallel: int) -> dict[str, float]:
    """The figures of the last line, after a table of them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_run(root, sets)
        for out in ("together", "serial"):
            seconds_of_run(root, "0", out, "baseline")
        each = [seconds_of_run(root, str(at), "serial", "unlearned") for at in range(alone)]
        together = seconds_of_run(root, "all", "together", "unlearned", f"resources.parallel_sets={parallel}")
    serial = statistics.mean(each) * sets
    print(f"{sets} sets, to the unlearned model, on {os.cpu_count()} cores")
    print(f"{'':40}{'s':>8}{'s a set':>10}")
    print(f"{f'a run each ({alone} measured)':40}{serial:8.1f}{serial / sets:10.1f}")
    print(f"{f'one run, {parallel} steps at a time':40}{together:8.1f}{together / sets:10.1f}")
    return {
        "speedup_over_serial": round(serial / together, 2),
        "serial_s_per_set": round(serial / sets, 2),
        "together_s_per_set": round(together / sets, 2),
        "sets": sets,
        "alone": alone,
        "parallel": parallel,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--alone", type=int, default=16, help="sets that get a run each; the others count as they do")
    parser.add_argument("--parallel", type=int, default=8, help="steps at a time in the one run")
    parser.add_argument("--small", action="store_true", help="2 sets, 1 of them alone")
    given = parser.parse_args()
    if given.small:
        given.sets, given.alone = 2, 1
    print(json.dumps(measure(given.sets, given.alone, given.parallel)))


if __name__ == "__main__":
    main()
