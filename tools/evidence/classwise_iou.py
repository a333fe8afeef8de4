"""MMSegmentation's IoU with the figure of every class among the metrics, not only in a printed table."""

from typing import Dict

from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric


@METRICS.register_module()
class ClasswiseIoU(IoUMetric):
    """mIoU as the host computes it, and ``IoU/CLASS`` in percent."""

    def compute_metrics(self, results: list) -> Dict[str, float]:
        metrics = super().compute_metrics(results)
        intersection, union = (sum(areas) for areas in list(zip(*results))[:2])
        for name, iou in zip(self.dataset_meta['classes'], 100 * intersection / union):
            metrics[f'IoU/{name}'] = round(iou.item(), 2)
        return metrics
