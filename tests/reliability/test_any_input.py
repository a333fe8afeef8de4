"""Whatever comes in, in whatever form: the backbones compute what they are defined as, to within its own error."""

import contextlib
import copy
import zlib
from collections import Counter
from statistics import median
from typing import Dict, Iterator, List, NamedTuple, Tuple

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from reliability_cases import MODES, PRECISIONS, Case, build, cases, image, shapes, split_zero
from reliability_plain import definitions
from torch import Tensor, nn

CASES = 13  # of a family in a mode; with --nightly 125
ROUNDINGS = 16  # of the definition, whose largest error counts
KINKED = 6  # of as many roundings of the backbone: so few may be wrong where a decision hangs on the last digit
KINK = 'equal one rounding away'
ZERO = 1e-12  # of the largest gradient: more than that is not 0 in float64
LOST = 0.25  # of a gradient: where the definition's error is larger, nothing can be told in that precision


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
    assert seen[KINK] <= number // 100
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

    def rounded(number: int) -> Result:
        if number == 0 and case.precision != 'float64':
            return run(copy.deepcopy(plain), images, case, autocast, directions)
        eps = _eps(case)
        return run(_nudged(copy.deepcopy(plain), eps), images * _nudge(images, eps), case, autocast, directions)

    with definitions():
        exact, own = run(exact, images.double(), case, None, directions), [rounded(0)]
    before = copy.deepcopy(model)
    actual = run(model, images, case, autocast, directions)
    assert [tuple(out.shape) for out in actual.outs.values()] == shapes(case)
    assert autocast or all(out.dtype == images.dtype for out in actual.outs.values())
    if 'float16' in case.precision.split() and not _finite(own[0]):
        check(case._replace(precision='float64'))
        return 'equal in float64: beyond the range of float16'
    for part in actual:
        for name, x in part.items():
            assert x is not None, f'{name} has no gradient'
            assert x.isfinite().all(), f'{name} is not finite'
    lost = case.precision.endswith('float16') and _typical(*_errors(case, own[0], exact, 'gradients')) > LOST
    while fault := compare(case, actual, own, exact, lost):
        if len(own) == ROUNDINGS:
            assert hangs_on_a_digit(case, before, images, directions, actual, own, exact), fault
            return KINK
        with definitions():
            own.append(rounded(len(own)))
    if lost:
        check(case._replace(precision='float64'))
        return f'equal, but gradients in float64: lost in {case.precision}'
    judged = (x for part in Result._fields for x in _judged(case, actual, own, exact, part))
    if _eps(case) > 1e-4 and any(limit >= size > 0 for _, _, limit, size in judged):
        check(case._replace(precision='float64'))
        return f'equal, and in float64: some is lost in {case.precision}'
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


def hangs_on_a_digit(
    case: Case,
    model: nn.Module,
    images: Tensor,
    directions: List[Tensor],
    actual: Result,
    own: List[Result],
    exact: Result,
) -> bool:
    """Whether a fault is that of a decision, of a ReLU or a maximum, that falls otherwise with the last digit: it comes
    each time, the case is equal in float64, and so are most of the roundings of the backbone in its own precision."""
    precision = PRECISIONS[case.precision]
    if precision != (torch.float32, None) or check(case._replace(precision='float64')) != 'equal':
        return False
    again = run(copy.deepcopy(model), images, case, None, directions)
    if not all(torch.equal(x, y[name]) for x_part, y in zip(actual, again) for name, x in x_part.items()):
        return False
    eps, wrong = torch.finfo(torch.float32).eps, 0
    for _ in range(ROUNDINGS):
        nudged = _nudged(copy.deepcopy(model), eps), images * _nudge(images, eps)
        wrong += bool(compare(case, run(*nudged, case, None, directions), own, exact, lost=False))
    return wrong <= KINKED


def compare(case: Case, actual: Result, own: List[Result], exact: Result, lost: bool) -> str:
    """What is wrong, if anything: an error must be that of the definition in the same precision, in the worst of its
    roundings, but for a small factor. `lost`: gradients are not compared."""
    eps = _eps(case)
    largest = max((x.abs().max().item() for x in exact.gradients.values() if x.numel()), default=0)
    for name in actual.gradients:
        zero, right, *rest = (_zero(case, result, name) for result in (actual, exact, *own))
        assert right <= ZERO * largest, f'{name} is listed as 0 and is {right:.2e} of {largest:.2e} in float64'
        if zero > max(32 * eps * largest, 4 * max(rest)):
            return f'{name}: {zero:.2e} must be 0, the definition {max(rest):.2e}'
    for part in Result._fields:
        if part == 'gradients' and lost:
            continue
        for name, error, limit, size in _judged(case, actual, own, exact, part):
            if not error <= limit:
                return f'{name}: {error:.2e} of {size:.2e}, where {limit:.2e} are allowed'
    return ''


def _judged(
    case: Case, actual: Result, own: List[Result], exact: Result, part: str
) -> Iterator[Tuple[str, float, float, float]]:
    """Name, error, what is allowed, and size of all in a part of the results."""
    eps = _eps(case)
    errors, sizes = _errors(case, actual, exact, part)
    roundings = [_errors(case, rounding, exact, part)[0] for rounding in own]
    # Where softmax has one key alone a gradient is 0: what is left of it is a rounding of sums, which are in float32 or
    # float64, or the square of one in half precision.
    least = max(eps**2, 4 * min(eps, torch.finfo(torch.float32).eps)) * max(sizes.values(), default=0)
    for name, error in errors.items():
        allowed = max(rounding[name] for rounding in roundings)
        yield name, error, 4 * allowed + 16 * eps * sizes[name] + least, sizes[name]


def _errors(case: Case, result: Result, exact: Result, part: str) -> Tuple[Dict[str, float], Dict[str, float]]:
    """Errors and sizes of what a pass gave, where mathematics does not make it 0."""
    values, right = (
        {name: split_zero(case, name, x)[1].detach().double() for name, x in getattr(of, part).items()}
        for of in (result, exact)
    )
    return {name: (values[name] - x).norm().item() for name, x in right.items()}, {
        name: x.norm().item() for name, x in right.items()
    }


def _eps(case: Case) -> float:
    dtype, autocast = PRECISIONS[case.precision]
    return torch.finfo(autocast or dtype).eps


def _zero(case: Case, result: Result, name: str) -> float:
    """The largest number where mathematics makes a gradient 0."""
    zero, _ = split_zero(case, name, result.gradients[name])
    return zero.abs().max().item() if zero.numel() else 0.0


def _typical(errors: Dict[str, float], sizes: Dict[str, float]) -> float:
    return median([error / sizes[name] for name, error in errors.items() if sizes[name]] or [0])


def _finite(result: Result) -> bool:
    return all(x.isfinite().all() for part in result for x in part.values())


def _nudge(x: Tensor, eps: float) -> Tensor:
    """Factors of 1 and the two numbers beside it."""
    return 1 + eps * torch.randint(-1, 2, x.shape).to(x.dtype)


def _nudged(model: nn.Module, eps: float) -> nn.Module:
    """The model with parameters of which each may be the next number: what comes out then is as right as before."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(_nudge(parameter, eps))
    return model
