"""Tasks on whatever Parsl's HighThroughputExecutor can reach.

`engine`          GlobusComputeEngine
`mpi`             GlobusMPIEngine
`providers`       Parsl's providers, launchers and addresses, as configurations describe them
`worker_command`  how a worker pool is started on a node, with which Python and which code
`images`          what brings its own Python
`advice`          programs that are missing, and what will be charged
`job_script`      what would be submitted for a block
`scaling`         keeps the number of blocks (batch jobs)
`blocks`          which blocks live, which have ended, and when there is no hope for the tasks
`questions`       asks batch systems what has become of jobs
`commands`        runs their commands, with a time limit
`placement`       in which block a task is, with high assurance
`pauses`          when something that fails is tried again
`output`          bounds what blocks leave in the user's home
`figures`         what heartbeats say about all that
"""
