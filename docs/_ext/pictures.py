"""Pictures of reports: worked pages write HTML reports, and each is shown as a screenshot that opens the report."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-size=1180,860",
)
ABSENT = """
.. note::

   The page opens the report, but shows no picture of it: no Chromium was found when these pages were built
   (install the package chromium, or set KOFN_CHROMIUM).
"""


def browser() -> str | None:
    """The Chromium to take pictures with."""
    return os.environ.get("KOFN_CHROMIUM") or next((path for path in map(shutil.which, NAMES) if path), None)


def picture(page: Path, target: Path) -> bool:
    """Take a picture of the first screen of a page; False where that cannot be done here."""
    program = browser()
    if program is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", f"--screenshot={target}"]
        subprocess.run([*command, page.resolve().as_uri()], capture_output=True, timeout=120, check=False)
    return target.exists()


class Reports:
    """A scraper of sphinx-gallery: what a block wrote as `*.html` is shown under it."""

    def __init__(self) -> None:
        self.seen: set[Path] = set()

    def __repr__(self) -> str:
        # Part of the configuration that Sphinx compares between builds.
        return "Reports"

    def __call__(self, block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
        folder = Path(block_vars["src_file"]).parent
        shown = []
        for page in sorted(folder.glob("*.html")):
            target = Path(gallery_conf["src_dir"]) / "_static" / "reports" / page.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(page, target)
            taken = target.with_suffix(".png")
            if picture(target, taken):
                # Only now: sphinx-gallery wants an image for every path that it hands out.
                image = Path(str(next(block_vars["image_path_iterator"])))
                image.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(taken, image)
                source = f"/{image.relative_to(gallery_conf['src_dir']).as_posix()}"
                link = f"../_static/reports/{page.name}"
                options = {"alt": f"The report {page.name}", "target": link, "class": "report"}
                shown.append("\n".join([f".. image:: {source}", *(f"   :{k}: {v}" for k, v in options.items()), ""]))
            else:
                shown.append(ABSENT)
            shown.append(f"`Open the whole report <../_static/reports/{page.name}>`__: one file, no network.\n")
        return "\n\n".join(shown)
