"""What the runs of docs/evidence.md record and vary, as hooks of their configs."""

import time
from typing import Optional, Tuple

import torch
from benchmarks.measuring import MIB, resident
from mmengine.hooks import Hook
from mmengine.model.weight_init import kaiming_init
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmacmix.engine.model_checks import unwrapped


@HOOKS.register_module()
class ProgressHook(Hook):
    """Adds to the scalars of a training: ``seconds``, and ``peak_memory_mib`` at its end.

    Seconds are those of training alone, with its data, without evaluation; a resumed run goes on counting. Memory is
    the largest that the process had in RAM since it was started, and on a GPU what torch had reserved there; of a
    resumed run, the most of all its processes.

    Args:
        interval: Iterations from one record to the next; there is one before every evaluation too.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self._last: Optional[float] = None

    def before_train(self, runner: Runner) -> None:
        self._last = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        if self._last is None:  # the first, before which a resumed run goes through the data of all steps before
            self._last = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None, outputs: Optional[dict] = None
    ) -> None:
        now = time.perf_counter()
        # The hub is saved with every checkpoint, and comes back with it.
        seconds = self._seconds(runner) + now - self._last
        runner.message_hub.update_info('evidence_seconds', seconds)
        self._last = now
        if self.every_n_train_iters(runner, self.interval):
            self._peak(runner)
            runner.visualizer.add_scalar('seconds', seconds, step=runner.iter + 1)

    def before_val(self, runner: Runner) -> None:
        if runner.iter:
            runner.visualizer.add_scalar('seconds', self._seconds(runner), step=runner.iter)

    def after_val(self, runner: Runner) -> None:
        self._last = None

    def after_train(self, runner: Runner) -> None:
        runner.visualizer.add_scalar('peak_memory_mib', self._peak(runner), step=runner.iter)

    @staticmethod
    def _peak(runner: Runner) -> float:
        """MiB, the most of all processes so far; the hub keeps it."""
        peak = max(runner.message_hub.get_info('evidence_peak', 0.0), peak_memory())
        runner.message_hub.update_info('evidence_peak', peak)
        return peak

    @staticmethod
    def _seconds(runner: Runner) -> float:
        return runner.message_hub.get_info('evidence_seconds', 0.0)


@HOOKS.register_module()
class StartHook(Hook):
    """Starts the ACmix layers of a training in another way than the backbone does.

    Args:
        rates: ``rate1`` (attention) and ``rate2`` (convolution) of every layer; None leaves them.
        shift: Whether the kernels of ``dep_conv`` start as shifts. If not, they start as Kaiming's
            initialisation leaves them, which overwrote them in the released ResNet.
    """

    def __init__(self, rates: Optional[Tuple[float, float]] = None, shift: bool = True) -> None:
        if rates is not None and len(rates) != 2:
            raise ValueError(f'rates must be those of attention and convolution, got rates={rates!r}')
        self.rates = rates
        self.shift = shift

    def before_train(self, runner: Runner) -> None:
        if runner.iter:  # a resumed run has started already
            return
        layers = [m for m in unwrapped(runner.model).modules() if hasattr(m, 'rate1') or hasattr(m, 'dep_conv')]
        if not layers:
            raise ValueError('StartHook must meet a model with ACmix layers, got none')
        for layer in layers:
            self.start(layer)

    def start(self, layer: nn.Module) -> None:
        if self.rates is not None:
            for name, value in zip(('rate1', 'rate2'), self.rates):
                nn.init.constant_(getattr(layer, name), value)
        if not self.shift:
            kaiming_init(layer.dep_conv)


def peak_memory() -> float:
    """MiB"""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / MIB
    return resident('VmHWM') / MIB
