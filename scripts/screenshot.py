"""The README's animated picture: a student that learns in docs/student.html, the temperature turned by a hand.

python scripts/screenshot.py      # writes docs/student.html anew, and docs/student.gif
"""

import io
import sys
from pathlib import Path

from PIL import Image

from kdlab.widgets import in_page

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import chromium  # noqa: E402

FRAMES, STEPS_A_FRAME = 36, 12
TURNED = range(14, 26)  # frames at which the hand turns T up


def main() -> None:
    from playwright.sync_api import sync_playwright

    page_file = in_page.write_page(ROOT / "docs" / "student.html")
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=chromium.find(), args=chromium.ARGS)
        page = program.new_context(offline=True, viewport={"width": 960, "height": 1500}).new_page()
        page.goto(page_file.as_uri() + "#T=1")
        page.wait_for_selector("[data-ready]")
        frames = [frame(page, i) for i in range(FRAMES)]
        program.close()
    out = ROOT / "docs" / "student.gif"
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=[200] * (FRAMES - 1) + [2500], loop=0)
    print(f"{page_file}, {out}: {out.stat().st_size / 1e6:.1f} MB")


def frame(page, i: int) -> Image.Image:
    """Let the students take some steps, turn the temperature if it is time, and take a picture."""
    page.focus("[name=T]")
    if i in TURNED:
        for _ in range(8):
            page.keyboard.press("ArrowRight")
    page.evaluate(
        "n => { for (let i = 0; i < n; i += 1) window.kdlab.worker.postMessage({ step: 1 }); }", STEPS_A_FRAME
    )
    page.wait_for_function(
        "n => JSON.parse(document.getElementById('panel').dataset.shown).groups[1].number >= n",
        arg=STEPS_A_FRAME * (i + 1),
    )
    page.wait_for_timeout(250)
    top = page.locator("#panel").bounding_box()["y"]
    image = Image.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": top, "width": 960, "height": 810})))
    return image.convert("RGB").resize((720, 608), Image.Resampling.LANCZOS).quantize(48)


if __name__ == "__main__":
    main()
