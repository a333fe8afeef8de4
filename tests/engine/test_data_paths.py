import pytest
from mmengine.config import Config

from mmacmix.engine import check_data_paths


@pytest.fixture
def cfg(tmp_path):
    for name in ('train', 'val', 'annotations'):
        (tmp_path / name).mkdir()
    (tmp_path / 'annotations' / 'train.json').write_text('{}')
    (tmp_path / 'annotations' / 'val.json').write_text('{}')

    def loader(name):
        return dict(
            dataset=dict(
                data_root=str(tmp_path),
                ann_file=f'annotations/{name}.json',
                data_prefix=dict(img=f'{name}/'),
            )
        )

    return Config(
        dict(
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            val_evaluator=dict(ann_file=str(tmp_path / 'annotations' / 'val.json')),
        )
    )


def test_what_exists_passes(cfg):
    check_data_paths(cfg, ('train', 'val', 'test'))


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'train_dataloader.dataset.data_root': 'no/where'},
            'no/where does not exist: set train_dataloader.dataset.data_root in the config, or --cfg-options',
        ),
        ({'val_dataloader.dataset.ann_file': 'x.json'}, 'x.json does not exist: set val_dataloader.dataset.ann_file'),
        (
            {'train_dataloader.dataset.data_prefix.img': 'pictures'},
            'pictures does not exist: set train_dataloader.dataset.data_prefix.img',
        ),
        ({'val_evaluator.ann_file': 'y.json'}, 'y.json does not exist: set val_evaluator.ann_file'),
    ],
)
def test_what_is_missing_is_named(cfg, options, message):
    cfg.merge_from_dict(options)
    with pytest.raises(FileNotFoundError, match=message):
        check_data_paths(cfg, ('train', 'val'))


@pytest.mark.parametrize('settings', [
    dict(data_root='gone', ann_file='{}/annotations/train.json', data_prefix=dict(img='{}/train')),
    dict(data_root='gone', ann_file='{}/annotations/train.json'),
    dict(data_root='{}', ann_file='annotations/train.json', data_prefix=dict(img='train', seg='gone')),
    dict(data_root='{}', data_prefix=dict(img_path='train', seg_map_path='gone'), pipeline=[dict(type='Pack')])])
def test_what_is_not_read_may_be_missing(tmp_path, cfg, settings):
    def filled(value):
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else \
            value.format(tmp_path) if isinstance(value, str) else value

    check_data_paths(Config(dict(train_dataloader=dict(dataset=filled(settings)))), ('train',))


def test_label_maps_are_read():
    pipeline = [dict(type='RandomChoice', transforms=[[dict(type='LoadAnnotations')]])]
    for settings in (dict(), dict(pipeline=pipeline)):
        dataset = dict(data_prefix=dict(seg_map_path='gone'), **settings)
        with pytest.raises(FileNotFoundError, match='set train_dataloader.dataset.data_prefix.seg_map_path'):
            check_data_paths(Config(dict(train_dataloader=dict(dataset=dataset))), ('train',))


def test_only_the_splits_asked_for(cfg):
    cfg.merge_from_dict({'train_dataloader.dataset.data_root': 'no/where'})
    check_data_paths(cfg, ('val',))


def test_wrappers(cfg):
    inner = dict(cfg.train_dataloader.dataset, data_root='no/where')
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    with pytest.raises(FileNotFoundError, match='set train_dataloader.dataset.dataset.data_root'):
        check_data_paths(cfg, ('train',))
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.val_dataloader.dataset, inner])
    with pytest.raises(FileNotFoundError, match='set train_dataloader.dataset.datasets.1.data_root'):
        check_data_paths(cfg, ('train',))


def test_remote_paths_are_left_to_the_file_client(cfg):
    cfg.merge_from_dict({'train_dataloader.dataset.data_root': 's3://bucket/coco'})
    with pytest.raises(FileNotFoundError):  # relative parts of a local root still count
        check_data_paths(Config(dict(train_dataloader=dict(dataset=dict(ann_file='missing.json')))), ('train',))
    check_data_paths(cfg, ('train',))


@pytest.mark.parametrize(
    'dataset, message',
    [
        (dict(type='ImageNet', split='test'), 'test does not exist: set train_dataloader.dataset.data_root'),
        (dict(type='ImageNet', split='train'), None),
        (dict(type='CIFAR10', split='test'), None),
        (dict(type='CustomDataset', data_prefix='pictures'), 'pictures does not exist: set .*dataset.data_prefix in'),
        (dict(type='CustomDataset', data_prefix='train'), None),
    ],
)
def test_layouts_of_mmpretrain(cfg, tmp_path, dataset, message):
    cfg.train_dataloader.dataset = dict(data_root=str(tmp_path), **dataset)
    if message is None:
        check_data_paths(cfg, ('train',))
        return
    with pytest.raises(FileNotFoundError, match=message):
        check_data_paths(cfg, ('train',))


@pytest.mark.parametrize('place, setting', [
    (lambda metrics: metrics, r'val_evaluator\.1'),
    (lambda metrics: dict(type='MultiDatasetsEvaluator', metrics=metrics), r'val_evaluator\.metrics\.1'),
])
def test_files_of_many_metrics(cfg, place, setting):
    right = dict(type='CocoMetric', ann_file=cfg.val_evaluator.ann_file)
    cfg.val_evaluator = place([right, right])
    check_data_paths(cfg, ('val',))
    cfg.val_evaluator = place([right, dict(right, ann_file='gone.json')])
    with pytest.raises(FileNotFoundError, match=rf'gone.json does not exist: set {setting}\.ann_file'):
        check_data_paths(cfg, ('val',))
