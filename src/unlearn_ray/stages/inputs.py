"""What the user brought, tried before anything is computed from it, and before Ray is started."""

import uuid
from pathlib import Path

from unlearn_ray.config import RunConfig
from unlearn_ray.documents import read_documents
from unlearn_ray.engine import storage
from unlearn_ray.errors import InputError, StepFailed
from unlearn_ray.models import load_tokenizer, refuse_pickles
from unlearn_ray.stages.anchors import read_brought_dictionary
from unlearn_ray.stages.asking import check_asking
from unlearn_ray.stages.audit import read_languages
from unlearn_ray.stages.evaluate import read_questions, read_token_prompts
from unlearn_ray.stages.finetune import layout_of
from unlearn_ray.stages.proposals import read_proposals
from unlearn_ray.stages.written_prompts import read_prompts


def check_inputs(config: RunConfig, to_do: set[str]) -> None:
    """Reads the tokenizer, the settings of DeepSpeed, the dictionary, the prompts, the questions and every document
    that all sets share, or an only set has, once; knocks at the endpoint if a stage `to_do` asks a language model.

    The weights are left to the baseline step. Raises InputError for the first that cannot be used.
    """
    check_model(config.baseline, config.trust_remote_code)
    layout_of(config.resources)
    if config.anchors.dictionary:
        read_brought_dictionary(config.anchors.dictionary)
    elif config.anchors.proposals:
        read_proposals(config.anchors.proposals)
    if config.evaluate.prompts.file:
        read_prompts(config.evaluate.prompts.file)
    asking = {"proposals", "prompts"} | ({"evaluation"} if config.evaluate.judge.source == "openai" else set())
    if asking & to_do:
        check_asking(config.resources)
    for questions in (config.evaluate.probes, config.evaluate.controls):
        if questions:
            read_questions(questions)
    if config.evaluate.token_prompts:
        read_token_prompts(config.evaluate.token_prompts)
    if config.audit.languages:
        read_languages(config.audit.languages)
    if config.evaluate.reference:
        check_model(config.evaluate.reference, config.trust_remote_code)
    other = [config.retain, config.evaluation_retain, config.evaluate.nonmembers, config.audit.about]
    other += config.evaluate.neighbours.values()
    # One of many sets that cannot be read costs that set alone: its own first step says so.
    of_sets = [one.documents for one in config.forget_sets] if len(config.forget_sets) == 1 else []
    for patterns in dict.fromkeys(of_sets + [one for one in other if one]):
        for _ in read_documents(storage.expand(patterns), storage.read_bytes):
            pass  # one at a time: all of them together may be large


def check_model(model: str, trust_remote_code: bool) -> None:
    """Raises InputError for a path that holds no model, or one whose tokenizer cannot be used.

    Of a model in an object store nothing is read, and of a .gguf file only whether it is there: both take long.
    """
    if "://" in model:
        return
    if not storage.exists(model):
        if model.endswith(".gguf") or model.startswith((".", "/", "~")) or model.count("/") > 1:
            raise InputError(f"{model}: no such model; expected a folder, a .gguf file or a hub id")
    elif model.endswith(".gguf"):
        return
    elif not any((Path(model) / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(
            f"{model}: no model; expected a folder with config.json, or with the adapter_config.json of PEFT"
        )
    refuse_pickles(model)
    load_tokenizer(model, trust_remote_code=trust_remote_code)


def make_root(root: str) -> None:
    """Raises InputError for a root that cannot be made, or written to."""
    probe = storage.join(root, f".probe-{uuid.uuid4().hex}")
    try:
        storage.make_folder(root)
        storage.write_atomic(probe, b"")
        storage.remove(probe)
    except StepFailed as error:
        raise InputError(f"root: {error}") from error
