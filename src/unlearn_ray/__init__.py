"""Make a language model forget a body of text, and prove that it has: the small API for notebooks.

    config = load_config("run.yaml"); run(config); read_run(config)

Everything heavy is imported when it is first used, so that importing the package is free.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearn_ray.config import load_config
    from unlearn_ray.labelling import Labeller, LabelSettings, Preparer
    from unlearn_ray.pipeline import read_run, run

_HOMES = {
    "load_config": "unlearn_ray.config",
    "run": "unlearn_ray.pipeline",
    "read_run": "unlearn_ray.pipeline",
    "Labeller": "unlearn_ray.labelling",
    "LabelSettings": "unlearn_ray.labelling",
    "Preparer": "unlearn_ray.labelling",
}
__all__ = ["LabelSettings", "Labeller", "Preparer", "load_config", "read_run", "run"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'unlearn_ray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
