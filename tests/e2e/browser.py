"""Debian's Chromium without a window, used as a person uses it: by labels, links and buttons. What it shows is judged.

One process with a profile of its own for each Browser. Screenshots are kept in the test's folder and looked at for
content: something must be drawn, and it must be inside the window.
"""

from __future__ import annotations

import shutil
import time
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from PIL import Image
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from tests.support.http import free_ports

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Enough for a busy machine: what is waited for is a state of the page.
WAIT_SECONDS = 60.0
MAX_PICTURE = 6000
T = TypeVar("T")

# Elements whose box is not inside the window. What scrolls in a box of its own counts by that box.
OUTSIDE = """
const scrolls = (one) => one && (/auto|scroll/.test(getComputedStyle(one).overflowX) || scrolls(one.parentElement));
return [...document.body.querySelectorAll('*')].filter((one) => {
  const box = one.getBoundingClientRect();
  const seen = box.width > 1 && box.height > 1 && !scrolls(one.parentElement);
  return seen && (box.left < -1 || box.right > arguments[0] + 1);
}).map((one) => one.outerHTML.slice(0, 100));
"""
# What tells this document from every other, once it is loaded.
DOCUMENT = "return document.readyState === 'complete' ? performance.timeOrigin : null"
# Brings a link or button where it can be clicked on, and says how it leads to another page, if it does.
LEADS_AWAY = """
arguments[0].scrollIntoView({block: 'center'});
if (arguments[0].href) return 'link';
return arguments[0].type === 'submit' && arguments[0].form ? 'form' : '';
"""
# A link that the page replaces between the button's going down and up has not been clicked on.
CLICK_AGAIN_SECONDS = 10.0
FOCUS = "arguments[0].focus(); return document.activeElement === arguments[0]"
TIMERS = """
window.pendingTimers = new Set();
const {setTimeout: begin, clearTimeout: end} = window;
window.setTimeout = (call, after) => {
  const timer = begin(() => { pendingTimers.delete(timer); call(); }, after);
  pendingTimers.add(timer);
  return timer;
};
window.clearTimeout = (timer) => { pendingTimers.delete(timer); end(timer); };
"""


class Window(NamedTuple):
    """A window's size in pixels, and whether it is a phone's."""

    name: str
    width: int
    height: int
    phone: bool


DESKTOP = Window("desktop", 1280, 900, False)
PHONE = Window("phone", 375, 740, True)


class Browser:
    """A running Chromium. `folder` takes its profile and the screenshots."""

    def __init__(self, folder: Path, window: Window = DESKTOP, *, script: bool = True) -> None:
        self.folder = folder
        self.window = window
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        if not script:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        # Selenium would pick one that the kernel gives to outgoing connections as well.
        (port,) = free_ports(1)
        self.driver = Chrome(options=options, service=Service(str(DRIVER), port=port))
        self.driver.set_page_load_timeout(WAIT_SECONDS)
        size = {"width": window.width, "height": window.height, "deviceScaleFactor": 1, "mobile": window.phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def close(self) -> None:
        self.driver.quit()

    def open(self, address: str) -> None:
        self.driver.get(address)

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str = "main") -> str:
        """What is to be read in an element, in one line."""
        return self.wait(lambda: [" ".join(self.find(css).text.split())])[0]

    def texts(self, css: str) -> list[str]:
        return self.wait(lambda: [[one.text for one in self.all(css)]])[0]

    def sees(self, words: str, css: str = "main") -> None:
        """Wait until `words` are to be read in an element."""
        self.wait(lambda: words in " ".join(self.find(css).text.split()))

    def fill(self, label: str, text: str) -> None:
        """Type into the field of a label."""

        def filled() -> bool:
            field = self._labelled(label)
            field.clear()
            field.send_keys(text)
            return field.get_attribute("value") == text

        self.wait(filled)

    def choose(self, label: str, option: str) -> None:
        """Pick an option of the list with a label."""

        def chosen() -> bool:
            Select(self._labelled(label)).select_by_visible_text(option)
            return True

        self.wait(chosen)

    def press(self, words: str, within: str = "body") -> None:
        """Click on the button or link that says `words`. Where that leads to another page, wait for that page."""
        path = f".//*[self::a or self::button][normalize-space()={words!r}]"
        before, leads_away, again_at = self.wait(lambda: self.script(DOCUMENT)), "", 0.0

        def clicked() -> bool:
            nonlocal leads_away
            # A click that has led away does not always come back to tell.
            if leads_away and self.script(DOCUMENT) != before:
                return True
            found = self.find(within).find_element(By.XPATH, path)
            leads_away = self.driver.execute_script(LEADS_AWAY, found)
            found.click()
            return True

        def arrived() -> bool:
            nonlocal again_at
            if self.script(DOCUMENT) not in (before, None):
                return True
            if leads_away == "link" and time.monotonic() > again_at:
                again_at = time.monotonic() + CLICK_AGAIN_SECONDS
                clicked()
            return False

        self.wait(clicked)
        if leads_away:
            again_at = time.monotonic() + CLICK_AGAIN_SECONDS
            self.wait(arrived)

    def wait(self, condition: Callable[[], T], timeout: float = WAIT_SECONDS) -> T:
        """What `condition` gives once it is true. While the page changes under its hands, it is not."""
        deadline = time.monotonic() + timeout
        while True:
            failure: WebDriverException | None = None
            try:
                if value := condition():
                    return value
            except WebDriverException as error:
                failure = error
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout} s in vain; the page says: {self._said()}") from failure
            time.sleep(0.05)

    def _said(self) -> str:
        try:
            return str(self.script("return document.body.innerText"))
        except WebDriverException as error:
            return f"nothing ({error.msg})"

    def script(self, source: str) -> Any:
        return self.driver.execute_script(source)

    def count_timers(self) -> None:
        """From the next page on, `window.pendingTimers` has the timers that a page is waiting for."""
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TIMERS})

    def press_key(self, key: str) -> None:
        """Press a key, for whatever has the focus."""
        ActionChains(self.driver).send_keys(key).perform()

    def point_at(self, css: str) -> None:
        """Move the pointer to the middle of an element."""

        def pointed() -> bool:
            ActionChains(self.driver).move_to_element(self.find(css)).perform()
            return True

        self.wait(pointed)

    def focus_on(self, css: str) -> None:
        """Give an element the focus."""

        def focused() -> bool:
            return bool(self.driver.execute_script(FOCUS, self.find(css)))

        self.wait(focused)

    def attribute(self, css: str, name: str) -> str:
        """An attribute of an element that has it."""
        return self.wait(lambda: self.find(css).get_attribute(name) or "")

    def complaints(self) -> list[str]:
        """What the browser has had to say since it was last asked: errors of scripts, broken policies, failed loads."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def look(self, name: str) -> Image.Image:
        """A screenshot of the page as it is, on which something must be seen, with nothing outside the window."""
        png = self.driver.get_screenshot_as_png()
        (self.folder / f"{name}-{self.window.name}.png").write_bytes(png)
        picture = Image.open(BytesIO(png)).convert("RGB")
        assert picture.size == (self.window.width, self.window.height)
        assert colours(picture) > 40, f"{name}: hardly anything is drawn"
        heading = self.wait(lambda: self.find("h1").rect)
        left, top = int(heading["x"]), int(heading["y"])
        box = (left, top, left + int(heading["width"]), top + int(heading["height"]))
        assert colours(picture.crop(box)) > 8, f"{name}: the heading is not drawn"
        # Not `innerWidth`: a phone makes that as large as what it shows.
        assert self.script("return document.documentElement.scrollWidth") <= self.window.width, f"{name} is too wide"
        assert self.driver.execute_script(OUTSIDE, self.window.width) == [], name
        return picture

    def emulate_scheme(self, scheme: str) -> None:
        """Have the system be `light` or `dark`."""
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)

    def picture(self, path: Path) -> None:
        """Keep a picture of the whole page, also of what is below the window, up to MAX_PICTURE pixels."""
        height = min(int(self.script("return document.documentElement.scrollHeight")), MAX_PICTURE)
        clip = {"x": 0, "y": 0, "width": self.window.width, "height": height, "scale": 1}
        shot = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        path.write_bytes(b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", shot)["data"]))

    def _labelled(self, label: str) -> WebElement:
        found = self.driver.find_element(By.XPATH, f"//label[normalize-space()={label!r}]")
        return self.driver.find_element(By.ID, str(found.get_attribute("for")))


def colours(picture: Image.Image) -> int:
    """How many different colours a picture has."""
    return len(picture.getcolors(picture.width * picture.height) or ())


def background(picture: Image.Image) -> int:
    """How bright the commonest colour of a picture is, 0 to 255."""
    _, commonest = max(picture.getcolors(picture.width * picture.height) or [(0, (0, 0, 0))])
    assert isinstance(commonest, tuple)
    return sum(commonest) // 3


StartBrowser = Callable[..., Browser]
