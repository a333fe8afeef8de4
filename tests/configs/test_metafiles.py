"""README.md, metafile.yml and model-index.yml tell of exactly the configs there are."""
import pytest
import yaml
from mim.commands.search import convert2df
from modelindex.load_model_index import load

METHODS = ('retinanet', 'mask_rcnn', 'cascade_mask_rcnn', 'sem_fpn', 'upernet', 'imagenet')


@pytest.fixture(params=METHODS)
def folder(request, configs_dir):
    return configs_dir / request.param


def test_index_imports_every_metafile(configs_dir):
    index = yaml.safe_load((configs_dir.parent / 'model-index.yml').read_text())
    metafiles = sorted(configs_dir.glob('*/metafile.yml'))
    assert sorted(index['Import']) == [
        p.relative_to(configs_dir.parent).as_posix() for p in metafiles
    ]
    assert {p.parent.name for p in metafiles} == set(METHODS)


def test_metafile_lists_the_files_of_its_folder(folder, configs_dir):
    meta = yaml.safe_load((folder / 'metafile.yml').read_text())
    entries = {model['Name']: model for model in meta['Models']}
    assert len(entries) == len(meta['Models'])
    assert set(entries) == {p.stem for p in folder.glob('*.py')}
    for name, model in entries.items():
        assert name == name.lower()
        assert model['Config'] == f'configs/{folder.name}/{name}.py'
        assert (configs_dir.parent / model['Config']).is_file()


def test_metafile_defines_its_collections(folder, configs_dir):
    """mim search stops at a model of a collection that only another package defines."""
    meta = yaml.safe_load((folder / 'metafile.yml').read_text())
    names = {collection['Name'] for collection in meta['Collections']}
    assert {model['In Collection'] for model in meta['Models']} == names
    for collection in meta['Collections']:
        assert (configs_dir.parent / collection['README']).is_file()


def test_mim_search_reads_the_index(configs_dir):
    frame = convert2df(load(str(configs_dir.parent / 'model-index.yml')))
    stems = {p.stem for method in METHODS for p in (configs_dir / method).glob('*.py')}
    assert set(frame.index) == stems
    row = frame.loc['retinanet_resnet-acmix-26_fpn_1x_coco']
    assert row['config'] == 'configs/retinanet/retinanet_resnet-acmix-26_fpn_1x_coco.py'
    assert row['model'] == 'retinanet'
    assert row['training_data'] == 'coco'
    assert row['status'] == 'not trained'
    assert row['epochs'] == 12


def test_readme_links_every_config_and_claims_no_result(folder):
    text = (folder / 'README.md').read_text()
    for path in folder.glob('*.py'):
        rows = [line for line in text.splitlines() if f'({path.name})' in line]
        assert len(rows) == 1, path.name
        assert 'not trained' in rows[0]
