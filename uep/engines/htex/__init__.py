"""Tasks on whatever Parsl's HighThroughputExecutor can reach.

`engine`          GlobusComputeEngine
`mpi`             GlobusMPIEngine
`providers`       Parsl's providers, launchers and addresses, as configurations describe them
`worker_command`  how a worker pool is started on a node, with which Python and which code
`advice`          programs that are missing, and what will be charged
`scaling`         keeps the number of blocks (batch jobs)
`figures`         what heartbeats say about all that
"""
