"""What a run is (sections, evidence for what is measured, review for what people are asked), and how it is read from
YAML (loading)."""

from unlearn_ray.config.evidence import Audit, Benchmarks, Evaluate, Judge, Prompts
from unlearn_ray.config.loading import load_config
from unlearn_ray.config.placement import Placement
from unlearn_ray.config.review import Review
from unlearn_ray.config.sections import (
    Adapter,
    Anchors,
    Endpoint,
    ForgetSet,
    Label,
    Reinforce,
    Resources,
    RunConfig,
    Unlearn,
)

__all__ = [
    "Adapter",
    "Anchors",
    "Audit",
    "Benchmarks",
    "Endpoint",
    "Evaluate",
    "ForgetSet",
    "Judge",
    "Label",
    "Placement",
    "Prompts",
    "Reinforce",
    "Resources",
    "Review",
    "RunConfig",
    "Unlearn",
    "load_config",
]
