"""Whole states of a fine-tuning, from which a killed one goes on as if it had never stopped."""

import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel

from unlearn_ray.engine import storage
from unlearn_ray.training.layout import Layout

ENGINE = "engine"  # the folder with what DeepSpeed keeps


@dataclass
class Training:
    """A fine-tuning under way: the model, what accelerate made of it and of its optimiser, and its averaged weights."""

    model: PreTrainedModel | PeftModel
    wrapped: Any
    optimizer: Any
    accelerator: Accelerator
    layout: Layout
    averaged: AveragedModel | None

    def trained(self) -> dict[str, torch.Tensor]:
        """The weights that are trained, by name, as they lie in this process."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def result(self) -> dict[str, torch.Tensor]:
        """A copy of the trained weights, whole, in float32 and host memory. Every process has to call it, and the main
        one gets them; the others nothing.
        """
        whole: Any = lambda weight: weight
        if self.layout.deepspeed:
            from unlearn_ray.training.zero import full_weight as whole
        weights = {}
        for name, weight in self.trained().items():
            full = whole(weight)
            if self.accelerator.is_main_process:
                weights[name] = full.detach().to("cpu", torch.float32, copy=True)
        return weights


class Background:
    """Writes one after another beside the training; an error of one is raised by the next `submit` or by `finish`."""

    def __init__(self) -> None:
        self.pool, self.last = ThreadPoolExecutor(1), Future()
        self.last.set_result(None)

    def submit(self, write: Callable[..., None], *arguments: Any) -> None:
        """Waits for none but those that failed: what `write` needs has to be a copy."""
        if self.last.done():
            self.last.result()
        self.last = self.pool.submit(_after, self.last, write, *arguments)

    def finish(self) -> None:
        """Waits for all of them."""
        self.last.result()


class Saves:
    """Keeps the newest two complete states of a training below `folder`, one every `every` steps.

    A state of data parallel training is one file, whatever the number of processes. With ZeRO every process writes its
    share, and only as many processes of the same stage go on from it; a training in another layout starts again.
    States are PyTorch files, to be read back by the run that wrote them, and by nobody else.
    """

    def __init__(self, folder: str, every: int, background: Background):
        self.folder, self.every, self.background = folder, every, background

    def restore(self, training: Training) -> list[float]:
        """Brings a training that has just been prepared to the newest state; returns the losses of the steps so far."""
        step = self._newest(training)
        training.accelerator.wait_for_everyone()  # all have found the same
        if training.accelerator.is_main_process:
            for other in self._steps():
                if other != step:  # half-written, or in another layout
                    storage.remove(self._folder(other))
        if step is None:
            return []
        device = training.accelerator.device
        with storage.local_folder(self._folder(step)) as local:
            mine = os.path.join(local, self._names(training)[self._share(training)])
            state = torch.load(mine, map_location="cpu", weights_only=True)
            if training.layout.deepspeed:
                self._handed_on(training, step).load_checkpoint(local, tag=ENGINE)
                return state["losses"]
        with torch.no_grad():
            for name, weight in training.trained().items():
                weight.copy_(state["weights"][name].to(device))
        training.optimizer.load_state_dict(state["optimizer"])
        if training.averaged:
            training.averaged.load_state_dict(state["averaged"])
        return state["losses"]

    def save(self, training: Training, losses: list[float]) -> None:
        """Takes a copy of the state and writes it in the background; every process has to call it."""
        self.background.finish()
        training.accelerator.wait_for_everyone()  # so the state before is complete, and those before it can go
        if training.accelerator.is_main_process:
            for step in self._steps()[:-1]:
                storage.remove(self._folder(step))
        step, share = len(losses), self._share(training)
        state: dict[str, Any] = {"losses": losses}
        if training.layout.deepspeed:
            with TemporaryDirectory() as unused:  # it makes folders and copies a script there
                self._handed_on(training, step).save_checkpoint(unused, tag=ENGINE, save_latest=False)
        elif training.accelerator.is_main_process:
            averaged = training.averaged.state_dict() if training.averaged else None
            state |= {
                "weights": training.trained(),
                "optimizer": training.optimizer.state_dict(),
                "averaged": averaged,
            }
        else:
            return
        # The last of its files: where every process has written it, the state is complete.
        self._write(state, step, self._names(training)[share])

    def _handed_on(self, training: Training, step: int) -> Any:
        """DeepSpeed's engine, made to write in the background, to where the saves are."""
        from unlearn_ray.training.zero import HandedOn

        training.wrapped.checkpoint_engine = HandedOn(lambda state, name: self._write(state, step, f"{ENGINE}/{name}"))
        return training.wrapped

    def _write(self, state: Any, step: int, name: str) -> None:
        self.background.submit(_write, _copied(state), storage.join(self._folder(step), name))

    def _newest(self, training: Training) -> int | None:
        """The step of the newest complete state in this layout."""
        files = set(storage.list_files(self.folder))
        names = self._names(training)
        complete = [s for s in self._steps() if all(storage.join(self._folder(s), name) in files for name in names)]
        return complete[-1] if complete else None

    def _steps(self) -> list[int]:
        return steps_in(self.folder)

    def _folder(self, step: int) -> str:
        return storage.join(self.folder, f"step-{step}")

    def _names(self, training: Training) -> list[str]:
        if not training.layout.deepspeed:
            return ["data-parallel.pt"]
        world = training.accelerator.num_processes
        return [f"zero{training.layout.zero_stage}-{rank}-of-{world}.pt" for rank in range(world)]

    def _share(self, training: Training) -> int:
        return training.accelerator.process_index if training.layout.deepspeed else 0


def steps_in(folder: str) -> list[int]:
    """The steps of which there is a folder step-N below `folder`, ascending."""
    found = (re.search(r"/step-(\d+)/", file) for file in storage.list_files(folder))
    return sorted({int(match[1]) for match in found if match})


def _after(previous: Future, write: Callable[..., None], *arguments: Any) -> None:
    previous.result()
    write(*arguments)


def _copied(state: Any) -> Any:
    """The state in host memory, apart from the tensors that training goes on to change."""
    copy = lambda leaf: leaf.detach().to("cpu", copy=True) if isinstance(leaf, torch.Tensor) else leaf
    return tree_map(copy, state)


def _write(state: Any, path: str) -> None:
    with storage.writing(path) as file:
        torch.save(state, file)
