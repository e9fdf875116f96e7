"""What only DeepSpeed needs. Imported where ZeRO is used and nowhere else: it takes seconds."""

import os
from collections.abc import Callable
from typing import Any

import deepspeed.ops
import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from deepspeed.utils import safe_get_full_fp32_param

full_weight = safe_get_full_fp32_param
HostAdamW = DeepSpeedCPUAdam  # decays weights as AdamW does, unless told otherwise


class HandedOn(CheckpointEngine):
    """Gives the files that DeepSpeed writes of its state to `write(state, name)`."""

    def __init__(self, write: Callable[[Any, str], None]):
        self.name, self.write = "handed on", write

    def create(self, info: Any) -> None:
        pass

    def save(self, state_dict: Any, path: str) -> None:
        self.write(state_dict, os.path.basename(path))

    def load(self, path: str, map_location: Any = None) -> Any:
        return torch.load(path, map_location=map_location, weights_only=False)  # DeepSpeed's own classes are in it

    def commit(self, info: Any) -> bool:
        return True

    def preserves_storage_sharing(self) -> bool:
        return False


def compile_nothing() -> None:
    """DeepSpeed would compile a faster exchange between processes of one CPU, for a minute, and one that is killed
    meanwhile leaves a lock for which all later ones wait for ever. There is no public switch.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
