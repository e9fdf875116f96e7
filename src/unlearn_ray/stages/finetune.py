"""What the reinforced and the unlearned model have in common: one fine-tuning of the baseline on Ray Train."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass

import ray.train
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from unlearn_ray.config import Adapter, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.session import gpus_per_worker
from unlearn_ray.engine.train import fit
from unlearn_ray.models import compute_dtype, leading_ids
from unlearn_ray.stages.baseline import open_model, open_tokenizer, write_checkpoint
from unlearn_ray.stages.blocks import read_blocks
from unlearn_ray.training import Example, Examples, TrainSettings, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTune:
    """One fine-tuning: `baseline` and `examples` are folders of steps, `decode` turns a row into an example, `retain`
    is the folder of the retain blocks with the baseline's soft labels. merge: an adapter is merged into the weights
    that are written.
    """

    out: str
    baseline: str
    examples: str
    decode: Callable[[dict], Example]
    settings: TrainSettings
    adapter: Adapter | None
    merge: bool
    seed: int
    micro_batch: int
    trust_remote_code: bool
    threads: int
    retain: str | None = None
    decode_retain: Callable[[dict], Example] | None = None


def fine_tune(job: FineTune, resources: Resources, name: str) -> dict:
    """Runs the job on `resources.workers` workers; writes the checkpoint to job.out, others to
    job.out/checkpoints/step-N.

    Returns the losses and the number of steps and blocks for the manifest.
    """
    storage.remove(storage.join(job.out, "checkpoints"))  # of a killed run
    record = storage.join(job.out, "ray-train")
    storage.remove(record)
    losses = fit(
        _work,
        {"job": job},
        name=name,
        storage=record,
        workers=resources.workers,
        cpus=resources.cpus_per_worker,
        gpus=gpus_per_worker(resources),
    )
    storage.remove(record)
    rows = {"steps": len(losses), "blocks": read_blocks(job.examples, ["block_id"]).num_rows}
    return {"rows": rows, "losses": [round(loss, 5) for loss in losses]}


def _work(config: dict) -> list[float]:
    """The train loop of one Ray Train worker."""
    job: FineTune = config["job"]
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    on_gpu = torch.cuda.is_available()
    precision = "bf16" if compute_dtype("cuda" if on_gpu else "cpu") == torch.bfloat16 else "no"
    accelerator = Accelerator(cpu=not on_gpu, mixed_precision=precision)
    world = ray.train.get_context().get_world_size()
    if accelerator.num_processes != world:
        raise RuntimeError(
            f"accelerate sees {accelerator.num_processes} of {world} workers: they do not train together"
        )
    tokenizer = open_tokenizer(job.baseline, job.trust_remote_code)
    model = _adapted(open_model(job.baseline, job.trust_remote_code, scoring=False), job.adapter)

    def save(folder: str) -> None:
        if accelerator.is_main_process:
            write_checkpoint(_exported(model, job.merge), tokenizer, folder)
        accelerator.wait_for_everyone()

    losses = train(
        model,
        leading_ids(tokenizer),
        Examples(read_blocks(job.examples), job.decode),
        job.settings,
        accelerator,
        retain=Examples(read_blocks(job.retain), job.decode_retain) if job.retain and job.decode_retain else None,
        micro_batch=job.micro_batch,
        on_step=_log_step if accelerator.is_main_process else lambda step, steps, loss: None,
        on_checkpoint=lambda step: save(storage.join(job.out, "checkpoints", f"step-{step}")),
    )
    save(job.out)
    return losses


def _log_step(step: int, steps: int, loss: float) -> None:
    logger.info("step %d of %d, loss %.4f", step, steps, loss)


def _adapted(model: PreTrainedModel, adapter: Adapter | None) -> PreTrainedModel | PeftModel:
    if adapter is None:
        return model
    # lora_alpha is declared as an integer, and used as a number.
    lora = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules="all-linear", task_type="CAUSAL_LM")  # type: ignore[arg-type]
    return PeftModel(model, lora)


def _exported(model: PreTrainedModel | PeftModel, merge: bool) -> PreTrainedModel | PeftModel:
    """What is written: with `merge` an adapter becomes part of the weights, of a copy, since training may go on."""
    if merge and isinstance(model, PeftModel):
        return copy.deepcopy(model).merge_and_unload()  # type: ignore[operator]
    return model
