"""Puts the start-up files beside the package, which pyproject.toml cannot ask setuptools for."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithStartup(build_py):
    """Copies them into site-packages, from a wheel as from an editable install."""

    def run(self) -> None:
        """Build the package, then add the files."""
        super().run()
        site_packages = (
            self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        )
        for file in sorted(Path("startup").iterdir()):
            self.copy_file(str(file), site_packages)


setup(cmdclass={"build_py": BuildWithStartup})
