"""Makes the endpoint known to the service: login or client credentials, then one REST call.

PROCESS
  The manager, as root, before its event loop; `mep login`, `logout`, `whoami`, `list`, `check`. To be a short process
  of the account mep, which gets the client's secret as a descriptor.

CALLED BY
  cli.

IMPORTS
  profile; globus_sdk, wire

FILES
  registration.py  the call, and the queues that the service answers with
  login.py         with which login we speak to the service, and where it is
  errors.py        why the service does not take us, with the remedy
  version.py       asks the service for its version: whether the registration could work
"""
