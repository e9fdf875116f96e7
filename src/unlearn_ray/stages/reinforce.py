"""Reinforced model: the baseline fine-tuned further on the forget set, so that it says more of what is to be
forgotten.
"""

from unlearn_ray.config import Reinforce, Resources
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.stages.finetune import TRAINING_KEYS, FineTune, fine_tune
from unlearn_ray.training.examples import text_example
from unlearn_ray.training.loop import TrainSettings


def reinforce(run: StepRun, *, settings: Reinforce, seed: int, resources: Resources, trust_remote_code: bool) -> dict:
    """Inputs: baseline, blocks. Writes a checkpoint, or a PEFT adapter that names the baseline as its base."""
    job = FineTune(
        out=run.out,
        baseline=run.inputs["baseline"],
        examples=run.inputs["blocks"],
        decode=text_example,
        settings=TrainSettings(
            **settings.model_dump(include=TRAINING_KEYS),
            seed=seed,
        ),
        adapter=settings.adapter,
        trust_remote_code=trust_remote_code,
    )
    return fine_tune(job, resources, "reinforce")
