"""The benchmarks: what they compare computes the same, rows are right, and tables and pictures come from rows."""

import contextlib
import csv
import gc
import importlib
import json
import re
import resource
import shlex
import sys
from pathlib import Path

import pytest
import torch

from mmacmix.backbones import ResNetACmix
from mmacmix.layers import ACmix
from mmacmix.ops import local_attention

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools' / 'benchmarks'
NAMES = sorted(path.stem for path in TOOLS.glob('*.py'))


@pytest.fixture()
def tool(monkeypatch):
    """tool(name): a module of tools/benchmarks."""
    monkeypatch.syspath_prepend(str(TOOLS))
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)
        if before[name]:
            sys.modules[name] = before[name]


@pytest.fixture()
def here(tool, monkeypatch):
    """Jobs are done in this process, which spares the seconds that a fresh one takes to import torch."""
    worker, jobs = tool('worker'), []

    @contextlib.contextmanager
    def kept():
        threads = torch.get_num_threads()
        allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed

    def ask(job):
        jobs.append(json.loads(json.dumps(job)))
        with kept():
            yield from worker.answer(jobs[-1])

    monkeypatch.setattr(tool('runs'), 'ask', ask)
    for name in ('collect', 'freeze'):
        monkeypatch.setattr(gc, name, lambda: 0)
    return jobs


def rows_of(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def inputs(size, heads=2, d=3, batch=2, dtype=torch.float64):
    q, k, v = (torch.randn(batch, heads, d, *size, dtype=dtype, requires_grad=True) for _ in range(3))
    return q, k, v, torch.randn(d, *size, dtype=dtype, requires_grad=True)


# What is compared


@pytest.mark.parametrize('size, kernel, stride, dilation', [((9, 12), 7, 1, 1), ((8, 7), 5, 2, 1), ((9, 11), 3, 2, 3)])
def test_official_order_is_the_reference(tool, relative_error, size, kernel, stride, dilation):
    leaves = inputs(size)
    q, k, v, position = leaves
    official = tool('official').official_attention(q, k, v, position, kernel, stride, dilation)
    reference = local_attention(q, k - position, v, kernel, stride, dilation, backend='reference')
    assert relative_error(official, reference) < 1e-12
    grad = torch.randn_like(reference)
    for a, b in zip(torch.autograd.grad(official, leaves, grad), torch.autograd.grad(reference, leaves, grad)):
        assert relative_error(a, b) < 1e-12


@pytest.mark.parametrize('stride, dilation', [(1, 1), (2, 2)])
def test_official_layer_is_acmix(tool, relative_error, stride, dilation):
    options = dict(num_heads=2, attn_kernel_size=5, conv_kernel_size=5, stride=stride, dilation=dilation)
    layer = ACmix(6, 8, **options).double()
    official = tool('official').OfficialACmix(6, 8, **options).double()
    official.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 10, 12, dtype=torch.float64)  # even: the released layer takes no other with a stride
    assert relative_error(official(x), layer(x)) < 1e-12


@pytest.mark.parametrize('training', [False, True])
def test_official_backbone_is_resnet_acmix(tool, relative_error, training):
    options = dict(base_channels=8, stem_channels=8, zero_init_residual=False)
    model = ResNetACmix(50, **options).double().train(training)
    official = tool('official').official_resnet_acmix_50(**options).double()
    official.train(training)  # which mmdet does not return from
    official.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 128, 160, dtype=torch.float64)
    for a, b in zip(official(x), model(x)):
        assert relative_error(a, b) < 1e-9


@pytest.mark.skipif(torch.__version__ < (2, 5), reason='FlexAttention came with torch 2.5')
@pytest.mark.parametrize('size, kernel, stride, dilation', [((11, 20), 5, 1, 1), ((13, 18), 3, 2, 2)])
def test_flex_sees_the_same_windows(tool, relative_error, size, kernel, stride, dilation):
    """Uncompiled FlexAttention is dense: it takes the mask, not the list of blocks, which is compared apart."""
    from torch.nn.attention.flex_attention import create_block_mask

    flex = tool('flex')
    q, k, v, position = (x.detach() for x in inputs(size, d=16, dtype=torch.float32))
    run = flex.flex_attention(*size, kernel, stride, dilation, 'cpu', compiled=False)
    expected = local_attention(q, k - position, v, kernel, stride, dilation, backend='reference')
    assert relative_error(run(q, k, v, position), expected) < 1e-5
    blocks = flex.block_mask(*size, kernel, stride, dilation, 'cpu')
    lengths = [n * flex.BLOCK for n in blocks.to_dense().shape[-2:]]
    dense = create_block_mask(blocks.mask_mod, None, None, *lengths, device='cpu', BLOCK_SIZE=flex.BLOCK)
    needed = dense.to_dense()
    assert (blocks.to_dense() >= needed).all() and needed.sum() > 0
    # Tiles that overhang the map, and what dilation skips, may be visited without need.
    assert blocks.to_dense().sum() <= 1.5 * needed.sum()


# How it is measured


def test_rounds_are_interleaved_and_slow_sides_get_fewer(tool, monkeypatch):
    measuring = tool('measuring')
    order = []
    seconds = {'quick': 0.1, 'slow': 3.0, 'broken': 0.0}

    def seconds_of(call, device):
        side = call()
        order.append(side)
        if side == 'broken' and order.count('broken') == 3:
            raise RuntimeError('DefaultCPUAllocator: not enough memory: you tried to allocate memory')
        return seconds[side]

    monkeypatch.setattr(measuring, 'seconds_of', seconds_of)
    calls = {side: lambda side=side: side for side in seconds}
    messages = list(measuring.interleave(calls, 'cpu', rounds=10, budget=6.0))
    assert order[:6] == ['quick', 'slow', 'broken'] * 2  # a warm-up of each, then the first round
    timed = [m['side'] for m in messages if 'seconds' in m]
    assert timed.count('quick') == 10 and timed.count('slow') == 2 and timed.count('broken') == 1
    assert {'side': 'broken', 'failed': 'out of memory'} in messages
    assert timed.index('slow', timed.index('slow') + 1) > timed.index('quick') + 5  # spread over the run


@pytest.mark.parametrize('error, reason', [
    (MemoryError(), 'out of memory'),
    (RuntimeError('CUDA out of memory. Tried'), 'out of memory'),
    (KeyError('x\ny'), "failed: KeyError: 'x\\ny'"),
    (ValueError('a\nb'), 'failed: ValueError: a'),
])
def test_reasons(tool, error, reason):
    assert tool('measuring').reason_of(error) == reason


def test_a_process_that_dies(tool):
    runs = tool('runs')
    assert runs.reason_of_death(-9, '') == 'out of memory'
    assert runs.reason_of_death(-11, 'one\ntwo\n') == 'failed: signal 11: two'
    assert runs.reason_of_death(1, 'Error') == 'failed: exit code 1: Error'


def test_peak_of_one_call(tool):
    """A call that fills 64 MiB is seen as such, also where the system keeps no resettable peak."""
    measuring = tool('measuring')
    kept = []
    extra, total = measuring.peak_memory(lambda: kept.append(torch.ones(2**24)), 'cpu')
    assert 60 < extra < 80 and total > extra
    measuring.CLEAR_REFS = Path('/no/such/file')
    extra, _ = measuring.peak_memory(lambda: kept.append(torch.ones(2**24)), 'cpu')
    assert 55 < extra < 80
    measuring.STATUS = Path('/no/such/file')
    assert measuring.resident('VmHWM') > 100 * 2**20


def test_sides_that_fail_have_no_figures(tool, monkeypatch):
    """A death while timing is the side's whose turn it was; the others are timed again, together."""
    runs = tool('runs')
    tried = []

    def ask(job):
        tried.append((job['task'], job['sides']))
        if job['task'] == 'memory':
            (side,) = job['sides']
            yield {'died': 'out of memory'} if side == 'huge' else {'side': side, 'extra': 8.0, 'total': 9.0}
            return
        for side in job['sides']:
            yield {'begin': side}
            if side == 'crash':
                yield {'died': 'failed: signal 11: '}
                return
            yield {'side': side, 'seconds': 0.5}
            yield {'side': side, 'seconds': 1.5}

    monkeypatch.setattr(runs, 'ask', ask)
    args = runs.argparse.Namespace(rounds=2, budget=1.0, memory_limit=None)
    figures = runs.measure('operator_cost', {}, ['good', 'huge', 'crash'], args)
    assert tried[3:] == [('time', ['good', 'crash']), ('time', ['good'])]
    assert figures['good'] == dict(status='ok', rounds=2, median_s='1', min_s='0.5', max_s='1.5',
                                   peak_extra_mib='8.0', peak_total_mib='9.0')
    assert figures['huge'] == dict(dict.fromkeys(tool('records').FIGURES, ''), status='out of memory')
    assert figures['crash']['status'] == 'failed: signal 11: ' and figures['crash']['median_s'] == ''


# Rows


TINY = ['--sizes', '9x11', '--channels', '4', '--heads', '2', '--threads', '1', '--rounds', '3', '--kernel', '3']


def test_operator_rows_and_resuming(tool, here, tmp_path, capsys):
    out = tmp_path / 'new' / 'operator.csv'
    main, records = tool('operator_cost').main, tool('records')
    assert main([*TINY, '--stride', '2', '--out', str(out)]) == 0
    rows = rows_of(out)
    assert [(row['pass'], row['side']) for row in rows] == [
        (p, s) for p in ('forward', 'training') for s in ('auto', 'reference', 'official')]
    for row in rows:
        assert tuple(row) == records.COLUMNS
        assert (row['benchmark'], row['status'], row['rounds'], row['pixels']) == ('operator', 'ok', '3', '99')
        assert (row['kernel'], row['stride'], row['heads'], row['height'], row['width']) == ('3', '2', '2', '9', '11')
        assert row['torch'] == torch.__version__ and row['device_name'] and row['date'].endswith('Z')
        assert 0 < float(row['min_s']) <= float(row['median_s']) <= float(row['max_s'])
        assert float(row['peak_extra_mib']) >= 0 and float(row['peak_total_mib']) > 1
    assert [(job['task'], len(job['sides'])) for job in here] == 2 * (3 * [('memory', 1)] + [('time', 3)])

    here.clear()
    assert main([*TINY, '--stride', '2', '--out', str(out)]) == 0
    assert not here and len(rows_of(out)) == 6
    assert f'[2/2] training 9x11: in {out} already' in capsys.readouterr().out

    # Killed while it wrote a line, and one case short: only that case is measured.
    lines = out.read_text().splitlines(keepends=True)
    out.write_text(''.join(lines[:4]) + lines[4][:30])
    assert main([*TINY, '--stride', '2', '--out', str(out)]) == 0
    assert {job['case']['pass'] for job in here} == {'training'}
    assert len(rows_of(out)) == 6 and all(row['command'] for row in rows_of(out))

    # Other code: everything again, below.
    here.clear()
    out.write_text(out.read_text().replace(rows_of(out)[0]['source'], '00000000'))
    assert main([*TINY, '--stride', '2', '--passes', 'forward', '--out', str(out)]) == 0
    assert len(here) == 4 and len(rows_of(out)) == 9


def test_backbone_rows(tool, here, tmp_path):
    out = tmp_path / 'backbone.csv'
    argv = ['--sides', 'resnet-acmix-26:channels_last', '--sizes', '64', '--threads', '1', '--rounds', '1']
    assert tool('backbone_cost').main([*argv, '--out', str(out)]) == 0
    forward, training = rows_of(out)
    assert (forward['pass'], training['pass'], training['side']) == ('forward', 'training', argv[1])
    assert forward['status'] == training['status'] == 'ok' and forward['channels'] == ''
    assert float(training['peak_extra_mib']) > float(forward['peak_extra_mib'])


def test_host_backbones_build(tool):
    """The same job for both: maps of the same sizes, the same settings."""
    build = tool('backbone_cost').build
    for ours, host in (('resnet-acmix-50', 'resnet-50:channels_last'), ('swin-acmix-t', 'swin-t')):
        a, b = build(ours).to('meta'), build(host).to('meta')
        x = torch.empty(1, 3, 64, 64, device='meta')
        assert [y.shape for y in a(x)] == [y.shape for y in b(x)]
        assert all(p.requires_grad for model in (a, b) for p in model.parameters())
        kinds = [{type(m).__name__: m.training for m in model.modules()} for model in (a, b)]
        assert kinds[0].get('BatchNorm2d') == kinds[1].get('BatchNorm2d')


def test_checkpointing_is_of_training_alone(tool, here, tmp_path):
    out = tmp_path / 'backbone.csv'
    plain, saving = sides = ['resnet-acmix-26', 'resnet-acmix-26:with_cp']
    argv = ['--sides', *sides, '--sizes', '160', '--threads', '1', '--rounds', '1', '--out', str(out)]
    assert tool('backbone_cost').main(argv) == 0
    rows = rows_of(out)
    assert [(row['pass'], row['side']) for row in rows] == [
        ('forward', plain), ('training', plain), ('training', saving)]
    assert float(rows[2]['peak_extra_mib']) < float(rows[1]['peak_extra_mib'])
    for name in ('resnet-50', 'swin-t', 'pvt-acmix-t', 'san-acmix-10'):
        model = tool('backbone_cost').build(f'{name}:with_cp')
        assert sum(getattr(module, 'with_cp', False) is True for module in model.modules()) >= 8


@pytest.mark.skipif(sys.platform != 'linux', reason='the limit is one of Linux')
def test_a_limit(tool, here, tmp_path):
    """What 3 MiB do not suffice for is a row without figures, and no failure."""
    out = tmp_path / 'operator.csv'
    argv = ['--sizes', '96', '--sides', 'official', '--passes', 'forward', '--threads', '1', '--memory-limit', '0.003']
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        assert tool('operator_cost').main([*argv, '--out', str(out)]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    (row,) = rows_of(out)
    assert row['status'] == 'out of memory'
    assert row['median_s'] == row['peak_extra_mib'] == row['rounds'] == ''


def test_time_in_a_process_of_its_own(tool):
    case = dict(height=9, width=9, threads=1, dtype='float32', device='cpu', batch=1, channels=4, heads=2, kernel=3,
                stride=1, dilation=1, memory_format='channels_last')
    job = dict(task='time', module='operator_cost', case={'pass': 'training', **case}, sides=['auto', 'missing'],
               rounds=2, budget=9, limit=None)
    messages = list(tool('runs').ask(job))
    assert sum('seconds' in message for message in messages) == 2
    (failure,) = [message for message in messages if 'failed' in message]
    assert failure['side'] == 'missing' and failure['failed'].startswith('failed: ValueError: backend must be')


def test_commit_and_versions_without_git(tool, monkeypatch, tmp_path):
    records = tool('records')
    found = records.versions()
    assert found['mmacmix'] and found['mmdet'] and len(found['source']) == 8
    monkeypatch.setenv('PATH', str(tmp_path))
    assert records.versions()['commit'] == ''


# Arguments


@pytest.mark.parametrize('script, argv, message', [
    ('operator_cost', ['--sizes', '12x'], r"--sizes: must be N or HxW in pixels, each at least 1, got '12x'"),
    ('operator_cost', ['--sizes', '0'], "got '0'"),
    ('operator_cost', ['--channels', '6'], '--channels must be divisible by --heads 4, got 6'),
    ('operator_cost', ['--kernel', '4'], '--kernel must be odd, got 4'),
    ('operator_cost', ['--sizes', '9', '--dilation', '3'], '--sizes must be above 9 for --sides official, got 9x9'),
    ('operator_cost', ['--sides', 'flex'], '--sides flex cannot run here: FlexAttention needs CUDA'),
    ('operator_cost', ['--sides', 'triton', '--channels', '1024'], '--sides triton cannot run here: '),
    ('operator_cost', ['--rounds', '0'], "--rounds: must be a whole number of at least 1, got '0'"),
    ('operator_cost', ['--budget', 'nan'], "--budget: must be a number above 0, got 'nan'"),
    ('operator_cost', ['--dtype', 'tf32'], '--dtype tf32 needs --device cuda, got --device cpu'),
    ('operator_cost', ['--out', 'a.txt'], '--out must end with .csv, got a.txt'),
    ('operator_cost', ['--dtype', 'int8'], "--dtype: invalid choice: 'int8'"),
    ('backbone_cost', ['--sides', 'resnet-51'], "--sides: model must be one of .*, got 'resnet-51'"),
    ('backbone_cost', ['--sides', 'resnet-50:fast'], "--sides: variant must be one of .*, got 'fast'"),
    ('backbone_cost', ['--sides', 'swin-t:official'], "'official' needs the model resnet-acmix-50, got 'swin-t'"),
    ('backbone_cost', ['--sizes', '96'], '--sizes must be above 96 for --sides resnet-acmix-50:official, got 96x96'),
    ('backbone_cost', ['--sides', 'swin-t:deploy'], r"'deploy' needs a method switch_to_deploy\(\), which SwinTransf"),
    ('plot_cost', ['no.csv', '--out', '.'], 'No such file'),
    ('write_tables', ['--into', 'no.md'], 'No such file'),
])
def test_bad_arguments_are_refused(tool, capsys, script, argv, message):
    with pytest.raises(SystemExit) as stop:
        tool(script).main(argv)
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_no_gpu(tool, capsys):
    with pytest.raises(SystemExit):
        tool('operator_cost').main(['--device', 'cuda'])
    assert '--device cuda needs a GPU that torch can use, got none' in capsys.readouterr().err


def test_a_file_of_something_else_is_refused(tool, tmp_path, capsys):
    path = tmp_path / 'other.csv'
    path.write_text('a,b\n1,2\n')
    with pytest.raises(SystemExit):
        tool('operator_cost').main([*TINY, '--out', str(path)])
    assert 'must have the columns benchmark,side,pass' in capsys.readouterr().err
    assert path.read_text() == 'a,b\n1,2\n'


def test_commands_of_the_document(tool, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(tool('operator_cost'), 'why_not', lambda side, args: '')
    text = (ROOT / 'docs' / 'performance.md').read_text()
    commands = re.findall(r'(?m)^python tools/benchmarks/((?:operator|backbone)_cost)\.py (.*)$', text)
    parsed = [tool(name).parse_args(shlex.split(argv)) for name, argv in commands]
    assert {(args.device, args.out.name) for args in parsed} == {
        (device, f'{name}_{device}.csv') for device in ('cpu', 'cuda') for name in ('operator', 'backbone')}


# Tables and pictures


@pytest.fixture()
def figures(tool, tmp_path):
    """A CSV with round figures: operator and backbones at two sizes, an older run, a side that ran out of memory."""
    records = tool('records')
    blank = dict.fromkeys(records.COLUMNS, '')
    common = dict(blank, device='cpu', device_name='Chip', threads=2, dtype='float32', batch=1, status='ok', rounds=3,
                  torch='2.13', mmacmix='0.1.0', commit='abc+dirty', date='2030-01-02T00:00:00Z', command='python x.py')
    rows = []

    def add(benchmark, side, name, size, seconds, memory, **others):
        times = dict(median_s=seconds, min_s=seconds * 0.9, max_s=seconds * 1.2) if seconds else {}
        height, width = size
        rows.append(dict(common, benchmark=benchmark, side=side, height=height, width=width, pixels=height * width,
                         peak_extra_mib=memory, **{'pass': name}, **times, **others))

    operator = dict(channels=64, heads=4, kernel=7, stride=1, dilation=1, memory_format='contiguous')
    for scale, size in ((1, (10, 20)), (4, (20, 40))):
        add('operator', 'official', 'forward', size, 0.3 * scale, 300 * scale, **operator)
        add('operator', 'auto', 'forward', size, 0.01 * scale, 20 * scale, **operator)
        for name in ('forward', 'training'):
            add('backbone', 'resnet-50', name, size, 2.0 * scale, 100 * scale)
            add('backbone', 'resnet-acmix-50', name, size, 1.0 * scale, 150 * scale)
            add('backbone', 'swin-t', name, size, 4.0 * scale, 0.0)
    add('backbone', 'resnet-acmix-50:official', 'training', (20, 40), None, '')
    rows[-1]['status'] = 'out of memory'
    old = dict(rows[0], date='2029-01-01T00:00:00Z', median_s=99, side='reference', source='other')
    # Another run of the same source: a column of its own, without a ratio.
    rows.append(dict(rows[-1], side='resnet-acmix-50:deploy', status='ok', median_s=1.5, min_s=1, max_s=2,
                     date='2030-01-02T00:00:07Z', **{'pass': 'forward'}))
    path = tmp_path / 'figures.csv'
    records.append(path, [old, *rows, old])
    return path


DOCUMENT = """before <!-- operator: tables -->old<!-- operator: end -->
<!-- backbone: tables --><!-- backbone: end --> after"""


def test_tables(tool, figures, tmp_path):
    into = tmp_path / 'doc.md'
    into.write_text(DOCUMENT)
    assert tool('write_tables').main([str(figures), '--into', str(into)]) == 0
    text = into.read_text()
    lines = text.splitlines()
    assert text.startswith('before') and text.endswith('after') and 'old' not in text
    assert '### Chip, 2 threads, float32, batch 1, 64 channels, 4 heads, 7 x 7 window' in lines
    assert 'Measured 2030-01-02; torch 2.13, mmacmix 0.1.0, commit abc+dirty.' in lines
    assert '| size | mmacmix | official order | official order / mmacmix |' in lines
    assert '| 10 x 20 | 10 (9 to 12) | 300 (270 to 360) | 30x |' in lines
    assert '| 10 x 20 | 20 | 300 | 15x |' in lines
    assert ('| size | ResNet-ACmix-50 | ResNet-ACmix-50, official order | ResNet-50 | '
            'ResNet-ACmix-50, official order / ResNet-ACmix-50 | ResNet-ACmix-50 / ResNet-50 |') in lines
    assert '| 20 x 40 | 4 (3.6 to 4.8) | out of memory | 8 (7.2 to 9.6) |  | 0.5x |' in lines
    assert '| 10 x 20 | 150 |  | 100 |  | 1.5x |' in lines
    assert ('| size | ResNet-ACmix-50 | ResNet-ACmix-50, deploy form | ResNet-50 | '
            'ResNet-ACmix-50 / ResNet-50 |') in lines
    assert '| 20 x 40 | 4 (3.6 to 4.8) | 1.5 (1 to 2) | 8 (7.2 to 9.6) | 0.5x |' in lines
    assert '**Swin: forward and backward, s, median (fastest to slowest round)**' in lines
    assert '99' not in text and "'reference'" not in text  # an older run of the same case

    # The same again changes nothing; without figures the tables go.
    assert tool('write_tables').main([str(figures), '--into', str(into)]) == 0
    assert into.read_text() == text
    assert tool('write_tables').main(['--into', str(into)]) == 0
    assert into.read_text().count('Not measured yet.') == 2 and '|' not in into.read_text()


def test_a_document_without_markers_is_refused(tool, figures, tmp_path, capsys):
    into = tmp_path / 'doc.md'
    into.write_text('nothing')
    with pytest.raises(SystemExit):
        tool('write_tables').main([str(figures), '--into', str(into)])
    assert 'the document must have <!-- operator: tables --> and then <!-- operator: end -->' in capsys.readouterr().err
    assert into.read_text() == 'nothing'


def test_pictures_and_their_links(tool, figures, tmp_path, capsys):
    assert tool('plot_cost').main([str(figures), '--out', str(tmp_path / 'pictures')]) == 0
    names = ['backbone_cpu.png', 'operator_cpu.png']
    assert sorted(path.name for path in (tmp_path / 'pictures').iterdir()) == names
    for name in names:
        assert (tmp_path / 'pictures' / name).read_bytes()[:4] == b'\x89PNG'
    into = tmp_path / 'doc.md'
    into.write_text(DOCUMENT)
    tool('write_tables').main([str(figures), '--into', str(into), '--pictures', str(tmp_path / 'pictures')])
    assert '](pictures/operator_cpu.png)' in into.read_text()


def test_settings_are_drawn_apart(tool, figures):
    """What cannot be compared gets a picture and tables of its own, under a name that says what differs."""
    records, groups = tool('records'), tool('groups')
    rows = records.read(figures)
    records.append(figures, [dict(row, dtype='bfloat16') for row in rows if row['benchmark'] == 'operator'])
    found = groups.load([figures])
    assert groups.file_names(found) == [
        'backbone_cpu.png', 'operator_cpu_bfloat16.png', 'operator_cpu_float32.png']


def test_the_document_has_no_figure_of_its_own(tool):
    """Its tables are what write_tables.py makes of the committed files."""
    paths = sorted((ROOT / 'docs' / 'performance').glob('*.csv'))
    found = tool('groups').load(paths)
    names = [f'performance/{name}' for name in tool('groups').file_names(found)]
    links = [name if (ROOT / 'docs' / name).is_file() else '' for name in names]
    text = (ROOT / 'docs' / 'performance.md').read_text()
    assert tool('write_tables').write(text, found, links) == text
