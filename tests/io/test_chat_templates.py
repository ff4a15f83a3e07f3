"""Named chat templates render what mergekit's own files of these names render."""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import itertools
from typing import Any

import pytest

from kofn.io.chat_templates import NAMED

jinja2 = pytest.importorskip("jinja2")
sandbox = pytest.importorskip("jinja2.sandbox")

TURNS = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": " How many? "},
    {"role": "assistant", "content": "Two.\n"},
    {"role": "user", "content": "Sure?"},
]
RENDERED = {
    "alpaca": "Be brief.\n\n### Instruction:\nHow many?\n\n### Response:\nTwo.\n\n### Instruction:\nSure?"
    "### Response:\n",
    "chatml": "<|im_start|>system\n Be brief.\n<|im_end|>\n<|im_start|>user\n How many? <|im_end|>\n"
    "<|im_start|>assistant\nTwo.\n<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n",
    "exaone": "    [|system|] Be brief.\n\n        [|endofturn|]\n\n    [|user|] How many? \n        \n\n"
    "    [|assistant|]Two.\n\n        [|endofturn|]\n\n    [|user|]Sure?\n        \n\n    [|assistant|]\n",
    "llama3": "<B><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\n"
    "<|start_header_id|>user<|end_header_id|>\n\nHow many?<|eot_id|>\n"
    "<|start_header_id|>assistant<|end_header_id|>\n\nTwo.<|eot_id|>\n"
    "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>\n<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<B> [INST]  Be brief.\n\n\n How many?  [/INST] Two.\n<E> [INST] Sure? [/INST]",
}


@functools.cache
def template(text: str) -> Any:
    """As transformers compiles it."""
    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(text)


def rendered(text: str, messages: list[dict[str, str]], begun: bool) -> str | None:
    """The conversation as a text, None where the template refuses it."""
    try:
        return template(text).render(messages=messages, add_generation_prompt=begun, bos_token="<B>", eos_token="<E>")
    except jinja2.TemplateError:
        return None


@pytest.mark.parametrize("name", NAMED)
def test_a_conversation(name: str) -> None:
    assert rendered(NAMED[name], TURNS, begun=True) == RENDERED[name]


if importlib.util.find_spec("mergekit"):  # the extra kofn[peers]

    @pytest.mark.parametrize("name", NAMED)
    def test_mergekits_own_renders_the_same(name: str) -> None:
        files = importlib.resources.files("mergekit._data.chat_templates")
        assert {path.name.removesuffix(".jinja") for path in files.iterdir() if path.name.endswith(".jinja")} == {
            *NAMED
        }
        reference = files.joinpath(f"{name}.jinja").read_text()
        known = [*TURNS, {"role": "tool", "content": "3"}, {"role": "system", "content": "other"}]
        for size in (0, 1, 2, 3):
            for messages in itertools.product(known, repeat=size):
                for begun in (False, True):
                    expected = rendered(reference, list(messages), begun)
                    assert rendered(NAMED[name], list(messages), begun) == expected, (messages, begun)
