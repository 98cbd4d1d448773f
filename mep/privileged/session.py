"""A PAM session around one program: account, credentials, session, and the process that closes it at the end.

Called by `launch` when `pam` is enabled. `load` runs in the manager before any fork; everything else in the child
between fork and exec, while that is still root and has one thread:

    signals are reset (SIGCHLD at its default: modules wait for helpers of theirs), the groups are set (pam_group adds
    to them); then check_account, establish_credentials, open, environment, keep; then the uid goes, and exec

Modules run in the process that will be the program, because what they set is set for the process that they run in:
limits, keyring, login uid, mount namespace. Closing the session takes root, and the handle of the same PAM, whose
modules keep notes in memory. So `keep` forks: the copy, the keeper, waits for the program to end, closes, and ends.

THE KEEPER
  * is nobody's child but init's: the program does not find a child that it has not started.
  * has no terminal, ignores what ends others, and is called `mep-session` in ps. It needs no care: the end of the
    program ends it, whether or not that was ever executed. A keeper that is killed leaves its session open.
  * has the pidfd that it waits for, what PAM modules have opened, and nothing of the manager's descriptors.
  * has the manager's memory as it was at the fork, and cannot help it: PAM's handle is memory, so it cannot exec. No
    password of a user is in there, but keys and what they open are. It is root's and not dumpable like the manager
    itself, takes no input, and runs nothing but PAM modules, which are root's code and may read the manager anyway.
    Pages are shared with the manager until one of them writes.
  * is in the control group in which `keep` was called: the program must be moved to its own afterwards, or whoever
    kills that group kills the keeper before it has closed the session.

A step that fails undoes what earlier ones did before PamError goes up. A child that is killed from outside between
`open` and `keep`, or inside a module, undoes nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import select
import signal
import syslog
from typing import Any, NoReturn

from mep.privileged import kernel

_NAME = b"mep-session"
_TTY = "mep"
_REMOTE_USER = "root"
"""Who asks for the session: the manager. Where the request came from is not known here, so PAM_RHOST is not set."""

_NEW_AUTHTOK_REQUIRED = 12
_BUFFER_ERROR = 5
_CONVERSATION_ERROR = 19
_IGNORED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_MESSAGES = 4
_MAX_MESSAGE = 120
"""How many of a step's last messages a PamError repeats, and how many characters of each."""

_pam: Any = None
_conversation: Any = None
_said: list[str] = []
"""What modules said during the present step. Of the process, like `_conversation`: it has one session."""


class PamError(Exception):
    """PAM said no. The text has PAM's answer and what modules said: one printable line, less than 1000 characters."""


def load() -> None:
    """Loads PAM. In the manager: loading starts `ldconfig`, and C callbacks are best made before any fork.

    Raises:
        PamError: the library or its Python binding is not there.
    """
    global _pam, _conversation
    if _pam is not None:
        return
    try:
        import pamela
    except (ImportError, OSError, AttributeError) as e:  # AttributeError: no libpam was found, so not its functions
        raise PamError(f"PAM cannot be loaded ({e}): install libpam and the package pamela, or disable `pam`") from None
    _conversation = pamela.CONV_FUNC(_converse)
    _pam = pamela
    # Modules log by syslog(3), which else takes the interpreter's name for ours.
    syslog.openlog("mep", syslog.LOG_PID, syslog.LOG_AUTHPRIV)


def problem() -> str | None:
    """Why PAM cannot be loaded; None when it is."""
    try:
        load()
    except PamError as e:
        return str(e)
    return None


class Session:
    """One PAM session, not opened yet."""

    def __init__(self, service: str, username: str) -> None:
        """`service` names the file in /etc/pam.d. Nothing happens yet; `load` comes before anything that does."""
        self._service = service
        self._username = username
        self._handle: Any = None
        self._credentials = False
        self._opened = False
        self._foreign: frozenset[int] = frozenset()

    def check_account(self) -> None:
        """Whether the account may be used here and now.

        Raises:
            PamError: it is denied, expired, or the host is closed; or its password has expired.
        """
        self._start()
        self._do("account", _pam.PAM_ACCT_MGMT, 0)

    def establish_credentials(self) -> None:
        """Gives the process the account's credentials: more groups, tickets. The groups have been set before.

        Raises:
            PamError: a module could not.
        """
        self._do("credentials", _pam.PAM_SETCRED, _pam.PAM_ESTABLISH_CRED)
        self._credentials = True

    def open(self) -> None:
        """Opens the session: limits, keyring and so on are set for this process.

        Raises:
            PamError: a module could not. Modules that had opened theirs have closed it again.
        """
        self._opened = True  # also if it fails: some modules may have opened theirs
        self._do("session", _pam.PAM_OPEN_SESSION, 0)

    def environment(self) -> dict[str, str]:
        """The variables that modules have set. What is no proper name of a variable is left out.

        Raises:
            PamError: no memory.
        """
        entries = _pam.PAM_GETENVLIST(self._handle)
        if not entries:
            self._fail("environment", "no memory")
        variables = {}
        for entry in itertools.takewhile(lambda entry: entry is not None, entries):
            name, _, value = os.fsdecode(entry).partition("=")
            if _VARIABLE.fullmatch(name):
                variables[name] = value
        return variables

    def keep(self) -> None:
        """Makes the keeper, which closes the session when this process ends, whatever program it is then.

        This object has nothing to close afterwards.

        Raises:
            PamError: there is no process or descriptor to be had.
        """
        try:
            status = self._fork_keeper()
        except OSError as e:
            self._fail("keeper", e.strerror or type(e).__name__)
        if status != 0:
            self._fail("keeper", os.strerror(status) if status > 0 else f"killed by signal {-status}")
        self._handle = None

    def close(self) -> list[str]:
        """Undoes all steps so far, in reverse; for a launch that fails before `keep`. PAM's objections, if any."""
        if self._handle is None:
            return []
        codes = []
        if self._opened:
            codes.append(_pam.PAM_CLOSE_SESSION(self._handle, 0))
        if self._credentials:
            codes.append(_pam.PAM_SETCRED(self._handle, _pam.PAM_DELETE_CRED))
        objections = [self._words(code) for code in codes if code != 0]
        _pam.PAM_END(self._handle, codes[-1] if codes else 0)
        self._handle = None
        return objections

    def _start(self) -> None:
        assert _pam is not None, "load() comes first"
        self._foreign = _open_descriptors()
        try:
            self._handle = _pam.pam_start(self._service, self._username, _conversation)
        except _pam.PAMError as e:
            self._fail("start", str(e.message))
        for item, value in ((_pam.PAM_TTY, _TTY), (_pam.PAM_RUSER, _REMOTE_USER)):
            self._do("start", _pam.PAM_SET_ITEM, item, value.encode())

    def _do(self, step: str, function: Any, *arguments: object) -> None:
        _said.clear()
        code = function(self._handle, *arguments)
        if code == 0:
            return
        words = self._words(code)
        if code == _NEW_AUTHTOK_REQUIRED:
            words += ": the password has expired, and must be changed where one can log in"
        heard = "; ".join(_said[-_MAX_MESSAGES:])
        self._fail(step, f"{words}; modules said: {heard}" if heard else words)

    def _words(self, code: int) -> str:
        return _printable(_pam.PAM_STRERROR(self._handle, code) or b"")

    def _fail(self, step: str, words: str) -> NoReturn:
        self.close()
        raise PamError(f"PAM service {self._service}, account {self._username}: {step}: {words}")

    def _fork_keeper(self) -> int:
        """The exit status of the process between: 0 when there is a keeper, otherwise an errno."""
        pidfd = os.pidfd_open(os.getpid())
        try:
            between = os.fork()
            if between == 0:
                self._between(pidfd)
            return os.waitstatus_to_exitcode(os.waitpid(between, 0)[1])
        finally:
            os.close(pidfd)

    def _between(self, pidfd: int) -> NoReturn:
        """Does all that can fail, and ends when the keeper has been forked, which thereby becomes init's child."""
        status = 255
        try:
            os.setsid()
            for number in _IGNORED:
                signal.signal(number, signal.SIG_IGN)
            kernel.set_dumpable(False)
            _set_name()
            os.chdir("/")
            self._close_foreign()
            if os.fork() == 0:
                self._hold(pidfd)
            status = 0
        except OSError as e:
            status = e.errno or status
        finally:
            os._exit(status)

    def _close_foreign(self) -> None:
        """Closes what was open before PAM started; modules that expect standard descriptors get /dev/null."""
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in self._foreign:
            if descriptor <= 2:
                os.dup2(null, descriptor)
            else:
                _close(descriptor)
        os.close(null)

    def _hold(self, pidfd: int) -> NoReturn:
        """The keeper's life."""
        try:
            waiting = select.poll()
            waiting.register(pidfd, select.POLLIN)
            waiting.poll()
            for objection in self.close():
                syslog.syslog(syslog.LOG_ERR | syslog.LOG_AUTHPRIV, f"end of session of {self._username}: {objection}")
        finally:
            os._exit(0)


def _converse(count: int, messages: Any, responses: Any, _data: object) -> int:
    """What modules have to say is remembered; what they ask cannot be answered."""
    for i in range(count):
        message = messages[i].contents
        text = _printable(ctypes.cast(message.msg, ctypes.c_char_p).value or b"")
        if message.msg_style not in (_pam.PAM_TEXT_INFO, _pam.PAM_ERROR_MSG):
            _said.append(f"(asked {text!r}, which nobody can answer here)")
            return _CONVERSATION_ERROR
        _said.append(text)
    array = _pam.CALLOC(count, ctypes.sizeof(_pam.PamResponse))  # the module frees it
    responses[0] = ctypes.cast(array, ctypes.POINTER(_pam.PamResponse))
    return 0 if array else _BUFFER_ERROR


def _printable(text: bytes) -> str:
    """One short line. Not `processes.printable`: what runs between fork and exec imports the standard library only."""
    characters = (c if c.isprintable() else " " for c in text.decode("utf-8", "replace"))
    return " ".join("".join(characters).split())[:_MAX_MESSAGE]


def _open_descriptors() -> frozenset[int]:
    return frozenset(n for n in map(int, os.listdir("/proc/self/fd")) if _is_open(n))  # noqa: PTH208 - as in kernel.py


def _is_open(descriptor: int) -> bool:
    """The listing has a descriptor of its own, which is closed by now and free for a module to get."""
    try:
        os.get_inheritable(descriptor)
    except OSError:
        return False
    return True


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _set_name() -> None:
    with open("/proc/self/comm", "wb", buffering=0) as f:  # noqa: PTH123 - as in kernel.py
        f.write(_NAME)
