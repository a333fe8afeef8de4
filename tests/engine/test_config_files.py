"""Reading of configs: every mistake in a file, or in what overrides it, is told with the file's name."""

import argparse

import pytest
from mmengine.config import Config

from mmacmix.engine import host_of, type_name
from mmacmix.engine.config_checks import open_with
from mmacmix.engine.config_files import CfgOptions, open_config


@pytest.mark.parametrize('name, text, words', [
    ('a.py', 'model = (', 'a.py, or a file in its _base_, has a mistake of syntax: '),
    ('a.py', 'a = gone', "a.py must be a config that mmengine reads: NameError: .*'gone'"),
    ('a.txt', 'a = 1', r'a.txt must be a config that mmengine reads: OSError: Only py/yml/yaml/json type'),
])
def test_files_that_are_no_configs(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        open_config(str(tmp_path / name))


def test_a_file_that_is_missing(tmp_path):
    (tmp_path / 'a.py').write_text("_base_ = 'none.py'")
    with pytest.raises(FileNotFoundError, match='_base_ must name existing files, got config=.*none.py'):
        open_config(str(tmp_path / 'a.py'))
    with pytest.raises(FileNotFoundError, match='the config must be an existing file, got config=.*gone.py'):
        open_config(str(tmp_path / 'gone.py'))


def test_settings(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text('model = dict(depth=26)')
    assert open_with(str(path), {'model.depth': 38}).model.depth == 38
    with pytest.raises(ValueError, match='--cfg-options must fit .*a.py: '):
        open_with(str(path), {'model.depth.x': 1})
    with pytest.raises(ValueError, match='--cfg-options must set what .* has, got modle: did you mean model'):
        open_with(str(path), {'modle': 1})


def test_names_of_types():
    class Resize:
        pass

    assert [type_name(dict(type=kind)) for kind in ('Resize', 'mmdet.Resize', Resize)] == ['Resize'] * 3
    assert (type_name(dict()), type_name(dict(), 'Other')) == ('', 'Other')


def test_hosts():
    """By the scope, or by the class of the model, if only by one of those it inherits from."""
    base = type('RetinaNet', (), dict(__module__='mmdet.models.detectors'))
    mine = type('Mine', (base,), dict(__module__='my_project.models'))
    for kind, host in (
            (base, 'mmdet'), (mine, 'mmdet'), ('mmseg.EncoderDecoder', 'mmseg'), ('Mine', None), (dict, None)):
        assert host_of(Config(dict(model=dict(type=kind)))) == host
        assert host_of(Config(dict(default_scope=None, model=dict(type=kind)))) == host
        assert host_of(Config(dict(default_scope='mmpretrain', model=dict(type=kind)))) == 'mmpretrain'
    assert host_of(Config(dict())) is None


@pytest.mark.parametrize('word, message', [
    ('model.depth', "--cfg-options must be KEY=VALUE, got 'model.depth'"),
    ('a=[1,2', '--cfg-options: Imbalanced brackets exist in [1,2'),
])
def test_words_that_are_no_settings(word, message, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', word])
    assert message in capsys.readouterr().err
