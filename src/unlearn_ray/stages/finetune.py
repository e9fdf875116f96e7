"""What the reinforced and the unlearned model have in common: one fine-tuning of the baseline on Ray Train."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from tempfile import TemporaryDirectory

import ray.train
import torch
from peft import LoraConfig, PeftModel
from tensorboardX import SummaryWriter
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from unlearn_ray.config import Adapter, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.placement import places
from unlearn_ray.engine.session import gpus_per_worker
from unlearn_ray.engine.train import fit
from unlearn_ray.errors import StepFailed
from unlearn_ray.models import add_adapter, leading_ids, load_model, out_of_memory, readable, save_checkpoint
from unlearn_ray.stages.baseline import model_path, open_model, open_tokenizer, write_checkpoint
from unlearn_ray.stages.blocks import read_blocks
from unlearn_ray.training.examples import Example, Examples
from unlearn_ray.training.layout import Layout, make_accelerator, read_deepspeed
from unlearn_ray.training.loop import StepLog, TrainSettings, train
from unlearn_ray.training.saves import Background, Saves, steps_in

# Of a Training section, what TrainSettings takes as it is.
TRAINING_KEYS = {"epochs", "learning_rate", "global_batch", "schedule", "warmup_share", "weight_decay", "max_grad_norm"}
NEWS_EVERY_S = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTune:
    """One fine-tuning: `baseline` and `examples` are folders of steps, `decode` turns a row into an example, `retain`
    is the folder of the retain blocks. merge: an adapter is merged into the weights that are written. keep: how many
    checkpoints on the way are kept, None for all.
    """

    out: str
    baseline: str
    examples: str
    decode: Callable[[dict], Example]
    settings: TrainSettings
    adapter: Adapter | None
    trust_remote_code: bool
    merge: bool = False
    keep: int | None = None
    retain: str | None = None
    decode_retain: Callable[[dict], Example] | None = None


def layout_of(resources: Resources) -> Layout:
    """How the configuration wants trainings to be spread. Raises InputError for a DeepSpeed file that cannot be
    used.
    """
    settings = None
    if resources.deepspeed:
        [file] = storage.expand([resources.deepspeed])
        settings = read_deepspeed(storage.read_text(file), f"resources.deepspeed: {file}")
    return Layout(resources.micro_batch, resources.activation_checkpointing, settings)


def fine_tune(job: FineTune, resources: Resources, name: str) -> dict:
    """Runs the job on `resources.workers` workers; writes the checkpoint to job.out, others to
    job.out/checkpoints/step-N, and TensorBoard's files to job.out/tensorboard.

    A killed one goes on from job.out/saves. Returns for the manifest the losses, the number of steps and blocks, and
    how often the workers were started again. Raises Diverged.
    """
    gpus = gpus_per_worker(resources)
    losses, restarts = fit(
        _work,
        {
            "job": job,
            "layout": layout_of(resources),
            "save_every": resources.save_every,
            "threads": resources.cpus_per_worker,
        },
        name=name,
        record=storage.join(job.out, "ray-train"),
        workers=resources.workers,
        cpus=resources.cpus_per_worker,
        gpus=gpus,
        places=places(resources, "train", gpus),
        restarts=resources.restarts,
    )
    storage.remove(storage.join(job.out, "saves"))
    rows = {"steps": len(losses), "blocks": read_blocks(job.examples, ["block_id"]).num_rows}
    return {"rows": rows, "losses": [round(loss, 5) for loss in losses], "restarts": restarts}


def _work(config: dict) -> list[float]:
    """The train loop of one Ray Train worker."""
    job: FineTune = config["job"]
    layout: Layout = config["layout"]
    torch.set_num_threads(config["threads"])
    torch.manual_seed(job.settings.seed)  # of a new adapter
    accelerator = make_accelerator(
        layout,
        max_grad_norm=job.settings.max_grad_norm,
        processes=ray.train.get_context().get_world_size(),
    )
    tokenizer = open_tokenizer(job.baseline, job.trust_remote_code)
    # Weights that are trained are float32; those that an adapter leaves alone are what is fastest.
    dtype = None if job.adapter else torch.float32
    model = adapted(open_model(job.baseline, job.trust_remote_code, dtype=dtype, spread=False), job)
    background = Background()
    work = partial(
        train,
        model,
        leading_ids(tokenizer),
        Examples(read_blocks(job.examples), job.decode),
        job.settings,
        accelerator,
        layout=layout,
        retain=Examples(read_blocks(job.retain), job.decode_retain) if job.retain and job.decode_retain else None,
        saves=Saves(storage.join(job.out, "saves"), config["save_every"], background),
    )
    with _advice():
        if accelerator.is_main_process:
            with _logging(job.out) as log:
                losses = work(on_step=log, on_checkpoint=partial(background.submit, _write, job, model, tokenizer))
        else:
            losses = work()
        background.finish()
    return losses


@contextmanager
def _advice() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise StepFailed(
            f"a training worker ran out of memory ({str(error).splitlines()[0]}); lower resources.micro_batch, or see "
            "what `unlearn-ray plan` advises"
        ) from error


def adapted(model: PreTrainedModel, job: FineTune) -> PreTrainedModel | PeftModel:
    """The baseline with a new adapter, where the job wants one.

    What is then written of it is the same every time and everywhere: by itself PEFT writes the names of layers in the
    order of a set, and into README.md where a node's copy of the baseline lies.
    """
    if job.adapter is None:
        return model
    base = model_path(job.baseline)
    model.config.name_or_path = model.name_or_path = base
    # lora_alpha is declared as an integer, and used as a number.
    lora = LoraConfig(
        r=job.adapter.rank,
        lora_alpha=job.adapter.alpha,  # type: ignore[arg-type]
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    with_adapter = PeftModel(model, lora)
    lora.target_modules = sorted(lora.target_modules or ())
    return with_adapter


def _write(
    job: FineTune,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    step: int | None,
    weights: dict[str, torch.Tensor],
) -> None:
    """Writes the result, or the checkpoint of a step, and removes checkpoints that are not to be kept."""
    checkpoints = storage.join(job.out, "checkpoints")
    folder = job.out if step is None else storage.join(checkpoints, f"step-{step}")
    if job.merge and isinstance(model, PeftModel):
        with TemporaryDirectory() as adapter, readable(model_path(job.baseline)) as path:
            save_checkpoint(model, tokenizer, adapter, weights)
            unset_hf_deepspeed_config()  # ZeRO-3 would spread what is loaded now over all processes
            baseline = load_model(path, trust_remote_code=job.trust_remote_code)
            merged = add_adapter(baseline, adapter, float32=True).merge_and_unload()  # type: ignore[operator]
            write_checkpoint(merged, tokenizer, folder)
    else:
        write_checkpoint(model, tokenizer, folder, weights)
    for old in steps_in(checkpoints)[: -job.keep] if job.keep else ():
        storage.remove(storage.join(checkpoints, f"step-{old}"))


@contextmanager
def _logging(out: str) -> Iterator[Callable[[StepLog], None]]:
    """Steps go to the worker's log, to progress.json for `status`, and to TensorBoard's files."""
    told = -math.inf
    with TemporaryDirectory() as local, SummaryWriter(local) as board:  # which knows local files only

        def log(step: StepLog) -> None:
            nonlocal told
            logger.info("%s", step)
            for name in ("loss", "learning_rate", "grad_norm", "tokens_per_s", "memory_gb"):
                board.add_scalar(name, getattr(step, name), step.step)
            if time.monotonic() - told > NEWS_EVERY_S:
                told = time.monotonic()
                storage.write_json(storage.join(out, "progress.json"), asdict(step))
                board.flush()
                storage.upload_folder(local, storage.join(out, "tensorboard"))

        yield log
        board.flush()
        storage.upload_folder(local, storage.join(out, "tensorboard"))
    storage.remove(storage.join(out, "progress.json"))
