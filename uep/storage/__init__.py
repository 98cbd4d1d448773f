"""What the endpoint keeps on disk, so that no task and no result is lost.

`directory_lock`  one endpoint at a time in one directory
`file_lock`       locks a file, also between hosts
`opening`         opens the two below, and finds what an earlier endpoint has left
`journal`         which tasks were accepted and have no result yet
`result_store`    results until the broker has confirmed them
`group_commit`    work on a disk, in groups and beside the loop
`files`           writing that outlives a crash
"""
