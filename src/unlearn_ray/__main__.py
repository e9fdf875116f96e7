from unlearn_ray.cli import main

main()
