"""The tools of an installed package run through mim, from any folder."""
import json


def test_predict(mim, trained, ade, tmp_path):
    run = trained('fpn')
    done = mim('run', 'mmacmix', 'predict', run.config, run.checkpoint, ade / 'images' / 'validation',
               '--out-dir', 'out', '--device', 'cpu', cwd=tmp_path)
    assert done.code == 0, done.output
    assert len(json.loads((tmp_path / 'out' / 'predictions.json').read_text())['images']) == 2


def test_check_dataset(mim, own_config, ade, tmp_path):
    done = mim('run', 'mmacmix', 'check_dataset', own_config('fpn'), cwd=tmp_path)
    assert done.code == 0 and '0 errors, 0 warnings' in done.output, done.output
    done = mim('run', 'mmacmix', 'check_dataset', 'ade20k', ade, cwd=tmp_path)
    assert done.code == 1 and 'must have 20210 images, got 2' in done.output, done.output
