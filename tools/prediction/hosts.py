"""The inferencers of mmdet and mmseg behind tools/predict.py, and what is written of their predictions."""
import importlib
import os.path as osp
from itertools import groupby

import numpy as np
from mmengine.registry import DATASETS
from PIL import Image

from mmacmix.checkpoints import mismatch, unwrap

INFERENCERS = dict(mmdet=('mmdet.apis', 'DetInferencer'), mmseg=('mmseg.apis', 'MMSegInferencer'))


def load_inferencer(cfg, checkpoint, device):
    """Build the host's inferencer around a model that has every parameter from `checkpoint`.

    Raises:
        ValueError: The checkpoint does not fit the model, or the model has not as many classes as there are names.
    """
    module, name = INFERENCERS[cfg.default_scope]
    host = getattr(importlib.import_module(module), name)

    class Inferencer(host):
        """Refuses what the host would load in part."""

        def _load_weights_to_model(self, model, _, cfg):
            state = unwrap(checkpoint)
            problem = mismatch(model.state_dict(), state)
            if problem:
                raise ValueError(f'the checkpoint does not fit {type(model).__name__} of this config: {problem}')
            meta = with_classes(checkpoint.get('meta') or {}, cfg)
            super()._load_weights_to_model(model, dict(state_dict=state, meta=meta), cfg)

    inferencer = Inferencer(cfg, weights=None, device=device, scope=cfg.default_scope)
    names, expected = inferencer.model.dataset_meta['classes'], number_of_classes(inferencer.model)
    if expected not in (None, len(names)):
        raise ValueError(f'every class of the model must have a name, got {expected} classes and '
                         f'{len(names)} names: {", ".join(names)}')
    return inferencer


def with_classes(meta, cfg):
    """What a checkpoint says of its data; where it names no classes, what the config says of the test data."""
    if 'CLASSES' in meta or 'classes' in {key.lower() for key in meta.get('dataset_meta') or {}}:
        return meta
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True, pipeline=[]))
    if not dataset.metainfo.get('classes'):
        raise ValueError('the checkpoint or test_dataloader.dataset.metainfo of the config must name the classes, '
                         'got no names')
    return dict(meta, dataset_meta=dataset.metainfo)


def number_of_classes(model):
    """How many classes the last head tells apart; None where it does not say."""
    head = getattr(getattr(model, 'roi_head', model), 'bbox_head', None) or getattr(model, 'decode_head', None)
    head = head[-1] if hasattr(head, '__getitem__') else head
    return getattr(head, 'num_classes', None)


class Detector:
    """Boxes, and masks where there are."""

    task = 'detection'

    def __init__(self, inferencer, out_dir, score_thr):
        self.inferencer, self.score_thr = inferencer, score_thr
        self.classes = list(inferencer.model.dataset_meta['classes'])

    def forward(self, batch):
        """Predictions of preprocessed images of any sizes."""
        return self.inferencer.forward(self.inferencer.collate_fn(batch))

    def results(self, sample, name):
        found = sample.pred_instances
        found = found[found.scores > self.score_thr].numpy()
        instances = [
            dict(label=self.classes[label], label_id=int(label), score=round(float(score), 4),
                 box=[round(float(x), 2) for x in box])
            for label, score, box in zip(found.labels, found.scores, found.bboxes)]
        if 'masks' in found:
            from mmdet.structures.mask import encode_mask_results
            for instance, mask in zip(instances, encode_mask_results(found.masks)):
                instance['mask'] = dict(size=list(mask['size']), counts=mask['counts'].decode())
        return dict(instances=instances)

    def draw(self, image, sample, path):
        self.inferencer.visualizer.add_datasample(
            path, image, sample, draw_gt=False, pred_score_thr=self.score_thr, out_file=path)


class Segmenter:
    """A class for every pixel."""

    task = 'segmentation'

    def __init__(self, inferencer, out_dir, score_thr):
        self.inferencer, self.out_dir = inferencer, out_dir
        meta = inferencer.model.dataset_meta
        self.classes = list(meta['classes'])
        # The one that mmseg makes for data without a palette.
        self.palette = meta.get('palette') or np.random.RandomState(42).randint(
            0, 255, (len(self.classes), 3)).tolist()
        inferencer.visualizer.set_dataset_meta(self.classes, self.palette)

    def forward(self, batch):
        """Predictions of preprocessed images; mmseg wants one size, so neighbours that share it go together."""
        samples = []
        for _, group in groupby(batch, lambda data: data['inputs'].shape):
            samples += self.inferencer.forward(self.inferencer.collate_fn(list(group)))
        return samples

    def results(self, sample, name):
        """Write the labels, and say what share of the image each class has."""
        labels = sample.pred_sem_seg.data[0].numpy()
        path = f'labels/{name}.png'
        self.write(labels, osp.join(self.out_dir, path))
        ids, counts = np.unique(labels, return_counts=True)
        shares = [dict(label=self.classes[label], label_id=int(label), fraction=round(float(count / labels.size), 6))
                  for label, count in zip(ids, counts)]
        return dict(labels=path, classes=sorted(shares, key=lambda share: -share['fraction']))

    def write(self, labels, path):
        """As numbers of classes; with the colours of the classes, as far as a palette reaches."""
        if len(self.classes) > 256:
            Image.fromarray(labels.astype(np.uint16)).save(path)
            return
        image = Image.fromarray(labels.astype(np.uint8), mode='P')
        image.putpalette(np.asarray(self.palette, np.uint8).tobytes())
        image.save(path)

    def draw(self, image, sample, path):
        # As arrays: mmseg takes a tensor of one pixel for an index.
        self.inferencer.visualizer.add_datasample(path, image, sample.numpy(), draw_gt=False, out_file=path)


TASKS = dict(mmdet=Detector, mmseg=Segmenter)
