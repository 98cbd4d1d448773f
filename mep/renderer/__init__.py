"""User options meet the admin's schema and template: hostile until proven otherwise.

PROCESS
  `server`: a program of its own, run as `render_account`: no rights, no secret, no capability, not dumpable. It forks a
  child for each request, which has the files of request and answer, and limits of time, memory and output. `answer`
  runs in that child; `template` there, among the parsers of a profile, as `nobody`, and in `mep check`.

CALLED BY
  monitor.stages.renderer starts the program and checks what it says; reader.parsers, cli.slips.

IMPORTS
  privileged, processes; jinja2, jsonschema, yaml

FILES
  server.py    the program: a child for each request, its limits, its exit
  answer.py    a request to its answer
  options.py   checks what a user sends
  taken.py     which options there are: by templates and schema
  faults.py    what breaks the schema, in sentences
  encoding.py  strings of strangers as a template sees them
  template.py  the admin's template: is it one, and what it gives
  refusal.py   ends a request with a reason
"""
