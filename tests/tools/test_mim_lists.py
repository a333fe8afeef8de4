"""mim lists the package and searches its models."""
import json

from mmengine.fileio import load


def test_list_names_the_package(mim, tmp_path):
    done = mim('list', cwd=tmp_path)
    assert done.code == 0, done.output
    import mmacmix
    assert ['mmacmix', mmacmix.__version__] in [line.split()[:2]
                                                for line in done.output.splitlines()]


def test_search_finds_every_model_of_the_metafiles(mim, site, tmp_path):
    found = tmp_path / 'found.json'
    done = mim('search', 'mmacmix', '--json', found, cwd=tmp_path)
    assert done.code == 0, done.output
    folder = site / 'mmacmix' / '.mim'
    names = [model['Name'] for path in load(folder / 'model-index.yml')['Import']
             for model in load(folder / path)['Models']]
    assert len(names) >= 12
    # mim writes a table by columns; the rows of each are the models.
    rows = set().union(*json.loads(found.read_text()).values())
    assert rows == set(names)


def test_search_by_model_prints_the_config(mim, tmp_path):
    name = 'retinanet_resnet-acmix-26_fpn_1x_coco'
    done = mim('search', 'mmacmix', '--config', name, cwd=tmp_path)
    assert done.code == 0, done.output
    assert f'config id: {name}' in done.output


def test_an_unknown_config_is_an_error(mim, tmp_path):
    done = mim('train', 'mmacmix', 'no_such_config.py', cwd=tmp_path)
    assert done.code != 0
    assert 'can not find the config file in codebase mmacmix' in ' '.join(done.output.split())
