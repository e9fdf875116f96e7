"""Utility benchmarks: what else a model still knows and can, on the seven tasks of the paper. Free of Ray.

lm-eval brings the tasks: prompts, choices and what counts as right. The log-probabilities are our own, so that leading
ids and precision are those of everything else that is measured: lm-eval's own runner puts no <|endoftext|> before a
text (see models.leading_ids), and rounds a bfloat16 model's logits and their sums to bfloat16.
"""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.errors import InputError
from unlearn_ray.material import Question
from unlearn_ray.scoring import answer_logprob

# Where lm-eval defines each task, below its folder of tasks.
TASKS = {
    "arc_challenge": "arc/arc_challenge.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
}


def benchmark_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    *,
    tasks: Sequence[str],
    data: str | None,
    limit: int | None,
) -> dict[str, np.ndarray]:
    """For each task whether the model answers its items right, zero-shot: 1 or 0, float64 [N].

    Under NAME right means the greatest log-probability of all choices, under NAME/acc_norm (where lm-eval has it) the
    greatest per character. Which items and their order depend on `data` and `limit` alone, so that two models can be
    compared item by item.
    tasks: names of TASKS. data: see benchmark_file; None takes the datasets from the hub.
    limit: the most items of a task, spread evenly over it, since the first of a dataset can be of one kind.
    batch_size: sequences (an item has one for each choice) in a forward pass.
    Raises InputError for an unknown task, and where lm-eval or the data is missing or the data cannot be used.
    """
    items: dict[str, list[float]] = defaultdict(list)
    for name in tasks:
        with tempfile.TemporaryDirectory() as scratch:
            task, prepared = _prepare(name, data, limit, scratch)
        questions = [question for _, choices in prepared for question in choices]
        logprobs = iter(answer_logprob(model, tokenizer, questions, batch_size))
        for row, choices in prepared:
            # lm-eval pairs each log-probability with whether it is the greedy one, which these metrics do not read.
            for metric, value in task.process_results(row, [(next(logprobs), False) for _ in choices]).items():
                items[name if metric == "acc" else f"{name}/{metric}"].append(value)
    return {key: np.array(values, dtype=np.float64) for key, values in items.items()}


def benchmark_file(data: str, name: str) -> Path:
    """The rows of a task in the folder `data`, in the columns of its dataset: NAME/test.jsonl, else
    NAME/validation.jsonl. Raises InputError where there is neither.
    """
    files = [Path(data, name, f"{split}.jsonl").absolute() for split in ("test", "validation")]
    for file in files:
        if file.is_file():
            return file
    raise InputError(
        f"the benchmark {name} has no data: neither {files[0]} nor {files[1]} exists; "
        f"`python benchmarks/bench_data.py {data}` writes them"
    )


def _prepare(
    name: str, data: str | None, limit: int | None, scratch: str
) -> tuple[Any, list[tuple[dict, list[Question]]]]:
    """lm-eval's task, and the chosen items as (row, one question for each choice); `scratch` is an empty folder."""
    try:
        import datasets
        import lm_eval.tasks
    except ImportError as error:
        raise InputError(f"benchmarks need lm-eval ({error}): pip install 'unlearn-ray[eval]'") from error
    if name not in TASKS:
        raise InputError(f"unknown benchmark {name!r}: expected one of {', '.join(TASKS)}")
    config: dict[str, Any] = {"include": str(Path(lm_eval.tasks.__file__).parent / TASKS[name])}
    if data is not None:
        config |= {
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": str(benchmark_file(data, name))}, "cache_dir": scratch},
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
        }
    file = Path(scratch, "task.yaml")
    file.write_text(yaml.safe_dump(config))
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        task: Any = lm_eval.tasks.TaskManager(include_defaults=False).load([str(file)])["tasks"][name]
        rows = task.eval_docs
        count = min(limit or len(rows), len(rows))
        chosen = [rows[item * len(rows) // count] for item in range(count)]
        requests = [task.construct_requests(row, task.fewshot_context(row, num_fewshot=0)) for row in chosen]
        questions = [[Question(*choice.args) for choice in choices] for choices in requests]
        for row, choices in zip(chosen, questions, strict=True):
            answer = task.doc_to_text(row) if task.multiple_input else task.doc_to_target(row)
            if None in row.values() or answer not in range(len(choices)):
                raise ValueError(f"a row lacks a column or has no answer: {row}")
    except Exception as error:  # whatever lm-eval, datasets and the hub raise for rows they cannot get or use
        source = "the hub (evaluate.benchmarks.data: FOLDER needs none)"
        if data is not None:
            source = f"{benchmark_file(data, name)}, which needs the columns of its dataset"
        reason = error.__cause__ or error  # datasets only says that it failed
        line = f"{type(reason).__name__}: {reason}".strip().split("\n")[0]
        raise InputError(f"cannot make the benchmark {name} from {source}: {line}") from error
    return task, list(zip(chosen, questions, strict=True))
