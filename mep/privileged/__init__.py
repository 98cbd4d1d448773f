"""The part of the manager that uses root's power: read it in one sitting.

WHAT RUNS AS ROOT HERE, AND WHY
  spec.py    `LaunchSpec`: everything that one launch may depend on, checked before anything happens. Plain data.
  kernel.py  the three kernel calls that Python has no function for (prctl, capset), through ctypes.
  become.py  become one account for good, and prove it. Only root can do the first; nobody may undo it.
  launch.py  fork; in the child: reset, drop, prove, open the log, arrange descriptors, exec. Only root can start a
             process that belongs to somebody else.

RULES OF THIS FOLDER
  * It imports the standard library and itself, nothing else.
  * Between fork and exec there is no import, no logging, no name service look-up, no code of third parties. What the
    child needs is computed before the fork; what it does is a fixed list of named steps.
  * A step that fails ends the child and reaches the parent as the step's name and an errno. There is no repair.
  * Never uid 0, never gid 0 as primary group, never the manager's own uid: whatever the rest of the manager says.
"""
