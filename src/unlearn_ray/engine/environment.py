"""Environment variables of processes that compute."""

QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",  # the actors are the parallelism
}

# By default glibc gives large tensors back to the kernel, which then clears their pages again for the next ones. Kept,
# and in huge pages, training steps on CPUs took 40% less time. Of no use where tensors live on a GPU.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

# By default the threads of a matrix product spin while they wait for one another, and so keep from each other the cores
# that processes share (benchmarks/cores.py). A process that has its cores for itself is a fifth faster so.
SHARE_CORES = {"OMP_WAIT_POLICY": "passive"}
