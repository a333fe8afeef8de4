"""Builds the data of a run, and says what is wrong with them where the host's own error does not."""
from check_dataset import check
from findings import Findings, some

from mmacmix.engine import SetupError


def build_data(runner, splits):
    """Build the data sets and metrics of a runner, which it would build itself a moment later.

    Raises:
        SetupError: That failed, and the data have errors.
    """
    try:
        for split in splits:
            getattr(runner, f'{split}_loop')
    except Exception as error:
        findings = Findings(quiet=True)
        check(runner.cfg, findings, 8, {}, [split])
        if findings.errors:
            raise SetupError(
                f'the data cannot be used: {some(findings.errors)} (the host said: {error!r:.100})') from error
        raise
