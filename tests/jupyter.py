"""A real JupyterLab in a real Chromium, for tests and benchmarks: open a notebook, run it, move its sliders.

Limits on time are there to catch what hangs: a machine that is slow and busy stays within them.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import chromium
import nbformat
from jupyter_client import BlockingKernelClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from playwright.sync_api import Error, Locator, Page, sync_playwright

ROOT = Path(__file__).parent.parent
SECONDS = 120  # what takes longer than this hangs; a whole notebook may take ten minutes
OVERRIDES = {
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # cells out of sight stay in the page
}


@contextlib.contextmanager
def lab(folder: Path, parameters: dict[Path, dict]) -> Iterator[str]:
    """Serve copies of notebooks, each with its parameters, by a JupyterLab whose kernels have no network.

    Yields its address. The copies are in folder/notebooks.
    """
    notebooks, settings = folder / "notebooks", folder / "settings"
    notebooks.mkdir()
    for path, values in parameters.items():
        nbformat.write(parameterize_notebook(load_notebook_node(str(path)), values), notebooks / path.name)
    settings.mkdir()
    (settings / "overrides.json").write_text(json.dumps(OVERRIDES))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "KDLAB_WORKERS": "1",
    }
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "offline"), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--port-retries=0",
        f"--ServerApp.root_dir={notebooks}",
        "--IdentityProvider.token=",
        "--expose-app-in-browser",
        f"--LabApp.app_settings_dir={settings}",
    ]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        try:
            _until_it_answers(f"http://127.0.0.1:{port}/api", server, folder / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def _until_it_answers(address: str, server: subprocess.Popen, log: Path, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A page of a Chromium that reaches this machine alone; `page.refused` lists what it wanted from elsewhere."""
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=chromium.find(), args=chromium.ARGS)
        page = program.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(SECONDS * 1000)
        page.refused = []

        def gate(route):
            if route.request.url.startswith(("http://127.0.0.1", "data:", "blob:", "file:")):
                route.continue_()
            else:
                page.refused.append(route.request.url)
                route.abort()

        page.route("**/*", gate)
        yield page
        program.close()


def run_all(page: Page, address: str, notebook: str, seconds: float = 600) -> None:
    """Open `notebook`, run all its cells and wait until the last of them is done. AssertionError for one that fails."""
    page.goto(f"{address}/lab/workspaces/{Path(notebook).stem}/tree/{notebook}?reset")
    page.wait_for_function(
        "window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.evaluate("""() => { window.codeCells = () =>
        window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code').map(c => c.model);
        window.cellErrors = () => window.codeCells().flatMap(c => c.outputs.toJSON())
            .filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`);
    }""")
    page.wait_for_function(
        "window.cellErrors().length || window.codeCells().every(c => c.executionCount)", timeout=seconds * 1000
    )
    assert not (problems := page.evaluate("window.cellErrors()")), f"{notebook}: {problems}"
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.status === 'idle'",
        timeout=seconds * 1000,
    )


def end_kernel(page: Page) -> None:
    """End the kernel of the open notebook, if there is one: closing the page would leave it, with its memory."""
    with contextlib.suppress(Error):  # the page has crashed: its kernel ends with the server
        page.evaluate("window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.shutdown()")


def has_sliders(path: Path) -> bool:
    """Whether the notebook has panels whose pictures follow their controls; a live panel's follow the training."""
    source = path.read_text(encoding="utf-8")
    return "widgets." in source and "widgets.Live" not in source


def until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until `true()`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def panels(page: Page, n: int | None = None) -> list[Locator]:
    """The panels on the page, in order, once there are n of them."""
    page.wait_for_timeout(300)
    if n is not None:
        until(lambda: page.locator(".kd-panel").count() == n)
    return page.locator(".kd-panel").all()


def shown(panel: Locator) -> list[dict]:
    """The numbers that each picture of a panel shows just now."""
    return [
        json.loads(text)
        for text in panel.evaluate("panel => [...panel.querySelectorAll('[data-shown]')].map(el => el.dataset.shown)")
    ]


def settled(panel: Locator) -> list[dict]:
    """What a panel shows once it has stopped changing."""
    before = None
    while (now := shown(panel)) != before:
        before = now
        panel.page.wait_for_timeout(200)
    return now


def drawn(panel: Locator) -> str:
    """All that the pictures of a panel are made of."""
    return panel.evaluate("panel => [...panel.querySelectorAll('.kd-picture')].map(el => el.innerHTML).join()")


def slider(panel: Locator, name: str) -> Locator:
    """The handle of the slider called `name`, to be focused and moved by arrow keys."""
    return panel.locator(".widget-inline-hbox").filter(has_text=name).locator(".noUi-handle")


def slider_names(panel: Locator) -> list[str]:
    """What the panel's sliders are called, in order."""
    rows = panel.locator(".widget-inline-hbox").filter(has=panel.page.locator(".noUi-handle"))
    return rows.locator(".widget-label").all_inner_texts()


def latencies(page: Page, panel: Locator, name: str, presses: int, ends: bool = False) -> list[float]:
    """Milliseconds from each key press on the slider called `name` to the first frame with other numbers.

    The presses go one step up and down in turn; from the slider's upper end down and up. ends: to the slider's lower
    and upper end in turn instead.
    """
    handle = slider(panel, name)
    handle.scroll_into_view_if_needed()
    handle.focus()
    there, back = "ArrowRight", "ArrowLeft"
    if float(handle.get_attribute("aria-valuenow")) >= float(handle.get_attribute("aria-valuemax")):
        there, back = back, there
    if ends:
        there, back = "Home", "End"
    panel.evaluate("""panel => {
        const numbers = () => [...panel.querySelectorAll('[data-shown]')].map(el => el.dataset.shown).join();
        const found = window.latencies = [];
        window.listening?.abort();  // of a call before
        window.listening = new AbortController();
        panel.addEventListener('keydown', () => {
            const start = performance.now(), before = numbers();
            const look = () => {
                const now = performance.now();
                if (numbers() !== before) found.push(now - start);
                else if (now - start < 1000) requestAnimationFrame(look);
            };
            requestAnimationFrame(look);
        }, { capture: true, signal: window.listening.signal });
    }""")
    for i in range(presses):
        page.keyboard.press(back if i % 2 else there)
        page.wait_for_timeout(80)
    page.wait_for_timeout(500)
    return page.evaluate("window.latencies")


@contextlib.contextmanager
def kernel(page: Page, folder: Path) -> Iterator[Callable[[str], str]]:
    """Yields a function that runs code in the kernel of the open notebook, as one more cell, and returns its print.

    folder: the one that `lab` was given. It goes on to work when the page is closed.
    """
    name = page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.id")
    client = BlockingKernelClient(connection_file=str(folder / "data" / "runtime" / f"kernel-{name}.json"))
    client.load_connection_file()
    client.start_channels()

    def ask(code: str) -> str:
        said = []
        heard = lambda message: said.append(message["content"].get("text", ""))  # noqa: E731
        reply = client.execute_interactive(code, store_history=False, timeout=SECONDS, output_hook=heard)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(said).strip()

    try:
        yield ask
    finally:
        client.stop_channels()


@contextlib.contextmanager
def running(folder: Path, notebook: Path, values: dict) -> Iterator[tuple[Page, Callable[[str], str]]]:
    """Run a notebook in a JupyterLab; yields its page, and a function that runs code in its kernel."""
    with lab(folder, {notebook: values}) as address, browser() as page:
        run_all(page, address, notebook.name)
        with kernel(page, folder) as ask:
            yield page, ask
