"""A headless Chromium that opens a file at a width and tells what is wrong with it."""

import shutil
from contextlib import contextmanager

import pytest

FAULTS = """
const wide = [...document.querySelectorAll('body *')].filter(e =>
  !e.closest('.scroll, pre') && e.getBoundingClientRect().right > innerWidth + 1);
const images = [...document.images];
return {
  overflow: document.documentElement.scrollWidth - innerWidth,
  wide: wide.map(e => e.tagName + '#' + e.id + '.' + e.className).slice(0, 5),
  broken: images.filter(i => !(i.complete && i.naturalWidth > 0)).length,
  images: images.length,
  mute: [...document.querySelectorAll('figure img')].filter(i => i.alt.length < 20).length,
  outside: [...document.querySelectorAll('[src],link[href],a[href]')]
    .map(e => e.getAttribute('src') || e.getAttribute('href'))
    .filter(u => !u.startsWith('data:') && !u.startsWith('#')),
};
"""


@contextmanager
def chromium(folder):
    """Start a browser of its own; skip the test where there is none."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs chromium and chromedriver on the PATH")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("headless=new", "no-sandbox", "disable-gpu", f"user-data-dir={folder}",
                 "disable-background-networking", "disable-component-update"):  # fmt: skip
        options.add_argument(f"--{flag}")
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield found
    finally:
        found.quit()


def opened(browser, page, *, width, height=800, dark=False):
    """Open a page as a window of that many CSS pixels shows it."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get(page.as_uri())


def faults(browser):
    """Return what FAULTS finds, and every line of the console."""
    lines = [entry["message"] for entry in browser.get_log("browser")]
    return {**browser.execute_script(FAULTS), "console": lines}


CONTRAST = """
const light = c => {
  const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = light(getComputedStyle(document.body).backgroundColor);
const kinds = 'h1, h2, h3, p, li, th, td, a, summary, dt, dd, .note';
const texts = [...document.querySelectorAll(kinds)];
return Math.min(...texts.map(e => {
  const ink = light(getComputedStyle(e).color);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}));
"""


def contrast(browser):
    """Return the least contrast of text and page (WCAG 2); 4.5 is enough for small text."""
    return browser.execute_script(CONTRAST)
