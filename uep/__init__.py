"""The user endpoint: runs one user's tasks, as that user.

`cli`       the program `mep-uep NAME`; exit codes
`handover`  what the manager says on descriptor 0
`config`    the rendered YAML configuration
`endpoint`  the loop: check in, take tasks, send results, heartbeat, stop when idle
`idle`      the rules by which an endpoint stops by itself
`audit`     records of a high-assurance endpoint
`error_results`  results made by the endpoint itself, when no worker could

Rooms:

`broker`    what goes to the broker and comes from there: channels, credentials, tasks, results, heartbeats
`storage`   the disk: results until the broker has them, open tasks, one endpoint at a time
`engines`   threads, processes, Parsl
`workers`   what runs in the processes that do the work, on other hosts too: standard library, SDK and Parsl only

Of our packages only `wire` is imported here. Nothing heavy (the SDK, Parsl) is imported before the first heartbeat.
"""
