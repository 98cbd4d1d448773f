"""A box: a real systemd, booted over a throw-away copy of this system; gone afterwards with all that happened in it.

    with Box(folder / "box") as box:
        box.run("systemctl", "start", "mep@prod")
        box.shell("journalctl -u mep@prod | tail")

`machine`   the box as its maker sees it: starts it, runs commands in it, has it crash, stops it
`nspawn`    the program that runs systemd-nspawn over the copy of this system
`base`      the package by which the copy claims to be Enterprise Linux
`cgroups`   the cgroups that a box lives in
`common`    what these share

The box sees the file system of `/`, and writes into memory. It does not see other mounts, except the project and the
environment of this Python, which it can only read. Not taken over: what this system has enabled, its journal, its
package database, an installed mep (`nspawn.HIDDEN`), `/tmp` and `/run`. Units are disabled by default, as on Enterprise
Linux, whose base system a dummy package claims to provide; so `rpm -i` works inside. The loopback interface is its own,
and there is no other, unless it is to share those of its maker.

A command comes in from outside (nsenter): it has root's full rights, and stays in the cgroup of its caller. What must
have a cgroup in the box, or the rights that a service has there, is started by `systemd-run --wait --pipe`.

Works with cgroups of version 1, 2 and both; the box gets cgroups below those of its maker. Limits (MemoryMax= and the
like) hold with version 1 only. It ends with its maker, even by SIGKILL; its folder and empty cgroups stay then.
"""
