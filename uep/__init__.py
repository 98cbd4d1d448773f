"""The user endpoint: runs one user's tasks, as that user.

Files, in the process of the endpoint, on its one event loop:

`cli`            the program `mep-uep NAME`; exit codes
`log_file`       bounds the log, whoever writes to it; a small process of its own
`handover`       what the manager says on descriptor 0
`check`          says of configurations whether an endpoint could start with them; `mep-uep --check`
`config`         the rendered YAML configuration
`endpoint`       the life: check in, take tasks, send results, heartbeat, stop when idle
`preparation`    what comes between check-in and the first task
`shell_command`  commands of the configuration, and of ours, bounded in time
`idle`           the rules by which an endpoint stops by itself
`report_pipe`    words to the manager
`figures`        what it tells the manager of its work
`audit`          records of a high-assurance endpoint
`pinned`         tasks whose code must have a hash that the site has pinned
`error_results`  results that the endpoint itself makes, when no worker could

Rooms:

`broker`         what comes from the broker and goes there: credentials, channels, tasks, results, heartbeats
`storage`        the disk: one endpoint at a time in one directory, open tasks, results until the broker has them
`environments`   the Python of tasks, where the endpoint's own does not suit
`engines`        what runs the tasks: threads, processes, Parsl
`workers`        what runs in other processes, and on other hosts: standard library, SDK and Parsl only

Of our packages only `wire` is imported here. Nothing heavy (the SDK, Parsl) is imported before the first heartbeat.
"""
