"""The wheel carries the course: notebooks/ goes into the package as kdlab/notebooks. All else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithCourse(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # a checkout's notebooks lie beside its package
            return
        target = Path(self.build_lib) / "kdlab" / "notebooks"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for pattern in ("*.ipynb", "*.json", "*.yaml"):
            for path in Path("notebooks").glob(pattern):
                shutil.copyfile(path, target / path.name)


setup(cmdclass={"build_py": WithCourse})
