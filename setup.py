"""Adds the git revision to what is built; all else is in setup.cfg.

Run by setuptools: a wheel of a checkout and a source archive get the file that `relay.kit.version` reads.
"""

import shutil
from pathlib import Path
from runpy import run_path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
# Run as a file: what the relay depends on is not there while it is built.
VERSION = run_path(str(ROOT / "relay" / "kit" / "version.py"))


def bake(root: str) -> None:
    """Write the revision of this checkout below `root`; an unpacked source archive has the file already."""
    revision = VERSION["checkout_revision"](ROOT)
    if revision is not None:
        (Path(root) / "relay" / "kit" / VERSION["BAKED"]).write_text(f"{revision}\n", encoding="utf-8")


class BuildWithRevision(build_py):
    """Copies the modules, and the revision beside them; an editable install reads it from the checkout each time.

    Begins with an empty folder: what an earlier build left there would be installed as well.
    """

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        bake(self.build_lib)


class ArchiveWithRevision(sdist):
    """A source archive has no .git."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        bake(base_dir)


setup(cmdclass={"build_py": BuildWithRevision, "sdist": ArchiveWithRevision})
