"""What `ray job submit` runs: every step for every forget set, like `unlearn-ray run`.

ray job submit --working-dir . -- python rayjobs/unlearn.py CONFIG [a.b=value ...]
"""

from unlearn_ray.cli import main

if __name__ == "__main__":
    import sys

    main(["run", *sys.argv[1:]])
