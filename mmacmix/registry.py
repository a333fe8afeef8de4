"""Children of mmengine's registries: `type='mmacmix.ResNetACmix'` finds our classes from any host.

This file must import nothing that can fail: mmengine swallows an ImportError here and then reports every class
as "not in the registry".
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

from mmacmix.checkpoint_files import register_loaders
from mmacmix.safe_globals import allow_mmengine_globals

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, scope='mmacmix', locations=['mmacmix.backbones']
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmacmix', locations=['mmacmix.engine'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='mmacmix', locations=['mmacmix.engine']
)

# A runner builds the model, and so imports this file, before it loads a checkpoint. The inferencers of the hosts load
# first: for them configs name this file in custom_imports.
allow_mmengine_globals()
register_loaders()
