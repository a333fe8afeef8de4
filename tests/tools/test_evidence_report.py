"""Tables, verdict and curves come from the CSV files alone; the files here are made up."""
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / 'tools'), str(ROOT / 'tools' / 'evidence')]
import results  # noqa: E402
import rows  # noqa: E402
import run_files  # noqa: E402
from rows import Run  # noqa: E402

OURS, PLAIN = 'resnet-acmix-26', 'resnet-26'
MARKED = 'Before.\n\n<!-- evidence: results -->\n\nold\n\n<!-- evidence: end -->\n\nAfter.\n'


@pytest.fixture(scope='module')
def report():
    spec = importlib.util.spec_from_file_location('evidence_report', ROOT / 'tools' / 'evidence' / 'report.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_up(run, metric, config=None):
    """A file whose last metric is this."""
    facts = dict(
        task=run.task, row=run.row, seed=run.seed, config=config or rows.digest(run.config()), parameters=12_340_000,
        backbone_parameters=8_440_000, multiply_adds=5_670_000_000, backbone_multiply_adds=2_210_000_000,
        commit='abc', torch='2.0', mmcv='2', mmdet='3', mmseg='1', device='a machine', threads=1, date='2000-01-01')
    if run.task == 'camvid':
        metrics = {'mIoU': [(200, metric / 2), (600, metric)], 'aAcc': [(200, 50.), (600, 80.)],
                   'IoU/sky': [(200, 40.), (600, 90.)], 'IoU/road': [(200, 1.), (600, 70.)]}
    else:
        metrics = {'coco/bbox_mAP': [(111, metric / 200), (444, metric / 100)],
                   'coco/bbox_mAP_50': [(111, 0.1), (444, 0.6)], 'coco/RBC_precision': [(444, 0.5)]}
    series = {'loss': [(20, 3.), (600, 1.)], 'seconds': [(0, 0.), (600, 1200.)], 'peak_memory_mib': [(600, 1000.)]}
    return run_files.RunFile({k: str(v) for k, v in facts.items()}, {**series, **metrics})


def write_all(folder, task, figures, config=None):
    for row, values in figures.items():
        for seed, value in enumerate(values):
            run = Run(task, row, seed)
            run_files.write(run_files.path_of(folder, run), made_up(run, value, config))


@pytest.fixture()
def folder(tmp_path):
    (tmp_path / 'page.md').write_text(MARKED)
    return tmp_path


def call(report, folder):
    options = dict(runs='runs', into='page.md', pictures='pictures')
    report.main([word for name, path in options.items() for word in (f'--{name}', str(folder / path))])
    return (folder / 'page.md').read_text()


def test_files_come_back(tmp_path):
    content = made_up(Run('camvid', OURS, 1), 40.25)
    path = tmp_path / 'folder' / 'x.csv'
    run_files.write(path, content)
    assert run_files.read(path) == content
    assert [p.name for p in path.parent.iterdir()] == ['x.csv']
    assert content.at('seconds', 200) == 400 and content.at('seconds', 900) == 1200 and content.last('mIoU') == 40.25


@pytest.mark.parametrize('text, message', [
    ('', 'must have the columns step,name,value, got $'),
    ('a,b\n', 'must have the columns step,name,value, got a,b'),
    ('step,name,value\n1,loss\n', 'csv:2 must have a step or none, a name and a value, got 1,loss'),
    ('step,name,value\n1,loss,much\n', 'csv:2 must have a step or none, a name and a value, got 1,loss,much'),
    ('step,name,value\n,task,bccd\n', 'must have the fact config, got task'),
    ('step,name,value\n,config,abc\n', 'must have values after steps, got facts alone'),
])
def test_damaged_files_are_named(tmp_path, text, message):
    (tmp_path / 'x.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        run_files.read(tmp_path / 'x.csv')


def test_tables(report, folder):
    write_all(folder / 'runs', 'camvid', {OURS: [40., 41., 42.], PLAIN: [39., 39., 42.]})
    text = call(report, folder)
    assert text.startswith('Before.\n') and text.endswith('After.\n') and 'old' not in text and 'BCCD' not in text
    assert ('| ResNet-ACmix-26 | 3 | 41.0 ± 1.0 (40.0 to 42.0) | 80.0 ± 0.0 (80.0 to 80.0) | 12.34 | 8.44 | 5.67 | '
            '2.21 | 20.0 ± 0.0 (20.0 to 20.0) | 1000 |') in text
    assert '| ResNet-26 | 3 | 40.0 ± 1.7 (39.0 to 42.0) |' in text
    assert '| backbone | seeds | sky | road |' in text and '| ResNet-26 | 3 | 90.0 | 70.0 |' in text
    assert '6 runs; commit abc; torch 2.0, mmcv 2, mmdet 3, mmseg 1; on a machine, with 1 thread(s) each' in text
    assert text.count(': passed') == 2 and '* all of it: **passed**' in text
    assert '![ResNet-ACmix-26 and plain ResNets: loss, and mIoU on held-out images, against steps and minutes]' \
           '(pictures/camvid_pass.png)' in text
    assert (folder / 'pictures' / 'camvid_pass.png').stat().st_size > 10_000
    assert [p.name for p in (folder / 'pictures').iterdir()] == ['camvid_pass.png']
    assert call(report, folder) == text


def test_bccd_in_percent(report, folder):
    write_all(folder / 'runs', 'bccd', {OURS: [40., 41., 42.], PLAIN: [45., 45., 45.]})
    text = call(report, folder)
    assert '| ResNet-ACmix-26 | 3 | 41.0 ± 1.0 (40.0 to 42.0) | 60.0' in text and '| ResNet-26 | 3 | 50.0 |' in text
    assert '* AP 41.00 against 45.00 of ResNet-26, which may be at most 1.00 (the larger deviation) more: ' \
           'not passed' in text
    assert '* AP 41.00 against 38.9 of the first ResNet-18: passed' in text and '* all of it: **not passed**' in text


def test_verdict():
    def verdict(ours, plain):
        runs = {Run('camvid', row, seed): made_up(Run('camvid', row, seed), value)
                for row, values in ((OURS, ours), (PLAIN, plain)) for seed, value in enumerate(values)}
        return results.Results('camvid', runs).verdict()

    assert verdict([40, 40], [40, 40, 40]) == \
        'No verdict yet: of 3 seeds, 2 of ResNet-ACmix-26 and 3 of ResNet-26 are finished.'
    assert '0 of ResNet-26' in verdict([40, 40, 40], [])
    def answers(ours, plain):
        """Against ResNet-26, against the first ResNet-18, all of it."""
        return [line.rpartition(': ')[2].strip('*') == 'passed' for line in verdict(ours, plain).splitlines()]

    assert answers([40, 40, 40], [41, 41, 41]) == [False, True, False]
    assert answers([39, 40, 41], [40.9, 40.9, 40.9]) == [True, True, True]  # within the deviation
    assert answers([40, 40, 40], [39.5, 40.5, 41]) == [True, True, True]  # the other's is the larger here
    assert answers([39, 40, 41], [41.1, 41.1, 41.1]) == [False, True, False]  # not within it
    assert answers([40, 40, 40], [40, 41.4, 41.4]) == [False, True, False]
    assert answers([38, 38.4, 38.5], [30, 30, 30]) == [True, False, False]  # below the first ResNet-18
    assert 'mIoU 38.48 against 38.5' in verdict([38.48] * 3, [30, 30, 30])


def runs_of(task, figures):
    return {Run(task, row, seed): made_up(Run(task, row, seed), value)
            for row, values in figures.items() for seed, value in enumerate(values)}


def test_comparison():
    rule = '* Swin-ACmix, 64 channels against Swin-ACmix, 64 channels, attention alone: '
    group = rows.GROUPS['swin']

    def said(ours, theirs, task='camvid'):
        return results.Results(task, runs_of(task, dict(zip(group.rows, (ours, theirs))))).comparison(group)

    hint = 'the larger deviation is 1.00: a hint that it is'
    assert said([41., 42., 43.], [40., 40.5, 41.]) == f'{rule}+1.50 mIoU, {hint} better'
    assert said([41., 42., 43.], [43., 43.5, 44.]) == f'{rule}-1.50 mIoU, {hint} worse'
    assert said([41., 42., 43.], [40., 40.5, 41.], 'bccd') == f'{rule}+1.50 AP, {hint} better'
    assert said([41., 42., 43.], [40.9, 41., 41.1]) == f'{rule}+1.00 mIoU, the larger deviation is 1.00: no difference'
    both = said([41., 42., 43.], [40.9, 41., 41.1]) + '\n' + said([41., 42., 43.], [40., 40.5, 41.])
    assert results.by_chance(both) == 'Of 2 comparisons 1 are hints; if nothing differed, about 0.4 would be.'
    assert results.by_chance('nothing') == ''
    assert said([41., 42., 43.], [40., 40.5]) == said([41., 42.], [40., 40.5, 41.]) == ''


def test_warm_models_are_compared_with_what_was_trained_as_long(report, folder):
    group = rows.GROUPS['swin-warm']
    warm, on, cold, fresh = group.rows
    for name in ('swin-warm', 'pvt-warm'):
        assert [row.rpartition('_')[2] for row in (rows.GROUPS[name].rows[0], *rows.GROUPS[name].compared)] == [
            'warm', 'attention-on']
    runs = runs_of('camvid', {warm: [45., 45., 46.], on: [45., 45., 46.], cold: [40.] * 3, fresh: [40.] * 3})
    text = results.Results('camvid', runs).comparison(group)
    assert text.count('* ') == 1 and text.endswith('no difference')
    del runs[Run('camvid', warm, 2)]
    assert results.Results('camvid', runs).comparison(group) == ''
    for run, content in runs.items():
        content.facts.update({'start_difference': '1.9e-06'} if run.row == warm else {})
        run_files.write(run_files.path_of(folder / 'runs', run), content)
        if run.row == warm:
            content.series.update({f'mixing_rates/stages.0.attn.{path}': [(600, rate)]
                                   for path, rate in dict(attention=0.9, convolution=0.01).items()})
            run_files.write(run_files.path_of(folder / 'runs', run), content)
    text = call(report, folder)
    assert 'differed by 1.9e-06 of the largest entry at most' in text
    assert f'| {rows.label(warm)} | 0.90 (0.90 to 0.90) | 0.01 (0.01 to 0.01) |' in text
    for seed in (0, 1):  # what it is about has no run
        run_files.path_of(folder / 'runs', Run('camvid', warm, seed)).unlink()
    assert group.title not in call(report, folder)


def test_minutes_and_memory_are_those_of_one_machine(report, folder):
    runs = runs_of('camvid', {OURS: [40., 40., 40.], PLAIN: [40.]})
    for seed, (minutes, memory) in enumerate(((10., 500.), (12., 700.), (50., 3000.))):
        runs[Run('camvid', OURS, seed)].series.update(
            seconds=[(0, 0.), (600, minutes * 60)], peak_memory_mib=[(600, memory)])
    runs[Run('camvid', OURS, 2)].facts['device'] = runs[Run('camvid', PLAIN, 0)].facts['device'] = 'another'
    runs[Run('camvid', OURS, 1)].facts['device'] = runs[Run('camvid', OURS, 0)].facts['device'] = 'a machine'
    runs[Run('camvid', OURS, 0)].facts['threads'] = '1'
    runs[Run('camvid', 'resnet-18', 0)] = made_up(Run('camvid', 'resnet-18', 0), 40.)
    for run, content in runs.items():
        run_files.write(run_files.path_of(folder / 'runs', run), content)
    text = call(report, folder)
    line = re.search(r'(?m)^\| ResNet-ACmix-26 \| 3 .*$', text).group()
    assert line.endswith('| 11.0 ± 1.4 (10.0 to 12.0) | 600 |')
    assert re.search(r'(?m)^\| ResNet-26 \| 1 .* \|  \|  \|$', text)
    assert ('Minutes and memory are those of runs on a machine, 1 thread(s) each. Trained elsewhere, where rounding '
            'differs: of ResNet-ACmix-26 1 of 3 (seed 2) on another; of ResNet-26 1 of 1 (seed 0) on another.\n'
            ) in text
    runs[Run('camvid', OURS, 1)].facts['threads'] = '2'
    assert results.Results('camvid', runs).elsewhere([OURS], ('a machine', '1')) == (
        ' Trained elsewhere, where rounding differs: of ResNet-ACmix-26 1 of 3 (seed 1) on a machine with 2 thread(s); '
        'of ResNet-ACmix-26 1 of 3 (seed 2) on another.')


def test_rates_at_the_end():
    row, other = rows.HALF, f'{rows.HALF}_rates-1-0'
    runs = {}
    for seed, rate in enumerate((0.4, 0.6)):
        runs[Run('camvid', row, seed)] = content = made_up(Run('camvid', row, seed), 40.)
        content.series.update({
            'mixing_rates/layer1.0.conv2.attention': [(0, 9.), (600, rate)],
            'mixing_rates/layer2.0.conv2.attention': [(0, 9.), (600, 0.5)],
            'mixing_rates/layer1.0.conv2.convolution': [(0, 9.), (600, -rate)]})
    runs[Run('camvid', other, 0)] = made_up(Run('camvid', other, 0), 40.)
    found = results.Results('camvid', runs)
    assert found.rates([row, other]).splitlines()[2:] == [
        '| ResNet-ACmix-26 of half width | 0.50 (0.40 to 0.60) | -0.50 (-0.60 to -0.40) |']
    assert found.rates([other]) == ''
    for run in list(runs)[:2]:
        runs[run].series['mixing_rates/layer1.0.conv2.convolution'][-1] = (600, -0.002)
    assert results.Results('camvid', runs).rates([row, other]).endswith('| 0.00 (0.00 to 0.00) |')


def test_other_seeds_do_not_count():
    runs = {Run('camvid', row, seed): made_up(Run('camvid', row, seed), 40.)
            for row, seeds in ((OURS, (0, 1, 7)), (PLAIN, (0, 1, 2))) for seed in seeds}
    assert 'No verdict yet: of 3 seeds, 2 of ResNet-ACmix-26' in results.Results('camvid', runs).verdict()


def test_curves_are_those_of_steps_that_all_seeds_have():
    first, second = (made_up(Run('camvid', OURS, seed), 40.) for seed in (0, 1))
    second.series['mIoU'].insert(1, (400, 35.))
    assert results.curve([first, second], 'mIoU') == ([200, 600], [[20., 20.], [40., 40.]])


def test_against_minutes_are_the_seeds_of_one_machine(report):
    """The metric of all seeds stands against steps; against minutes that of those alone whose minutes count."""
    runs = runs_of('camvid', {OURS: [38., 39., 49.], PLAIN: [40., 41., 42.]})
    for run in (Run('camvid', OURS, 2), *(Run('camvid', PLAIN, seed) for seed in range(3))):
        runs[run].facts['device'] = 'another'
    found = results.Results('camvid', runs)
    runs[Run('camvid', OURS, 2)].series['seconds'] = [(200, 9000.), (600, 9000.)]
    assert found.machine([OURS, PLAIN]) == ('another', '1')
    figure = report.figure_of(found, [OURS, PLAIN], 'A title')
    ends = [[tuple(line.get_xydata()[-1]) for line in axes.lines] for axes in figure.axes[1:]]
    assert ends == [[(600, 42.), (600, 41.)], [(150., 49.), (20., 41.)]]
    figure = report.figure_of(found, [OURS], 'A title')
    assert [tuple(line.get_xydata()[-1]) for line in figure.axes[2].lines] == [(20., 38.5)]
    bands = [axes.collections[0].get_paths()[0].vertices for axes in figure.axes[1:]]
    assert [band[:, 1].max() for band in bands] == [49., 39.]


def test_runs_of_other_configs_are_left_out_and_named(report, folder):
    write_all(folder / 'runs', 'camvid', {OURS: [40., 41., 42.], PLAIN: [39., 39., 42.]})
    write_all(folder / 'runs', 'camvid', {'resnet-18': [99.]}, config='0123456789')
    text = call(report, folder)
    assert 'ResNet-18 |' not in text and '99.0' not in text
    assert 'Left out, because their configs have changed since: camvid_resnet-18_seed0.csv.' in text


def test_no_run_no_figures(report, folder):
    text = call(report, folder)
    assert text == MARKED.replace('old', 'No run is finished yet.') and not (folder / 'pictures').exists()


def test_as_a_command(folder):
    """With a run, so that a config is read, and from a folder that is not the project's."""
    write_all(folder / 'runs', 'camvid', {OURS: [38.], PLAIN: [40.]})
    options = [word for name, path in dict(runs='runs', into='page.md', pictures='pictures').items()
               for word in (f'--{name}', str(folder / path))]
    subprocess.run([sys.executable, str(ROOT / 'tools/evidence/report.py'), *options], cwd=folder, check=True)
    assert '| ResNet-26 | 1 | 40.0 |' in (folder / 'page.md').read_text()


def test_page_of_the_project_is_written_from_its_runs(report, tmp_path):
    """Nobody has typed a figure."""
    page = ROOT / 'docs' / 'evidence.md'
    runs, stale = report.load(ROOT / 'docs' / 'evidence' / 'runs')
    names = {f'{task}_{name}' for task in rows.TASKS for name in (*rows.GROUPS, 'predictions')}
    links = {name: f'evidence/{name}.png' for name in names if (page.parent / 'evidence' / f'{name}.png').is_file()}
    assert report.write(page.read_text(), report.body_of(runs, stale, links)) == page.read_text()


@pytest.mark.parametrize('text', ['nothing', MARKED + MARKED, '<!-- evidence: end --> <!-- evidence: results -->'])
def test_markers_must_be_there_once(report, folder, text):
    (folder / 'page.md').write_text(text)
    with pytest.raises(SystemExit, match='the document must have <!-- evidence: results --> and then'):
        call(report, folder)
    assert (folder / 'page.md').read_text() == text


def test_strange_files_are_named(report, folder):
    run_files.write(folder / 'runs' / 'camvid_resnet-26_seed7.csv', made_up(Run('camvid', PLAIN, 1), 40.))
    with pytest.raises(SystemExit, match='seed7.csv must be of a task, row and seed as its name says, got .*_seed1'):
        call(report, folder)
