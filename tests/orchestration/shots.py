"""Pictures of a finished run in the Prefect and MLflow pages, for docs/images.

zspl up && prefect deployment run full-benchmark/demo --watch
python tests/orchestration/shots.py http://127.0.0.1:4200 http://127.0.0.1:5000 demo docs/images
"""

import io
import json
import shutil
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 90


def installed():
    """Whether Chromium and its driver are here."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def browser(width=1500, height=1300):
    """Yield a headless Chromium."""
    options = Options()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--window-size={width},{height}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def text(driver):
    return driver.find_element(By.TAG_NAME, "body").text


def wait_for(driver, *words, seconds=SECONDS):
    """Wait until the page shows all of the words."""
    shows = lambda page: all(word in text(page) for word in words)  # noqa: E731
    WebDriverWait(driver, seconds, poll_frequency=1).until(shows, f"the page lacks one of {words}")


def click(driver, word):
    """Click the tab or button that says exactly `word`."""
    find = f"//*[normalize-space(.)='{word}']"
    WebDriverWait(driver, SECONDS).until(lambda page: page.find_elements(By.XPATH, find))
    driver.find_elements(By.XPATH, find)[-1].click()


def save(driver, path):
    """Write what the browser shows as a small PNG."""
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(64).save(path, optimize=True)


def ask(url, body):
    """POST JSON to a server of this machine and return its answer."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def prefect(driver, address, run, path):
    """Find the completed flow run of this name, its tasks and artifacts, and save its page."""
    newest = {
        "sort": "START_TIME_DESC",
        "flow_runs": {"name": {"any_": [run]}, "state": {"type": {"any_": ["COMPLETED"]}}},
    }
    found = ask(f"{address}/api/flow_runs/filter", newest)[0]
    driver.get(f"{address}/runs/flow-run/{found['id']}")
    wait_for(driver, run, "Completed", "full-benchmark")
    click(driver, "Artifacts")
    time.sleep(2.0)  # the graph is drawn
    wait_for(driver, f"progress-{run}", f"tables-{run}", f"picture-{run}")
    save(driver, path)


def mlflow(driver, address, experiment, cells, path):
    """Find the cells' runs below that of the benchmark, and save the page."""
    found = ask(f"{address}/api/2.0/mlflow/experiments/search", {"max_results": 100})
    number = next(e["experiment_id"] for e in found["experiments"] if e["name"] == experiment)
    driver.get(f"{address}/#/experiments/{number}/runs?compareRunsMode=TABLE")
    # The cells lie folded below the benchmark's own run.
    plus = (By.XPATH, "//div[@row-index='0']//button[contains(@data-component-id, 'runname')]")
    WebDriverWait(driver, SECONDS).until(lambda page: page.find_elements(*plus))
    driver.find_element(*plus).click()
    wait_for(driver, experiment, *cells)
    for close in driver.find_elements(By.CSS_SELECTOR, "[data-component-id$='chat_panel.close']"):
        close.click()
    time.sleep(2.0)  # the table takes the room
    save(driver, path)


def main(prefect_address, mlflow_address, run, folder):
    """Make both pictures."""
    with browser() as driver:
        prefect(driver, prefect_address, run, Path(folder) / "prefect_run.png")
        mlflow(driver, mlflow_address, run, (), Path(folder) / "mlflow_runs.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
