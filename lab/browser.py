"""A real browser: Debian's Chromium without a window, driven by Selenium over Debian's chromium-driver.

    with Browser() as browser:
        browser.open("http://localhost:5000/")
        browser.fill("Password", "secret")
        browser.click("Sign in")
        assert "Welcome" in browser.text

Elements are found as a person finds them, by the words that they see. `driver` is Selenium's, for everything else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from lab.waiting import until

CHROMIUM = "/usr/bin/chromium"
DRIVER = "/usr/bin/chromedriver"
SIZE = (1280, 900)
PHONE = (390, 844)

T = TypeVar("T")

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which Chromium cannot have as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",  # it asks nobody but the page
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",  # whatever a page refers to
    "--hide-scrollbars",
)


class Browser:
    """One browser with a profile of its own, which has no cookies yet. Use it with `with`."""

    def __init__(
        self, *, size: tuple[int, int] = SIZE, dark: bool = False, trust_any_certificate: bool = False
    ) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="mep-browser-")
        options = Options()
        options.binary_location = CHROMIUM
        for option in (*_OPTIONS, f"--user-data-dir={self._profile.name}", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(option)
        if dark:
            options.add_argument("--force-dark-mode")
        options.accept_insecure_certs = trust_any_certificate
        self._service = Service(DRIVER)
        self.driver = WebDriver(options=options, service=self._service)
        self.driver.set_page_load_timeout(60)
        # The window may not become as narrow as a phone; what the page sees of it does.
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE},
        )
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
        )

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and its driver."""
        try:
            self.driver.quit()
        finally:
            self._profile.cleanup()

    def open(self, url: str) -> None:
        """Goes to a page and waits until it is loaded."""
        self.driver.get(url)

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self.driver.current_url)

    @property
    def text(self) -> str:
        """What there is to read on the page."""
        return self.text_at("//body")

    def text_at(self, xpath: str) -> str:
        """What there is to read in the first element that an XPath finds."""
        return self._settled(lambda: str(self.driver.find_element(By.XPATH, xpath).text))

    def wait_for(self, text: str) -> None:
        """Waits until the page says `text`."""
        until(lambda: text in self.text, f"{text!r} on the page", failed=self._failed)

    def click(self, words: str) -> None:
        """Presses the button, or follows the link, that is called `words`."""
        quoted = _quoted(words)
        self._settled(
            lambda: self._find(
                f"//button[normalize-space()={quoted}] | //a[normalize-space()={quoted}]"
                f" | //summary[normalize-space()={quoted}] | //input[@type='submit'][@value={quoted}]"
            ).click()
        )

    def follow(self, words: str) -> None:
        """Clicks `words`, and waits until another page is there."""
        before = self.driver.find_element(By.TAG_NAME, "html")
        self.click(words)

        def gone() -> bool:
            try:
                before.is_enabled()
            except WebDriverException:  # stale, or while the next page comes
                return True
            return False

        until(gone, "another page", failed=self._failed)

    def fill(self, label: str, value: str) -> None:
        """Writes `value` into the field whose label, placeholder or name is `label`."""
        quoted = _quoted(label)
        field = self._find(
            f"//*[@id=//label[normalize-space()={quoted}]/@for] | //label[contains(., {quoted})]//input"
            f" | //*[self::input or self::textarea][@placeholder={quoted} or @name={quoted}]"
        )
        field.clear()
        field.send_keys(value)

    def screenshot(self, path: Path) -> None:
        """Writes what one sees as a PNG."""
        self.driver.save_screenshot(str(path))

    def is_wider_than_window(self) -> bool:
        """Tells whether one has to move the page sideways to read it."""
        width = "document.documentElement"
        return bool(self.driver.execute_script(f"return {width}.scrollWidth > {width}.clientWidth"))

    def _find(self, xpath: str) -> WebElement:
        def find() -> WebElement | None:
            try:
                element = self.driver.find_element(By.XPATH, xpath)
                return element if element.is_displayed() else None
            except (NoSuchElementException, StaleElementReferenceException):
                return None

        element = until(find, f"an element {xpath}", failed=self._failed)
        assert element is not None
        return element

    def _settled(self, ask: Callable[[], T]) -> T:
        """Asks again when the page was replaced meanwhile."""
        answers: list[T] = []

        def once() -> bool:
            try:
                answers.append(ask())
            except (StaleElementReferenceException, NoSuchElementException):
                return False
            return True

        until(once, "a page that stays", failed=self._failed)
        return answers[-1]

    def _failed(self, text: str) -> Exception:
        try:
            body = self.driver.find_element(By.TAG_NAME, "body").text
        except WebDriverException as e:
            body = str(e)
        return AssertionError(f"{text}; at {self.driver.current_url}:\n{body[:2000]}")


def _quoted(text: str) -> str:
    """Writes a text as XPath has it, which knows no escapes."""
    assert '"' not in text, text
    return f'"{text}"'
