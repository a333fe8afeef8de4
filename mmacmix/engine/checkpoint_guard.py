"""Stops a run whose checkpoint does not fit the model; mmengine alone would load the part that does."""

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmacmix.checkpoint_files import check_contents
from mmacmix.checkpoints import mismatch, unwrap
from mmacmix.engine.config_checks import SetupError
from mmacmix.engine.model_checks import unwrapped
from mmacmix.registry import HOOKS


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Compares a checkpoint with the model before any of it is loaded.

    Testing, validating and resuming need every parameter. A training that starts from a checkpoint
    (``load_from``) needs the backbone's; heads may differ there, as for another number of classes, and what a backbone
    has for its chosen outputs alone (``optional_keys``).

    Raises:
        SetupError: Something that is needed does not fit; the message lists what.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        check_contents(checkpoint, runner._load_from or 'the checkpoint')
        model = unwrapped(runner.model)
        own, state = model.state_dict(), unwrap(checkpoint)
        optional = None
        fine_tuning = isinstance(runner._train_loop, BaseLoop) and not runner._resume
        if fine_tuning:
            own, state = (
                {key: value for key, value in x.items() if key.startswith('backbone.')}
                for x in (own, state)
            )
            optional = getattr(getattr(model, 'backbone', None), 'optional_keys', None)
        problem = mismatch(own, state, optional and rf'backbone\.(?:{optional})')
        if problem:
            raise SetupError(
                f'{runner._load_from or "the checkpoint"} does not fit {type(model).__name__} of this config: '
                f'{problem}'
            )
