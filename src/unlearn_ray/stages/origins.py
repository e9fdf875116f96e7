"""What a run reads from outside of it: paths that workers can use, and what identifies what lies there."""

import os

from unlearn_ray.benchmarks import benchmark_file
from unlearn_ray.config import Evaluate, RunConfig
from unlearn_ray.documents import document_names
from unlearn_ray.engine import storage
from unlearn_ray.stages.baseline import identity


def absolute(path: str) -> str:
    """Workers have another current directory."""
    return path if "://" in path else os.path.abspath(path)


def hub_id(model: str | None) -> str | None:
    """What identifies a model beside its files: its name, where it is no file or folder and so a hub id."""
    return None if model is None or storage.exists(model) else model


def model_path_of(path: str) -> str:
    """A hub id as it is, a file or folder by its absolute path."""
    return path if hub_id(path) else absolute(path)


def hashes(files: list[str]) -> dict[str, str]:
    """Name of each document -> sha256 of its file."""
    return {name: storage.sha256_of(path) for path, name in document_names(files).items()}


def evaluation_settings(config: RunConfig) -> Evaluate:
    """The settings of evaluation with paths that workers can use."""
    settings, data = config.evaluate, config.evaluate.benchmarks.data
    paths = {
        "reference": model_path_of(settings.reference) if settings.reference else None,
        "benchmarks": settings.benchmarks.model_copy(update={"data": absolute(data) if data else None}),
    }
    return settings.model_copy(update=paths)


def evaluated_contents(config: RunConfig) -> dict[str, str]:
    """The hashes of the files that evaluation reads itself, and what identifies the reference."""
    reference, benchmarks = config.evaluate.reference, config.evaluate.benchmarks
    files = {
        "probes": config.evaluate.probes,
        "controls": config.evaluate.controls,
        "token_prompts": config.evaluate.token_prompts,
        "prompts": config.evaluate.prompts.file,
    }
    if benchmarks.data:
        files |= {task: str(benchmark_file(benchmarks.data, task)) for task in benchmarks.tasks}
    found = {name: storage.sha256_of(file) for name, file in files.items() if file}
    return found | ({f"reference {key}": value for key, value in identity(reference).items()} if reference else {})
