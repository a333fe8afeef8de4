"""Records how much of attention and of convolution every ACmix layer takes, while it is trained."""

from typing import Dict, List, Optional

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmacmix.engine.model_checks import unwrapped
from mmacmix.registry import HOOKS
from mmacmix.state_dicts import mixing_layers


@HOOKS.register_module()
class MixingRatesHook(Hook):
    """Writes the rates of all ACmix layers to the runner's visualiser: TensorBoard, WandB, local files.

    The scalars are ``mixing_rates/LAYER.attention`` (rate1) and ``mixing_rates/LAYER.convolution`` (rate2), before the
    first iteration and then every ``interval`` iterations, with the number of iterations done as their step. Layers
    with one path alone have no rates; a model without any is trained without a record.
    ``tools/analysis_tools/plot_mixing_rates.py`` draws them.

    Args:
        interval: Iterations from one record to the next.

    Raises:
        ValueError: ``interval`` is not a positive integer.
    """

    priority = 'BELOW_NORMAL'  # before the checkpoint is written

    def __init__(self, interval: int = 50) -> None:
        if type(interval) is not int or interval < 1:
            raise ValueError(f'interval must be a positive integer, got interval={interval!r}')
        self.interval = interval
        self._rates: Dict[str, nn.Parameter] = {}

    def before_train(self, runner: Runner) -> None:
        parameters = dict(unwrapped(runner.model).named_parameters())
        self._rates = {}
        for layer in mixing_layers(parameters):
            name = layer[len('backbone.') :] if layer.startswith('backbone.') else layer
            self._rates[f'mixing_rates/{name}.attention'] = parameters[f'{layer}.rate1']
            self._rates[f'mixing_rates/{name}.convolution'] = parameters[f'{layer}.rate2']
        if not self._rates:
            runner.logger.info('MixingRatesHook: no layer with both paths, so there are no rates to record')
        self._record(runner, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None, outputs: Optional[dict] = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval) or runner.iter + 1 == runner.max_iters:
            self._record(runner, runner.iter + 1)

    def _record(self, runner: Runner, step: int) -> None:
        if not self._rates:
            return
        # One tensor, so that a GPU is waited for once.
        values: List[float] = torch.cat([rate.detach().float() for rate in self._rates.values()]).tolist()
        runner.visualizer.add_scalars(dict(zip(self._rates, values)), step=step)
