"""The types that travel between the stages of a request: frozen values.

PROCESS
  Every one of ours.

CALLED BY
  Whoever makes one, or takes one.

IMPORTS
  nothing but the standard library

FILES
  start_endpoint.py   what the service asks for
  credentials.py      its credentials, in a file that is passed on unread
  mapped_identity.py  whom the requester becomes, and by which rule
  account.py          a local account
  group_rule.py       which groups may have user endpoints
  mapping_program.py  a mapping program that is to be asked, and its failure
  rendered_config.py  the configuration of a user endpoint
  launch_plan.py      one user endpoint to be started
  launch_spec.py      all that one privileged launch depends on
  refusal.py          why a request was not granted, for the admin and for the user
  request_ids.py      names of requests, in logs and for users: unique, sortable by time
  unwanted.py         the service does not take the endpoint any more
"""
