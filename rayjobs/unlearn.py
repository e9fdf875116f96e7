"""Every step for every forget set as a Ray job, like `unlearn-ray run`; `--until STEP` stops after one.

ray job submit --entrypoint-num-cpus 1 --working-dir . -- python rayjobs/unlearn.py CONFIG [a.b=value ...]
"""

import sys

from unlearn_ray.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
