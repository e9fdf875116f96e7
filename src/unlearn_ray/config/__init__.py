"""What a run is (sections) and how it is read from YAML (loading)."""

from unlearn_ray.config.loading import load_config
from unlearn_ray.config.sections import (
    Adapter,
    Anchors,
    Audit,
    Benchmarks,
    Endpoint,
    Evaluate,
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
    "Label",
    "Reinforce",
    "Resources",
    "RunConfig",
    "Unlearn",
    "load_config",
]
