"""The files beside a checkpoint's tensors: the configuration and the tokenizer, compared and copied."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from kofn.core.checks import DamagedFileError, InputError, regular
from kofn.io.json_text import parsed

CONFIG = "config.json"
CHAT_TEMPLATE = "chat_template.jinja"
_CHAT_TEMPLATES = "additional_chat_templates"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
_OF_TOKENIZER = (
    _TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    CHAT_TEMPLATE,
    "chat_template.json",
)
_OTHERS = ("generation_config.json", *_OF_TOKENIZER, "preprocessor_config.json", "processor_config.json")
# What sentence-transformers keeps: the list of modules, settings, and each further module in a folder N_Name.
_MODULES = "modules.json"
_OF_MODULES = (_MODULES, "sentence_bert_config.json", "config_sentence_transformers.json")
_MODULE_FOLDERS = "[0-9]*_*"
TIED = "tie_word_embeddings"
# Entries of a configuration that only models of text have.
_OF_TEXT = ("vocab_size", "tokenizer_class")
# Models that differ in one of these do not compute the same function of the same tensors.
_ARCHITECTURE = (
    "model_type",
    "architectures",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    TIED,
    "quantization_config",
)
# How a model that ties its head to its embedding is made alike to one that does not.
UNTYING = (
    "save it with both (the head a copy of the embedding, tie_word_embeddings false in its config.json), then blend"
)
QUANTISATION = ("quantization_config", "compression_config")
_SCALES = ("rms_norm_eps", "layer_norm_eps", "sliding_window", "max_position_embeddings")


def companions(
    labels: Sequence[str],
    paths: Sequence[Path | None],
    settings: Mapping[str, Any] | None = None,
    dropped: Sequence[str] = (),
    tokenizer: Path | None = None,
) -> tuple[dict[str, Path | bytes], list[str]]:
    """Files to copy beside a blend, name -> path or content, and warnings.

    The configuration and the tokenizer are those of the first member that has them, with `settings` in place of its
    own and without the `dropped` entries; with a folder `tokenizer` the tokenizer is that one's and no other's. Members
    whose configurations name different architectures are refused.
    """
    folders = [(label, path) for label, path in zip(labels, paths, strict=False) if path is not None and path.is_dir()]
    if not folders:
        return {}, []
    files: dict[str, Path | bytes] = {}
    for name in (CONFIG, *_TOKENIZER, *_OTHERS):
        sources = [folder for _, folder in folders]
        if tokenizer is not None and name in (*_TOKENIZER, *_OF_TOKENIZER):
            sources = [tokenizer]
        copies = [folder / name for folder in sources if (folder / name).is_file()]
        if copies:
            files[name] = copies[0]
    warnings = _compare_configs([(label, folder / CONFIG) for label, folder in folders], {*(settings or {}), *dropped})
    if CONFIG not in files:
        warnings.append("no member has a config.json: loaders will not know the architecture")
    if not has_tokenizer(files) and (CONFIG not in files or any(_is_of_text(folder) for _, folder in folders)):
        warnings.append("no member has a tokenizer: copy one beside the blend before using it")
    if isinstance(template := files.get(_TOKENIZER_CONFIG, files.get(CHAT_TEMPLATE)), Path):
        templates = sorted(template.parent.glob(f"{_CHAT_TEMPLATES}/*.jinja"))
        files |= {f"{_CHAT_TEMPLATES}/{path.name}": path for path in templates}
    for name in _TOKENIZER if tokenizer is None else ():
        if name in files:
            copied = Path(str(files[name]))
            content = copied.read_bytes()
            odd = [
                label
                for label, folder in folders
                if (folder / name).is_file() and (folder / name).read_bytes() != content
            ]
            warnings += [
                f"{label}'s {name} differs from the one copied ({copied}); where its tokens do, give vocabulary"
                for label in odd
            ]
    code, doubts = _custom_code(folders, files)
    files |= code
    warnings += doubts
    modules, doubts = _sentence_modules(folders)
    files |= modules
    warnings += doubts
    config = files.get(CONFIG)
    if (settings or dropped) and isinstance(config, Path):
        own = read_config(config)
        wanted = {key: value for key, value in {**own, **(settings or {})}.items() if key not in dropped}
        if wanted != own:
            files[CONFIG] = (json.dumps(wanted, indent=2) + "\n").encode()
    return files, warnings


def _is_of_text(folder: Path) -> bool:
    """Whether a folder's configuration is of a model of text, or it has parts of a tokenizer."""
    if any((folder / name).is_file() for name in _OF_TOKENIZER):
        return True
    path = folder / CONFIG
    if not path.is_file():
        return False
    config = read_config(path)
    nested = config.get("text_config")
    return any(isinstance(part, dict) and not part.keys().isdisjoint(_OF_TEXT) for part in (config, nested))


def _custom_code(
    folders: Sequence[tuple[str, Path]], files: Mapping[str, Path | bytes]
) -> tuple[dict[str, Path], list[str]]:
    """The Python files beside a configuration that names classes in them, name -> path, and warnings. They are copied,
    never run."""
    settings = [path for name in (CONFIG, _TOKENIZER_CONFIG) if isinstance(path := files.get(name), Path)]
    code: dict[str, Path] = {}
    for path in settings:
        classes = read_config(path).get("auto_map")
        # OWNER/NAME--module.Class stays at its hub.
        if isinstance(classes, dict) and any("--" not in str(value) for value in classes.values()):
            code |= {file.name: file for file in sorted(path.parent.glob("*.py")) if file.is_file()}
    warnings = [
        f"{label}'s {name} differs from the one copied ({own})"
        for name, own in code.items()
        for label, folder in folders
        if (folder / name).is_file() and (folder / name).read_bytes() != own.read_bytes()
    ]
    return code, warnings


def _sentence_modules(folders: Sequence[tuple[str, Path]]) -> tuple[dict[str, Path | bytes], list[str]]:
    """The modules of the first member that lists them as sentence-transformers does, name -> path, and warnings."""
    listed = [(label, folder) for label, folder in folders if (folder / _MODULES).is_file()]
    if not listed:
        return {}, []
    first = listed[0][1]
    paths = [*(first / name for name in _OF_MODULES), *sorted(first.glob(f"{_MODULE_FOLDERS}/{CONFIG}"))]
    files: dict[str, Path | bytes] = {path.relative_to(first).as_posix(): path for path in paths if path.is_file()}
    warnings = [
        f"{label}'s {name} differs from the one copied ({first / name})"
        for label, folder in listed[1:]
        for name in files
        if (folder / name).is_file() and (folder / name).read_bytes() != (first / name).read_bytes()
    ]
    weights = [path for kind in ("safetensors", "bin") for path in first.glob(f"{_MODULE_FOLDERS}/*.{kind}")]
    warnings += [
        f"{module} has weights of its own, which are not blended: blend those folders of the members apart "
        f"(kofn combine a/{module} b/{module} -o merged/{module})"
        for module in sorted({path.parent.name for path in weights})
    ]
    return files, warnings


def read_chat_template(folder: Path) -> str | None:
    """The chat template of a folder's tokenizer, the one named "default" of several; None if there is none."""
    if (folder / CHAT_TEMPLATE).is_file():
        return regular(folder / CHAT_TEMPLATE).read_text(encoding="utf-8").strip() or None
    if not (folder / _TOKENIZER_CONFIG).is_file():
        return None
    template = read_config(folder / _TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):
        named = [each for each in template if isinstance(each, dict)]
        template = next((each.get("template") for each in named if each.get("name") == "default"), None)
    return template.strip() or None if isinstance(template, str) else None


def read_eos_token(folder: Path) -> str | None:
    """The token that a folder's tokenizer ends a text with; None if it names none."""
    if not (folder / _TOKENIZER_CONFIG).is_file():
        return None
    token = read_config(folder / _TOKENIZER_CONFIG).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) and token else None


def with_chat_template(files: Mapping[str, Path | bytes], template: str) -> dict[str, Path | bytes]:
    """The files with a chat template: in a file of its own, and where the tokenizer's configuration has its own."""
    out = {**files, CHAT_TEMPLATE: template.encode()}
    config = files.get(_TOKENIZER_CONFIG)
    if isinstance(config, Path):
        content = {**read_config(config), "chat_template": template}
        out[_TOKENIZER_CONFIG] = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    return out


def has_tokenizer(files: Mapping[str, Path | bytes]) -> bool:
    """Whether there is a tokenizer among files."""
    return any(name in files for name in _TOKENIZER)


def first_config(paths: Sequence[Path | None]) -> dict[str, Any]:
    """The content of the config.json that `companions` copies, empty if there is none."""
    configs = (path / CONFIG for path in paths if path is not None)
    return next((read_config(config) for config in configs if config.is_file()), {})


def retyped(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The entries of a configuration that name the dtype of the weights, and those that hold such, with another."""
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if key in ("dtype", "torch_dtype") and isinstance(value, str):
            changed[key] = dtype
        elif isinstance(value, dict) and key not in QUANTISATION and (inner := retyped(value, dtype)):
            changed[key] = {**value, **inner}
    return changed


def tying(config: Mapping[str, Any]) -> list[bool]:
    """Every `tie_word_embeddings` of a configuration, those of its parts too."""
    inner = [value for value in config.values() if isinstance(value, dict)]
    own = [bool(config[TIED])] if TIED in config else []
    return own + [flag for value in inner for flag in tying(value)]


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration by which its head is a tensor of its own, and those that hold such."""
    changed: dict[str, Any] = {} if tying(config) else {TIED: False}
    for key, value in config.items():
        if key == TIED:
            changed[key] = False
        elif isinstance(value, dict) and tying(value):
            changed[key] = {**value, **untied(value)}
    return changed


def _compare_configs(paths: list[tuple[str, Path]], decided: Collection[str]) -> list[str]:
    configs = [(label, read_config(path)) for label, path in paths if path.is_file()]
    if len(configs) < 2:
        return []
    (reference, base), others = configs[0], configs[1:]
    clashes, warnings = [], []
    tied: set[str] = set()
    only_ties = True
    for label, config in others:
        for key in _ARCHITECTURE:
            if key in base and key in config and base[key] != config[key] and key not in decided:
                clashes.append(f"{key} is {config[key]!r} in {label}, {base[key]!r} in {reference}")
                only_ties = only_ties and key == TIED
                tied.add(label if config.get(TIED) else reference)
        scales = [(key, base[key], config[key]) for key in _SCALES if key in base and key in config]
        ropes = [(key, _ropes(base).get(key), value) for key, value in _ropes(config).items()]
        warnings += [
            f"{key} is {own!r} in {label}, {first!r} in {reference}, whose config.json is copied"
            for key, first, own in [*scales, *(rope for rope in ropes if _ropes(base))]
            if first != own
        ]
        warnings += _other_classes(label, config, reference, base)
    if clashes:
        remedy = "blend members of one architecture"
        if only_ties:
            remedy = f"{' and '.join(sorted(tied))} ties its head to its embedding: {UNTYING}"
        raise InputError(f"config.json: {'; '.join(clashes)}; {remedy}")
    return warnings


def _ropes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of rotary embeddings, whether they stand in `rope_parameters`, as today, or in `rope_theta` and
    `rope_scaling`; settings within settings by their names with dots."""
    given = config.get("rope_parameters") or config.get("rope_scaling")
    nested = dict(given) if isinstance(given, dict) else {}
    if isinstance(theta := config.get("rope_theta"), int | float):
        nested.setdefault("rope_theta", theta)
    if not nested:
        return {}
    nested["rope_type"] = nested.pop("rope_type", nested.pop("type", "default"))
    return {f"rope_{key.removeprefix('rope_')}": value for key, value in _flat(nested).items()}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings within settings, by their names with dots."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= {f"{key}.{inner}": own for inner, own in _flat(value).items()}
        else:
            out[key] = value
    return out


def _other_classes(label: str, config: Mapping[str, Any], reference: str, base: Mapping[str, Any]) -> list[str]:
    """A warning where two classifiers call the rows of their heads otherwise."""
    first, own = (
        {int(number): name for number, name in labels.items() if str(number).isdigit()}
        if isinstance(labels := each.get("id2label"), dict)
        else {}
        for each in (base, config)
    )
    odd = sorted(number for number in first.keys() & own.keys() if first[number] != own[number])
    if not odd:
        return []
    number = odd[0]
    return [
        f"class {number} is {own[number]!r} in {label}, {first[number]!r} in {reference} (id2label): rows of their "
        "heads are blended as they stand, of different classes; save one with its labels in the other's order first"
    ]


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.json."""
    regular(path)
    try:
        content = parsed(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DamagedFileError(f"{path}: not readable JSON ({error}); fetch it again") from None
    return content if isinstance(content, dict) else {}
