"""Chat templates written for the tests, with the constructs that real ones use."""

# ruff: noqa: E501 - a line break would be part of the template

from __future__ import annotations

LOOPS = """{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
{{ bos_token }}<|system|>default{{ '\\n' }}
    {% endif %}
    {%- if message.role == 'system' and not loop.first %}{% continue %}{% endif %}
    {% if message.role == 'stop' %}{% break %}{% endif %}
<|{{ message.role }}|>{{ message['content'] | trim }}{{ eos_token if not loop.last }}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}
"""

MACROS = """{#- tools, a macro with defaults and a recursive one -#}
{%- macro kind(schema, depth=0) -%}
  {%- if schema is mapping -%}
    {%- if schema.type is string -%}{{ schema.type }}
    {%- elif schema.type is sequence -%}{{ schema.type | join(' or ') }}
    {%- else -%}any{%- endif -%}
    {%- if schema.properties is defined and depth < 3 -%}
      ({%- for name, value in schema.properties.items() -%}
        {{ name }}:{{ kind(value, depth=depth + 1) }}{{ ', ' if not loop.last else '' }}
      {%- endfor -%})
    {%- endif -%}
  {%- else -%}{{ schema }}{%- endif -%}
{%- endmacro -%}
{%- if tools is not none and tools | length > 0 -%}
{%- for tool in tools %}
{%- set function = tool.function if tool.function is defined else tool %}
function {{ function.name }}: {{ kind(function.parameters) }}
{{ tool | tojson }}
{{ tool | tojson(indent=2) }}
{% endfor %}
{%- endif -%}
{%- for m in messages %}[{{ m.role }}] {{ m.content }}
{% endfor %}
"""

NAMESPACES = """{%- set ns = namespace(last=-1, system='', seen=[]) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
  {%- if message.role == 'system' -%}{%- set ns.system = ns.system + (message.content or '') -%}{%- endif -%}
{%- endfor -%}
{{- ns.last }}|{{ ns.system }}|
{%- for message in messages[::-1] -%}
  {%- set index = (messages | length - 1) - loop.index0 -%}
  {%- if index > ns.last -%}after {% elif index == ns.last %}at {% else %}before {% endif -%}
  {{- message.content if message.content is string else message.content | tojson -}};
{%- endfor -%}
{{- messages[-1].role }} {{ messages[0]['role'][:2] }} {{ messages[1:] | length -}}
"""

METHODS = """{%- for message in messages -%}
{%- set content = message.content if message.content is string else '' -%}
{{ content.strip() }}|{{ content.lstrip('\\n') }}|{{ content.rstrip() }}|{{ content.split() }}|{{ content.splitlines() }}|{{ content.split('</think>')[-1] }}|
{{- content.startswith('a') }}|{{ content.endswith(('x', 'y')) }}|{{ content.upper() }}|{{ content.replace('a', 'bb') }}|
{{- 'a' in content }}|{{ message.get('role') }}|{{ message.get('nothing', 'default') }}|{{ message.get('nothing') }}|
{{- message.keys() | list }}|{{ content | length }}|{{ content[:3] }}|{{ content[-2:] }}|{{ content.find('a') }}
{% endfor %}
"""

PRINTING = """{%- for message in messages -%}
{{ message }} {{ message.content }} {{ message.content ~ '' if message.content is not float }} {{ message.content | string }} {{ [message.content, 1, 2.5, none, true] }}
{{ message.content | tojson }} {{ {'x': message.content} | tojson(ensure_ascii=true) }}
{{ message | tojson(separators=(',', ':'), sort_keys=true) }}
{{ message.missing }}{{ message.content is string }}{{ message.content is mapping }}{{ message.content is iterable }}
{{- message.content is sequence }}{{ message.content is number }}{{ message.content is integer }}{{ message.content is float }}{{ message.content is none }}{{ message.content is boolean }}{{ message.content is integer }}
{{- message.missing is defined }}{{ message.content | default('d') }}{{ message.missing | default('d') }}
{% endfor %}
{{- (1, 'a') }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ -7 // 2 }} {{ 1e16 }} {{ 0.1 + 0.2 }} {{ range(3) | list }} {{ dict(a=1) }}
"""

FILTERS = """{%- set roles = messages | map(attribute='role') | list -%}
{{ roles }} {{ roles | unique | list }} {{ roles | first }} {{ roles | last }} {{ roles | join(', ') }} {{ roles | sort }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'in', ['user', 'tool']) | map(attribute='role') | list }}
{% set text %}captured {{ roles | length }}{% endset %}
{{ text | upper }} {{ text | capitalize }} {{ text | title }} {{ 'a\\nb' | indent(2) }} {{ 'a\\nb' | indent(4, first=true) }}
{% filter upper %}loud{% endfilter %} {{ '%s-%d' | format('x', 3) }} {{ '{}!'.format('hi') }}
{% for group in roles | batch(2) %}{{ group | list }}{% endfor %} {{ [3, 1, 2] | sort(reverse=true) }} {{ {'b': 1, 'a': 2} | dictsort }}
{% for key, value in {'b': 1, 'a': none} | items %}{{ key }}={{ value }} {% endfor %}{{ [1, [2]] | string }} {{ '3' | int + 1 }} {{ [1, 2] + [3] }}
{% if roles is defined and roles[0] is in ['user', 'system'] %}yes{% else %}no{% endif %} {{ 'x' if false }} {{ loop is defined }}
"""

GENERATION = """{% for message in messages %}
{% if message.role == 'assistant' %}
    {% generation %}
{{ message.content }}{{ eos_token }}
    {%- endgeneration %}

{% else %}
{{- '[' + message.role + ']' }} {{ message.content }}
{% endif %}
{% endfor %}
"""

RAISING = """{%- for message in messages -%}
  {%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
    {{- raise_exception('roles must alternate, but message ' ~ loop.index0 ~ " is of '" + message.role + "'") -}}
  {%- endif -%}
  {{- message.role }} {% if message.content is none %}{{ raise_exception('empty') }}{% endif -%}
{%- endfor -%}
"""

WHITESPACE = """  {%- if true -%}  a  {%- endif %}
  {%+ if true %} b {% endif +%}
{# a comment #}
   {# an indented comment #}
{% raw %}{{ kept }} {% as it is %}{% endraw %}

  {{ 'c' }}

	{% for x in [1, 2] %}
	{{ x }}
	{% endfor %}
{{- 'd' -}}
   e

"""

ALL = {
    "loops": LOOPS,
    "macros": MACROS,
    "namespaces": NAMESPACES,
    "methods": METHODS,
    "printing": PRINTING,
    "filters": FILTERS,
    "generation": GENERATION,
    "raising": RAISING,
    "whitespace": WHITESPACE,
}
