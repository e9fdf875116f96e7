"""Memory of processes that go from one piece of work to the next."""

import ctypes
import gc
import sys


def free_memory() -> None:
    """Gives back what the last piece of work held, to the GPU and to the system, whatever the allocators would keep."""
    gc.collect()  # models, engines and their hooks refer to one another
    # Processes that only pass work on never import PyTorch, which takes seconds: they have nothing on a GPU.
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc alone has it
        trim(0)
