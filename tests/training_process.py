"""One process of a fine-tuning, as a program: `python training_process.py JOB RANK WORLD PORT`.

JOB is a JSON file: {"model", "blocks" (lists of ids), "settings", "out", "runs": {name: layout}}. Of every run
the main process writes out/NAME.json with the losses and out/NAME.safetensors with the trained weights. Beside the
layout a run may have "dtype", "lora", "stop_after", a step after which it is given up, and "saves", where it keeps its
state.
"""

import gc
import json
import os
import sys
from pathlib import Path


def main(job_file: str, rank: str, world: str, port: str) -> None:
    os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "RANK": rank, "LOCAL_RANK": rank}
    os.environ |= {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    import pyarrow as pa
    import torch
    from accelerate.state import AcceleratorState
    from peft import LoraConfig, PeftModel
    from safetensors.torch import save_file

    from unlearn_ray.models import leading_ids, load_model, load_tokenizer
    from unlearn_ray.training import layout as layouts
    from unlearn_ray.training.examples import Examples, text_example
    from unlearn_ray.training.loop import TrainSettings, train
    from unlearn_ray.training.saves import Background, Saves

    torch.set_num_threads(1)
    job = json.loads(Path(job_file).read_text())
    blocks = pa.table({"block_id": range(len(job["blocks"])), "input_ids": job["blocks"]})
    settings, out = TrainSettings(**job["settings"]), Path(job["out"])
    for name, run in job["runs"].items():
        AcceleratorState._reset_state()
        stop_after, saves = run.pop("stop_after", None), run.pop("saves", name)
        lora, dtype = run.pop("lora", False), getattr(torch, run.pop("dtype", "float32"))
        layouts.compute_dtype = lambda device, dtype=dtype: dtype
        layout = layouts.Layout(**run)
        accelerator = layouts.make_accelerator(layout, max_grad_norm=settings.max_grad_norm, processes=int(world))
        model, leading = load_model(job["model"]), leading_ids(load_tokenizer(job["model"]))
        if lora:
            torch.manual_seed(0)
            model = PeftModel(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        background = Background()

        def write(step, weights, name=name, accelerator=accelerator):
            if accelerator.is_main_process:
                save_file(weights, out / f"{name}.safetensors")

        def watch(log, stop_after=stop_after, background=background):
            if log.step == stop_after:
                background.finish()
                raise KeyboardInterrupt

        try:
            losses = train(
                model,
                leading,
                Examples(blocks, text_example),
                settings,
                accelerator,
                layout=layout,
                saves=Saves(str(out / "saves" / saves), 5, background),
                on_step=watch,
                on_checkpoint=write,
            )
            background.finish()
            if accelerator.is_main_process:
                (out / f"{name}.json").write_text(json.dumps(losses))
        except KeyboardInterrupt:
            pass
        accelerator.wait_for_everyone()
        del model, accelerator
        gc.collect()


main(*sys.argv[1:])
