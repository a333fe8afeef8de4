"""The curves that mmengine leaves of a training."""

import json


def read_scalars(folder):
    """The curves of a training, over all runs that it took.

    Args:
        folder (pathlib.Path): The ``--work-dir`` of the training.

    Returns:
        dict[str, list[tuple[int, float]]]: (iteration, value) by name, in order; where a resumed
        run repeated an iteration, the later value counts.
    """
    series = {}
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            # An interrupted run can leave its last line incomplete.
            if not line.endswith('}'):
                continue
            entry = json.loads(line)
            step = entry.get('step', entry.get('iter'))
            for name, value in entry.items():
                if isinstance(value, (int, float)) and name not in ('step', 'iter', 'epoch'):
                    series.setdefault(name, {})[step] = value
    return {name: sorted(values.items()) for name, values in series.items()}
