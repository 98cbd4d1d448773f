"""The part of the manager that uses root's power: read it in one sitting.

WHAT RUNS AS ROOT HERE, AND WHY
  spec.py    what is never launched: `mep.request.launch_spec`, all that one launch depends on, is checked by it first.
  kernel.py  the three kernel calls that Python has no function for (prctl, capset), through ctypes.
  become.py  become one account for good, and prove it. Only root can do the first; nobody may undo it.
  session.py account, credentials and session of PAM, for sites that enable it; and the process that stays root to close
             the session at the end. Only root can do that for others.
  launch.py  fork; in the child: reset, wait, drop, prove, open the log, arrange descriptors, exec. Only root can start
             a process that belongs to somebody else. User endpoints, helpers and mapping programs all come this way.

RULES OF THIS FOLDER
  * It imports the standard library, itself, and `mep.request.launch_spec`, which is plain data and imports nothing of
    ours; and the binding of PAM (pamela), when that is enabled. Nothing else of third parties.
  * Between fork and exec there is no import and no logging; what the child does is a fixed list of named steps. It asks
    the name service once, for the account that it is to become. PAM, where the site enables it, is the only code of
    third parties.
  * A step that fails ends the child and reaches the parent as the step's name and an errno. There is no repair.
  * Never uid 0, never gid 0 as primary group, never the manager's own uid: whatever the rest of the manager says.
"""
