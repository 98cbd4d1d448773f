"""The part of the manager that uses root's power: read it in one sitting.

PROCESS
  The manager, as root; and its child between fork and exec, which is root until its step `identity` and the account
  from then on. With PAM also the keeper, which stays root until it has closed the session.

CALLED BY
  monitor.endpoints.spawn for user endpoints, processes.supervised for helpers and mapping programs. `kernel`: whatever
  has to end with its parent or must not be dumped. `session`: daemon, monitor.profile_in_force and
  cli, to load PAM or to find out whether it can be had. `become`: processes.forked, for children without rights.

IMPORTS
  request; identity, pamela

FILES: what runs as root, and why
  spec.py     what root refuses to launch, whoever asks: every `LaunchSpec` is checked before anything happens.
  kernel.py   the kernel calls that Python has no function for (prctl, capset, keyctl), through ctypes.
  network.py  a helper gives up the network for good: takes no right, and is here because it is a call of the kernel.
  become.py   become one account for good, and prove it. Only root can do the first; nobody may undo it.
  session.py  account, credentials and session of PAM, for sites that enable it; and the process that stays root to
              close the session at the end. Only root can do that for others.
  handover.py what a user endpoint reads on descriptor 0, put together after the drop.
  memory_file.py  files in memory, for that and for messages: takes no right.
  launch.py   fork; in the child: reset, wait, drop, prove, open the log, arrange descriptors, exec. Only root can start
              a process that belongs to somebody else.

RULES OF THIS FOLDER
  * It imports the standard library, itself, the plain values of `request`, and what may be a name of an account
    (`identity.account_name`); and the binding of PAM (pamela), when that is enabled.
  * Between fork and exec there is no import and no logging; what the child does is a fixed list of named steps. It asks
    the name service for the account that it is to become, and for the groups of the site's policy. PAM, where the site
    enables it, is the only code of third parties.
  * A step that fails ends the child and reaches the parent as the step's name and an errno. There is no repair.
  * Never uid 0, never gid 0 as primary group, never the manager's own uid: whatever the rest of the manager says.
"""
