"""Loading models and tokenizers, and the three parts of a causal language model that the method works on. Free of
Ray.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from unlearn_ray.attention import NAME as CAUSAL_ON_CPU
from unlearn_ray.engine import storage
from unlearn_ray.errors import InputError
from unlearn_ray.method.losses import OutputLayer

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
Head = Callable[[torch.Tensor], torch.Tensor]
COLUMNS = 2048  # of a product on a CPU that are computed at one time


def compute_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32, float32 elsewhere."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return (
        torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else torch.float32
    )


@contextmanager
def readable(path: str, *, weights: bool = True) -> Iterator[str]:
    """A path that transformers can read: a copy where the model lies in an object store, the path itself otherwise.

    weights: False where a copy can do without them.
    """
    if "://" in path:
        with storage.local_folder(path, without="" if weights else "*.safetensors") as folder:
            yield folder
    else:
        yield path


def load_model(
    path: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    device_map: str | dict[str, str] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A causal language model in evaluation mode.

    path: a hub id, a checkpoint folder, a .gguf file (dequantised) or a folder with a PEFT adapter, which is merged
    into the base model that it names. Weights are read as safetensors only, so that a checkpoint cannot run code.
    device_map: instead of `device`, how accelerate spreads the layers over several ("balanced", or module -> device).
    Raises InputError where the model cannot be read, or an adapter does not fit its base.
    """
    transformers_logging.disable_progress_bar()
    refuse_pickles(path)
    if (Path(path) / "adapter_config.json").is_file():
        with readable(_adapter_base(path)) as its_base:
            base = load_model(
                its_base, dtype=dtype, device=device, device_map=device_map, trust_remote_code=trust_remote_code
            )
        return add_adapter(base, path, float32=True).merge_and_unload().eval()
    source, options = _source(path, trust_remote_code)
    if path.endswith(".gguf"):
        # Without dequantize=True the model counts as quantised: it can be neither trained nor saved.
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        options["use_safetensors"] = True
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, device_map=device_map, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot load the model {path!r}: {_first_line(error)}") from error
    if device_map is None:
        torch.nn.Module.to(model, torch.device(device))  # transformers' own `to` only adds checks of quantised models
        if device == "cpu" and model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(CAUSAL_ON_CPU)
    return model.eval()


def refuse_pickles(path: str) -> None:
    """Raises InputError for a folder whose weights are pickles, which run code when they are read."""
    kinds = {file.suffix for file in Path(path).glob("*") if file.is_file()}
    if found := sorted(kinds & PICKLES) if ".safetensors" not in kinds else []:
        raise InputError(
            f"{path}: its weights are pickles ({', '.join(found)}), which run code when they are read; "
            "expected .safetensors: on a machine that may be lost, load it with transformers and save it again"
        )


def load_model_config(path: str, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """What a model (see load_model for `path`) is like, without its weights. Raises InputError where it cannot be
    read.
    """
    if (Path(path) / "adapter_config.json").is_file():
        with readable(_adapter_base(path), weights=False) as base:
            return load_model_config(base, trust_remote_code=trust_remote_code)
    source, options = _source(path, trust_remote_code)
    try:
        return AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read the configuration of the model {path!r}: {_first_line(error)}") from error


def add_adapter(baseline: PreTrainedModel, folder: str, *, float32: bool = False) -> PeftModel:
    """The baseline with the PEFT adapter in `folder`, in its own type or float32; `disable_adapter` takes it off again.

    Raises InputError for an adapter that does not fit the baseline.
    """
    refuse_pickles(folder)
    try:
        return PeftModel.from_pretrained(baseline, folder, autocast_adapter_dtype=float32).eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the adapter {folder} does not fit its base model: {_first_line(error)}") from error


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer beside a model (see load_model for `path`).

    Raises InputError where there is none, or where it is a slow one: alignment needs character offsets.
    """
    if (Path(path) / "adapter_config.json").is_file() and not (Path(path) / "tokenizer_config.json").is_file():
        with readable(_adapter_base(path), weights=False) as base:
            return load_tokenizer(base, trust_remote_code=trust_remote_code)
    source, options = _source(path, trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot load the tokenizer of {path!r}: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer of {path!r} gives no character offsets: a fast tokenizer (tokenizer.json) is needed"
        )
    return tokenizer


def leading_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids that stand before every sequence a model sees: what the tokenizer itself puts there (a BOS token), else
    <|endoftext|> where the vocabulary has it.

    The first position works as an attention sink; a model that was trained with a document separator there and gets
    none misjudges the whole sequence (measured on SmolLM2: "Sherlock Holmes lives at 221B" -> " Baker" .05 against
    .89).
    """
    own = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    own = own[: own.index(bare[0])] if bare and bare[0] in own else []
    if own:
        return own
    separator = tokenizer.get_vocab().get("<|endoftext|>")
    return [] if separator is None else [separator]


def decoder(model: PreTrainedModel | PeftModel) -> torch.nn.Module:
    """The part of the model (with its adapter, if it has one) that gives last_hidden_state [B, T, H]."""
    return getattr(_causal(model), str(_causal(model).base_model_prefix))


def compile_layers(model: PreTrainedModel | PeftModel) -> None:
    """On a GPU, fuses what stands between the matrix products of every layer, in place, for forward passes.

    Dynamic from the first batch on: what is computed of a batch must not depend on the shapes of those before it. A
    model that accelerate spreads over several GPUs is left as it is.
    """
    lists = [part for part in decoder(model).children() if isinstance(part, torch.nn.ModuleList)]
    if model.device.type == "cuda" and getattr(_causal(model), "hf_device_map", None) is None:
        for layer in (layer for layers in lists for layer in layers):
            layer.compile(dynamic=True)


def output_layer(model: PreTrainedModel | PeftModel) -> OutputLayer:
    """The last layer, hidden size to vocabulary, with the scaling and soft capping of the model's family.

    Raises InputError for what is no causal language model.
    """
    layer = _causal(model).get_output_embeddings()
    if not isinstance(layer, torch.nn.Linear):
        raise InputError(f"{type(_causal(model)).__name__} is no causal language model with an output embedding")
    config = _causal(model).config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    return OutputLayer(layer.weight, layer.bias, scale, getattr(config, "final_logit_softcapping", None))


def _causal(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return model.base_model.model if isinstance(model, PeftModel) else model  # type: ignore[return-value]


def lm_head(model: PreTrainedModel | PeftModel, columns: Sequence[int] | np.ndarray | None = None) -> Head:
    """A function from hidden states [..., H] to float32 logits [..., V] (of the tokens `columns` alone, if given), with
    the scaling and soft capping of the model's family.

    Logits of bfloat16 models have an error of about 2^-16 of their size: one near 20 that is rounded to bfloat16 has a
    resolution of 1/8, too coarse for differences of two models.
    """
    layer = output_layer(model)
    kept = slice(None) if columns is None else torch.as_tensor(columns, dtype=torch.long, device=layer.weight_VH.device)
    weight_HV, bias_V = layer.weight_VH[kept].detach().t(), None if layer.bias_V is None else layer.bias_V[kept]
    scale, cap = layer.scale, layer.cap

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        out = _product(hidden.reshape(-1, hidden.shape[-1]).to(weight_HV), weight_HV)
        if bias_V is not None:
            out += bias_V.float()
        out = out.mul_(scale) if scale != 1.0 else out
        out = cap * torch.tanh(out / cap) if cap else out
        return out.view(*hidden.shape[:-1], out.shape[-1]).to(hidden.device)

    return logits


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The matrix product in float32."""
    if left.dtype == torch.float32:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    # A CPU accumulates in float32 but hands out 16 bits. Asked for the difference to what it gave, it hands out the
    # next 16: cheaper than a float32 product, which needs a float32 copy of the weights as well. Some columns at a
    # time, which stay in the cache.
    out = torch.empty(len(left), right.shape[1])
    for out_part, right_part in zip(out.split(COLUMNS, dim=1), right.split(COLUMNS, dim=1), strict=True):
        coarse = left @ right_part
        out_part.copy_(coarse).add_(torch.addmm(coarse, left, right_part, beta=-1))
    return out


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Raises InputError where lm_head(decoder(x)) is not what the model itself computes, before anything is built on
    it.
    """
    ids = torch.arange(1, 5, device=model.device)[None]
    ours = lm_head(model)(decoder(model)(ids).last_hidden_state)
    theirs = model(ids).logits.float()
    if not torch.allclose(ours, theirs, rtol=0.05, atol=0.25):
        name = type(model).__name__
        raise InputError(
            f"{name} computes its logits in a way that is not known here (an embedding, a scale and a cap are)"
        )


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is PyTorch's word for too little memory, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def save_checkpoint(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: str,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes a checkpoint (or, for a PEFT model, its adapter) with its tokenizer, as safetensors; `weights` are those
    to write instead of the model's own, by the names of its parameters.
    """
    model.save_pretrained(folder, safe_serialization=True, state_dict=weights)
    tokenizer.save_pretrained(folder)


def _source(path: str, trust_remote_code: bool) -> tuple[str, dict]:
    options: dict = {"trust_remote_code": trust_remote_code}
    if not path.endswith(".gguf"):
        return path, options
    if not Path(path).is_file():
        raise InputError(f"no such model file: {path}")
    return str(Path(path).parent), options | {"gguf_file": Path(path).name}


def _adapter_base(path: str) -> str:
    file = Path(path) / "adapter_config.json"
    try:
        base = json.loads(file.read_text())["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read the adapter's configuration {file}: {_first_line(error)}") from error
    if not base:
        raise InputError(f"{file} names no base model (base_model_name_or_path)")
    return base


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
