"""Where a Chromium lives on this machine, and how the tests start it."""

import os
import shutil
from pathlib import Path

ARGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    *(["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []),
]

NAMES = ["chromium", "chromium-browser", "google-chrome", "chrome", "msedge", "microsoft-edge"]
PLACES = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    *(
        rf"{os.environ[root]}\{program}"
        for root in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
        if root in os.environ
        for program in (r"Google\Chrome\Application\chrome.exe", r"Microsoft\Edge\Application\msedge.exe")
    ),
]


def find() -> str | None:
    """The path of a Chromium, Chrome or Edge; None if there is none. KDLAB_CHROMIUM names one by hand."""
    by_hand = os.environ.get("KDLAB_CHROMIUM")
    if by_hand:
        return shutil.which(by_hand) or (by_hand if Path(by_hand).is_file() else None)
    on_path = (shutil.which(name) for name in NAMES)
    return next((path for path in on_path if path), next((p for p in PLACES if Path(p).is_file()), None))
