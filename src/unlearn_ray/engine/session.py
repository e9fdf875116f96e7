"""The Ray of a run: a local one that this program starts and stops, or a cluster that it joins and leaves running."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray.data

from unlearn_ray.config import Resources
from unlearn_ray.engine.environment import KEEP_MEMORY, QUIET, SHARE_CORES
from unlearn_ray.engine.idle import end_all, set_share
from unlearn_ray.errors import InputError


@contextmanager
def ensure_ray(resources: Resources, share: float = 1.0) -> Iterator[None]:
    """Ray for the time of a run; what was running before goes on running afterwards.

    Takes the Ray that is initialised in this process, or joins the one at `resources.address` or RAY_ADDRESS (set in a
    Ray job), or else starts one on this machine. Threads are left to Ray, which sets OMP_NUM_THREADS to the CPUs of an
    actor. share: how much of the cluster the run may keep for itself. Raises InputError where a cluster cannot be
    reached.
    """
    set_share(share)
    if ray.is_initialized():
        try:
            yield
        finally:
            end_all()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default, and no warning about it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the core warns of every actor pool, ray issue 53727
    address = resources.address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes away the only node
    # The dashboard stays on, on loopback: without it Ray Train complains every second that it cannot query the state.
    local = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "num_cpus": _local_cpus(resources)}
    try:
        _connect(address)
        ray.init(
            address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": _worker_environment(resources, address)},
            **(local if address == "local" else {}),
        )
    except (OSError, ValueError) as error:
        raise InputError(f"resources.address: cannot join the Ray cluster at {address}: {error}") from error
    _quiet_ray_data()
    try:
        yield
    finally:
        end_all()
        ray.shutdown()


def gpus_per_worker(resources: Resources) -> int:
    """`auto` resolved by what the running cluster has; one that adds GPUs on demand needs an explicit 1."""
    if resources.gpus_per_worker == "auto":
        return int(ray.cluster_resources().get("GPU", 0) >= 1)
    return resources.gpus_per_worker


def gpus_per_scorer(resources: Resources) -> int:
    """For an actor that scores text with whole models: none where workers have none."""
    return gpus_per_worker(resources) and resources.gpus_per_scorer


def _local_cpus(resources: Resources) -> int:
    # As many as all kinds of workers hold together, though they rarely compute at once: training, scoring, labelling
    # and, which is light, reading and translating. With fewer, one kind would be ended to make room for the next.
    return max(os.cpu_count() or 1, resources.workers * (3 * resources.cpus_per_worker + 2) + 1)


def _quiet_ray_data() -> None:
    # It announces every dataset on the console, whatever level Ray itself was given; its log file keeps everything.
    for handler in logging.getLogger(ray.data.__name__).handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)


def _connect(address: str) -> None:
    # Ray tries for three minutes and then ends the program.
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _worker_environment(resources: Resources, address: str) -> dict[str, str]:
    on_cpus = resources.gpus_per_worker == 0
    if resources.gpus_per_worker == "auto" and address == "local":
        import torch  # takes seconds, and most processes that import this module start no Ray

        on_cpus = not torch.cuda.is_available()
    wanted = dict(QUIET)
    if on_cpus:
        wanted |= KEEP_MEMORY | {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    if on_cpus and max(resources.workers, resources.parallel_sets or 1) > 1:
        wanted |= SHARE_CORES
    # What is set already stays: it is the user's word, and Ray refuses to change what a job's runtime environment sets.
    return {name: value for name, value in wanted.items() if name not in os.environ}
