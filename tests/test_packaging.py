"""What sdists, wheels and editable installs of these sources contain."""
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('.ci', '.gitignore', '.pre-commit-config.yaml', 'CHANGELOG.md', 'CONTRIBUTING.md',
           'LICENSE', 'MANIFEST.in', 'Makefile', 'README.md', 'configs', 'docs', 'mmacmix',
           'model-index.yml', 'pyproject.toml', 'requirements', 'setup.py', 'tests', 'tools')


def call(*command, cwd, code=0):
    """Run a command that must end with `code`; return what it printed."""
    result = subprocess.run([str(part) for part in command], cwd=cwd, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    assert (result.returncode != 0) == (code != 0), result.stdout
    return result.stdout


def build_wheel(source, folder, code=0):
    return call(sys.executable, '-m', 'pip', '--disable-pip-version-check', 'wheel', '--no-deps',
                '--no-build-isolation', '-w', folder, '.', cwd=source, code=code)


def wheel_names(folder):
    path, = Path(folder).glob('mmacmix-*.whl')
    return set(zipfile.ZipFile(path).namelist())


def copy_sources(target):
    """Copy what belongs to the project, and nothing that runs and builds have left beside it."""
    target.mkdir()
    ignore = shutil.ignore_patterns('__pycache__', '.mim', '_build', 'jupyter_execute')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture()
def source(tmp_path):
    """A copy of the sources to build in."""
    return copy_sources(tmp_path / 'source')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """An sdist of the sources, unpacked into `sdist`, and a wheel made from it in `wheel`."""
    base = tmp_path_factory.mktemp('built')
    source = copy_sources(base / 'source')
    call(sys.executable, 'setup.py', '-q', 'sdist', '-d', base, cwd=source)
    path, = base.glob('mmacmix-*.tar.gz')
    with tarfile.open(path) as archive:
        archive.extractall(base / 'unpacked')
    (base / 'unpacked' / path.name[:-len('.tar.gz')]).rename(base / 'sdist')
    build_wheel(base / 'sdist', base / 'wheel')
    return base


def files(folder):
    """Return the files below a folder, relative to it."""
    found = (path.relative_to(folder) for path in Path(folder).rglob('*') if path.is_file())
    return {path.as_posix() for path in found
            if '__pycache__' not in path.parts and '.mim' not in path.parts}


def test_sdist_has_every_source(built):
    expected = files(built / 'source')
    expected = {name for name in expected if '.egg-info/' not in name}
    assert expected - files(built / 'sdist') == set()


def test_wheel_from_the_sdist_is_complete(built):
    names = wheel_names(built / 'wheel')
    expected = {f'mmacmix/{name}' for name in files(ROOT / 'mmacmix') if name.endswith('.py')}
    expected |= {f'mmacmix/.mim/configs/{name}' for name in files(ROOT / 'configs')}
    expected |= {f'mmacmix/.mim/tools/{name}' for name in files(ROOT / 'tools')
                 if not name.startswith(('setup/', 'evidence/'))}
    expected.add('mmacmix/.mim/model-index.yml')
    shipped = {name for name in names if '.dist-info/' not in name}
    assert shipped == expected
    # onedl-mim looks into the folder of the metadata.
    metadata = {name.partition('/')[2] for name in names - shipped}
    assert {name for name in metadata if name.startswith('.mim/')} == {
        name[len('mmacmix/'):] for name in shipped if name.startswith('mmacmix/.mim/')}


def test_mim_of_either_stack_finds_the_tools(built, tmp_path):
    """openmim by top_level.txt; onedl-mim by the first file of the record, which pip has sorted."""
    wheel, = (built / 'wheel').glob('*.whl')
    call(sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check', 'install', '--no-deps',
         '--target', tmp_path, wheel, cwd=tmp_path)
    distribution, = importlib.metadata.distributions(path=[str(tmp_path)])
    folders = {str(distribution.files[0]).split('/')[0], distribution.read_text('top_level.txt').split()[0]}
    for folder in folders:
        assert (tmp_path / folder / '.mim' / 'tools' / 'train.py').is_file()
        assert (tmp_path / folder / '.mim' / 'model-index.yml').is_file()


def test_wheel_has_no_commands_and_names_its_extras(built):
    path, = (built / 'wheel').glob('*.whl')
    archive = zipfile.ZipFile(path)
    # onedl-mim takes a package with commands for another one.
    assert not any(name.endswith('entry_points.txt') for name in archive.namelist())
    metadata, = (archive.read(name).decode() for name in archive.namelist()
                 if name.endswith('.dist-info/METADATA'))
    lines = metadata.splitlines()
    from mmacmix import __version__
    assert f'Version: {__version__}' in lines
    assert 'Requires-Python: >=3.8' in lines
    for extra in ('docs', 'export', 'mim', 'onedl', 'onedl-pretrain', 'pretrain', 'tests', 'triton'):
        assert f'Provides-Extra: {extra}' in lines
    plain = [line for line in lines if line.startswith('Requires-Dist') and 'extra ==' not in line]
    assert plain == ['Requires-Dist: torch>=2.0']
    mmcv, = (line for line in lines if line.startswith('Requires-Dist: mmcv'))
    assert '<2.2.0' in mmcv and 'extra == "mim"' in mmcv.replace("'", '"')


def test_installed_scripts_are_executable(built, tmp_path):
    wheel, = (built / 'wheel').glob('*.whl')
    call(sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check', 'install', '--no-deps',
         '--target', tmp_path / 'site', wheel, cwd=tmp_path)
    scripts = list((tmp_path / 'site' / 'mmacmix' / '.mim' / 'tools').glob('*.sh'))
    assert len(scripts) == 4
    assert all(os.access(path, os.X_OK) for path in scripts)


def test_files_deleted_since_the_last_build_do_not_come_back(source, tmp_path):
    build_wheel(source, tmp_path / 'first')
    doomed = source / 'configs' / '_base_' / 'det_runtime.py'
    doomed.unlink()
    (source / 'mmacmix' / 'engine' / 'data_paths.py').unlink()
    build_wheel(source, tmp_path / 'second')
    gone = wheel_names(tmp_path / 'first') - wheel_names(tmp_path / 'second')
    inside = {name.rpartition('.dist-info/')[2] for name in gone}
    assert inside == {'.mim/configs/_base_/det_runtime.py', 'mmacmix/.mim/configs/_base_/det_runtime.py',
                      'mmacmix/engine/data_paths.py'}


@pytest.mark.parametrize('missing', [['configs'], ['tools'], ['model-index.yml'],
                                     ['configs', 'model-index.yml']])
def test_a_wheel_without_its_mim_folder_is_refused(source, tmp_path, missing):
    for name in missing:
        path = source / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    output = build_wheel(source, tmp_path / 'wheel', code=1)
    assert ('mim finds configs and tools through mmacmix/.mim, which is made of configs, tools, '
            f'model-index.yml beside setup.py: got missing={", ".join(missing)} in') in output
    assert not list((tmp_path / 'wheel').glob('*.whl'))


def test_editable_install_links_the_sources_for_mim(source, tmp_path):
    # Stale: a link of an older layout must not survive.
    (source / 'mmacmix' / '.mim').mkdir()
    (source / 'mmacmix' / '.mim' / 'demo').symlink_to('../../demo')
    site = tmp_path / 'site'
    call(sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check', 'install', '--no-deps',
         '--no-build-isolation', '--target', site, '-e', '.', cwd=source)
    links = {path.name: path.resolve() for path in (source / 'mmacmix' / '.mim').iterdir()}
    assert links == {name: source / name for name in ('configs', 'tools', 'model-index.yml')}
    # How mim finds the package; onedl-mim takes the whole checkout for it.
    code = ('from mim.utils import get_installed_path as path; from os.path import realpath; '
            'print(realpath(path("mmacmix")))')
    env = dict(os.environ, PYTHONPATH=str(site), PYTHONWARNINGS='ignore')
    found = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env,
                           capture_output=True, text=True)
    onedl = importlib.metadata.packages_distributions()['mim'] == ['onedl-mim']
    assert found.stdout.strip() == str((source if onedl else source / 'mmacmix').resolve()), found.stderr


def test_a_wheel_after_an_editable_install_has_files_not_links(source, tmp_path):
    call(sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check', 'install', '--no-deps',
         '--no-build-isolation', '--target', tmp_path / 'site', '-e', '.', cwd=source)
    build_wheel(source, tmp_path / 'wheel')
    names = wheel_names(tmp_path / 'wheel')
    assert 'mmacmix/.mim/tools/train.py' in names
    assert not any('.mim' in name and not name.startswith('mmacmix/.mim/') and '.dist-info/.mim/' not in name
                   for name in names)


def test_editable_install_without_configs_is_refused(source, tmp_path):
    shutil.rmtree(source / 'configs')
    output = call(sys.executable, '-m', 'pip', '--disable-pip-version-check', 'install',
                  '--no-deps', '--no-build-isolation', '--target', tmp_path / 'site', '-e', '.',
                  cwd=source, code=1)
    assert 'got missing=configs' in output
