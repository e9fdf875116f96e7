"""Unlearned model: the baseline fine-tuned towards the generic labels of the forget set, held to itself on the retain
text.
"""

from functools import partial

from unlearn_ray.config import Resources, Unlearn
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.labelling import alpha_column
from unlearn_ray.stages.finetune import FineTune, fine_tune
from unlearn_ray.training import TrainSettings, hard_example, soft_example


def unlearn(
    run: StepRun, *, settings: Unlearn, alpha: float, seed: int, resources: Resources, trust_remote_code: bool
) -> dict:
    """Inputs: baseline, labels and, for a retain term, retain. Writes the unlearned checkpoint and those on the way.

    alpha: whose labels are trained on.
    """
    hard = partial(hard_example, column=alpha_column(alpha))
    job = FineTune(
        out=run.out,
        baseline=run.inputs["baseline"],
        examples=run.inputs["labels"],
        decode=soft_example if settings.targets == "soft" else hard,
        settings=TrainSettings(
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            global_batch=settings.global_batch,
            warmup_share=settings.warmup_share,
            weight_decay=settings.weight_decay,
            seed=seed,
            retain_weight=settings.retain_weight,
            retain_batch=settings.retain_batch or settings.global_batch,
            average_share=settings.average_share,
            checkpoint_every=settings.checkpoint_every,
        ),
        adapter=settings.adapter,
        merge=True,
        seed=seed,
        micro_batch=resources.micro_batch,
        trust_remote_code=trust_remote_code,
        threads=resources.cpus_per_worker,
        retain=run.inputs.get("retain"),
        decode_retain=soft_example,
    )
    return fine_tune(job, resources, "unlearn")
