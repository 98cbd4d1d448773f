"""The few pages of a login. Plain HTML without scripts; nothing of another site, and nobody may frame them.

What they say of programs and people is escaped by the templates.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import jinja2
from starlette.responses import HTMLResponse

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --raised: #fff; --ink: #1c2024; --soft: #565e66; --line: #dddfe1;
  --accent: #0b5a8a; --accent-ink: #fff; --code: #f3f4f5; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181b; --raised: #1c2024; --ink: #e6e8ea; --soft: #a4adb5;
  --line: #343a40; --accent: #7cc0ec; --accent-ink: #0c1a24; --code: #101315; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1.25rem; background: var(--ground); color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", "DejaVu Sans", sans-serif; }
main { max-width: 34rem; margin: 0 auto; background: var(--raised); border: 1px solid var(--line);
  border-radius: .6rem; padding: 1.25rem 1.5rem; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .75rem; }
p, ul, form { margin: .75rem 0; }
ul { padding-left: 1.25rem; }
small, .soft { color: var(--soft); font-size: .9rem; }
a { color: var(--accent); }
button { font: inherit; padding: .5rem 1.1rem; border-radius: .4rem; border: 1px solid var(--line); cursor: pointer;
  background: transparent; color: var(--ink); margin: 0 .5rem .5rem 0; }
button.first { background: var(--accent); border-color: var(--accent); color: var(--accent-ink); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
code { display: block; background: var(--code); border: 1px solid var(--line); border-radius: .4rem; padding: .75rem;
  font: 1.05rem/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; user-select: all; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_TEMPLATES = {
    "base": """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{% block title %}{% endblock %} - Compute</title><link rel="icon" href="data:,">
<style>STYLE</style></head>
<body><main><h1>{{ self.title() }}</h1>
{% block content %}{% endblock %}
</main></body></html>""",
    "consent": """{% extends "base" %}
{% block title %}Let {{ asked.app_name }} act for you?{% endblock %}
{% block content %}
<p>You are <b>{{ who.username }}</b>{% if others %}, and also {{ others | join(", ") }}{% endif %}.
{% if asked.label %}The program calls itself <b>{{ asked.label }}</b>.{% endif %}</p>
<p>If you agree, whoever gets the code that comes next may in your name</p>
<ul>{% for line in wants %}<li>{{ line }}</li>{% endfor %}</ul>
<p>Agree only if you yourself have started this program just now, and nobody has sent you the address of this page.</p>
<form method="post" action="/v2/oauth2/authorize">
{% for key, value in fields.items() %}<input type="hidden" name="{{ key }}" value="{{ value }}">{% endfor %}
<button class="first" name="answer" value="yes">Agree</button>
<button name="answer" value="no">Cancel</button>
</form>
<p class="soft"><a href="{{ as_another }}">Log in as somebody else</a></p>
{% endblock %}""",
    "code": """{% extends "base" %}
{% block title %}Your code{% endblock %}
{% block content %}
<p>Paste this into the program that asks for it:</p>
<code id="code">{{ code }}</code>
<p>It is good once, for {{ minutes }} minutes. Give it to nobody: whoever has it may act for you.</p>
{% endblock %}""",
    "logout": """{% extends "base" %}
{% block title %}Log out?{% endblock %}
{% block content %}
<p>You are <b>{{ who.username }}</b>.</p>
<form method="post" action="/logout"><input type="hidden" name="csrf" value="{{ csrf }}">
<button class="first">Log out here</button>
<button name="everywhere" value="yes">Log out everywhere</button></form>
<p class="soft">“Everywhere” also ends the logins of all programs on all machines. Tasks that wait or run go on.</p>
{% endblock %}""",
    "text": """{% extends "base" %}
{% block title %}{{ heading }}{% endblock %}
{% block content %}<p>{{ text }}</p>{% if link %}<p><a href="{{ link[0] }}">{{ link[1] }}</a></p>{% endif %}
{% endblock %}""",
}

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:;"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_environment = jinja2.Environment(
    loader=jinja2.DictLoader({**_TEMPLATES, "base": _TEMPLATES["base"].replace("STYLE", _STYLE)}),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
)


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Makes an answer of a template."""
    return HTMLResponse(_environment.get_template(template).render(**values), status, dict(_HEADERS))


def told(heading: str, text: str, status: int = 200, link: tuple[str, str] | None = None) -> HTMLResponse:
    """Makes a page that says one thing. link: where to go on, and how that is called."""
    return page("text", status, heading=heading, text=text, link=link)
