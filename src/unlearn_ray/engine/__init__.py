"""Steps, storage, and everything that knows of Ray."""

import os

# Ray Data, which reads this when it is imported, would look at what passes on a thread of its own, and so pass it on
# 0.1 s later. What passes here are descriptions of shards, and of a small forget set's time that is most.
os.environ.setdefault("RAY_DATA_METADATA_PREFETCH_ON_THREAD", "0")
