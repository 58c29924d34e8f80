"""The chat template: how tools that know only messages show a conversation to the model."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

# Renders to the ids of the training encoding: a sep before each turn and after the last, a system message and a
# newline in front of the first turn, messages of one speaker in a row joined with a newline.
_CHAT_TEMPLATE = """\
{%- set sep = "SEP" -%}
{%- set ns = namespace(role="", persona="", turns=0) -%}
{%- for message in messages -%}
{%- if message.role == "system" -%}
{%- set ns.persona = (ns.persona + "\\n" + message.content) if ns.persona else message.content -%}
{%- elif message.role not in ("user", "assistant") -%}
{{- raise_exception("expected the role system, user or assistant, got " + message.role) -}}
{%- endif -%}
{%- endfor -%}
{%- set persona = ns.persona.strip() -%}
{%- for message in messages if message.role != "system" -%}
{%- if ns.turns == 0 and persona -%}
{{- sep + persona + "\\n" + message.content.lstrip() -}}
{%- elif message.role == ns.role -%}
{{- "\\n" + message.content -}}
{%- else -%}
{{- sep + message.content -}}
{%- endif -%}
{%- set ns.role = message.role -%}
{%- set ns.turns = ns.turns + 1 -%}
{%- endfor -%}
{{- sep -}}
"""


def install_chat_template(tokenizer: PreTrainedTokenizerBase, sep_id: int) -> None:
    """Make ours the tokenizer's chat template; one that it had stays beside it as "base"."""
    sep_token = str(tokenizer.convert_ids_to_tokens(sep_id))
    ours = _CHAT_TEMPLATE.replace("SEP", sep_token.replace("\\", "\\\\").replace('"', '\\"'))
    before = tokenizer.chat_template
    if isinstance(before, dict):
        kept = {"base": before["default"]} if before.get("default", ours) != ours else {}
        tokenizer.chat_template = {**before, **kept, "default": ours}
    elif before and before != ours:
        tokenizer.chat_template = {"default": ours, "base": before}
    else:
        tokenizer.chat_template = ours
