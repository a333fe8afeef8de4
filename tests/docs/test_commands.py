"""Every command that the documents show can be given: its config, its options and its settings exist."""
import argparse
import inspect
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from mim.commands.search import cli as mim_search
from mim.commands.test import cli as mim_test
from mim.commands.train import cli as mim_train
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md')),
             *sorted((ROOT / 'configs').glob('*/README.md'))]
MIM = dict(train=mim_train, test=mim_test, search=mim_search)


def blocks(path, language):
    return re.findall(rf'(?ms)^```{language}\n(.*?)^```', path.read_text())


def commands_in(block):
    """Lists of words, with what the block sets as variables put in."""
    variables = {}
    for line in block.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r'[A-Z_]+=', words[0]):
            name, value = words.pop(0).split('=', 1)
            variables[name] = value
        yield [re.sub(r'\$(\w+)', lambda m: variables.get(m[1], m[0]), word) for word in words]


def shown(kind):
    """Parameters of a test: the commands of one kind in all documents."""
    found = []
    for path in DOCUMENTS:
        for block in blocks(path, 'bash'):
            for words in commands_in(block):
                if kind(words):
                    found.append(pytest.param(words, id=f'{path.parent.name}/{path.stem}-{len(found)}'))
    return found


class Parsed(Exception):
    """The command line of a tool was accepted."""


@pytest.fixture()
def checkout(tmp_path, monkeypatch):
    """A folder like a checkout, with the configs that the documents tell to write."""
    for name in ('configs', 'docs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    for path in DOCUMENTS:
        for block in blocks(path, 'python'):
            name = re.match(r'# (\w+\.py)\n', block)
            if name:
                (tmp_path / name[1]).write_text(block)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture()
def parse(monkeypatch):
    """parse(tool, words): the arguments as the tool's own parser takes them."""
    original = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        raise Parsed(original(self, args, namespace))

    def call(tool, words):
        before = set(sys.modules)
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
            patch.setattr(sys, 'argv', [str(tool), *words])
            patch.syspath_prepend(str((ROOT / tool).parent))
            try:
                with pytest.raises(Parsed) as parsed:
                    runpy.run_path(str(ROOT / tool), run_name='__main__')
            except SystemExit as error:
                raise AssertionError(f'{tool} does not take {words}') from error
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], '__file__', '')).startswith(str(ROOT / 'tools')):
                del sys.modules[name]
        return parsed.value.args[0]

    return call


def config_of(name, anywhere=False):
    """The config of a command; None for one in capitals, which stands for any.

    Args:
        anywhere: Whether its name alone is enough, as for mim.
    """
    if name.isupper():
        return None
    paths = [Path(name)] if Path(name).is_file() else sorted(ROOT.glob(f'configs/**/{name}')) if anywhere else []
    assert len(paths) == 1, f'{name} names {len(paths)} configs'
    return Config.fromfile(paths[0])


def has_setting(config, key):
    """Whether the config has what ``key`` names, or a class in it an argument of that name."""
    node = config.to_dict()
    init_default_scope(config.default_scope)
    for part in key.split('.'):
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                return False
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, dict) and 'type' in node:
            kind = MODELS.get(node['type'])
            return kind is not None and part in inspect.signature(kind).parameters
        else:  # settings of a group of parameters are a closed set of mmengine's
            return isinstance(node, dict) and '.custom_keys.' in key and part in ('lr_mult', 'decay_mult')
    return True


def check_settings(config, options):
    if config is not None:
        assert [key for key in options or {} if not has_setting(config, key)] == []


def check_mim(words, parse):
    _, command, *rest = words
    context = MIM[command].make_context(command, rest)
    if command == 'search':
        assert context.params['packages'] == ('mmacmix',)
        return
    assert context.params['package'] in ('mmacmix', 'mmdet', 'mmseg')
    launcher = context.params['launcher']
    checkpoint = [context.params['checkpoint']] if command == 'test' else []
    words = [context.params['config'], *checkpoint, '--launcher', launcher, *context.params['other_args']]
    args = parse(f'tools/{command}.py', words)
    check_settings(config_of(args.config, anywhere=True), args.cfg_options)
    if launcher == 'slurm':
        assert context.params['partition'] and context.params['gpus_per_node']


@pytest.mark.parametrize('words', shown(lambda words: words[:1] == ['mim'] and words[1] != 'run'))
def test_mim(words, checkout, parse):
    check_mim(words, parse)


@pytest.mark.parametrize('words', shown(lambda words: words[:1] == ['python'] and words[1].endswith('.py')))
def test_tool(words, checkout, parse):
    _, tool, *rest = words
    assert (ROOT / tool).is_file()
    args = parse(tool, rest)
    if tool in ('tools/train.py', 'tools/test.py'):
        check_settings(config_of(args.config), args.cfg_options)


@pytest.mark.parametrize('words', shown(lambda words: words and words[0].endswith('.sh')))
def test_script(words, checkout, parse):
    script, *rest = words
    assert (ROOT / script).is_file()
    slurm, tool = re.fullmatch(r'tools/(dist|slurm)_(train|test)\.sh', script).groups()
    if slurm == 'slurm':  # partition, job, config, work dir or checkpoint
        config, second, options = rest[2], rest[3], rest[4:]
    else:  # config, (checkpoint,) GPUs
        config, second, options = rest[0], rest[1], rest[2:] if tool == 'train' else rest[3:]
        assert rest[1 if tool == 'train' else 2].isdigit()
    args = parse(f'tools/{tool}.py', [config, *([second] if tool == 'test' else []), *options])
    check_settings(config_of(args.config), args.cfg_options)


@pytest.mark.parametrize('words', shown(lambda words: words[:1] == ['make']))
def test_make(words):
    targets = re.findall(r'(?m)^([a-z]+):', (ROOT / 'Makefile').read_text())
    assert set(words[1:]) <= set(targets)


def test_there_are_commands_of_each_kind():
    """A change of the documents' form must not leave the tests above without work."""
    for least, kind in ((45, 'mim'), (20, 'python'), (5, 'make')):
        assert len(shown(lambda words: words[:1] == [kind])) >= least  # noqa: B023
    assert len(shown(lambda words: words and words[0].endswith('.sh'))) >= 6


@pytest.mark.parametrize('command', [
    'mim train mmacmix no_such_config.py',
    'mim train mmacmix retinanet_resnet-acmix-26_fpn_1x_coco.py --no-such-option',
    'mim train mmacmix retinanet_resnet-acmix-26_fpn_1x_coco.py --cfg-options model.backbone.with_copy=True',
    'mim train mmacmix retinanet_resnet-acmix-26_fpn_1x_coco.py --cfg-options param_scheduler.7.end=3',
    'mim train mmacmix retinanet_resnet-acmix-26_fpn_1x_coco.py --cfg-options train_cfg.max_epoch=3',
])
def test_wrong_commands_are_found(command, checkout, parse, capsys):
    with pytest.raises(AssertionError):
        check_mim(shlex.split(command), parse)
