"""What runs in the processes that do the work, as the user, on other hosts too.

`execution`       runs one task
`serialization`   the SDK's serializer
`endings`         says how the process of a task has ended
`programs`        finds what tasks have started, and ends it
`guard`           has that done with the end of a pool, however it ends
`bytecode`        recognizes functions of another Python
`versions`        names the versions of both sides in errors
`time_limit`      ends tasks that run too long
`user_modules`    keeps what tasks import apart from what we do
`partial_import`  imports parts of packages
`parsl_import`    imports parts of Parsl
`pool_program`    the program that the workers of a process pool are forked from
`parsl_program`   Parsl's interchange and worker pool

The whole folder is copied to where Parsl's workers read it. So it uses the standard library, the SDK and Parsl only,
the latter two not before they are needed, and of ours nothing but itself.
"""
