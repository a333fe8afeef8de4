"""Loading of weights that says what does not fit."""

import pickle
import re
import struct
from typing import Collection, Optional, Set, Tuple

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmacmix.checkpoint_files import check_contents, register_loaders
from mmacmix.converters import convert
from mmacmix.safe_globals import allow_mmengine_globals
from mmacmix.state_dicts import StateDict, listing, shape_of, unwrap, without_prefix

__all__ = ['convert', 'load_pretrained', 'mismatch', 'read_checkpoint', 'unwrap']

# torch's safe mode has to know what mmengine's own checkpoints hold.
allow_mmengine_globals()
register_loaders()


def read_checkpoint(checkpoint: str, map_location: Optional[str] = None) -> dict:
    """What a checkpoint file holds.

    Args:
        checkpoint: Path or URL, as mmengine's loader takes it.
        map_location: As for ``torch.load``; 'cpu' by default.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or no checkpoint, or holds more than data.
    """
    try:
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location or 'cpu', logger='current')
    except (EOFError, LookupError, RuntimeError, UnicodeError, pickle.UnpicklingError, struct.error) as error:
        # Of other places than files and http, which mmengine reads itself.
        raise ValueError(
            f'cannot read {checkpoint} as a checkpoint: it is damaged, or no checkpoint ({type(error).__name__})'
        ) from error
    check_contents(loaded, checkpoint)
    return loaded


def load_pretrained(
    module: nn.Module,
    checkpoint: str,
    prefix: Optional[str] = None,
    map_location: Optional[str] = None,
    optional_keys: Optional[str] = None,
) -> None:
    """Loads weights into a module, all of them or none.

    Args:
        module: The module; its names are what the checkpoint must hold.
        checkpoint: Path or URL, as mmengine's loader takes it.
        prefix: Only parameters whose names begin so, and a dot, are taken, and lose it: 'backbone' or
            'backbone.' for the checkpoint of a detector.
        map_location: As for ``torch.load``; 'cpu' by default.
        optional_keys: Regular expression of names that either side may have alone.

    Raises:
        ValueError: The file cannot be read, or the weights do not fit; the message lists what is missing, left
            over or of another shape. A converted checkpoint may lack what it says starts fresh (``meta['fresh']``).
    """
    loaded = read_checkpoint(checkpoint, map_location)
    state = unwrap(loaded)
    if prefix is not None:
        prefix = prefix if prefix.endswith('.') else f'{prefix}.'
        state = without_prefix(state, prefix)
        if not state:
            raise ValueError(f'no parameter in {checkpoint} has a name that begins with prefix={prefix!r}')
    problem = mismatch(module.state_dict(), state, optional_keys, _declared_fresh(loaded))
    if problem:
        hint = ''
        if prefix is None and any(key.startswith('backbone.') for key in state):
            hint = "\nIs this the checkpoint of a whole detector or segmenter? Then add prefix='backbone.'."
        raise ValueError(f'{checkpoint} does not fit {type(module).__name__}: {problem}{hint}')
    kept = module.load_state_dict(state, strict=False)
    print_log(
        f'loaded {len(state) - len(kept.unexpected_keys)} parameters of {type(module).__name__} from {checkpoint}'
        + (f'; fresh: {listing(kept.missing_keys)}' if kept.missing_keys else ''),
        logger='current',
    )


def mismatch(
    own: StateDict, state: StateDict, optional_keys: Optional[str] = None, fresh: Collection[str] = ()
) -> str:
    """Describes how parameters by name differ from what a module has; '' where they fit.

    Args:
        own: Parameters of the module.
        state: Parameters to load.
        optional_keys: Regular expression of names that either side may have alone, by whole modules.
        fresh: Names that ``state`` may lack.
    """

    def needed(key: str, others: Set[str]) -> bool:
        # mmengine's and torch's own loaders do not ask for this counter either.
        if key.endswith('num_batches_tracked'):
            return False
        # A module is there as a whole or not at all.
        in_part = key.rpartition('.')[0] in others - {''}
        return in_part or not (optional_keys and re.match(optional_keys, key))

    owners, loaded = ({key.rpartition('.')[0] for key in keys} for keys in (own, state))
    missing = [key for key in own if key not in state and key not in fresh and needed(key, loaded)]
    left_over = [key for key in state if key not in own and needed(key, owners)]
    shapes = [
        f'{key} {shape_of(state[key])}, here {shape_of(own[key])}'
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    parts: Tuple = (('missing', missing), ('left over', left_over), ('of another shape', shapes))
    return '; '.join(f'{len(keys)} {what}: {listing(keys)}' for what, keys in parts if keys)


def _declared_fresh(checkpoint: dict) -> Collection[str]:
    """Names that a converted checkpoint says it does not have."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    fresh = meta.get('fresh', ()) if isinstance(meta, dict) else ()
    return {name for name in fresh if isinstance(name, str)} if isinstance(fresh, (list, tuple)) else set()
