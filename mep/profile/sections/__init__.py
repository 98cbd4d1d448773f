"""The keys of config.yaml that have keys of their own, as frozen values.

PROCESS
  Whoever has a profile: the manager, and commands.

CALLED BY
  profile.config, and who goes by a section: monitor, cli.

IMPORTS
  profile

FILES
  accounts.py   `accounts`: which accounts may have user endpoints
  limits.py     `limits`: how many user endpoints, and how often
  resources.py  `resources`: what the user endpoints of an account may use
  pam.py        `pam`: whether there are PAM sessions, and by which rules
"""
