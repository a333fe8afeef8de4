"""Whatever comes in, in whatever form: the backbones compute what they are defined as, to within its own error."""

import contextlib
import copy
import zlib
from collections import Counter
from statistics import median
from typing import Dict, List, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from reliability_cases import MODES, PRECISIONS, Case, build, cases, image, shapes, split_zero
from reliability_plain import definitions
from torch import Tensor, nn

CASES = 13  # of a family in a mode; with --nightly 125
RELU = ('resnet', 'san')


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('family', ['resnet', 'swin', 'pvt', 'san'])
def test_any_input(family, mode, request, record_property):
    number = 125 if request.config.getoption('--nightly') else CASES
    seen = Counter()

    @seed(zlib.crc32(f'{family} {mode}'.encode()))  # the same cases each time, and others in each test
    @settings(max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases(family, mode))
    def every(case):
        seen.update(['cases', case.precision, check(case)])

    every()
    assert seen['cases'] >= number
    record_property('cases', f'{family}, {mode}: ' + ', '.join(f'{count} {name}' for name, count in seen.most_common()))


class Result(NamedTuple):
    """What a pass gave, by name."""

    outs: Dict[str, Tensor]
    gradients: Dict[str, Tensor]
    statistics: Dict[str, Tensor]


def check(case: Case) -> str:
    """Checks a case; says what was seen."""
    torch.manual_seed(case.seed)
    model, images = build(case), image(case)
    autocast = PRECISIONS[case.precision][1]
    plain, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    directions = [torch.randn(shape, dtype=torch.float64) for shape in shapes(case)]
    if case.mode == 'deploy':
        model.switch_to_deploy()
    if case.by_the_batch and directions[-1][:, 0].numel() == 1:
        with pytest.raises(ValueError, match='more than 1 value per channel when training|must have 2 pixels or more'):
            run(model, images, case, autocast, directions)
        return 'refused: nothing to take moments of'
    with definitions():
        exact = run(exact, images.double(), case, None, directions)
        if case.precision == 'float64':
            plain = run(_nudged(plain), images * _nudge(images), case, None, directions)
        else:
            plain = run(plain, images, case, autocast, directions)
    if 'float16' in case.precision.split() and not all(x.isfinite().all() for part in plain for x in part.values()):
        return 'beyond the range of float16'
    actual = run(model, images, case, autocast, directions)
    assert [tuple(out.shape) for out in actual.outs.values()] == shapes(case)
    assert autocast or all(out.dtype == images.dtype for out in actual.outs.values())
    for part in actual:
        for name, x in part.items():
            assert x is not None, f'{name} has no gradient'
            assert x.isfinite().all(), f'{name} is not finite'
    compare(case, actual, plain, exact)
    return 'equal'


def run(model: nn.Module, images: Tensor, case: Case, autocast, directions: List[Tensor]) -> Result:
    context = torch.autocast('cpu', autocast) if autocast else contextlib.nullcontext()
    if not case.gradients:
        with torch.inference_mode(), context:
            outs, gradients = model(images), {}
    else:
        leaves = {'images': images.detach().requires_grad_(), **dict(model.named_parameters())}
        with context:
            outs = model(leaves['images'])
        directions = [direction.to(out.dtype) for direction, out in zip(directions, outs)]
        found = torch.autograd.grad(outs, list(leaves.values()), directions, allow_unused=True)
        gradients = dict(zip(leaves, found))
    statistics = {name: x for name, x in model.named_buffers() if case.gradients and 'running' in name}
    return Result({f'out {i}': out for i, out in enumerate(outs)}, gradients, statistics)


def compare(case: Case, actual: Result, plain: Result, exact: Result) -> None:
    """Checks that errors are those of the definition in the same precision, but for a small factor."""
    precision = PRECISIONS[case.precision]
    eps = torch.finfo(precision[1] or precision[0]).eps
    largest = max((x.abs().max().item() for x in exact.gradients.values() if x.numel()), default=0)
    for name, x in actual.gradients.items():
        zero, _ = split_zero(case, name, x)
        assert not zero.numel() or zero.abs().max() <= 32 * eps * largest, f'{name}: {zero} must be 0'
    for part in ('outs', 'gradients', 'statistics'):
        values, own, right = (
            {name: split_zero(case, name, x)[1].detach().double() for name, x in getattr(result, part).items()}
            for result in (actual, plain, exact)
        )
        if not values:
            continue
        sizes = {name: x.norm().item() for name, x in right.items()}
        errors, allowed = ({n: (x[n] - right[n]).norm().item() for n in right} for x in (values, own))
        typical = median([allowed[n] / size for n, size in sizes.items() if size] or [0])
        # What a unit within a rounding of 0 hands on is there, or is not.
        kink = 0.5 if case.family in RELU and part == 'gradients' and eps > 1e-6 else 0
        for name, error in errors.items():
            limit = 4 * allowed[name] + (4 * typical + 16 * eps + kink) * sizes[name] + 4 * eps * max(sizes.values())
            assert error <= limit, f'{name}: {error:.2e} of {sizes[name]:.2e}, the definition {allowed[name]:.2e}'


def _nudge(x: Tensor) -> Tensor:
    """Factors of 1 and the two numbers beside it."""
    return 1 + torch.finfo(x.dtype).eps * torch.randint(-1, 2, x.shape).to(x.dtype)


def _nudged(model: nn.Module) -> nn.Module:
    """The model with parameters of which each may be the next number: what comes out then is as right as before."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(_nudge(parameter))
    return model
