"""The files of a profile become plain values, checked as a whole; only files that nobody but root can change.

PROCESS
  `mep` commands, with their rights; daemon.main before the manager is executed, and daemon.anew while it runs, a fresh
  program, as root. Never the manager. `parsers`: a forked child of these, as `nobody` when they are root.

CALLED BY
  cli: commands that need a profile; daemon, which hands it to the manager.

IMPORTS
  processes, profile, profile.sections, renderer; identity, jsonschema, yaml

FILES
  loader.py              the folder as a whole: `Profile`
  trusted.py             a file that decides what root does: read if it is root's alone
  config_reader.py       config.yaml by the table of its keys
  values.py              what each kind of key takes, and how a wrong value is told
  yaml_text.py           YAML to plain values, with lines; no key twice
  apart.py               has a text parsed by a process without rights
  parsers.py             what runs there: YAML, templates, JSON Schema, mapping documents
  plain.py               values as JSON can carry them between the two
  files.py               template, schema, environment, mapping
  registered.py          endpoint.json, and how the manager logs in at the broker
  client_credentials.py  the credentials that config.yaml or the environment names
  edited_list.py         a list in YAML text with other entries, all else as it was
  outside.py             what a profile relies on: programs, PAM's files, the audit trail's folder, credentials
  accepted.py            the profile that was accepted last, kept for the next start
  environment.py         /etc/mep/environment
"""
