import cv2
import numpy as np
import pictures
import pytest
import torch
from mmengine.structures import InstanceData, PixelData


def detection_sample(path):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    mask = np.zeros((32, 48), np.uint8)
    mask[4:12, 6:20] = 1
    box = torch.tensor([[6.0, 4.0, 20.0, 12.0]])
    label = torch.tensor([0])
    sample = DetDataSample(metainfo={'img_path': str(path)})
    sample.gt_instances = InstanceData(bboxes=box, labels=label, masks=BitmapMasks([mask], 32, 48))
    sample.pred_instances = InstanceData(
        bboxes=box, labels=label, masks=torch.from_numpy(mask[None]).bool(), scores=torch.ones(1)
    )
    return sample


def segmentation_sample(path):
    from mmseg.structures import SegDataSample

    labels = torch.zeros(1, 32, 48, dtype=torch.long)
    labels[:, 4:12, 6:20] = 1
    sample = SegDataSample(metainfo={'img_path': str(path)})
    sample.gt_sem_seg = PixelData(data=labels)
    sample.pred_sem_seg = PixelData(data=torch.zeros_like(labels))
    return sample


def test_enlarged_instances():
    sample = detection_sample('none')
    big = pictures.enlarge(sample, 3)
    for instances in (big.gt_instances, big.pred_instances):
        assert instances.bboxes.tolist() == [[18, 12, 60, 36]]
        assert instances.masks.shape == (1, 96, 144)
        assert instances.masks[:, 12:36, 18:60].all()
        assert instances.masks.sum() == 24 * 42
    assert sample.gt_instances.bboxes.tolist() == [[6, 4, 20, 12]], 'the original must not change'


def test_enlarged_label_maps():
    sample = segmentation_sample('none')
    big = pictures.enlarge(sample, 2)
    assert big.gt_sem_seg.data.shape == (1, 64, 96)
    assert (big.gt_sem_seg.data[:, 8:24, 12:40] == 1).all()
    assert big.gt_sem_seg.data.sum() == 16 * 28
    assert sample.gt_sem_seg.data.shape == (1, 32, 48)


class Recall:
    """A model that knows the answers."""

    def __init__(self, make):
        self.make = make

    def test_step(self, batch):
        return [self.make(path) for path in batch['path']]


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_truth_is_left_and_prediction_right(tmp_path, task):
    paths = [tmp_path / f'{number}.jpg' for number in range(5)]
    for path in paths:
        cv2.imwrite(str(path), np.full((32, 48, 3), 120, np.uint8))
    dataset = [{'path': str(path)} for path in paths]
    if task == 'detection':
        from mmdet.visualization import DetLocalVisualizer as Visualizer

        make = detection_sample
    else:
        from mmseg.visualization import SegLocalVisualizer as Visualizer

        make = segmentation_sample
    visualizer = Visualizer(vis_backends=None)
    visualizer.dataset_meta = {'classes': ('a', 'b'), 'palette': [(200, 30, 30), (30, 200, 30)]}

    drawn = pictures.draw(dataset, Recall(make), visualizer, tmp_path / 'out', 3)
    assert [path.name for path in drawn] == ['0.png', '2.png', '4.png']
    picture = cv2.imread(str(drawn[0]))
    height, width = 32 * pictures.ENLARGED, 48 * pictures.ENLARGED
    assert picture.shape == (height, 2 * width, 3)
    # A pixel inside the shape, beside names and outlines.
    row, column = 10 * pictures.ENLARGED, 17 * pictures.ENLARGED
    truth, prediction = picture[row, column].astype(int), picture[row, width + column].astype(int)
    assert truth.max() - truth.min() > 30, 'the truth must be coloured'
    if task == 'segmentation':
        assert truth[1] > prediction[1], 'class 1 (green) on the left, class 0 (red) on the right'
        assert prediction[2] > truth[2]
    else:
        assert np.abs(truth - prediction).max() < 60, 'a perfect prediction looks like the truth'


def test_contact_sheet(tmp_path):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f'{number}.png')
        cv2.imwrite(str(paths[-1]), np.full((20, 60, 3), 50 * number + 50, np.uint8))
    sheet = pictures.contact_sheet(paths, 'title')
    assert sheet.shape[1] == 2 * 66
    assert sheet.shape[0] > 2 * 26
    cells = sheet[-52:]
    assert (cells[3:23, 3:63] == 50).all()
    assert (cells[3:23, 69:129] == 100).all()
    assert (cells[29:49, 3:63] == 150).all()
    assert (cells[29:49, 69:129] == 255).all(), 'the empty place is white'
    assert (sheet[:-52] < 64).any(), 'the title is written'


def test_nothing_to_show():
    with pytest.raises(ValueError, match=r'paths must name one picture at least, got paths=\[\]'):
        pictures.contact_sheet([], 'title')


def test_unknown_task():
    message = "task must be 'detection' or 'segmentation', got task='depth'"
    with pytest.raises(ValueError, match=message):
        pictures.load('depth', 'config', 'checkpoint')
