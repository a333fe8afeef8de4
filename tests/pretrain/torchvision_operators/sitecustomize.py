"""For processes of the tests, by PYTHONPATH: lets torchvision be imported without its compiled operators.

The build in the registries needs CUDA's libraries. Without them two operators that torchvision describes at its import
are missing; here they are declared, just before that import. mmpretrain calls neither.
"""
import sys
from importlib.abc import MetaPathFinder


class Declare(MetaPathFinder):
    library = None

    def find_spec(self, name, path=None, target=None):
        if name == 'torchvision' and Declare.library is None:
            import torch

            Declare.library = torch.library.Library('torchvision', 'DEF')
            for operator in ('nms', 'qnms'):
                Declare.library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


sys.meta_path.insert(0, Declare())
