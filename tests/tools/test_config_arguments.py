"""The tools that take a config say what is wrong with it, or with --cfg-options, in one line."""
import pytest
import torch

TOOLS = {
    'train': [],
    'test': ['x.pth'],
    'predict': ['x.pth', 'x.jpg', '--out-dir', 'out', '--device', 'cpu'],
    'dataset_converters/check_dataset': [],
    'analysis_tools/visualize_attention': ['x.pth', 'x.jpg'],
}


@pytest.mark.parametrize('name', TOOLS)
def test_configs_that_cannot_be_read(name, load_tool, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({}, 'x.pth')
    (tmp_path / 'x.jpg').touch()
    (tmp_path / 'a.py').write_text('model = (')
    tool = load_tool(name, monkeypatch)
    with pytest.raises(SystemExit) as stop:
        tool.main(['a.py', *TOOLS[name]])
    script = name.rpartition('/')[2]
    assert str(stop.value.code).startswith(f'{script}.py: error: a.py, or a file in its _base_, has a mistake')
    if name.endswith('attention'):
        return
    with pytest.raises(SystemExit):
        tool.main(['a.py', *TOOLS[name], '--cfg-options', 'model.depth'])
    assert "--cfg-options must be KEY=VALUE, got 'model.depth'" in capsys.readouterr().err
