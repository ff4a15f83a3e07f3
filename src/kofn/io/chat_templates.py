"""The chat templates that mergekit recipes name: written anew, they render what mergekit's own files render.

Where those leave out a line or a space, these do too: a merged model is used with the text that it is known by.
"""

from __future__ import annotations

_CHATML = r"""
{%- for message in messages %}
{{- '<|im_start|>' ~ message['role'] ~ '\n' ~ message['content'] ~ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}"""

_LLAMA3 = r"""
{%- for message in messages %}
{{- bos_token if loop.first else '' }}
{{- '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\n\n' ~ message['content'] | trim ~ '<|eot_id|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""

_ALPACA = r"""
{%- set titles = {'user': '### Instruction:\n', 'assistant': '### Response:\n'} %}
{%- set systems = messages | selectattr('role', 'equalto', 'system') | list %}
{{- (systems[-1]['content'] | trim if systems else '') ~ '\n\n' }}
{%- for message in messages %}
{%- if message['role'] in titles %}
{{- titles[message['role']] ~ message['content'] | trim ~ ('' if loop.last else '\n\n') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' %}
{{- titles['assistant'] }}
{%- endif %}"""

_MISTRAL = r"""
{%- if messages[0]['role'] == 'system' %}
{%- set lead = messages[0]['content'] ~ '\n\n' %}
{%- set turns = messages[1:] %}
{%- else %}
{%- set lead = '' %}
{%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in turns %}
{%- if message['role'] != ('user' if loop.index is odd else 'assistant') %}
{{- raise_exception('after an optional system message come user, assistant, user, and so on') }}
{%- endif %}
{%- if message['role'] == 'user' %}
{{- ' [INST] ' ~ (lead if loop.first else '') ~ message['content'] ~ ' [/INST]' }}
{%- else %}
{{- ' ' ~ message['content'] ~ eos_token }}
{%- endif %}
{%- endfor %}"""

_EXAONE = r"""
{%- if messages and messages[0]['role'] != 'system' %}
{{- '        [|system|][|endofturn|]\n\n' }}
{%- endif %}
{%- for message in messages %}
{{- '    [|' ~ message['role'] ~ '|]' ~ message['content'] ~ '\n        ' }}
{{- '\n\n' if message['role'] == 'user' else '[|endofturn|]\n\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '    [|assistant|]\n' }}
{%- endif %}"""

NAMED = {
    name: text.lstrip("\n")
    for name, text in {
        "alpaca": _ALPACA,
        "chatml": _CHATML,
        "exaone": _EXAONE,
        "llama3": _LLAMA3,
        "mistral": _MISTRAL,
    }.items()
}
