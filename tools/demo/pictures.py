"""Pictures of a trained demo model: held-out images with their truth and the prediction.

    python tools/demo/pictures.py detection CONFIG CHECKPOINT --out FOLDER

writes FOLDER/NAME.png for some images, drawn by the host's own visualiser, and all of them together
as FOLDER/sheet.png. One process serves one host: mmdet and mmseg each want to be the default scope.
"""

import argparse
import copy
from pathlib import Path

import cv2
import numpy as np

ENLARGED = 3  # so that the names and scores that the visualisers write stay legible
_TITLE_HEIGHT = 34


def load(task, config, checkpoint):
    """Build the held-out data set and the model of one task.

    Args:
        task (str): 'detection' or 'segmentation'.
        config (str | mmengine.config.Config): What the model was trained with.
        checkpoint (str | pathlib.Path): Its weights.

    Returns:
        tuple: Data set, model in evaluation mode on the CPU, and the host's visualiser.

    Raises:
        ValueError: If there is no such task.
    """
    from mmengine.registry import DATASETS, init_default_scope

    import mmacmix.registry  # noqa: F401  (allows torch to load mmengine's own checkpoints)

    if task == 'detection':
        from mmdet.apis import init_detector as init
        from mmdet.visualization import DetLocalVisualizer as Visualizer

        settings = {'line_width': 2, 'alpha': 0.5}
    elif task == 'segmentation':
        from mmseg.apis import init_model as init
        from mmseg.visualization import SegLocalVisualizer as Visualizer

        settings = {'alpha': 0.6}
    else:
        raise ValueError(f"task must be 'detection' or 'segmentation', got task={task!r}")
    model = init(config, str(checkpoint), device='cpu')
    init_default_scope(model.cfg.default_scope)
    dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    visualizer = Visualizer(vis_backends=None, **settings)
    visualizer.dataset_meta = dataset.metainfo
    return dataset, model, visualizer


def draw(dataset, model, visualizer, out, count):
    """Predict and draw evenly spaced images of the data set.

    Args:
        dataset, model, visualizer: From :func:`load`.
        out (pathlib.Path): Folder for the pictures.
        count (int): How many; all of them if there are fewer.

    Returns:
        list[pathlib.Path]: The pictures, truth on the left and prediction on the right.
    """
    import torch
    from mmengine.dataset import pseudo_collate

    paths = []
    # The visualiser varies its colours a little at random.
    np.random.seed(0)
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int):
        with torch.no_grad():
            sample = model.test_step(pseudo_collate([dataset[int(index)]]))[0]
        image = cv2.imread(sample.img_path)[..., ::-1]
        path = out / f'{Path(sample.img_path).stem}.png'
        visualizer.add_datasample(
            path.stem,
            np.ascontiguousarray(image.repeat(ENLARGED, 0).repeat(ENLARGED, 1)),
            enlarge(sample, ENLARGED),
            out_file=str(path),
        )
        paths.append(path)
    return paths


def enlarge(sample, factor):
    """A copy of a result, with its boxes, masks and label maps magnified.

    Args:
        sample (mmdet DetDataSample | mmseg SegDataSample): With truth and prediction.
        factor (int): Every pixel becomes a square of this side.

    Returns:
        The same type.
    """
    sample = copy.deepcopy(sample)
    for name in ('gt_instances', 'pred_instances'):
        if name not in sample:
            continue
        instances = sample.get(name)
        instances.bboxes = instances.bboxes * factor
        masks = instances.masks
        masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else masks.numpy()
        instances.masks = _repeat(masks, factor)
    for name in ('gt_sem_seg', 'pred_sem_seg'):
        if name not in sample:
            continue
        field = sample.get(name)
        # PixelData checks the size of what it already holds: replace all of it.
        sample.set_field(type(field)(data=_repeat(field.data, factor)), name)
    return sample


def contact_sheet(paths, title, columns=2):
    """All pictures on one page, under a title.

    Args:
        paths (list[pathlib.Path]): Pictures of one size.
        title (str): Printed at the top.
        columns (int): Pictures beside one another.

    Returns:
        numpy.ndarray: uint8 BGR.

    Raises:
        ValueError: If there is no picture.
    """
    if not paths:
        raise ValueError(f'paths must name one picture at least, got paths={paths!r}')
    pictures = [cv2.imread(str(path)) for path in paths]
    edge = ((3, 3), (3, 3), (0, 0))
    cells = [np.pad(picture, edge, constant_values=255) for picture in pictures]
    columns = min(columns, len(cells))
    while len(cells) % columns:
        cells.append(np.full_like(cells[0], 255))
    rows = [np.hstack(cells[at : at + columns]) for at in range(0, len(cells), columns)]
    width = rows[0].shape[1]
    head = np.full((_TITLE_HEIGHT, width, 3), 255, np.uint8)
    cv2.putText(head, title, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([head, *rows])


def _repeat(array, factor):
    """Magnify the last two axes of a tensor or an array."""
    if isinstance(array, np.ndarray):
        return array.repeat(factor, -2).repeat(factor, -1)
    return array.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def main(argv=None):
    parser = argparse.ArgumentParser(description='Draw truth and prediction of held-out images.')
    parser.add_argument('task', choices=['detection', 'segmentation'])
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', required=True, type=Path, help='folder for the pictures')
    parser.add_argument('--count', type=int, default=8, help='number of images')
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    paths = draw(*load(args.task, args.config, args.checkpoint), args.out, args.count)
    title = f'{args.task} of held-out images: truth (left), prediction (right)'
    cv2.imwrite(str(args.out / 'sheet.png'), contact_sheet(paths, title))


if __name__ == '__main__':
    main()
