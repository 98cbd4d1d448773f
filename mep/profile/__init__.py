"""A profile once it is read: frozen values, where things lie, and who can change them. Reading is `reader`.

PROCESS
  The manager, whatever prepares one, and commands.

CALLED BY
  daemon, monitor, reader, registration, cli.

IMPORTS
  profile.sections

FILES
  profile.py             `Profile`: the folder of one endpoint
  config.py              `ManagerConfig`: config.yaml, and the table of its keys
  keys.py                how a key is declared
  sections/              the keys that have keys of their own: accounts, limits, resources, pam
  functions.py           what an entry of `allowed_functions` says
  client_credentials.py  `ClientCredentials`: what registers an endpoint when nobody has logged in
  mapping_documents.py   the identity mapping as text that is known to be in order
  accepted.py           the profile that was accepted last, as it is kept
  errors.py              what is wrong with files of a profile
  places.py              whether anybody but root could put something where we write
  paths.py               where profiles, state, run folders and logs lie
  programs.py            whether ordinary users can execute a program
  command_trust.py       whether anybody but root could change what a command line executes
  own_code.py            the same of all that Python may import here, and of files that variables name
  whole_file.py          writes a small file, whole or not at all
  trust.py               whether anybody but root could change a file, or the way to it
"""
