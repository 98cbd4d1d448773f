"""A program that has somebody log in, as the public client does: it prints an address, and asks for a code.

with LoginProgram([sys.executable, "-c", script], environment) as program:
    code = log_in(browser, program.address, "carol")
    program.answer(code)
    print(program.output())
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from selenium.webdriver.common.by import By

from lab.browser import Browser

TIMEOUT = 120.0
_QUESTION = "Enter the resulting Authorization Code here: "


class ProgramFailed(Exception):
    """The program did not end with 0; the text is what it said."""


class LoginProgram:
    """A program under way, which stops at its login. Use it with `with`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(
            command,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **environment},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> LoginProgram:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def address(self) -> str:
        """Where the program sends its user; waits until it is printed. Raises ProgramFailed when it never is."""
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            if line.strip().startswith("http"):
                return line.strip()
            said += line
        raise ProgramFailed(f"it asked for no login: {said}")

    def answer(self, code: str) -> None:
        """Pastes the code."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{code}\n")
        self._process.stdin.flush()

    def output(self) -> str:
        """What it has printed since, once it has ended. Raises ProgramFailed when it ends otherwise than with 0."""
        said, _ = self._process.communicate(timeout=TIMEOUT)
        if self._process.returncode != 0:
            raise ProgramFailed(f"ended with {self._process.returncode}: {said[:3000]} ... {said[-3000:]}")
        return said.replace(_QUESTION, "\n")


def log_in(browser: Browser, address: str, login: str) -> str:
    """Does what a person does at the address: logs in at the provider, agrees, and copies the code."""
    browser.open(address)
    sign_in(browser, login)
    return agree(browser)


def sign_in(browser: Browser, login: str) -> None:
    """Fills in the provider's page, for which any password does."""
    browser.fill("Enter any login", login)
    browser.fill("and password", "any")
    browser.follow("Sign-in")


def agree(browser: Browser) -> str:
    """Presses the button of the consent page, and copies the code."""
    browser.click("Agree")
    browser.wait_for("Paste this")
    return browser.driver.find_element(By.ID, "code").text
