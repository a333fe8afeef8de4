"""Packaging of mmacmix, with the `.mim` folder through which mim finds configs and tools."""
import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop
from setuptools.command.editable_wheel import editable_wheel
from setuptools.errors import SetupError

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70.1 it is in the package wheel
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmacmix'
# What mim looks for under mmacmix/.mim of an installed package.
MIM_PARTS = ('configs', 'tools', 'model-index.yml')
# tools/setup makes the environment of a checkout, tools/evidence trains the configs of docs/evidence: they have no
# meaning in an installed package.
NOT_SHIPPED = shutil.ignore_patterns('__pycache__', '*.pyc', '.ipynb_checkpoints', 'setup', 'evidence')


def mim_sources():
    """Return the paths of MIM_PARTS; raise SetupError naming those that are missing."""
    missing = [part for part in MIM_PARTS if not (ROOT / part).exists()]
    if missing:
        raise SetupError(
            f'mim finds configs and tools through {PACKAGE}/.mim, which is made of '
            f'{", ".join(MIM_PARTS)} beside setup.py: got missing={", ".join(missing)} in {ROOT}')
    return [ROOT / part for part in MIM_PARTS]


def remove(path):
    """Delete a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def copy_mim(package_dir):
    """Copy MIM_PARTS into package_dir/.mim."""
    sources = mim_sources()
    target = Path(package_dir) / '.mim'
    remove(target)
    target.mkdir(parents=True)
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=NOT_SHIPPED)
        else:
            shutil.copy2(source, target / source.name)


def link_mim():
    """Make mmacmix/.mim in the source tree of links, so that edits are seen at once."""
    sources = mim_sources()
    target = ROOT / PACKAGE / '.mim'
    remove(target)
    target.mkdir()
    for source in sources:
        relative = os.path.join('..', '..', source.name)
        (target / source.name).symlink_to(relative, target_is_directory=source.is_dir())


class BuildPy(build_py):
    """Build the package with its `.mim` folder, from nothing."""

    def run(self):
        if getattr(self, 'editable_mode', False):
            super().run()
            return
        # A build folder left by an earlier build would bring files deleted since into the wheel.
        remove(Path(self.build_lib) / PACKAGE)
        super().run()
        copy_mim(Path(self.build_lib) / PACKAGE)


class BdistWheel(bdist_wheel):
    """A wheel in which onedl-mim finds the `.mim` folder too.

    onedl-mim takes the folder of the first file in a package's record for the package, and of a wheel whose
    distribution and module have one name that is the folder of the metadata.
    """

    def egg2dist(self, egginfo_path, distinfo_path):
        super().egg2dist(egginfo_path, distinfo_path)
        copy_mim(distinfo_path)


class Develop(develop):
    """`setup.py develop` of older setuptools."""

    def run(self):
        link_mim()
        super().run()


class EditableWheel(editable_wheel):
    """`pip install -e .`, in a form that the stock mim can resolve."""

    def run(self):
        link_mim()
        if self.dist_info_dir is None:
            self.dist_info_dir = self.make_dist_info()
        # openmim joins site-packages and the first line of top_level.txt to find the package. An
        # editable install has nothing in site-packages; an absolute path makes the join point to
        # the source tree. The module's name stays there for importlib.metadata.
        top_level = Path(self.dist_info_dir) / 'top_level.txt'
        top_level.write_text(f'{ROOT / PACKAGE}\n{PACKAGE}\n', encoding='utf-8')
        super().run()

    def make_dist_info(self):
        """Write the metadata, which pip prepares beforehand but a bare command does not."""
        self.dist_dir.mkdir(exist_ok=True)
        command = self.reinitialize_command('dist_info')
        command.output_dir = str(self.dist_dir)
        command.ensure_finalized()
        command.run()
        return command.dist_info_dir


def read_version():
    """Return `__version__` without importing the package, which needs torch."""
    text = (ROOT / PACKAGE / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


def read_requirements(name):
    """Return the requirements in requirements/<name>.txt, without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    stripped = (line.split('#')[0].strip() for line in lines)
    return [line for line in stripped if line]


setup(
    name=PACKAGE,
    version=read_version(),
    description='ACmix (self-attention plus convolution) backbones for MMDetection and '
    'MMSegmentation',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mmacmix contributors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='computer vision, object detection, semantic segmentation, self-attention, ACmix',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    python_requires='>=3.8',
    install_requires=['torch>=2.0'],
    extras_require={
        name: read_requirements(name)
        for name in ('docs', 'export', 'mim', 'onedl', 'onedl-pretrain', 'pretrain', 'tests', 'triton')
    },
    cmdclass={
        'bdist_wheel': BdistWheel, 'build_py': BuildPy, 'develop': Develop, 'editable_wheel': EditableWheel},
    zip_safe=False,
)
