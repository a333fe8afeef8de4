"""Batches, levels, pipelines and metrics that work are never refused, whatever their parts are called."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.structures import InstanceData
from torch import nn

from mmacmix.backbones import PVTACmix, ResNetACmix, SANACmix, SwinACmix
from mmacmix.engine import SetupError
from mmacmix.engine.batch_checks import check_batch
from mmacmix.engine.level_checks import check_levels
from mmacmix.engine.metric_checks import check_coco_metrics, check_metrics, check_save_best, counts_labels
from mmacmix.engine.model_checks import check_order
from mmacmix.engine.pipeline_checks import check_pipeline, has_steps

SETTING = 'train_dataloader.dataset.pipeline'


def of(module, name, base=nn.Module, **attributes):
    """An object of a class `name` of a module."""
    thing = type(name, (base,), dict(__module__=module))()
    for key, value in attributes.items():
        setattr(thing, key, value)
    return thing


def detector(mean=3, roi_head=False, **parts):
    preprocessor = of('mmdet.models', 'DetDataPreprocessor', mean=torch.zeros(mean, 1, 1))
    if roi_head:
        parts['roi_head'] = of('mmdet.models', 'StandardRoIHead', mask_head=nn.Conv2d(1, 1, 1))
    return of('mmdet.models', 'Detector', data_preprocessor=preprocessor, **parts)


def batch(channels=3, **instances):
    sample = SimpleNamespace(gt_instances=InstanceData(**instances))
    return dict(inputs=[torch.zeros(channels, 4, 4)], data_samples=[sample])


@pytest.mark.parametrize('kind, options', [
    (ResNetACmix, dict(depth=26)), (SANACmix, dict(depth=10)), (SwinACmix, dict(arch='tiny')),
    (PVTACmix, dict(arch='tiny'))])
@pytest.mark.parametrize('channels', [3, 4])
def test_backbones_for_images(kind, options, channels):
    check_batch(detector(mean=channels, backbone=kind(in_channels=channels, **options)), batch(channels), SETTING)


def test_batches_that_are_right():
    check_batch(detector(mean=1), batch(5), SETTING)
    check_batch(detector(), dict(inputs=torch.zeros(2, 3, 4, 4), data_samples=[]), SETTING)
    check_batch(detector(), dict(inputs=dict(sup=[]), data_samples=dict(sup=[])), SETTING)
    check_batch(detector(roi_head=True), batch(masks=[]), SETTING)
    check_batch(detector(roi_head=True), dict(inputs=[], data_samples=[SimpleNamespace()]), SETTING)
    check_batch(of('mine', 'Model'), dict(image=1), SETTING)
    check_batch(detector(), [1, 2], SETTING)
    grey = of('mmseg.models', 'SegDataPreProcessor', mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1))
    check_batch(of('mmseg.models', 'EncoderDecoder', data_preprocessor=grey), batch(1), SETTING)  # three come out
    with pytest.raises(SetupError, match='must load masks for model.roi_head.mask_head'):
        check_batch(detector(roi_head=True), batch(bboxes=[]), SETTING)


def test_levels_that_are_right():
    head = of('mmdet.models', 'Head', prior_generator=SimpleNamespace(strides=[(8, 8), (16, 16)]))
    extractor = of('mmdet.models', 'SingleRoIExtractor', featmap_strides=[4], out_channels=8)
    model = of('mmdet.models', 'Detector', bbox_head=head, rpn_head=of('mmdet.models', 'EmbeddingRPNHead'),
               roi_head=SimpleNamespace(bbox_roi_extractor=extractor, mask_roi_extractor=None))
    check_levels(model, [8, 16], 'neck')  # a map that no region is cut out of may have other channels
    model.bbox_head = of('mine', 'Head', prior_generator=SimpleNamespace(strides=[8]))
    check_levels(model, [8, 16], 'neck')
    extractor.out_channels = 256
    check_levels(model, [32], 'backbone')  # one map is taken as it is
    extractor.featmap_strides = [4, 8, 16]
    with pytest.raises(SetupError, match=r'bbox_roi_extractor.featmap_strides must be of the 2 maps of the neck'):
        check_levels(model, [8, 16], 'neck')


def pipeline(*names, module='mmdet.datasets'):
    steps = [of(module if name.startswith('My') else 'mmcv.transforms', name, object) for name in names]
    return of('mmdet.datasets', 'Data', object, pipeline=of('mmcv.transforms', 'Compose', object, transforms=steps))


@pytest.mark.parametrize('names, split', [
    (('LoadImageFromFile', 'LoadEmptyAnnotations', 'PackDetInputs'), 'train'),
    (('LoadImageFromFile', 'LoadAnnotations', 'MultiBranch'), 'train'),
    (('LoadImageFromFile', 'MyTargets', 'PackDetInputs'), 'train'),
    (('Resize', 'PackDetInputs'), 'train'),
    (('LoadImageFromFile', 'PackDetInputs'), 'val'),
    (('LoadImageFromFile', 'TestTimeAug'), 'test'),
    (('LoadImageFromFile', 'MyPacking'), 'val'),
    ((), 'val')])
def test_pipelines_that_are_right(names, split):
    check_pipeline(detector(bbox_head=nn.Conv2d(1, 1, 1)), pipeline(*names, module='mine'), 'here', split)


def test_labels_that_no_step_of_the_pipeline_loads():
    model = of('mmseg.models', 'EncoderDecoder', decode_head=nn.Conv2d(1, 1, 1))
    data = pipeline('LoadImageFromFile', 'PackSegInputs')
    check_pipeline(model, data, 'here', 'val', counted=False)
    for split in ('train', 'val'):
        with pytest.raises(SetupError, match='must have a step LoadAnnotations, got LoadImageFromFile, PackSegInputs$'):
            check_pipeline(model, data, 'here', split)
    own = of('mine', 'Data', object, pipeline=data.pipeline)  # it may give labels itself
    check_pipeline(model, own, 'here', 'train')
    chosen = pipeline('LoadImageFromFile', 'RandomChoice')
    chosen.pipeline.transforms[1].transforms = [pipeline('LoadAnnotations', 'PackSegInputs').pipeline]
    check_pipeline(model, chosen, 'here', 'train')


def test_metrics_that_need_no_labels():
    for options, counted in ((dict(), True), (dict(format_only=True), False)):
        evaluator = SimpleNamespace(metrics=[metric('IoUMetric', 'mmseg.evaluation', **options)])
        assert counts_labels(evaluator) is counted
    assert not counts_labels(None)


def test_entries_that_are_not_counted_need_no_iscrowd():
    api = SimpleNamespace(cats={1: dict(name='a'), 2: dict(name='b')},
                          anns={1: dict(category_id=1, iscrowd=0), 2: dict(category_id=2)})
    evaluator = SimpleNamespace(metrics=[metric(**COCO, metrics=['bbox'], _coco_api=api)])
    check_coco_metrics(evaluator, SimpleNamespace(metainfo=dict(classes=('a',))), 'val', detector())
    for metainfo in (dict(classes=('a', 'b')), dict(), None):
        with pytest.raises(SetupError, match='val_evaluator.ann_file must have iscrowd, which .* got none in 1: 2;'):
            check_coco_metrics(evaluator, SimpleNamespace(metainfo=metainfo), 'val', detector())


class Images(list):
    """A data set of images with these ids."""

    metainfo = dict(classes=('cell',))

    def get_data_info(self, index):
        return dict(img_id=self[index], img_path=f'{self[index]}.jpg')


def of_two(first, second, prefixes=('here', 'there')):
    """MMDetection's MultiDatasetsEvaluator with two files of annotations, which have these images."""
    metrics = [metric(**COCO, metrics=['bbox'], _coco_api=SimpleNamespace(
        dataset=dict(categories=[dict(id=1, name='cell')]), imgs={i: dict(file_name=f'{i}.jpg') for i in images},
        cats={1: dict(name='cell')}, anns={7: dict(category_id=1)} if images == [4] else {}))
        for images in (first, second)]
    return SimpleNamespace(metrics=metrics, dataset_prefixes=prefixes)


def test_every_data_set_may_have_its_metric():
    both = SimpleNamespace(datasets=[Images([1, 2]), SimpleNamespace(dataset=Images([3]))])
    check_metrics(of_two([1, 2], [3]), both, 'val')
    with pytest.raises(SetupError, match=r'^val_evaluator.metrics.1.ann_file must have the images of '
                                         r'val_dataloader.dataset.datasets.1.dataset, got a file without the ids 3:'):
        check_metrics(of_two([1, 2], [4]), both, 'val')
    with pytest.raises(SetupError, match='annotations of val_evaluator.metrics.1.ann_file must have iscrowd'):
        check_coco_metrics(of_two([1, 2], [4]), both, 'val', detector())
    with pytest.raises(SetupError, match='got 2 metrics and 1 prefixes for 2$'):
        check_metrics(of_two([1, 2], [3], prefixes=['here']), both, 'val')
    with pytest.raises(SetupError, match='got 2 metrics and 2 prefixes for 0$'):
        check_metrics(of_two([1, 2], [3]), Images([1, 2, 3]), 'val')
    # One metric for all has to know them all.
    with pytest.raises(SetupError, match='^val_evaluator.ann_file must have the images of .*datasets.1.dataset, got'):
        check_metrics(SimpleNamespace(metrics=of_two([1, 2], [3]).metrics[:1]), both, 'val')


def test_best_metric_of_one_data_set():
    check_save_best([CheckpointHook(save_best='there/coco/bbox_mAP', rule='greater')], of_two([1], [2]))
    for best in ('coco/bbox_mAP', 'elsewhere/coco/bbox_mAP'):
        with pytest.raises(SetupError, match=r"what val_evaluator gives, here/coco/bbox_mAP, .* there/coco/bbox_mAP"):
            check_save_best([CheckpointHook(save_best=best, rule='greater')], of_two([1], [2]))


def test_wrappers_that_go_on():
    leaf = SimpleNamespace(pipeline=1)
    for inner in (SimpleNamespace(dataset=leaf), SimpleNamespace(datasets=[leaf]), leaf):
        assert not has_steps(inner)
    assert has_steps(SimpleNamespace(datasets=[leaf, SimpleNamespace(dataset=leaf, pipeline=1)]))
    check_pipeline(detector(), pipeline('LoadImageFromFile', 'LoadAnnotations'), 'here', 'train', goes_on=True)


def test_batches_that_are_not_packed():
    with pytest.raises(SetupError, match=f'^{SETTING} must end with a step that packs, .* got samples of image, id'):
        check_batch(detector(), dict(image=1, id=2), SETTING)


def test_classes_that_are_others():
    trained = dict(here=('a', 'b'))
    for classes in (('a', 'b'), ['a', 'b'], ('a', 'c'), ('b', 'a', 'c')):
        check_order(trained, classes, 'there')


def metric(name, module, **attributes):
    return of(module, name, object, **dict(dict(prefix=None, classwise=False, format_only=False, metric_items=None),
                                           **attributes))


COCO = dict(name='CocoMetric', module='mmdet.evaluation', prefix='coco')


@pytest.mark.parametrize('best, metrics', [
    ('auto', [metric(**COCO, metrics=['bbox'])]),
    ('coco/segm_mAP', [metric(**COCO, metrics=['bbox', 'segm'])]),
    ('coco/bbox_mAP_50', [metric(**COCO, metrics=['bbox'], metric_items=['mAP_50'])]),
    ('coco/cat_precision', [metric(**dict(COCO, classwise=True), metrics=['bbox'])]),
    ('coco/AR@100', [metric(**COCO, metrics=['proposal'])]),
    (['mDice', 'aAcc'], [metric('IoUMetric', 'mmseg.evaluation', metrics=['mDice'])]),
    ('mIoU_of_mine', [metric('IoUMetric', 'mine', metrics=['mIoU'])]),
    ('other', [metric('IoUMetric', 'mmseg.evaluation', metrics='mIoU'), metric('Mine', 'mine')]),
    (None, [metric('IoUMetric', 'mmseg.evaluation', metrics=['mIoU'])])])
def test_best_metrics_that_are_right(best, metrics):
    hook = CheckpointHook(save_best=best, rule='greater' if best else None)
    check_save_best([hook], SimpleNamespace(metrics=metrics))


def test_masks_that_may_be_evaluated():
    segm = SimpleNamespace(metrics=[metric(**COCO, metrics=['segm'])])
    for model in (detector(roi_head=True), detector(mask_head=nn.Conv2d(1, 1, 1)), of('mine', 'Model'),
                  detector(bbox_head=of('mmdet.models', 'RTMDetInsMaskHead'))):
        check_coco_metrics(segm, None, 'val', model)
    check_coco_metrics(SimpleNamespace(metrics=[metric(**dict(COCO, format_only=True), metrics=['segm'])]), None,
                       'val', detector())
