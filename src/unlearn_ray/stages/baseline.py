"""The baseline, made ready once for all forget sets: checked, and converted where it is a .gguf file."""

from pathlib import Path
from tempfile import TemporaryDirectory

import ray
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.engine import storage
from unlearn_ray.engine.own_errors import own_errors
from unlearn_ray.engine.steps import StepRun, root_of
from unlearn_ray.models import (
    add_adapter,
    check_head,
    compute_dtype,
    leading_ids,
    load_model,
    load_tokenizer,
    readable,
    save_checkpoint,
)

POINTER = "model.json"  # says where the weights lie, when they do not lie in the step's folder
BELOW_ROOT = "below_root"  # there, in place of a path: of a model that the run itself made


def identity(baseline: str) -> dict[str, str]:
    """What of the baseline enters digests: the content hash of each of its files, or nothing more than its name for a
    hub id.
    """
    files = storage.list_files(baseline) if not baseline.endswith(".gguf") else [baseline]
    return {file.removeprefix(baseline).lstrip("/") or Path(file).name: storage.sha256_of(file) for file in files}


def prepare_baseline(run: StepRun, *, baseline: str, trust_remote_code: bool) -> dict:
    """Converts a .gguf file to a checkpoint in the step's folder; of anything else writes down where it is.

    Either way the model and its tokenizer are loaded and tried first, so that one that cannot be used fails here,
    before any work.
    """
    convert = ray.remote(_prepare).options(num_cpus=1)
    with own_errors():
        return ray.get(convert.remote(run.out, baseline, trust_remote_code))


def _prepare(out: str, baseline: str, trust_remote_code: bool) -> dict:
    with readable(baseline) as path:
        tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
        model = load_model(path, dtype=torch.float32, trust_remote_code=trust_remote_code)
    check_head(model)
    if baseline.endswith(".gguf"):
        write_checkpoint(model, tokenizer, out)
    else:
        storage.write_json(storage.join(out, POINTER), {"path": baseline})
    return {"parameters": model.num_parameters(), "leading_ids": leading_ids(tokenizer)}


def model_path(folder: str) -> str:
    """Where the weights of a step with a model lie: in its folder, or where its pointer says."""
    pointer = storage.join(folder, POINTER)
    if not storage.exists(pointer):
        return folder
    said = storage.read_json(pointer)
    return storage.join(root_of(folder), said[BELOW_ROOT]) if BELOW_ROOT in said else said["path"]


def open_tokenizer(baseline: str, trust_remote_code: bool) -> PreTrainedTokenizerFast:
    """The tokenizer of the baseline step in folder `baseline`."""
    with readable(model_path(baseline), weights=False) as path:
        return load_tokenizer(path, trust_remote_code=trust_remote_code)


def open_model(
    folder: str, trust_remote_code: bool, *, dtype: torch.dtype | None = None, spread: bool = True
) -> PreTrainedModel:
    """The model of a step, on the GPU where this process has one; dtype: None for the fastest, as scoring wants it.

    spread: over all GPUs where it has several. A training worker must not: it sees those of its neighbours too.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with readable(model_path(folder)) as path:
        return load_model(
            path,
            dtype=dtype or compute_dtype(device),
            device=device,
            device_map="balanced" if spread and torch.cuda.device_count() > 1 else None,
            trust_remote_code=trust_remote_code,
        )


def open_reinforced(folder: str, baseline: PreTrainedModel, trust_remote_code: bool) -> PreTrainedModel | PeftModel:
    """The reinforced model beside an open baseline, for scoring: an adapter is put on that baseline, which then serves
    as both.
    """
    if not storage.exists(storage.join(folder, "adapter_config.json")):
        return open_model(folder, trust_remote_code)
    with storage.local_folder(folder) as path:
        return add_adapter(baseline, path)


def write_checkpoint(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: str,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """save_checkpoint to a folder of the run, wherever that lies."""
    if "://" not in folder:
        save_checkpoint(model, tokenizer, folder, weights)
        return
    with TemporaryDirectory() as local:
        save_checkpoint(model, tokenizer, local, weights)
        storage.upload_folder(local, folder)
