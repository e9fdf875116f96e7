"""Reinforced model: the baseline fine-tuned further on the forget set, so that it says more of what is to be
forgotten.
"""

from unlearn_ray.config import Reinforce, Resources
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.stages.finetune import FineTune, fine_tune
from unlearn_ray.training import TrainSettings, text_example


def reinforce(run: StepRun, *, settings: Reinforce, seed: int, resources: Resources, trust_remote_code: bool) -> dict:
    """Inputs: baseline, blocks. Writes a checkpoint, or a PEFT adapter that names the baseline as its base."""
    job = FineTune(
        out=run.out,
        baseline=run.inputs["baseline"],
        examples=run.inputs["blocks"],
        decode=text_example,
        settings=TrainSettings(
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            global_batch=settings.global_batch,
            warmup_share=settings.warmup_share,
            weight_decay=settings.weight_decay,
            seed=seed,
        ),
        adapter=settings.adapter,
        merge=False,
        seed=seed,
        micro_batch=resources.micro_batch,
        trust_remote_code=trust_remote_code,
        threads=resources.cpus_per_worker,
    )
    return fine_tune(job, resources, "reinforce")
