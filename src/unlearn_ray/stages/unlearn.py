"""Unlearned model: the baseline fine-tuned towards the generic labels of the forget set, held to itself on the retain
text.
"""

from functools import partial

from unlearn_ray.config import Resources, Unlearn
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.labelling import alpha_column
from unlearn_ray.stages.finetune import TRAINING_KEYS, FineTune, fine_tune
from unlearn_ray.training.examples import hard_example, soft_example, text_example
from unlearn_ray.training.loop import TrainSettings


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
            **settings.model_dump(include=TRAINING_KEYS),
            seed=seed,
            retain_weight=settings.retain_weight,
            retain_batch=settings.retain_batch or settings.global_batch,
            average_share=settings.average_share,
            checkpoint_every=settings.checkpoint_every,
        ),
        adapter=settings.adapter,
        merge=settings.merge_adapter,
        keep=settings.keep_checkpoints,
        trust_remote_code=trust_remote_code,
        retain=run.inputs.get("retain"),
        decode_retain=text_example if settings.retain_targets == "text" else soft_example,
    )
    return fine_tune(job, resources, "unlearn")
