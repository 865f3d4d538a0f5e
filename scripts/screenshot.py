"""The README's picture: the first notebook's temperature slider in a real JupyterLab.

python scripts/screenshot.py      # writes docs/temperature.png
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import jupyter  # noqa: E402


def main() -> None:
    with jupyter.lab(Path(tempfile.mkdtemp()), "smoke") as address, jupyter.browser() as page:
        jupyter.run_all(page, address, "00_start_here.ipynb")
        panel = jupyter.panels(page)[0]
        panel.scroll_into_view_if_needed()
        page.mouse.move(5, 5)
        page.wait_for_timeout(500)
        (ROOT / "docs").mkdir(exist_ok=True)
        panel.screenshot(path=ROOT / "docs" / "temperature.png")


if __name__ == "__main__":
    main()
