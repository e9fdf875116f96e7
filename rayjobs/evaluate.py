"""Any checkpoint, measured and attacked, as a Ray job.

ray job submit --entrypoint-num-cpus 1 --working-dir . -- python rayjobs/evaluate.py MODEL --config CONFIG
"""

import sys

from unlearn_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
