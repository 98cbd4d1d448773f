"""What runs the tasks, in the process of the endpoint: threads, processes, Parsl.

`registry`      makes the engine that a configuration names
`base`          what an engine is: it takes task requests, and gives futures of packed results
`later`         tries lost tasks again, after a time
`options`       checks the values of options
`pool`          what both pools on this machine share
`thread_pool`   ThreadPoolEngine
`process_pool`  ProcessPoolEngine
`htex`          GlobusComputeEngine and GlobusMPIEngine, over Parsl

What the engines start in other processes is in `uep.workers`.
"""
